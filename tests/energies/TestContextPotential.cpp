// SPDX-License-Identifier: MIT

#include "api/ApiSystems.h"
#include "contracts/ExpectMessage.h"
#include "openmmflow/FlowForce.h"
#include "openmmflow/energies/ConstraintMetric.h"
#include "openmmflow/energies/ContextPotential.h"
#include <ATen/ATen.h>
#include <cmath>
#include <gtest/gtest.h>
#include <thread>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

namespace {

constexpr double temperature = 300, kT = 0.00831446261815324 * temperature;
constexpr int numParticles = 5;

/** A chain with bonds and angles (group 0), charges (group 1) and a restraint with a parameter (group 2). */
std::unique_ptr<System> makeChain() {
    auto system = std::make_unique<System>();
    auto* bonds = new HarmonicBondForce();
    auto* angles = new HarmonicAngleForce();
    auto* nonbonded = new NonbondedForce();
    auto* restraint = new CustomExternalForce("strength*(x^2 + 2*y^2 + sqrt(5 - z))");
    restraint->addGlobalParameter("strength", 1.5);
    for (int i = 0; i < numParticles; i++) {
        system->addParticle(10.0 + i);
        nonbonded->addParticle(i % 2 == 0 ? 0.3 : -0.4, 0.1, 0.5);
        restraint->addParticle(i);
        if (i > 0)
            bonds->addBond(i - 1, i, 0.15, 1e4);
        if (i > 1)
            angles->addAngle(i - 2, i - 1, i, 1.9, 300);
    }
    nonbonded->setForceGroup(1);
    restraint->setForceGroup(2);
    for (Force* force : std::initializer_list<Force*>{bonds, angles, nonbonded, restraint})
        system->addForce(force);
    return system;
}

std::vector<Vec3> chainPositions() {
    std::vector<Vec3> positions;
    for (int i = 0; i < numParticles; i++)
        positions.emplace_back(0.12 * i, i % 2 == 0 ? 0.0 : 0.08, 0.02 * i * i);
    return positions;
}

Tensor toTensor(const std::vector<Vec3>& positions) {
    std::vector<double> values;
    for (const Vec3& r : positions)
        values.insert(values.end(), {r[0], r[1], r[2]});
    return at::tensor(values, at::kDouble).unsqueeze(0);
}

std::vector<Vec3> toPositions(const Tensor& row) {
    std::vector<Vec3> positions;
    const Tensor x = row.contiguous().view({-1, 3});
    for (std::int64_t i = 0; i < x.size(0); i++)
        positions.emplace_back(x[i][0].item<double>(), x[i][1].item<double>(), x[i][2].item<double>());
    return positions;
}

/** The chain, disturbed by 0.02 nm. */
Tensor makeBatch(std::int64_t size, std::uint64_t seed = 1) {
    Random random(seed);
    return toTensor(chainPositions()) + 0.02 * random.normal(size, 3 * numParticles);
}

ContextPotential::Options makeOptions(const std::string& platform = "Reference", int numContexts = 2) {
    ContextPotential::Options options;
    options.platform = platform;
    options.numContexts = numContexts;
    (void)getPlatform(platform); // loads the plugins
    return options;
}

/** U/kT by OpenMM alone. */
double energyOf(const System& system, const std::vector<Vec3>& positions, const std::string& platform = "Reference",
                int groups = -1, const std::map<std::string, double>& parameters = {}) {
    VerletIntegrator integrator(0.001);
    Context context(system, integrator, getPlatform(platform), getProperties(platform));
    for (const auto& [name, value] : parameters)
        context.setParameter(name, value);
    context.setPositions(positions);
    context.computeVirtualSites();
    return context.getState(State::Energy, false, groups).getPotentialEnergy() / kT;
}

double item(const Tensor& tensor, std::int64_t i) {
    return tensor[i].item<double>();
}

void expectGradientOfEnergy(ContextPotential& potential, const Tensor& x, double tolerance) {
    const Tensor gradient = potential.evaluate(x, Gradient::Compute).gradient;
    constexpr double h = 1e-6;
    for (std::int64_t k = 0; k < x.size(1); k++) {
        Tensor step = at::zeros_like(x);
        step.select(1, k).fill_(h);
        const Tensor difference = (potential.evaluate(x + step).u - potential.evaluate(x - step).u) / (2 * h);
        const Tensor scale = 1 + difference.abs();
        EXPECT_LE(((gradient.select(1, k) - difference) / scale).abs().max().item<double>(), tolerance) << k;
    }
}

} // namespace

