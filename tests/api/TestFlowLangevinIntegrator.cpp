// SPDX-License-Identifier: MIT

#include "api/ApiSystems.h"
#include "contracts/ExpectMessage.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/flows/RigidBodies.h"
#include "openmmflow/training/Trainer.h"
#include <ATen/ATen.h>
#include <sstream>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

struct FlowLangevinOn : PlatformTest {
    // All have the same jumps as Reference, and take many times as long for these few particles: fewer samples there.
    static int getShare() { return isReference() ? 1 : isOnDevice() ? 50 : 10; }
    static int numSamples(int onReference) { return onReference / getShare(); }
    static double maxError(double onReference) { return onReference * std::sqrt(getShare()); }
};

std::unique_ptr<FlowLangevinIntegrator> makeWellIntegrator(double step = 0.02) {
    auto integrator = std::make_unique<FlowLangevinIntegrator>(unitTemperature, 2.0, step, makeWellFlow());
    integrator->setRandomNumberSeed(11);
    integrator->setJumpRandomNumberSeed(12);
    return integrator;
}

constexpr int everything = State::Positions | State::Velocities | State::Forces | State::Energy | State::Parameters;

void expectSameState(const State& a, const State& b) {
    EXPECT_TRUE(areEqual(a.getPositions(), b.getPositions()));
    EXPECT_TRUE(areEqual(a.getVelocities(), b.getVelocities()));
    EXPECT_TRUE(areEqual(a.getForces(), b.getForces()));
    EXPECT_EQ(a.getPotentialEnergy(), b.getPotentialEnergy());
    EXPECT_EQ(a.getTime(), b.getTime());
    EXPECT_EQ(a.getStepCount(), b.getStepCount());
    EXPECT_EQ(a.getParameters(), b.getParameters());
}

// Mean of a 0/1 series and its standard error from blocks.
std::pair<double, double> blockMean(const std::vector<int>& series, int blocks = 40) {
    const std::size_t size = series.size() / blocks;
    double sum = 0, squares = 0;
    for (int b = 0; b < blocks; b++) {
        double block = 0;
        for (std::size_t i = 0; i < size; i++)
            block += series[b * size + i];
        block /= static_cast<double>(size);
        sum += block;
        squares += block * block;
    }
    const double mean = sum / blocks;
    return {mean, std::sqrt((squares / blocks - mean * mean) / (blocks - 1))};
}

/** A rigid water in a field along z, k kT deep, and a spring; O, H, H. Its dipole lies along x + y. */
const std::vector<Vec3> waterPositions = {{0, 0, 0}, {0.1, 0, 0}, {0, 0.1, 0}};

std::unique_ptr<System> makeWaterInField(double k, int numConstraints = 3) {
    auto system = std::make_unique<System>();
    auto* force = new CustomExternalForce("-charge*z + 50*(x^2 + y^2 + z^2)");
    force->addPerParticleParameter("charge");
    system->addForce(force);
    const double charge = k / (0.1 * std::sqrt(2.0));
    for (int i = 0; i < 3; i++) {
        system->addParticle(i == 0 ? 16.0 : 1.0);
        force->addParticle(i, {i == 0 ? -2 * charge : charge});
    }
    const std::vector<std::pair<int, int>> pairs = {{0, 1}, {0, 2}, {1, 2}};
    for (int i = 0; i < numConstraints; i++) {
        const Vec3 d = waterPositions[pairs[i].first] - waterPositions[pairs[i].second];
        system->addConstraint(pairs[i].first, pairs[i].second, std::sqrt(d.dot(d)));
    }
    return system;
}

std::shared_ptr<Flow> makeWaterFlow() {
    const at::Tensor reference = at::from_blob(const_cast<Vec3*>(waterPositions.data()), {3, 3}, at::kDouble);
    const std::vector<std::shared_ptr<Prior>> factors = {std::make_shared<GaussianPrior>(3, 0.1),
                                                         std::make_shared<GaussianPrior>(1),
                                                         std::make_shared<UniformTorusPrior>(2)};
    return std::make_shared<Flow>(std::make_shared<ProductPrior>(factors),
                                  std::make_shared<RigidBodies>(reference, std::vector<std::vector<int>>{{0, 1, 2}}),
                                  std::vector<int>{0, 1, 2});
}

} // namespace

