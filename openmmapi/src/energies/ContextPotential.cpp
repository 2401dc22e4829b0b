// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ContextPotential.h"
#include "openmmflow/energies/ConstraintMetric.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <atomic>
#include <chrono>
#include <mutex>
#include <openmm/AndersenThermostat.h>
#include <openmm/CMMotionRemover.h>
#include <openmm/Context.h>
#include <openmm/MonteCarloAnisotropicBarostat.h>
#include <openmm/MonteCarloBarostat.h>
#include <openmm/MonteCarloFlexibleBarostat.h>
#include <openmm/MonteCarloMembraneBarostat.h>
#include <openmm/VerletIntegrator.h>
#include <openmm/serialization/XmlSerializer.h>
#include <set>
#include <thread>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

namespace {

constexpr double gasConstant = 0.00831446261815324; // kJ/(mol K)

bool isCoupling(const Force& force) {
    return dynamic_cast<const MonteCarloBarostat*>(&force) ||
           dynamic_cast<const MonteCarloAnisotropicBarostat*>(&force) ||
           dynamic_cast<const MonteCarloMembraneBarostat*>(&force) ||
           dynamic_cast<const MonteCarloFlexibleBarostat*>(&force) || dynamic_cast<const AndersenThermostat*>(&force) ||
           dynamic_cast<const CMMotionRemover*>(&force);
}

// The potential energy alone: what moves the box, the velocities or the centre of mass is left out.
std::unique_ptr<System> copyPotential(const System& system) {
    std::unique_ptr<System> copy(XmlSerializer::clone(system));
    for (int i = copy->getNumForces() - 1; i >= 0; i--)
        if (isCoupling(copy->getForce(i)))
            copy->removeForce(i);
    return copy;
}

/** A Context with the integrator that it needs and never uses. */
struct Worker {
    Worker(const System& system, Platform& platform, const std::map<std::string, std::string>& properties)
        : integrator(0.001), context(system, integrator, platform, properties) {}
    VerletIntegrator integrator;
    Context context;
    std::vector<Vec3> positions;
};

std::map<std::string, std::string> addThreads(const Platform& platform, std::map<std::string, std::string> properties) {
    if (platform.getName() == "CPU")
        properties.emplace("Threads", "1");
    return properties;
}

bool hasPlatform(const std::string& name) {
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).getName() == name)
            return true;
    return false;
}

Platform& findPlatform(const std::string& name) {
    std::string names;
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        names += (i > 0 ? ", " : "") + Platform::getPlatform(i).getName();
    require(hasPlatform(name), "ContextPotential::ContextPotential", "platform", name, "one of " + names);
    return Platform::getPlatformByName(name);
}

// Seconds for one energy, over about 20 ms; infinite where the platform can't do it.
double timeEnergy(const System& system, const std::string& name, const ContextPotential::Options& options,
                  const std::vector<Vec3>& positions) {
    using Clock = std::chrono::steady_clock;
    try {
        Platform& platform = Platform::getPlatformByName(name);
        Worker worker(system, platform, addThreads(platform, options.properties));
        const auto evaluate = [&] {
            worker.context.setPositions(positions);
            worker.context.computeVirtualSites();
            (void)worker.context.getState(State::Energy, false, options.forceGroups);
        };
        evaluate();
        int count = 0;
        const auto start = Clock::now();
        std::chrono::duration<double> elapsed{0};
        for (; elapsed.count() < 0.02; elapsed = Clock::now() - start, count++)
            evaluate();
        return elapsed.count() / count;
    } catch (const std::exception&) {
        return INFINITY;
    }
}

// A GPU when there is one; else the faster of Reference and CPU. OpenCL is never chosen: it may be a CPU in disguise.
std::string choosePlatform(const System& system, const ContextPotential::Options& options,
                           const std::vector<Vec3>& positions) {
    if (!options.platform.empty())
        return options.platform;
    if (const char* wanted = std::getenv("OPENMM_DEFAULT_PLATFORM"))
        return wanted;
    for (const char* name : {"CUDA", "HIP"})
        if (hasPlatform(name) && std::isfinite(timeEnergy(system, name, options, positions)))
            return name;
    if (!hasPlatform("CPU"))
        return "Reference";
    return timeEnergy(system, "CPU", options, positions) < timeEnergy(system, "Reference", options, positions)
               ? "CPU"
               : "Reference";
}

std::vector<int> chooseAtoms(const System& system, const std::vector<int>& wanted) {
    const char* where = "ContextPotential::ContextPotential";
    if (wanted.empty()) {
        std::vector<int> all;
        for (int i = 0; i < system.getNumParticles(); i++)
            if (!system.isVirtualSite(i))
                all.push_back(i);
        return all;
    }
    std::set<int> seen;
    for (const int atom : wanted) {
        require(atom >= 0 && atom < system.getNumParticles(), where, "an atom", atom,
                "a particle of the System, which has " + std::to_string(system.getNumParticles()));
        require(seen.insert(atom).second, where, "an atom", atom, "listed once");
        require(!system.isVirtualSite(atom), where, "an atom", atom, "no virtual site: those follow their parents");
    }
    return wanted;
}

} // namespace

