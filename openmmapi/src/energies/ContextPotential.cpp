// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ContextPotential.h"
#include "ThreadCrew.h"
#include "openmmflow/energies/ConstraintMetric.h"
#include "openmmflow/internal/MovedAtomsKernel.h"
#include "openmmflow/internal/PlatformKernels.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <atomic>
#include <chrono>
#include <openmm/AndersenThermostat.h>
#include <openmm/CMMotionRemover.h>
#include <openmm/Context.h>
#include <openmm/Integrator.h>
#include <openmm/MonteCarloAnisotropicBarostat.h>
#include <openmm/MonteCarloBarostat.h>
#include <openmm/MonteCarloFlexibleBarostat.h>
#include <openmm/MonteCarloMembraneBarostat.h>
#include <openmm/Platform.h>
#include <openmm/VerletIntegrator.h>
#include <openmm/kernels.h>
#include <openmm/serialization/XmlSerializer.h>
#include <set>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

namespace {

constexpr double gasConstant = 0.00831446261815324; // kJ/(mol K)
const char* const constructor = "ContextPotential::ContextPotential";

bool isCoupling(const Force& force) {
    return dynamic_cast<const MonteCarloBarostat*>(&force) ||
           dynamic_cast<const MonteCarloAnisotropicBarostat*>(&force) ||
           dynamic_cast<const MonteCarloMembraneBarostat*>(&force) ||
           dynamic_cast<const MonteCarloFlexibleBarostat*>(&force) || dynamic_cast<const AndersenThermostat*>(&force) ||
           dynamic_cast<const CMMotionRemover*>(&force);
}

// The potential energy alone: what moves the box, the velocities or the centre of mass is left out. Constraints stay:
// an energy doesn't apply them, so they cost nothing, and GPU platforms tell molecules apart by them.
std::unique_ptr<System> copyPotential(const System& system) {
    std::unique_ptr<System> copy(XmlSerializer::clone(system));
    for (int i = copy->getNumForces() - 1; i >= 0; i--)
        if (isCoupling(copy->getForce(i)))
            copy->removeForce(i);
    return copy;
}

/**
 * What a Context must have and an energy does not need. OpenMM's own integrators would compute forces with every energy
 * (Verlet), or seed the random numbers that all Contexts of the Reference platform share (Langevin).
 */
class IdleIntegrator : public Integrator {
public:
    IdleIntegrator() {
        setStepSize(0.001);
        setConstraintTolerance(1e-5);
    }
    void step(int) override { throw OpenMMException("ContextPotential: its Contexts do not move"); }