INSTANTIATE_TEST_SUITE_P(Platforms, FlowLangevinOn, testing::ValuesIn(everydayPlatforms),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(SlowPlatforms, FlowLangevinOn, testing::ValuesIn(otherPrecisions),
                         [](const auto& info) { return info.param; });

// Reference's random numbers are shared by a process, so that each run starts from a new Context and the same seed.
TEST_P(FlowLangevinOn, IsLangevinMiddleIntegratorWithJumpsOff) {
    for (const bool constrained : {false, true}) {
        const auto system = makeTrimer(constrained);
        std::vector<State> ends;
        for (const bool ours : {false, true}) {
            std::unique_ptr<LangevinMiddleIntegrator> integrator;
            if (ours) {
                auto flowIntegrator =
                    std::make_unique<FlowLangevinIntegrator>(300.0, 1.0, 0.002, makeTrimerFlow(*system));
                flowIntegrator->setJumpInterval(0);
                integrator = std::move(flowIntegrator);
            } else
                integrator = std::make_unique<LangevinMiddleIntegrator>(300.0, 1.0, 0.002);
            integrator->setRandomNumberSeed(5);
            const auto context = makeContext(*system, *integrator, makeTrimerPositions(1.9));
            context->setVelocitiesToTemperature(300.0, 3);
            integrator->step(57);
            ends.push_back(context->getState(everything));
        }
        expectSameState(ends[0], ends[1]);
    }
}

TEST_P(FlowLangevinOn, CountsStepsAcrossCallsAndJumpsOnTime) {
    const auto system = makeDoubleWell(0.3);
    const auto integrator = makeWellIntegrator();
    integrator->setJumpInterval(7);
    integrator->setTrialsPerJump(3);
    const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
    for (int i = 0; i < 10; i++)
        integrator->step(5);
    EXPECT_EQ(integrator->getJumpStatistics().jumps, 7);
    EXPECT_EQ(integrator->getJumpStatistics().trials, 21);
    EXPECT_EQ(context->getStepCount(), 50);
    EXPECT_NEAR(context->getTime(), 50 * 0.02, 1e-12);
}

// Jumps alone, each kind and test: the population of the right well, against quadrature.
TEST_P(FlowLangevinOn, JumpsAloneSampleTheTarget) {
    const auto system = makeDoubleWell(0.3);
    const double expected = rightFraction(0.3);
    const int jumps = isReference() ? 4000 : isOnDevice() ? 300 : 1000;
    for (const JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving, JumpKind::RandomWalk})
        for (const AcceptanceTest test : {AcceptanceTest::Metropolis, AcceptanceTest::Barker}) {
            const auto integrator = makeWellIntegrator();
            integrator->setLatentStepSize(kind == JumpKind::RandomWalk ? 1.0 : 0.9);
            integrator->setJumpKind(kind);
            integrator->setAcceptanceTest(test);
            integrator->setTrialsPerJump(10);
            const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
            std::vector<int> right;
            for (int i = 0; i < jumps; i++) {
                integrator->jump();
                right.push_back(context->getState(State::Positions).getPositions()[0][0] > 0.0835);
            }
            const auto [mean, error] = blockMean(right, jumps / 100);
            EXPECT_NEAR(mean, expected, 4 * error) << static_cast<int>(kind) << " " << static_cast<int>(test);
            EXPECT_LT(error, 0.03 * std::sqrt(4000.0 / jumps));
        }
}

// Langevin dynamics and jumps together; the step is small against the wells' periods.
TEST_P(FlowLangevinOn, LangevinWithJumpsSamplesTheTarget) {
    const auto system = makeDoubleWell(0.3);
    const auto integrator = makeWellIntegrator(0.03);
    integrator->setJumpInterval(10);
    integrator->setTrialsPerJump(4);
    const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
    std::vector<int> right;
    for (int i = 0; i < numSamples(6000); i++) {
        integrator->step(10);
        right.push_back(context->getState(State::Positions).getPositions()[0][0] > 0.0835);
    }
    const auto [mean, error] = blockMean(right);
    EXPECT_NEAR(mean, rightFraction(0.3), 4 * error);
    EXPECT_LT(error, maxError(0.03));
}