class ContextPotential::Pool {
public:
    Pool(const System& original, double temperature, const Options& options)
        : system(copyPotential(original)), options(options), temperature(temperature),
          atoms(chooseAtoms(original, options.atoms)), reference(options.referencePositions), metric(original, atoms) {
        const char* where = "ContextPotential::ContextPotential";
        require(temperature > 0 && std::isfinite(temperature), where, "temperature", temperature,
                "positive and finite");
        require(options.numContexts >= 0, where, "numContexts", options.numContexts, "at least 0");
        require(!atoms.empty(), where, "number of atoms", atoms.size(), "at least 1");
        const int particles = system->getNumParticles();
        int movable = 0;
        for (int i = 0; i < particles; i++)
            movable += system->isVirtualSite(i) ? 0 : 1;
        if (reference.empty()) {
            require(static_cast<int>(atoms.size()) == movable, where, "number of referencePositions", 0,
                    "that of the particles, because x describes only some of them");
            // Somewhere to start from, apart from each other.
            for (int i = 0; i < particles; i++)
                reference.emplace_back(0.3 * (i % 10), 0.3 * (i / 10 % 10), 0.3 * (i / 100));
        }
        require(static_cast<int>(reference.size()) == particles, where, "number of referencePositions",
                reference.size(), "that of the particles, " + std::to_string(particles));
        if (Platform::getNumPlatforms() <= 1)
            Platform::loadPluginsFromDirectory(Platform::getDefaultPluginsDirectory());
        Platform& platform = findPlatform(choosePlatform(*system, options, reference));
        const bool onDevice = platform.getName() != "Reference" && platform.getName() != "CPU";
        const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
        const int count = options.numContexts > 0 ? options.numContexts : onDevice ? 1 : cores;
        for (int i = 0; i < count; i++) {
            workers.push_back(std::make_unique<Worker>(*system, platform, addThreads(platform, options.properties)));
            workers.back()->positions = reference;
        }
        kT = gasConstant * temperature;
    }

    EnergyResult evaluate(const Tensor& samples, Gradient gradient) {
        const auto size = static_cast<std::int64_t>(3 * atoms.size());
        require((samples.dim() == 2 && samples.size(1) == size) ||
                    (samples.dim() == 3 && samples.size(1) * 3 == size && samples.size(2) == 3),
                "ContextPotential::evaluate", "shape of x", samples.sizes(),
                "[batch, " + std::to_string(size) + "] or [batch, " + std::to_string(size / 3) + ", 3]");
        const std::lock_guard lock(mutex);
        const Tensor x = samples.detach().to(at::kDouble).reshape({samples.size(0), size}).contiguous();
        EnergyResult result;
        result.u = at::empty({x.size(0)}, at::kDouble);
        if (gradient == Gradient::Compute)
            result.gradient = at::zeros(x.sizes(), at::kDouble);
        run(x, result);
        if (metric.getNumConstraints() > 0)
            addMetric(x, result);
        counts.evaluations += x.size(0);
        counts.nonFinite += result.nonFinite;
        counts.failed += result.failed;
        return result;
    }

    std::unique_ptr<System> system;
    Options options;
    double temperature, kT = 0;
    std::vector<int> atoms;
    std::vector<Vec3> reference;
    ConstraintMetric metric;
    std::vector<std::unique_ptr<Worker>> workers;
    Counts counts;
    std::mutex mutex;

private:
    enum class Outcome { Fine, NonFinite, Failed };

    // Every Context takes the next few samples until none is left; the caller works the first Context.
    void run(const Tensor& x, EnergyResult& result) {
        const std::int64_t batch = x.size(0);
        const auto numWorkers = std::min<std::int64_t>(static_cast<std::int64_t>(workers.size()), batch);
        const std::int64_t chunk =
            std::max<std::int64_t>(1, std::min<std::int64_t>(16, batch / (4 * std::max<std::int64_t>(1, numWorkers))));
        std::atomic<std::int64_t> next{0}, nonFinite{0}, failed{0};
        const auto work = [&](Worker& worker) {
            for (std::int64_t start = next.fetch_add(chunk); start < batch; start = next.fetch_add(chunk))
                for (std::int64_t row = start; row < std::min(batch, start + chunk); row++) {
                    const Outcome outcome = evaluateRow(worker, x, row, result);
                    nonFinite += outcome == Outcome::NonFinite;
                    failed += outcome == Outcome::Failed;
                }
        };
        std::vector<std::thread> threads;
        for (std::int64_t i = 1; i < numWorkers; i++)
            threads.emplace_back(work, std::ref(*workers[i]));
        if (batch > 0)
            work(*workers[0]);
        for (auto& thread : threads)
            thread.join();
        result.nonFinite = nonFinite;
        result.failed = failed;
    }