TEST(ContextPotential, EnergiesAreThoseOfAContext) {
    const auto system = makeChain();
    const Tensor x = makeBatch(37);
    ContextPotential reference(*system, temperature, makeOptions()), cpu(*system, temperature, makeOptions("CPU"));
    EXPECT_EQ(reference.getSize(), 15);
    EXPECT_EQ(reference.getPlatformName(), "Reference");
    EXPECT_EQ(reference.getNumContexts(), 2);
    EXPECT_EQ(reference.getTemperature(), temperature);
    const EnergyResult result = reference.evaluate(x), ofCpu = cpu.evaluate(x, Gradient::Compute);
    EXPECT_FALSE(result.gradient.defined());
    for (int i = 0; i < 37; i++) {
        EXPECT_EQ(item(result.u, i), energyOf(*system, toPositions(x[i])));
        EXPECT_NEAR(item(ofCpu.u, i), item(result.u, i), 1e-5 * std::abs(item(result.u, i)));
    }
    const EnergyResult shaped = reference.evaluate(x.view({37, 5, 3}), Gradient::Compute);
    EXPECT_TRUE(at::equal(shaped.u, result.u));
    EXPECT_TRUE(at::allclose(ofCpu.gradient, shaped.gradient, 1e-4, 1e-2));
    EXPECT_EQ(reference.evaluate(x.narrow(0, 0, 0)).u.numel(), 0);
    EXPECT_EQ(reference.getCounts().evaluations, 74);
}

TEST(ContextPotential, GradientsMatchFiniteDifferences) {
    auto system = makeChain();
    ContextPotential free(*system, temperature, makeOptions());
    expectGradientOfEnergy(free, makeBatch(3), 1e-6);
    system->addConstraint(0, 1, 0.15);
    system->addConstraint(1, 2, 0.15);
    ContextPotential constrained(*system, temperature, makeOptions());
    expectGradientOfEnergy(constrained, makeBatch(3), 1e-6);
}

TEST(ContextPotential, ConstraintsAddTheMetric) {
    auto system = makeChain();
    const Tensor x = makeBatch(4);
    const Tensor before = ContextPotential(*system, temperature, makeOptions()).evaluate(x).u;
    for (int i = 1; i < numParticles; i++)
        system->addConstraint(i - 1, i, 0.15);
    const Tensor after = ContextPotential(*system, temperature, makeOptions()).evaluate(x).u;
    const Tensor metric = ConstraintMetric(*system, {0, 1, 2, 3, 4}).halfLogDet(x);
    EXPECT_GT(metric.std().item<double>(), 0.01);
    EXPECT_LE((before - metric - after).abs().max().item<double>(), 1e-12);
}

TEST(ContextPotential, AutogradPassesThroughIt) {
    const auto system = makeChain();
    ContextPotential potential(*system, temperature, makeOptions());
    Tensor x = makeBatch(3);
    x[1][4] = NAN;
    const Tensor leaf = x.clone().set_requires_grad(true), weight = at::tensor({0.5, 7.0, -2.0}, at::kDouble);
    const Tensor u = potential(leaf);
    const EnergyResult expected = potential.evaluate(x, Gradient::Compute);
    EXPECT_TRUE(at::equal(u.detach(), expected.u));
    const Tensor finite = at::where(at::isfinite(u), u, 0.0);
    const Tensor gradient = torch::autograd::grad({(weight * finite).sum()}, {leaf}, {}, std::nullopt, true)[0];
    EXPECT_TRUE(at::equal(gradient, weight.unsqueeze(1) * expected.gradient));
    EXPECT_EQ(gradient[1].abs().max().item<double>(), 0.0);
    EXPECT_FALSE(potential(x).requires_grad());
}