// Every number of a record can be had again: energies from another Context, log q from the flow, the decision from
// both.
TEST_P(FlowLangevinOn, RecordsSufficeToDecideAgain) {
    const auto system = makeDoubleWell(0.3);
    for (const JumpKind kind : {JumpKind::Independence, JumpKind::RandomWalk}) {
        const auto integrator = makeWellIntegrator();
        integrator->setJumpKind(kind);
        integrator->setJumpInterval(5);
        integrator->setRecordTrials(true);
        const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
        VerletIntegrator verlet(0.001);
        const auto other = makeContext(*system, verlet, {Vec3()});
        int accepted = 0;
        for (int i = 0; i < 60; i++) {
            integrator->step(5); // the jump is the last thing that happens
            const JumpRecord& record = integrator->getJumpRecords().back();
            EXPECT_EQ(record.step, 5 * (i + 1));
            const double logAlpha = kind == JumpKind::RandomWalk
                                        ? record.uOld - record.uNew + record.logDetNew - record.logDetOld
                                        : record.uOld - record.uNew + record.logQOld - record.logQNew;
            EXPECT_NEAR(record.logAlpha, logAlpha, 1e-12 * (1 + std::abs(logAlpha)));
            EXPECT_EQ(record.accepted, std::log(record.uniform) < std::min(0.0, logAlpha));
            accepted += record.accepted;
            // The state that the jump left is the new one or the old one, as the record says.
            const auto positions = context->getState(State::Positions).getPositions();
            other->setPositions(positions);
            const double u = other->getState(State::Energy).getPotentialEnergy();
            const at::Tensor x =
                at::tensor({positions[0][0], positions[0][1], positions[0][2]}, at::kDouble).unsqueeze(0);
            EXPECT_NEAR(u, record.accepted ? record.uNew : record.uOld, 1e-5);
            EXPECT_NEAR(makeWellFlow()->logQ(x).item<double>(), record.accepted ? record.logQNew : record.logQOld,
                        1e-5);
        }
        EXPECT_GT(accepted, 0);
        EXPECT_LT(accepted, 60);
    }
}

TEST_P(FlowLangevinOn, RejectedAndFailedTrialsLeaveNoTrace) {
    using Fault = FaultyForce::Fault;
    for (const Fault fault : {Fault::Throws, Fault::NotANumber}) {
        const auto system = makeDoubleWell(0.3);
        system->addForce(new FaultyForce(fault, 0.0));
        // All proposals lie to the right, where energies fail.
        FlowLangevinIntegrator integrator(unitTemperature, 1.0, 0.01, makeBroadFlow({0}, 40.0, 0.5));
        const auto context = makeContext(*system, integrator, {Vec3(-2.4, 0.3, 0.1)});
        context->setVelocitiesToTemperature(unitTemperature, 7);
        integrator.setJumpInterval(0);
        integrator.step(3);
        const State before = context->getState(everything);
        EXPECT_EQ(integrator.jump(), 0);
        expectSameState(before, context->getState(everything));
        const JumpStatistics statistics = integrator.getJumpStatistics();
        EXPECT_EQ(statistics.trials, 1);
        EXPECT_EQ(statistics.failed, fault == Fault::Throws ? 1 : 0);
        EXPECT_EQ(statistics.nonFinite, fault == Fault::Throws ? 0 : 1);
        integrator.step(3); // and goes on
    }
}

TEST_P(FlowLangevinOn, RejectsProposalsThatAreNotFinite) {
    const auto system = makeDoubleWell(0.3);
    for (const double width : {1e308, 1e200}) { // infinite coordinates, and infinite energies
        FlowLangevinIntegrator integrator(unitTemperature, 1.0, 0.01, makeBroadFlow({0}, 1e308, width));
        const auto context = makeContext(*system, integrator, {Vec3(-2.4, 0, 0)});
        const State before = context->getState(everything);
        for (int i = 0; i < 20; i++)
            EXPECT_EQ(integrator.jump(), 0);
        expectSameState(before, context->getState(everything));
        EXPECT_EQ(integrator.getJumpStatistics().nonFinite, 20);
    }
}

TEST_P(FlowLangevinOn, ContinuesFromACheckpointBitForBit) {
    const auto system = makeDoubleWell(0.3);
    for (const JumpKind kind : {JumpKind::Independence, JumpKind::RandomWalk}) {
        const auto integrator = makeWellIntegrator();
        integrator->setJumpKind(kind);
        integrator->setJumpInterval(3);
        integrator->setTrialsPerJump(5);
        const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
        integrator->step(40);
        std::stringstream checkpoint;
        context->createCheckpoint(checkpoint);
        integrator->step(100); // beyond the batch that was drawn ahead
        const State expected = context->getState(everything);
        const JumpStatistics statistics = integrator->getJumpStatistics();
        context->loadCheckpoint(checkpoint);
        integrator->step(100);
        expectSameState(expected, context->getState(everything));
        EXPECT_EQ(integrator->getJumpStatistics().accepted, statistics.accepted);
        EXPECT_GT(statistics.accepted, 0);
    }
}