    Outcome evaluateRow(Worker& worker, const Tensor& x, std::int64_t row, EnergyResult& result) const {
        const double* coordinates = x.const_data_ptr<double>() + row * x.size(1);
        double& u = result.u.mutable_data_ptr<double>()[row];
        u = INFINITY;
        bool finite = true;
        for (std::size_t i = 0; i < atoms.size(); i++) {
            const double* r = coordinates + 3 * i;
            worker.positions[atoms[i]] = Vec3(r[0], r[1], r[2]);
            finite = finite && std::isfinite(r[0]) && std::isfinite(r[1]) && std::isfinite(r[2]);
        }
        if (!finite)
            return Outcome::NonFinite;
        try {
            worker.context.setPositions(worker.positions);
            worker.context.computeVirtualSites();
            const bool wantGradient = result.gradient.defined();
            const State state = worker.context.getState(wantGradient ? State::Energy | State::Forces : State::Energy,
                                                        false, options.forceGroups);
            const double energy = state.getPotentialEnergy() / kT;
            if (!std::isfinite(energy))
                return Outcome::NonFinite;
            if (wantGradient &&
                !storeGradient(state.getForces(), result.gradient.mutable_data_ptr<double>() + row * x.size(1)))
                return Outcome::NonFinite;
            u = energy;
            return Outcome::Fine;
        } catch (const std::exception&) {
            return Outcome::Failed;
        }
    }

    // Forces on virtual sites are already with their parents. False, and all zero, where one is not finite.
    bool storeGradient(const std::vector<Vec3>& forces, double* gradient) const {
        bool finite = true;
        for (std::size_t i = 0; i < atoms.size(); i++)
            for (int k = 0; k < 3; k++) {
                gradient[3 * i + k] = -forces[atoms[i]][k] / kT;
                finite = finite && std::isfinite(gradient[3 * i + k]);
            }
        if (!finite)
            std::fill_n(gradient, 3 * atoms.size(), 0.0);
        return finite;
    }

    void addMetric(const Tensor& x, EnergyResult& result) const {
        const at::AutoGradMode grad(result.gradient.defined());
        const Tensor finite = at::isfinite(result.u);
        // Rows without an energy are put aside, so that what they hold can't spoil the others' gradient.
        const Tensor rows = finite.nonzero().squeeze(1);
        const Tensor y = x.index_select(0, rows).set_requires_grad(result.gradient.defined());
        const Tensor term = metric.halfLogDet(y);
        if (result.gradient.defined() && rows.size(0) > 0)
            result.gradient.index_add_(0, rows, torch::autograd::grad({term.sum()}, {y})[0], -1);
        result.u.index_add_(0, rows, term.detach(), -1);
    }
};

ContextPotential::ContextPotential(const System& system, double temperature, const Options& options)
    : pool(std::make_unique<Pool>(system, temperature, options)) {}

ContextPotential::ContextPotential(const System& system, double temperature)
    : ContextPotential(system, temperature, Options()) {}

ContextPotential::~ContextPotential() = default;

int ContextPotential::getSize() const {
    return 3 * static_cast<int>(pool->atoms.size());
}

EnergyResult ContextPotential::evaluate(const Tensor& x, Gradient gradient) {
    return pool->evaluate(x, gradient);
}

double ContextPotential::getTemperature() const {
    return pool->temperature;
}

std::string ContextPotential::getPlatformName() const {
    return pool->workers.front()->context.getPlatform().getName();
}

int ContextPotential::getNumContexts() const {
    return static_cast<int>(pool->workers.size());
}

const std::vector<int>& ContextPotential::getAtoms() const {
    return pool->atoms;
}

void ContextPotential::setParameter(const std::string& name, double value) {
    const std::lock_guard lock(pool->mutex);
    const auto known = pool->workers.front()->context.getParameters();
    require(known.count(name) > 0, "ContextPotential::setParameter", "name", name, "a parameter of the System");
    require(std::isfinite(value), "ContextPotential::setParameter", "value", value, "finite");
    for (auto& worker : pool->workers)
        worker->context.setParameter(name, value);
}

std::map<std::string, double> ContextPotential::getParameters() const {
    return pool->workers.front()->context.getParameters();
}

void ContextPotential::setPeriodicBoxVectors(const Vec3& a, const Vec3& b, const Vec3& c) {
    const std::lock_guard lock(pool->mutex);
    for (auto& worker : pool->workers)
        worker->context.setPeriodicBoxVectors(a, b, c);
}

ContextPotential::Counts ContextPotential::getCounts() const {
    const std::lock_guard lock(pool->mutex);
    return pool->counts;
}