// Each kind of failure makes +inf of its sample, is counted, and changes no other sample, now or later.
TEST(ContextPotential, FailuresStayAlone) {
    const auto system = makeChain();
    for (const int numContexts : {1, 3}) {
        ContextPotential potential(*system, temperature, makeOptions("Reference", numContexts));
        const Tensor good = makeBatch(12);
        const EnergyResult expected = potential.evaluate(good, Gradient::Compute);
        Tensor x = good.clone();
        x[2][7] = NAN;
        x[5][0] = -INFINITY;
        x[6][2] = 5.5;                                            // the root of a negative number
        x[9].narrow(0, 3, 3).copy_(x[9].narrow(0, 0, 3).clone()); // one particle on another
        const EnergyResult result = potential.evaluate(x, Gradient::Compute);
        for (int i = 0; i < 12; i++)
            if (i == 2 || i == 5 || i == 6 || i == 9) {
                EXPECT_EQ(item(result.u, i), INFINITY) << i;
                EXPECT_EQ(result.gradient[i].abs().max().item<double>(), 0.0) << i;
            } else {
                EXPECT_EQ(item(result.u, i), item(expected.u, i)) << i;
                EXPECT_TRUE(at::equal(result.gradient[i], expected.gradient[i])) << i;
            }
        EXPECT_EQ(result.nonFinite, 4);
        EXPECT_EQ(result.failed, 0);
        EXPECT_TRUE(at::equal(potential.evaluate(good).u, expected.u));
        EXPECT_EQ(potential.getCounts().nonFinite, 4);
        EXPECT_EQ(potential.getCounts().failed, 0);
    }
}

// A FlowForce throws where its flow has no density: three atoms on a line.
TEST(ContextPotential, EvaluationsThatThrowStayAlone) {
    const auto system = makeTrimer(false);
    system->addForce(new FlowForce(makeTrimerFlow(*system), temperature));
    ContextPotential potential(*system, temperature, makeOptions());
    EXPECT_EQ(potential.getLastFailure(), "");
    Tensor x = at::cat({toTensor(makeTrimerPositions(1.9)), toTensor({Vec3(), Vec3(0.15, 0, 0), Vec3(0.3, 0, 0)}),
                        toTensor(makeTrimerPositions(1.5))});
    const EnergyResult result = potential.evaluate(x, Gradient::Compute);
    EXPECT_EQ(item(result.u, 0), energyOf(*system, makeTrimerPositions(1.9)));
    EXPECT_EQ(item(result.u, 1), INFINITY);
    EXPECT_EQ(item(result.u, 2), energyOf(*system, makeTrimerPositions(1.5)));
    EXPECT_EQ(result.failed, 1);
    EXPECT_EQ(result.nonFinite, 0);
    EXPECT_EQ(potential.getCounts().failed, 1);
    EXPECT_NE(potential.getLastFailure(), "");
}

TEST(ContextPotential, VirtualSitesFollowTheirParents) {
    auto system = makeChain();
    system->setParticleMass(4, 0.0);
    system->setVirtualSite(4, new ThreeParticleAverageSite(1, 2, 3, 0.4, -1.1, 1.7));
    ContextPotential potential(*system, temperature, makeOptions());
    EXPECT_EQ(potential.getAtoms(), (std::vector<int>{0, 1, 2, 3}));
    const Tensor x = makeBatch(5).narrow(1, 0, 12);
    const Tensor u = potential.evaluate(x).u;
    for (int i = 0; i < 5; i++) {
        auto positions = toPositions(x[i]);
        positions.emplace_back();
        EXPECT_EQ(item(u, i), energyOf(*system, positions));
    }
    expectGradientOfEnergy(potential, x.narrow(0, 0, 2), 1e-6);
}

TEST(ContextPotential, ParticlesThatAreNotMovedStay) {
    const auto system = makeChain();
    auto options = makeOptions();
    options.atoms = {3, 1};
    options.referencePositions = chainPositions();
    ContextPotential potential(*system, temperature, options);
    EXPECT_EQ(potential.getSize(), 6);
    const Tensor whole = makeBatch(4), x = at::cat({whole.narrow(1, 9, 3), whole.narrow(1, 3, 3)}, 1);
    const Tensor u = potential.evaluate(x).u;
    for (int i = 0; i < 4; i++) {
        auto positions = chainPositions();
        positions[3] = toPositions(x[i])[0];
        positions[1] = toPositions(x[i])[1];
        EXPECT_EQ(item(u, i), energyOf(*system, positions));
    }
    expectGradientOfEnergy(potential, x, 1e-6);
}