TEST_P(FlowLangevinOn, RefusesADamagedCheckpoint) {
    const auto system = makeDoubleWell(0.3);
    const auto integrator = makeWellIntegrator();
    const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
    integrator->step(10);
    std::stringstream stream;
    context->createCheckpoint(stream);
    const std::string whole = stream.str();
    const std::size_t start = whole.find("OMMFLOW1");
    ASSERT_NE(start, std::string::npos);
    const auto load = [&](const std::string& bytes) {
        std::stringstream input(bytes);
        context->loadCheckpoint(input);
    };
    for (std::size_t i = start; i < whole.size(); i++) {
        std::string damaged = whole;
        damaged[i] = static_cast<char>(damaged[i] ^ 4);
        EXPECT_THROW(load(damaged), OpenMMException) << "byte " << i - start;
        EXPECT_THROW(load(whole.substr(0, i)), OpenMMException) << "cut at " << i - start;
    }
    // A flipped bit in OpenMM's own part: in a coordinate, which OpenMM would load as it is.
    std::string damaged = whole;
    const double x = context->getState(State::Positions).getPositions()[0][0];
    const std::size_t where = whole.find(std::string(reinterpret_cast<const char*>(&x), sizeof(x)));
    if (where != std::string::npos) { // CPU keeps its positions in another form
        damaged[where] = static_cast<char>(damaged[where] ^ 1);
        expectMessage([&] { load(damaged); },
                      "positions, velocities, box, time or parameters are not those that were saved");
    }
    load(whole);
}

// System T: with its bonds constrained, jumps alone and with dynamics, follows p(theta) ~ sin(theta) sqrt(1 -
// cos^2(theta)/4), and can be told from sin(theta), which would follow if the metric factor were left out.
TEST_P(FlowLangevinOn, ConstrainedTrimerFollowsTheMetric) {
    const auto system = makeTrimer();
    constexpr int bins = 12;
    const int samples = numSamples(30000);
    const auto chiSquare = [&](const std::vector<double>& angles, const std::function<double(double)>& law) {
        std::vector<double> expected(bins), found(bins);
        double all = 0;
        for (int i = 0; i < 1200 * bins; i++) {
            const double theta = M_PI * (i + 0.5) / (1200 * bins);
            expected[i / 1200] += law(theta);
            all += law(theta);
        }
        for (const double angle : angles)
            found[std::min(bins - 1, static_cast<int>(angle / M_PI * bins))]++;
        double sum = 0;
        for (int b = 0; b < bins; b++) {
            const double e = expected[b] / all * static_cast<double>(angles.size());
            sum += (found[b] - e) * (found[b] - e) / e;
        }
        return sum;
    };
    for (const int langevinSteps : {0, 4}) {
        FlowLangevinIntegrator integrator(300.0, 5.0, 0.002, makeTrimerFlow(*system));
        integrator.setRandomNumberSeed(3);
        integrator.setJumpRandomNumberSeed(4);
        integrator.setTrialsPerJump(8);
        integrator.setJumpInterval(0);
        const auto context = makeContext(*system, integrator, makeTrimerPositions(1.9));
        context->setVelocitiesToTemperature(300.0, 3);
        std::vector<double> angles;
        for (int i = 0; i < samples; i++) {
            integrator.jump();
            integrator.step(langevinSteps);
            const auto x = context->getState(State::Positions).getPositions();
            const Vec3 a = x[1] - x[0], b = x[2] - x[0];
            EXPECT_NEAR(std::sqrt(a.dot(a)), 0.15, 1e-5);
            angles.push_back(std::acos(a.dot(b) / std::sqrt(a.dot(a) * b.dot(b))));
        }
        EXPECT_GT(integrator.getJumpStatistics().getAcceptanceRate(), 0.5);
        // 11 degrees of freedom: 40 is beyond 1 in 30,000. Eight trials leave little correlation between samples.
        const auto law = [](double t) { return std::sin(t) * std::sqrt(1 - std::cos(t) * std::cos(t) / 4); };
        EXPECT_LT(chiSquare(angles, law), 40) << langevinSteps << " steps";
        if (isReference()) { // samples enough to tell them apart
            EXPECT_GT(chiSquare(angles, [](double t) { return std::sin(t); }), 40) << langevinSteps << " steps";
        }
    }
}

