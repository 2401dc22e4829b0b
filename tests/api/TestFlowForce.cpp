// SPDX-License-Identifier: MIT

#include "api/ApiSystems.h"
#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/FlowForce.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

// A chain of five atoms whose flow has random couplings of both kinds and a chart.
std::unique_ptr<System> makeChain() {
    auto system = std::make_unique<System>();
    for (int i = 0; i < 6; i++)
        system->addParticle(12.0);
    auto* bonds = new HarmonicBondForce();
    for (int i = 1; i < 5; i++)
        bonds->addBond(i, i + 1, 0.15, 1e4);
    system->addForce(bonds);
    return system;
}

std::vector<Vec3> makeChainPositions() {
    return {Vec3(3, 3, 3),      Vec3(0, 0, 0),          Vec3(0.15, 0, 0),
            Vec3(0.2, 0.14, 0), Vec3(0.33, 0.16, 0.08), Vec3(0.4, 0.29, 0.05)};
}

std::shared_ptr<Flow> makeChainFlow(const System& system) {
    const std::vector<int> atoms = {1, 2, 3, 4, 5};
    const auto chart = InternalCoordinates::fromSystem(system, atoms, makeChainPositions());
    const int size = chart->getInputSize();
    const at::Tensor xi =
        chart
            ->inverse(at::tensor({0.0, 0.0, 0.0, 0.15, 0.0, 0.0, 0.2, 0.14, 0.0, 0.33, 0.16, 0.08, 0.4, 0.29, 0.05},
                                 at::kDouble)
                          .unsqueeze(0))
            .value[0];
    std::vector<double> shift(size), scale(size, 1.0);
    for (int i = 0; i < size; i++) {
        const bool angle = i >= chart->getNumBonds();
        shift[i] = i < chart->getNumBonds() + chart->getNumAngles() ? xi[i].item<double>() : 0.0;
        scale[i] = i >= chart->getNumBonds() + chart->getNumAngles() ? 1.0 : angle ? 0.1 : 0.01;
    }
    const auto spline = [&](std::vector<int> active, std::uint64_t seed) {
        return std::make_shared<SplineCoupling>(size, std::move(active), chart->getCircularIndices(),
                                                SplineCoupling::Options{8, 5.0, {{12}, Activation::SiLU, seed}});
    };
    const auto sequence = std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
        spline({0, 2, 4, 6, 8}, 1), spline({1, 3, 5, 7}, 2), std::make_shared<Scaling>(shift, scale), chart});
    randomiseParameters(*sequence, 0.2);
    const int circular = static_cast<int>(chart->getCircularIndices().size());
    return std::make_shared<Flow>(
        std::make_shared<ProductPrior>(std::vector<std::shared_ptr<Prior>>{
            std::make_shared<GaussianPrior>(size - circular), std::make_shared<UniformTorusPrior>(circular)}),
        sequence, atoms);
}

struct FlowForceOn : PlatformTest {};

} // namespace