TEST(ContextPotential, ParametersAndForceGroups) {
    const auto system = makeChain();
    const Tensor x = makeBatch(3);
    ContextPotential potential(*system, temperature, makeOptions());
    const Tensor before = potential.evaluate(x).u;
    EXPECT_EQ(potential.getParameters(), (std::map<std::string, double>{{"strength", 1.5}}));
    potential.setParameter("strength", 4.0);
    EXPECT_EQ(potential.getParameters().at("strength"), 4.0);
    const Tensor after = potential.evaluate(x).u;
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(item(before, i), energyOf(*system, toPositions(x[i])));
        EXPECT_EQ(item(after, i), energyOf(*system, toPositions(x[i]), "Reference", -1, {{"strength", 4.0}}));
    }
    expectMessage([&] { potential.setParameter("stength", 1.0); }, "stength");
    auto options = makeOptions();
    options.forceGroups = 1 << 1;
    const Tensor charges = ContextPotential(*system, temperature, options).evaluate(x).u;
    for (int i = 0; i < 3; i++)
        EXPECT_EQ(item(charges, i), energyOf(*system, toPositions(x[i]), "Reference", 1 << 1));
}

TEST(ContextPotential, UsesItsBox) {
    auto system = makeChain();
    auto& nonbonded = dynamic_cast<NonbondedForce&>(system->getForce(2));
    nonbonded.setNonbondedMethod(NonbondedForce::CutoffPeriodic);
    nonbonded.setCutoffDistance(0.4);
    ContextPotential potential(*system, temperature, makeOptions());
    const Tensor x = makeBatch(4);
    const Tensor before = potential.evaluate(x).u;
    potential.setPeriodicBoxVectors(Vec3(0.9, 0, 0), Vec3(0.1, 0.85, 0), Vec3(0, 0.1, 0.8));
    const Tensor after = potential.evaluate(x).u;
    system->setDefaultPeriodicBoxVectors(Vec3(0.9, 0, 0), Vec3(0.1, 0.85, 0), Vec3(0, 0.1, 0.8));
    for (int i = 0; i < 4; i++)
        EXPECT_EQ(item(after, i), energyOf(*system, toPositions(x[i])));
    EXPECT_GT((before - after).abs().min().item<double>(), 1e-4);
}

// Barostats, thermostats and CMMotionRemover are no energy; what the caller does to the System later does not matter.
TEST(ContextPotential, CopiesThePotentialEnergyAlone) {
    auto system = makeChain();
    const Tensor x = makeBatch(2);
    const Tensor expected = ContextPotential(*system, temperature, makeOptions()).evaluate(x).u;
    dynamic_cast<NonbondedForce&>(system->getForce(2)).setNonbondedMethod(NonbondedForce::NoCutoff);
    system->addForce(new AndersenThermostat(300, 1));
    system->addForce(new CMMotionRemover());
    ContextPotential potential(*system, temperature, makeOptions());
    EXPECT_EQ(system->getNumForces(), 6);
    EXPECT_EQ(potential.getParameters().size(), 1u); // none of the thermostat's
    dynamic_cast<HarmonicBondForce&>(system->getForce(0)).setBondParameters(0, 0, 1, 0.3, 1e5);
    EXPECT_TRUE(at::equal(potential.evaluate(x).u, expected));
}

TEST(ContextPotential, NumberOfContextsDoesNotMatter) {
    const auto system = makeChain();
    const Tensor x = makeBatch(101);
    ContextPotential one(*system, temperature, makeOptions("Reference", 1));
    const EnergyResult expected = one.evaluate(x, Gradient::Compute);
    for (const int count : {2, 3, 7}) {
        ContextPotential many(*system, temperature, makeOptions("Reference", count));
        EXPECT_EQ(many.getNumContexts(), count);
        const EnergyResult result = many.evaluate(x, Gradient::Compute);
        EXPECT_TRUE(at::equal(result.u, expected.u)) << count;
        EXPECT_TRUE(at::equal(result.gradient, expected.gradient)) << count;
    }
}