// Kinetic energy stays that of the temperature however often atoms jump, where velocities are kept and where drawn
// anew. With half-step velocities carried over as they are, it would be off by (omega dt)^2 / 8 in a stiff direction.
// <cos theta> of a dipole in a field: coth k - 1/k. Three constraints in a ring have a constant metric.
TEST_P(FlowLangevinOn, RigidWaterTurnsInAField) {
    const double k = 2.0, expected = 1 / std::tanh(k) - 1 / k;
    const auto system = makeWaterInField(k);
    FlowLangevinIntegrator integrator(unitTemperature, 5.0, 0.001, makeWaterFlow());
    integrator.setRandomNumberSeed(11);
    integrator.setJumpRandomNumberSeed(12);
    integrator.setJumpInterval(2);
    integrator.setRecordTrials(true);
    const auto context = makeContext(*system, integrator, waterPositions);
    const int blocks = 40, perBlock = numSamples(8000) / blocks;
    double sum = 0, squares = 0;
    for (int b = 0; b < blocks; b++) {
        double block = 0;
        for (int i = 0; i < perBlock; i++) {
            integrator.step(2);
            const auto x = context->getState(State::Positions).getPositions();
            const Vec3 dipole = x[1] + x[2] - x[0] * 2;
            ASSERT_NEAR(std::sqrt(dipole.dot(dipole)), 0.1 * std::sqrt(2.0), 1e-5);
            block += dipole[2] / std::sqrt(dipole.dot(dipole)) / perBlock;
        }
        sum += block;
        squares += block * block;
    }
    const double mean = sum / blocks, error = std::sqrt((squares / blocks - mean * mean) / (blocks - 1));
    EXPECT_NEAR(mean, expected, 4 * error);
    EXPECT_LT(error, maxError(0.02));
    EXPECT_GT(integrator.getJumpStatistics().getAcceptanceRate(), 0.1);
    const auto& records = integrator.getJumpRecords();
    for (const JumpRecord& record : records)
        EXPECT_NEAR(record.metricNew, records[0].metricNew, 1e-4);
}

TEST_P(FlowLangevinOn, KineticEnergyIsThatOfTheTemperature) {
    for (const bool constrained : {false, true}) {
        const auto system = makeTrimer(constrained);
        FlowLangevinIntegrator integrator(300.0, 5.0, 0.002, makeTrimerFlow(*system));
        integrator.setRandomNumberSeed(3);
        integrator.setJumpRandomNumberSeed(4);
        integrator.setJumpInterval(2);
        const auto context = makeContext(*system, integrator, makeTrimerPositions(1.9));
        context->setVelocitiesToTemperature(300.0, 3);
        integrator.step(1000);
        const int samples = numSamples(20000);
        double sum = 0, squares = 0;
        for (int i = 0; i < samples; i++) {
            integrator.step(10);
            const double energy = context->getState(State::Energy).getKineticEnergy() / (0.00831446261815324 * 300);
            sum += energy;
            squares += energy * energy;
        }
        const double mean = sum / samples, degrees = constrained ? 7 : 9;
        const double error =
            std::sqrt((squares / samples - mean * mean) / samples) * std::sqrt(1 + 2 / (2 * 5.0 * 0.02));
        EXPECT_NEAR(mean, degrees / 2, 4 * error) << (constrained ? "constrained" : "free");
        EXPECT_LT(error, maxError(0.06));
    }
}

TEST_P(FlowLangevinOn, WorksWithinCompoundIntegratorAndABarostat) {
    auto system = makeDoubleWell(0.3);
    system->addForce(new CMMotionRemover());
    CompoundIntegrator compound;
    compound.addIntegrator(makeWellIntegrator().release());
    auto* second = new VerletIntegrator(0.001);
    compound.addIntegrator(second);
    const auto context = makeContext(*system, compound, {Vec3(-2.4, 0, 0)});
    auto& ours = dynamic_cast<FlowLangevinIntegrator&>(compound.getIntegrator(0));
    ours.setJumpInterval(5);
    compound.step(20);
    compound.setCurrentIntegrator(1);
    compound.step(5);
    compound.setCurrentIntegrator(0);
    compound.step(10);
    EXPECT_EQ(ours.getJumpStatistics().jumps, 6);
    EXPECT_EQ(context->getStepCount(), 35);
}