    /** The Context, once it has been made. */
    ContextImpl* contextImpl = nullptr;

protected:
    // Platforms on devices allocate what every Context needs when the kernel of an integrator is made.
    void initialize(ContextImpl& context) override {
        contextImpl = &context;
        kernel = context.getPlatform().createKernel(IntegrateVerletStepKernel::Name(), context);
        kernel.getAs<IntegrateVerletStepKernel>().initialize(context.getSystem(), VerletIntegrator(getStepSize()));
    }
    void cleanup() override { kernel = Kernel(); }
    std::vector<std::string> getKernelNames() override { return {IntegrateVerletStepKernel::Name()}; }
    double computeKineticEnergy() override { return 0.0; }
    bool kineticEnergyRequiresForce() const override { return false; }

private:
    Kernel kernel;
};

/** A Context, used by one thread at a time. */
struct Worker {
    Worker(const System& system, Platform& platform, const std::map<std::string, std::string>& properties,
           const std::vector<Vec3>& positions)
        : context(system, integrator, platform, properties), positions(positions) {
        for (int i = 0; i < system.getNumParticles(); i++)
            hasVirtualSites = hasVirtualSites || system.isVirtualSite(i);
    }
    /** Have rows read on the device from now on, where the Platform has a plugin library of ours. */
    void lookForKernel(const std::vector<int>& atoms) {
        const PlatformKernel made = makePlatformKernel(MovedAtomsKernel::Name(), *integrator.contextImpl);
        if (!made.exists)
            return;
        context.setPositions(positions);
        kernel = made.kernel;
        movedAtoms = &kernel.getAs<MovedAtomsKernel>();
        movedAtoms->initialize(*integrator.contextImpl, atoms);
    }
    State evaluate(int types, int groups) {
        context.setPositions(positions);
        if (hasVirtualSites)
            context.computeVirtualSites();
        return context.getState(types, false, groups);
    }
    /** The energy (kJ/mol) at a row of the atoms' positions, wherever that is; the other particles stay. */
    double evaluateRow(const Tensor& row, bool includeForces, int groups) {
        ContextImpl& impl = *integrator.contextImpl;
        movedAtoms->scatter(impl, row);
        if (hasVirtualSites)
            impl.computeVirtualSites();
        return impl.calcForcesAndEnergy(includeForces, true, groups);
    }
    IdleIntegrator integrator;
    Context context;
    Kernel kernel; // let go of before the Context goes
    MovedAtomsKernel* movedAtoms = nullptr;
    std::vector<Vec3> positions;
    bool hasVirtualSites = false;
    std::string failure;
};

std::map<std::string, std::string> addThreads(const std::string& platform,
                                              std::map<std::string, std::string> properties) {
    if (platform == "CPU")
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
    require(hasPlatform(name), constructor, "platform", name, "one of " + names);
    return Platform::getPlatform(name);
}

// The shortest time of an energy within 20 ms, in seconds: other load on the machine only ever adds to it. Infinite
// where the platform can't do it.
double timeEnergy(const System& system, const std::string& name, const ContextPotential::Options& options,
                  const std::vector<Vec3>& positions) {
    using Clock = std::chrono::steady_clock;
    using Seconds = std::chrono::duration<double>;
    if (!hasPlatform(name))
        return INFINITY;
    try {
        Worker worker(system, Platform::getPlatform(name), addThreads(name, options.properties), positions);
        (void)worker.evaluate(State::Energy, options.forceGroups);
        Seconds shortest(INFINITY);
        for (const auto start = Clock::now(); Clock::now() - start < Seconds(0.02);) {
            const auto before = Clock::now();
            (void)worker.evaluate(State::Energy, options.forceGroups);
            shortest = std::min<Seconds>(shortest, Clock::now() - before);
        }
        return shortest.count();
    } catch (const OpenMMException&) {
        return INFINITY;
    }
}

std::string choosePlatform(const System& system, const ContextPotential::Options& options,
                           const std::vector<Vec3>& positions) {
    if (!options.platform.empty())
        return options.platform;
    const char* wanted = std::getenv("OPENMM_DEFAULT_PLATFORM");
    if (wanted != nullptr && *wanted != '\0')
        return wanted;
    for (const char* gpu : {"CUDA", "HIP"})
        if (std::isfinite(timeEnergy(system, gpu, options, positions)))
            return gpu;
    const double reference = timeEnergy(system, "Reference", options, positions);
    return timeEnergy(system, "CPU", options, positions) < reference ? "CPU" : "Reference";
}

std::vector<int> chooseAtoms(const System& system, const std::vector<int>& wanted) {
    const int particles = system.getNumParticles();
    std::vector<int> atoms = wanted;
    if (wanted.empty())
        for (int i = 0; i < particles; i++)
            if (!system.isVirtualSite(i))
                atoms.push_back(i);
    require(!atoms.empty(), constructor, "number of atoms", 0, "at least 1");
    std::set<int> seen;
    for (const int atom : atoms) {
        require(atom >= 0 && atom < particles, constructor, "an atom", atom,
                "a particle of the System, which has " + std::to_string(particles));
        require(seen.insert(atom).second, constructor, "an atom", atom, "listed once");
        require(!system.isVirtualSite(atom), constructor, "an atom", atom,
                "no virtual site: those follow their parents");
    }
    return atoms;
}

// Where the particles are before, or unless, x moves them.
std::vector<Vec3> chooseReference(const System& system, const std::vector<int>& atoms,
                                  const std::vector<Vec3>& wanted) {
    const int particles = system.getNumParticles();
    std::vector<Vec3> reference = wanted;
    if (wanted.empty()) {
        int movable = 0;
        for (int i = 0; i < particles; i++) {
            movable += system.isVirtualSite(i) ? 0 : 1;
            reference.emplace_back(0.3 * (i % 10), 0.3 * (i / 10 % 10), 0.3 * (i / 100)); // apart from each other
        }
        require(static_cast<int>(atoms.size()) == movable, constructor, "number of referencePositions", 0,
                "that of the particles, " + std::to_string(particles) + ", because x describes only some of them");
    }
    require(static_cast<int>(reference.size()) == particles, constructor, "number of referencePositions",
            reference.size(), "that of the particles, " + std::to_string(particles));
    for (const Vec3& r : reference)
        require(std::isfinite(r.dot(r)), constructor, "a reference position", r, "finite");
    return reference;
}

double checkTemperature(double temperature) {
    require(temperature > 0 && std::isfinite(temperature), constructor, "temperature", temperature,
            "positive and finite");
    return temperature;
}

} // namespace