TEST(ContextPotential, MayBeCalledFromManyThreads) {
    const auto system = makeChain();
    ContextPotential potential(*system, temperature, makeOptions("Reference", 2));
    std::vector<Tensor> batches, expected;
    for (int i = 0; i < 4; i++) {
        batches.push_back(makeBatch(60, i + 1));
        expected.push_back(potential.evaluate(batches.back()).u);
    }
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&, i] {
            for (int repeat = 0; repeat < 10; repeat++)
                wrong += !at::equal(potential.evaluate(batches[i]).u, expected[i]);
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(potential.getCounts().evaluations, 4 * 60 * 11);
}

TEST(ContextPotential, ChoosesAPlatformAndAsManyContextsAsCores) {
    const auto system = makeChain();
    ContextPotential potential(*system, temperature);
    EXPECT_GE(potential.getNumContexts(), 1);
    const Tensor x = makeBatch(1);
    const double expected = energyOf(*system, toPositions(x[0]));
    EXPECT_NEAR(item(potential.evaluate(x).u, 0), expected, 1e-5 * std::abs(expected));
}

TEST(ContextPotential, RefusesBadArguments) {
    const auto system = makeChain();
    const auto create = [&](const std::function<void(ContextPotential::Options&)>& change, double kelvin = 300) {
        return [&system, change, kelvin] {
            auto options = makeOptions();
            options.referencePositions = chainPositions();
            change(options);
            ContextPotential(*system, kelvin, options);
        };
    };
    using Options = ContextPotential::Options;
    create([](Options&) {})();
    expectMessage(create([](Options&) {}, 0), "temperature is 0, but must be positive");
    expectMessage(create([](Options&) {}, NAN), "temperature is nan, but must be positive");
    expectMessage(create([](Options& o) { o.platform = "Abacus"; }),
                  "platform is Abacus, but must be one of Reference");
    expectMessage(create([](Options& o) { o.numContexts = -1; }), "numContexts is -1");
    expectMessage(create([](Options& o) { o.atoms = {1, 5}; }), "an atom is 5, but must be a particle of the System");
    expectMessage(create([](Options& o) { o.atoms = {-1}; }), "an atom is -1");
    expectMessage(create([](Options& o) { o.atoms = {1, 2, 1}; }), "an atom is 1, but must be listed once");
    expectMessage(create([](Options& o) { o.referencePositions.pop_back(); }), "number of referencePositions is 4");
    expectMessage(create([](Options& o) { o.referencePositions[2][1] = NAN; }), "a reference position is");
    expectMessage(create([](Options& o) {
                      o.atoms = {1};
                      o.referencePositions.clear();
                  }),
                  "number of referencePositions is 0");
    const auto constrained = makeTrimer();
    expectMessage(
        [&] {
            auto options = makeOptions();
            options.atoms = {0};
            options.referencePositions = makeTrimerPositions(1.9);
            ContextPotential(*constrained, 300, options);
        },
        "constraint");
    const auto withSite = makeChain();
    withSite->setParticleMass(4, 0.0);
    withSite->setVirtualSite(4, new ThreeParticleAverageSite(1, 2, 3, 0.4, -1.1, 1.7));
    expectMessage(
        [&] {
            auto options = makeOptions();
            options.atoms = {3, 4};
            options.referencePositions = chainPositions();
            ContextPotential(*withSite, 300, options);
        },
        "an atom is 4, but must be no virtual site");
    ContextPotential potential(*system, 300, makeOptions());
    expectMessage([&] { (void)potential.evaluate(at::zeros({2, 14}, at::kDouble)); }, "shape of x is [2, 14]");
    expectMessage([&] { (void)potential.evaluate(at::zeros({2, 3, 5}, at::kDouble)); }, "shape of x is [2, 3, 5]");
    expectMessage([&] { (void)potential.evaluate(Tensor()); }, "x is undefined");
}