TEST(FlowLangevinIntegrator, FlowThatIsTrainedFurtherIsNotMixedWithOldProposals) {
    const auto system = makeDoubleWell(0.3);
    const auto coupling =
        std::make_shared<AffineCoupling>(3, std::vector<int>{0}, Conditioner::Options{{4}, Activation::SiLU, 1});
    const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(3), coupling, std::vector<int>{0});
    FlowLangevinIntegrator integrator(unitTemperature, 1.0, 0.01, flow);
    integrator.setRecordTrials(true);
    Context context(*system, integrator, getPlatform("Reference"));
    context.setPositions({Vec3(-2.4, 0, 0)});
    integrator.jump();
    {
        const at::NoGradGuard noGrad;
        flow->getParameters().back().second.fill_(1.0); // s and t of x
    }
    integrator.jump();
    // Had the proposal come from the old batch, log q would be that of the untrained flow: |x| < 1 mostly, s = 0.
    const JumpRecord& record = integrator.getJumpRecords().back();
    EXPECT_NEAR(record.logDetNew, 3 * std::tanh(1.0 / 3), 1e-6);
    EXPECT_NEAR(record.logDetOld, record.logDetNew, 1e-6);
}

TEST(FlowLangevinIntegrator, QuantilesAndStatisticsCanBeReset) {
    const auto system = makeDoubleWell(0.3);
    const auto integrator = makeWellIntegrator();
    EXPECT_TRUE(std::isnan(integrator->getLogAlphaQuantiles({0.5})[0]));
    EXPECT_EQ(integrator->getJumpStatistics().trials, 0);
    integrator->setTrialsPerJump(50);
    integrator->setRecordTrials(true);
    Context context(*system, *integrator, getPlatform("Reference"));
    context.setPositions({Vec3(-2.4, 0, 0)});
    integrator->jump();
    std::vector<double> logAlphas;
    for (const auto& record : integrator->getJumpRecords())
        logAlphas.push_back(record.logAlpha);
    std::sort(logAlphas.begin(), logAlphas.end());
    const auto quantiles = integrator->getLogAlphaQuantiles({0, 0.5, 1});
    EXPECT_EQ(quantiles[0], logAlphas.front());
    EXPECT_DOUBLE_EQ(quantiles[1], 0.5 * (logAlphas[24] + logAlphas[25]));
    EXPECT_EQ(quantiles[2], logAlphas.back());
    integrator->resetJumpStatistics();
    integrator->clearJumpRecords();
    EXPECT_EQ(integrator->getJumpStatistics().trials, 0);
    EXPECT_TRUE(integrator->getJumpRecords().empty());
}

TEST(FlowLangevinIntegrator, RefusesBadArguments) {
    const auto flow = makeWellFlow();
    expectMessage([&] { FlowLangevinIntegrator(-1, 1, 0.001, flow); },
                  "FlowLangevinIntegrator::FlowLangevinIntegrator: temperature is -1, but must be positive and finite");
    expectMessage([&] { FlowLangevinIntegrator(300, -1, 0.001, flow); }, "frictionCoeff is -1");
    expectMessage([&] { FlowLangevinIntegrator(300, 1, NAN, flow); }, "stepSize is nan");
    expectMessage([&] { FlowLangevinIntegrator(300, 1, 0.001, nullptr); }, "flow is null");
    expectMessage(
        [&] { FlowLangevinIntegrator(300, 1, 0.001, std::make_shared<Flow>(flow->getPrior(), flow->getTransform())); },
        "number of the flow's atoms is 0");
    FlowLangevinIntegrator integrator(300, 1, 0.001, flow);
    expectMessage([&] { integrator.setJumpInterval(-1); }, "steps is -1, but must be at least 0");
    expectMessage([&] { integrator.setTrialsPerJump(0); }, "trials is 0, but must be at least 1");
    expectMessage([&] { integrator.setLatentStepSize(0); }, "latentStepSize is 0");
    integrator.setJumpKind(JumpKind::PriorPreserving);
    expectMessage([&] { integrator.setLatentStepSize(1.5); },
                  "latentStepSize is 1.5, but must be at most 1 for PriorPreserving");
    expectMessage([&] { integrator.step(1); }, "not bound to a context");
    expectMessage([&] { integrator.setFlow(nullptr); }, "FlowLangevinIntegrator::setFlow: flow is null");
    expectMessage([&] { (void)integrator.getLogAlphaQuantiles({2}); }, "a probability is 2, but must be in [0, 1]");
}