class ContextPotential::Pool {
public:
    Pool(const System& original, double temperature, const Options& options)
        : temperature(checkTemperature(temperature)), kT(gasConstant * temperature), forceGroups(options.forceGroups),
          atoms(chooseAtoms(original, options.atoms)), metric(original, atoms), system(copyPotential(original)) {
        require(options.numContexts >= 0, constructor, "numContexts", options.numContexts, "at least 0");
        const auto reference = chooseReference(*system, atoms, options.referencePositions);
        Platform& platform = findPlatform(choosePlatform(*system, options, reference));
        const bool onHost = platform.getName() == "Reference" || platform.getName() == "CPU";
        const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
        const int count = options.numContexts > 0 ? options.numContexts : onHost ? cores : 1;
        for (int i = 0; i < count; i++)
            workers.push_back(std::make_unique<Worker>(*system, platform,
                                                       addThreads(platform.getName(), options.properties), reference));
        for (const auto& worker : workers)
            worker->lookForKernel(atoms);
        crew = std::make_unique<ThreadCrew>(count);
    }

    EnergyResult evaluate(const Tensor& samples, Gradient gradient) {
        const auto numAtoms = static_cast<std::int64_t>(atoms.size());
        checkShape(samples, numAtoms);
        const std::int64_t batch = samples.size(0);
        // Most often nothing has to be copied; each operation on a tensor takes as long as part of a small energy.
        const bool ready = samples.device().is_cpu() && samples.scalar_type() == at::kDouble && samples.is_contiguous();
        const bool onDevice = workers.front()->movedAtoms != nullptr; // rows then stay where they are
        const at::Device device = onDevice ? samples.device() : at::kCPU;
        const Tensor x = ready ? samples : samples.detach().to(device, at::kDouble).contiguous();
        EnergyResult result;
        result.u = at::empty({batch}, at::kDouble);
        if (gradient == Gradient::Compute)
            result.gradient = at::zeros({batch, 3 * numAtoms}, x.options().requires_grad(false));
        const std::lock_guard lock(mutex);
        if (onDevice)
            runOnDevice(x.detach().view({batch, 3 * numAtoms}), result);
        else
            runOnHost(x.const_data_ptr<double>(), batch, result);
        if (metric.getNumConstraints() > 0) {
            if (gradient == Gradient::Compute)
                result.gradient = result.gradient.to(at::kCPU);
            subtractMetric(x.detach().to(at::kCPU).view({batch, 3 * numAtoms}), result);
        }
        counts.evaluations += batch;
        counts.nonFinite += result.nonFinite;
        counts.failed += result.failed;
        if (!samples.device().is_cpu()) {
            result.u = result.u.to(samples.device());
            if (gradient == Gradient::Compute)
                result.gradient = result.gradient.to(samples.device());
        }
        return result;
    }