INSTANTIATE_TEST_SUITE_P(Platforms, FlowForceOn, testing::ValuesIn(everydayPlatforms),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(SlowPlatforms, FlowForceOn, testing::ValuesIn(otherPrecisions),
                         [](const auto& info) { return info.param; });

TEST_P(FlowForceOn, EnergyIsLogDensityAndForcesAreItsGradient) {
    const auto chain = makeChain();
    const auto flow = makeChainFlow(*chain);
    System system;
    for (int i = 0; i < 6; i++)
        system.addParticle(12.0);
    auto* force = new FlowForce(flow, 310.0);
    force->setForceGroup(3);
    system.addForce(force);
    VerletIntegrator integrator(0.001);
    Context context(system, integrator, getPlatform(GetParam()), getProperties(GetParam()));
    const auto positions = makeChainPositions();
    context.setPositions(positions);
    const State state = context.getState(State::Energy | State::Forces, false, 1 << 3);
    at::Tensor x = at::empty({1, 15}, at::kDouble);
    for (int i = 0; i < 15; i++)
        x[0][i] = positions[1 + i / 3][i % 3];
    const double kT = 0.00831446261815324 * 310.0, energy = -kT * flow->logQ(x).item<double>();
    EXPECT_NEAR(state.getPotentialEnergy(), energy, 1e-5 * std::abs(energy));
    EXPECT_EQ(context.getState(State::Energy, false, 1).getPotentialEnergy(), 0.0);

    const auto forces = state.getForces();
    EXPECT_EQ(forces[0], Vec3());
    const double h = 1e-6;
    for (int i = 0; i < 15; i++) {
        double sides[2];
        for (int side = 0; side < 2; side++) {
            at::Tensor moved = x.clone();
            moved[0][i] += side == 0 ? -h : h;
            sides[side] = -kT * flow->logQ(moved).item<double>();
        }
        const double expected = -(sides[1] - sides[0]) / (2 * h);
        EXPECT_NEAR(forces[1 + i / 3][i % 3], expected, 1e-4 * (1 + std::abs(expected)));
    }

    // The scale is a Context parameter.
    context.setParameter("FlowForceScale", 0.25);
    EXPECT_NEAR(context.getState(State::Energy, false, 1 << 3).getPotentialEnergy(), 0.25 * energy,
                1e-5 * std::abs(energy));
    context.setParameter("FlowForceScale", 0.0);
    EXPECT_EQ(context.getState(State::Energy, false, 1 << 3).getPotentialEnergy(), 0.0);
}

TEST_P(FlowForceOn, WorksWithinCustomCVForce) {
    const auto system = makeDoubleWell(0.0);
    auto* outer = new CustomCVForce("2*flow + 1");
    outer->addCollectiveVariable("flow", new FlowForce(makeWellFlow(), unitTemperature));
    outer->addGlobalParameter("FlowForceScale", 1.0);
    outer->setForceGroup(1);
    system->addForce(outer);
    VerletIntegrator integrator(0.001);
    const auto context = makeContext(*system, integrator, {Vec3(1.2, -0.3, 0.4)});
    const State state = context->getState(State::Energy | State::Forces, false, 1 << 1);
    const at::Tensor x = at::tensor({1.2, -0.3, 0.4}, at::kDouble).unsqueeze(0);
    EXPECT_NEAR(state.getPotentialEnergy(), 1 - 2 * makeWellFlow()->logQ(x).item<double>(), 1e-5);
    EXPECT_NEAR(state.getForces()[0][0], -2 * (1.2 - 0.2) / (2.5 * 2.5), 1e-5);
}

// Dynamics on the flow's density samples the flow.
TEST(FlowForce, DynamicsSamplesTheFlow) {
    System system;
    system.addParticle(1.0);
    system.addForce(new FlowForce(makeWellFlow(), unitTemperature));
    LangevinMiddleIntegrator integrator(unitTemperature, 1.0, 0.3);
    integrator.setRandomNumberSeed(3);
    Context context(system, integrator, getPlatform("Reference"));
    context.setPositions({Vec3(0.2, 0.1, -0.1)});
    double sum = 0, squares = 0;
    constexpr int n = 1500;
    for (int i = 0; i < n; i++) {
        integrator.step(10);
        const double y = (context.getState(State::Positions).getPositions()[0][0] - 0.2) / 2.5;
        sum += y;
        squares += y * y;
    }
    const double correlation = 6.0; // in samples: relaxation 6 ps, 3 ps apart, both sides
    EXPECT_NEAR(sum / n, 0.0, 4 * std::sqrt(correlation / n));
    EXPECT_NEAR(squares / n, 1.0, 4 * std::sqrt(2 * correlation / n));
}

TEST(FlowForce, RefusesBadArguments) {
    const auto flow = makeWellFlow();
    expectMessage([&] { FlowForce(nullptr, 300); }, "FlowForce::FlowForce: flow is null");
    expectMessage([&] { FlowForce(flow, 0); }, "temperature is 0, but must be positive and finite");
    expectMessage([&] { FlowForce(std::make_shared<Flow>(flow->getPrior(), flow->getTransform()), 300); },
                  "number of the flow's atoms is 0");
    expectMessage([&] { FlowForce(flow, 300).setScaleParameter(""); }, "name is empty");
    expectMessage([&] { FlowForce(flow, 300).setDefaultScale(NAN); }, "scale is nan");
    System small;
    small.addParticle(1.0);
    small.addForce(new FlowForce(makeBroadFlow({3}, 0, 1), 300));
    VerletIntegrator integrator(0.001);
    expectMessage([&] { Context context(small, integrator, getPlatform("Reference")); },
                  "a particle of the flow is 3, but must be one of the System's 1");
}

TEST_P(FlowForceOn, ThrowsOutsideTheFlowsDomain) {
    const auto trimer = makeTrimer(false);
    System system;
    for (int i = 0; i < 3; i++)
        system.addParticle(1.0);
    system.addForce(new FlowForce(makeTrimerFlow(*trimer), 300.0));
    VerletIntegrator integrator(0.001);
    const auto context = makeContext(system, integrator, makeTrimerPositions(1.9));
    const double energy = context->getState(State::Energy).getPotentialEnergy();
    for (int i = 0; i < 2; i++) {
        context->setPositions({Vec3(), Vec3(0.1, 0, 0), Vec3(0.2, 0, 0)}); // collinear: the angle is 0
        expectMessage([&] { (void)context->getState(State::Energy); }, "outside the flow's domain");
        context->setPositions(makeTrimerPositions(1.9));
        EXPECT_EQ(context->getState(State::Energy).getPotentialEnergy(), energy);
    }
}