TEST(FlowLangevinIntegrator, RefusesSystemsThatDoNotFitTheFlow) {
    const auto create = [](const System& system, const std::shared_ptr<Flow>& flow, double temperature = 300) {
        return [&system, flow, temperature] {
            FlowLangevinIntegrator integrator(temperature, 1, 0.001, flow);
            Context context(system, integrator, getPlatform("Reference"));
        };
    };
    const auto trimer = makeTrimer(), freeTrimer = makeTrimer(false);
    expectMessage(create(*trimer, makeBroadFlow({7}, 0, 1)),
                  "a particle of the flow is 7, but must be one of the System's 3");
    expectMessage(create(*trimer, makeBroadFlow({0, 1, 2}, 0, 1)),
                  "the constraint between moved particles 0-1 is free in the flow, but must be held");
    expectMessage(create(*trimer, makeBroadFlow({0}, 0, 1)), "constraint");
    expectMessage(create(*trimer, makeTrimerFlow(*freeTrimer)),
                  "the constraint between moved particles 0-1 is free in the flow");
    expectMessage(create(*freeTrimer, makeTrimerFlow(*trimer)),
                  "the bond that the flow's chart holds, 0-1 is not constrained");
    const auto longer = makeTrimer();
    longer->setConstraintParameters(0, 0, 1, 0.16);
    expectMessage(create(*longer, makeTrimerFlow(*trimer)), "length (nm) of the flow's held bond 0-1 is 0.15");

    System sites;
    for (int i = 0; i < 3; i++)
        sites.addParticle(i == 2 ? 0.0 : 1.0);
    sites.setVirtualSite(2, new TwoParticleAverageSite(0, 1, 0.5, 0.5));
    expectMessage(create(sites, makeBroadFlow({2}, 0, 1)), "no virtual site");
    System massless;
    massless.addParticle(0.0);
    expectMessage(create(massless, makeBroadFlow({0}, 0, 1)), "mass of particle 0 is 0, but must be positive");

    const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(3),
                                             std::make_shared<AffineCoupling>(3, std::vector<int>{0}),
                                             std::vector<int>{0}); // its log-det is not constant
    flow->setTemperature(310);
    const auto well = makeDoubleWell(0.3);
    expectMessage(create(*well, flow, 300), "temperature of the flow (K) is 310, but must be the integrator's, 300");
    flow->setTemperature(0);
    create(*well, flow, 300)();
}

// F9: a flow that is exact at its temperature is exact at every other the integrator has: each trial has log alpha 0.
TEST(FlowLangevinIntegrator, RefusesRigidBodiesThatAreNotConstrained) {
    const auto system = makeWaterInField(1.0, 2);
    FlowLangevinIntegrator integrator(300.0, 1.0, 0.001, makeWaterFlow());
    expectMessage([&] { Context(*system, integrator, Platform::getPlatform("Reference")); },
                  "the bond that the flow's chart holds, 1-2 is not constrained in the System");
}

TEST(FlowLangevinIntegrator, ConstantLogDetFollowsTheTemperature) {
    System system;
    system.addParticle(1.0);
    auto* force = new CustomExternalForce("2*(x - 1)^2 + y^2/2 + z^2/2");
    force->addParticle(0);
    system.addForce(force);
    const auto flow = std::make_shared<Flow>(
        std::make_shared<GaussianPrior>(3),
        std::make_shared<Scaling>(std::vector<double>{1, 0, 0}, std::vector<double>{0.5, 1, 1}), std::vector<int>{0});
    flow->setTemperature(unitTemperature);
    FlowLangevinIntegrator integrator(2 * unitTemperature, 1.0, 0.01, flow);
    integrator.setRecordTrials(true);
    integrator.setTrialsPerJump(5);
    Context context(system, integrator, getPlatform("Reference"));
    context.setPositions({Vec3(0.3, 0, 1)});
    for (const double factor : {2.0, 0.5, 1.0}) {
        integrator.setTemperature(factor * unitTemperature);
        double meanEnergy = 0;
        for (int i = 0; i < 400; i++) {
            EXPECT_EQ(integrator.jump(), 5);
            meanEnergy += integrator.getJumpRecords().back().uNew / 400;
        }
        for (const JumpRecord& record : integrator.getJumpRecords())
            EXPECT_NEAR(record.logAlpha, 0.0, 1e-9);
        EXPECT_NEAR(meanEnergy, 1.5, 4 * std::sqrt(1.5 / 400)); // of the ensemble at that temperature
        integrator.clearJumpRecords();
    }
    EXPECT_EQ(integrator.getFlow(), flow);
}