    double temperature, kT;
    int forceGroups;
    std::vector<int> atoms;
    ConstraintMetric metric;
    std::unique_ptr<System> system;
    std::vector<std::unique_ptr<Worker>> workers;
    Counts counts;
    std::string lastFailure;
    std::mutex mutex;

private:
    enum class Outcome { Fine, NonFinite, Failed };

    static void checkShape(const Tensor& samples, std::int64_t numAtoms) {
        const char* where = "ContextPotential::evaluate";
        require(samples.defined(), where, "x", "undefined", "a tensor");
        const bool flat = samples.dim() == 2 && samples.size(1) == 3 * numAtoms;
        if (!flat && !(samples.dim() == 3 && samples.size(1) == numAtoms && samples.size(2) == 3))
            require(false, where, "shape of x", samples.sizes(),
                    "[batch, " + std::to_string(3 * numAtoms) + "] or [batch, " + std::to_string(numAtoms) + ", 3]");
    }

    void runOnHost(const double* rows, std::int64_t batch, EnergyResult& result) {
        const auto columns = static_cast<std::int64_t>(3 * atoms.size());
        double* u = result.u.mutable_data_ptr<double>();
        double* gradients = result.gradient.defined() ? result.gradient.mutable_data_ptr<double>() : nullptr;
        run(batch, result, [&](Worker& worker, std::int64_t i) {
            return evaluateSample(worker, rows + i * columns, u[i], gradients ? gradients + i * columns : nullptr);
        });
    }

    // Tensors of the device are put together here, not in the Contexts' threads: work in one stream is in order.
    void runOnDevice(const Tensor& x, EnergyResult& result) {
        const Tensor isFinite = at::isfinite(x).all(1).to(at::kCPU);
        const bool* finite = isFinite.const_data_ptr<bool>();
        double* u = result.u.mutable_data_ptr<double>();
        std::vector<Tensor> forces(x.size(0)), rows = x.split(1);
        run(x.size(0), result, [&](Worker& worker, std::int64_t i) {
            u[i] = INFINITY;
            return finite[i] ? evaluateRow(worker, rows[i], u[i], result.gradient.defined() ? &forces[i] : nullptr)
                             : Outcome::NonFinite;
        });
        if (result.gradient.defined() && x.size(0) > 0)
            storeForces(forces, result);
    }

    void storeForces(const std::vector<Tensor>& forces, EnergyResult& result) const {
        for (std::size_t i = 0; i < forces.size(); i++)
            if (forces[i].defined())
                result.gradient.narrow(0, static_cast<std::int64_t>(i), 1).copy_(forces[i] / -kT);
        const Tensor finite = at::isfinite(result.gradient).all(1);
        result.gradient.masked_fill_(~finite.unsqueeze(1), 0.0);
        const Tensor spoilt = result.u.isfinite() & ~finite.to(at::kCPU);
        result.u.masked_fill_(spoilt, INFINITY);
        result.nonFinite += spoilt.sum().item<std::int64_t>();
    }

    // Every Context takes the next few samples until none is left; the caller works the first Context.
    template <class Evaluate>
    void run(std::int64_t batch, EnergyResult& result, const Evaluate& evaluateOne) {
        if (batch == 0)
            return;
        const int members = static_cast<int>(std::min<std::int64_t>(batch, workers.size()));
        const std::int64_t chunk = std::clamp<std::int64_t>(batch / (8 * members), 1, 4); // none waits long at the end
        std::atomic<std::int64_t> next{0}, nonFinite{0}, failed{0};
        crew->run(members, [&](int member) {
            std::int64_t bad = 0, thrown = 0;
            for (std::int64_t start = next.fetch_add(chunk); start < batch; start = next.fetch_add(chunk))
                for (std::int64_t i = start; i < std::min(batch, start + chunk); i++) {
                    const Outcome outcome = evaluateOne(*workers[member], i);
                    bad += outcome == Outcome::NonFinite ? 1 : 0;
                    thrown += outcome == Outcome::Failed ? 1 : 0;
                }
            nonFinite += bad;
            failed += thrown;
        });
        result.nonFinite = nonFinite;
        result.failed = failed;
        for (auto& worker : workers)
            if (!worker->failure.empty())
                lastFailure = std::exchange(worker->failure, {});
    }

    // A platform may return a finite energy for coordinates that are not (Reference does, beyond a cutoff).
    Outcome evaluateSample(Worker& worker, const double* x, double& u, double* gradient) const {
        u = INFINITY;
        if (!std::all_of(x, x + 3 * atoms.size(), [](double value) { return std::isfinite(value); }))
            return Outcome::NonFinite;
        for (std::size_t i = 0; i < atoms.size(); i++)
            worker.positions[atoms[i]] = Vec3(x[3 * i], x[3 * i + 1], x[3 * i + 2]);
        try {
            const State state = worker.evaluate(gradient ? State::Energy | State::Forces : State::Energy, forceGroups);
            const double energy = state.getPotentialEnergy() / kT;
            if (!std::isfinite(energy) || (gradient && !storeGradient(state.getForces(), gradient)))
                return Outcome::NonFinite;
            u = energy;
            return Outcome::Fine;
        } catch (const std::exception& error) {
            worker.failure = error.what();
            return Outcome::Failed;
        }
    }

    // @param forces  set to a row, kJ/mol/nm, unless null
    Outcome evaluateRow(Worker& worker, const Tensor& row, double& u, Tensor* forces) const {
        const at::NoGradGuard noGrad; // of this thread
        try {
            const double energy = worker.evaluateRow(row, forces != nullptr, forceGroups) / kT;
            if (!std::isfinite(energy))
                return Outcome::NonFinite;
            if (forces != nullptr)
                *forces = worker.movedAtoms->gatherForces(*worker.integrator.contextImpl);
            u = energy;
            return Outcome::Fine;
        } catch (const std::exception& error) {
            worker.failure = error.what();
            return Outcome::Failed;
        }
    }

    // OpenMM has already put the forces on virtual sites on their parents. False, and all zero, where one is not
    // finite.
    bool storeGradient(const std::vector<Vec3>& forces, double* gradient) const {
        double* end = gradient;
        for (const int atom : atoms)
            for (int k = 0; k < 3; k++)
                *end++ = -forces[atom][k] / kT;
        const bool finite = std::all_of(gradient, end, [](double value) { return std::isfinite(value); });
        if (!finite)
            std::fill(gradient, end, 0.0);
        return finite;
    }

    // Only of the samples that have an energy: what the others hold can't be differentiated.
    void subtractMetric(const Tensor& x, EnergyResult& result) const {
        const at::AutoGradMode track(result.gradient.defined());
        const Tensor rows = result.u.isfinite().nonzero().squeeze(1);
        const Tensor y = x.index_select(0, rows).set_requires_grad(result.gradient.defined());
        const Tensor term = metric.halfLogDet(y);
        const Tensor u = result.u.index_select(0, rows) - term.detach(), finite = u.isfinite();
        result.u.index_copy_(0, rows, u.masked_fill(~finite, INFINITY));
        result.nonFinite += rows.size(0) - finite.sum().item<std::int64_t>();
        if (!result.gradient.defined())
            return;
        const Tensor gradient = result.gradient.index_select(0, rows) - torch::autograd::grad({term.sum()}, {y})[0];
        result.gradient.index_copy_(0, rows, gradient.masked_fill(~finite.unsqueeze(1), 0.0));
    }

    std::unique_ptr<ThreadCrew> crew; // last, so that its threads end before what they use
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
    try {
        return pool->evaluate(x, gradient);
    } catch (const c10::Error& error) {
        throw OpenMMException(std::string("ContextPotential::evaluate: ") + error.what_without_backtrace());
    }
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
    const std::lock_guard lock(pool->mutex);
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

std::string ContextPotential::getLastFailure() const {
    const std::lock_guard lock(pool->mutex);
    return pool->lastFailure;
}