// Virtual sites follow their parents in a jump, and their energy counts.
TEST(FlowLangevinIntegrator, VirtualSitesFollow) {
    System system;
    for (int i = 0; i < 3; i++)
        system.addParticle(i == 2 ? 0.0 : 1.0);
    system.setVirtualSite(2, new TwoParticleAverageSite(0, 1, 0.25, 0.75));
    auto* force = new CustomExternalForce("x^2 + y^2 + z^2");
    for (int i = 0; i < 3; i++)
        force->addParticle(i);
    system.addForce(force);
    FlowLangevinIntegrator integrator(unitTemperature, 1.0, 0.01, makeBroadFlow({0, 1}, 0.1, 0.8));
    integrator.setRecordTrials(true);
    Context context(system, integrator, getPlatform("Reference"));
    context.setPositions({Vec3(0.5, 0, 0), Vec3(0, 0.5, 0), Vec3()});
    context.computeVirtualSites();
    for (int i = 0; i < 50; i++) {
        integrator.jump();
        const State state = context.getState(State::Positions | State::Energy);
        const auto x = state.getPositions();
        for (int k = 0; k < 3; k++)
            EXPECT_NEAR(x[2][k], 0.25 * x[0][k] + 0.75 * x[1][k], 1e-12);
        const JumpRecord& record = integrator.getJumpRecords().back();
        EXPECT_NEAR(state.getPotentialEnergy(), record.accepted ? record.uNew : record.uOld, 1e-9);
    }
    EXPECT_GT(integrator.getJumpStatistics().accepted, 5);
}

// System A1 as it is, with proposals of a trained flow: F_R - F_L within 0.02 kT of quadrature, by jumps and dynamics.
TEST(SlowFlowLangevinIntegrator, FreeEnergyOfTheDoubleWell) {
    const auto system = makeDoubleWell(1.0);
    // Exact frames by inverse transform sampling of x.
    std::vector<double> grid, cumulative;
    double sum = 0;
    for (int i = 0; i < 20000; i++) {
        grid.push_back(-5 + 10 * (i + 0.5) / 20000);
        const double x = grid.back();
        cumulative.push_back(sum += std::exp(-(x * x * x * x / 4 - 3 * x * x + x)));
    }
    Random random(4);
    at::Tensor frames = random.normal(40000, 3);
    for (int i = 0; i < 40000; i++)
        frames[i][0] =
            grid[std::lower_bound(cumulative.begin(), cumulative.end(), random.uniform() * sum) - cumulative.begin()];
    const auto flow = std::make_shared<Flow>(
        std::make_shared<GaussianPrior>(3),
        std::make_shared<SplineCoupling>(3, std::vector<int>{0}, std::vector<int>{},
                                         SplineCoupling::Options{24, 5.0, {{8}, Activation::SiLU, 1}}),
        std::vector<int>{0});
    Trainer::Options options;
    options.iterations = 1500;
    options.learningRate = 1e-2;
    options.seed = 2;
    Trainer trainer(flow, options);
    const auto loss = std::make_shared<MaximumLikelihoodLoss>(flow, MaximumLikelihoodLoss::Options{512, 0.0, 1});
    loss->addData(frames);
    trainer.addLoss(loss);
    trainer.train(1500);

    FlowLangevinIntegrator integrator(unitTemperature, 2.0, 0.03, flow);
    integrator.setRandomNumberSeed(5);
    integrator.setJumpRandomNumberSeed(6);
    integrator.setJumpInterval(2);
    integrator.setTrialsPerJump(4);
    Context context(*system, integrator, getPlatform("Reference"));
    context.setPositions({Vec3(-2.4, 0, 0)});
    std::vector<int> right;
    for (int i = 0; i < 400000; i++) {
        integrator.step(2);
        right.push_back(context.getState(State::Positions).getPositions()[0][0] > 0.083528);
    }
    const auto [mean, error] = blockMean(right);
    const double difference = std::log((1 - mean) / mean), differenceError = error / (mean * (1 - mean));
    std::printf("F_R - F_L = %.4f +- %.4f kT (exact 4.7776), acceptance %.3f\n", difference, differenceError,
                integrator.getJumpStatistics().getAcceptanceRate());
    EXPECT_LT(differenceError, 0.02);
    EXPECT_NEAR(difference, 4.77755032, 0.04); // two of the errors allowed above
}
