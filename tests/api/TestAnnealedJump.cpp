// SPDX-License-Identifier: MIT

#include "api/AnnealedToy.h"
#include "api/ApiSystems.h"
#include "contracts/ExpectMessage.h"
#include "openmmflow/energies/systems/ManyWell.h"
#include "openmmflow/flows/RigidBodies.h"
#include <ATen/ATen.h>
#include <numeric>
#include <sstream>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

constexpr double tilt = 0.3;
constexpr int everything = State::Positions | State::Velocities | State::Forces | State::Energy | State::Parameters;

struct AnnealedJumpOn : PlatformTest {};

/** A step so long that plain Langevin dynamics would be wrong by far, where the dynamics promises to be exact. */
double longStep(StageDynamics dynamics) {
    return dynamics == StageDynamics::Metropolised ? 0.7 : dynamics == StageDynamics::LangevinShadowWork ? 0.4 : 0.1;
}

std::shared_ptr<AnnealedProtocol> makeProtocol(StageDynamics dynamics, MiddleJump middle = MiddleJump::Decided,
                                               int stages = 8, int steps = 3) {
    auto protocol = std::make_shared<AnnealedProtocol>(steps, longStep(dynamics));
    protocol->setStageDynamics(dynamics);
    protocol->setMiddleJump(middle);
    protocol->setFriction(0.1);
    std::vector<double> values;
    for (int k = 0; k <= stages; k++)
        values.push_back(1 - static_cast<double>(k) / stages);
    protocol->addParameter("lambda", values);
    return protocol;
}

std::unique_ptr<FlowLangevinIntegrator> makeIntegrator(const std::shared_ptr<AnnealedProtocol>& protocol,
                                                       double step = 0.02) {
    auto integrator = std::make_unique<FlowLangevinIntegrator>(unitTemperature, 2.0, step, makeWellFlow());
    integrator->setRandomNumberSeed(21);
    integrator->setJumpRandomNumberSeed(22);
    integrator->setAnnealedProtocol(protocol);
    integrator->setRecordTrials(true);
    return integrator;
}

void expectSameState(const State& a, const State& b) {
    EXPECT_TRUE(areEqual(a.getPositions(), b.getPositions()));
    EXPECT_TRUE(areEqual(a.getVelocities(), b.getVelocities()));
    EXPECT_TRUE(areEqual(a.getForces(), b.getForces()));
    EXPECT_EQ(a.getPotentialEnergy(), b.getPotentialEnergy());
    EXPECT_EQ(a.getTime(), b.getTime());
    EXPECT_EQ(a.getStepCount(), b.getStepCount());
    EXPECT_EQ(a.getParameters(), b.getParameters());
    Vec3 boxA[3], boxB[3];
    a.getPeriodicBoxVectors(boxA[0], boxA[1], boxA[2]);
    b.getPeriodicBoxVectors(boxB[0], boxB[1], boxB[2]);
    EXPECT_TRUE(std::equal(boxA, boxA + 3, boxB));
}

const std::vector<StageDynamics> allDynamics = {StageDynamics::Langevin, StageDynamics::LangevinShadowWork,
                                                StageDynamics::Metropolised};
const std::vector<MiddleJump> allMiddles = {MiddleJump::Decided, MiddleJump::Always};

AnnealedToy makeToy(StageDynamics dynamics, MiddleJump middle) {
    AnnealedToy toy;
    toy.tilt = tilt;
    toy.dynamics = dynamics;
    toy.middleJump = middle;
    toy.stepSize = longStep(dynamics);
    toy.friction = 0.1;
    return toy;
}

/** ManyWell whose first wells go over, as lambda goes from 1 to 0, to broad harmonic ones. */
std::unique_ptr<System> makeSoftenedWells(int number, int softened) {
    auto system = std::make_unique<System>();
    auto* force = new CustomExternalForce(
        "s*(x^4 - 6*x^2 - x/2) + (1 - s)*(x - 0.3)^2/4 + (y^2 + z^2)/2; s = 1 - soft*(1 - lambda)");
    force->addGlobalParameter("lambda", 1.0);
    force->addPerParticleParameter("soft");
    for (int i = 0; i < number; i++)
        force->addParticle(system->addParticle(1.0), {i < softened ? 1.0 : 0.0});
    system->addForce(force);
    return system;
}

/** Means over the wells that are moved (the first two), and over the others. */
std::vector<std::function<double(const std::vector<Vec3>&)>> makeWellFunctions() {
    const std::vector<std::function<double(const Vec3&)>> ofOne = {
        [](const Vec3& x) { return x[0] > 0 ? 1.0 : 0.0; }, [](const Vec3& x) { return std::abs(x[0]); },
        [](const Vec3& x) { return std::pow(std::abs(x[0]) - 1.73, 2); },
        [](const Vec3& x) { return x[1] * x[1] + x[2] * x[2]; }, [](const Vec3& x) { return x[1] + x[2]; }};
    std::vector<std::function<double(const std::vector<Vec3>&)>> functions;
    for (const bool moved : {true, false})
        for (const auto& f : ofOne)
            functions.emplace_back([moved, f](const std::vector<Vec3>& x) {
                const auto first = moved ? x.begin() : x.begin() + 2, last = moved ? x.begin() + 2 : x.end();
                return std::accumulate(first, last, 0.0, [&](double sum, const Vec3& at) { return sum + f(at); });
            });
    return functions;
}

// Deviation from invariance of the integrator's annealed jumps, and its statistics against the toy's.
void checkInvariance(StageDynamics dynamics, MiddleJump middle, int samples, int stages = 8, int steps = 3) {
    const auto system = makeAnnealedWell(tilt);
    const auto integrator = makeIntegrator(makeProtocol(dynamics, middle, stages, steps));
    integrator->setRecordTrials(false);
    Context context(*system, *integrator, getPlatform("Reference"));
    const double largest = deviation(tilt, samples, 5, [&](Point& x) {
        context.setPositions({Vec3(x[0], x[1], x[2])});
        integrator->jump();
        const Vec3 moved = context.getState(State::Positions).getPositions()[0];
        x = {moved[0], moved[1], moved[2]};
    });
    EXPECT_LT(largest, 4) << static_cast<int>(dynamics) << " " << static_cast<int>(middle);
    AnnealedToy toy = makeToy(dynamics, middle);
    toy.numStages = stages;
    toy.stepsPerStage = steps;
    (void)deviation(tilt, 4000, 6, [&](Point& x) { toy.jump(x); });
    const auto compare = [&](std::int64_t count, std::int64_t of, std::int64_t toyCount, std::int64_t toyOf,
                             double correlation) {
        const double p = static_cast<double>(count) / of, q = static_cast<double>(toyCount) / toyOf;
        const double error = std::sqrt(correlation * q * (1 - q) * (1.0 / of + 1.0 / toyOf)) + 1e-12;
        EXPECT_NEAR(p, q, 4 * error) << static_cast<int>(dynamics) << " " << static_cast<int>(middle);
    };
    const JumpStatistics s = integrator->getJumpStatistics();
    EXPECT_EQ(s.trials, samples);
    EXPECT_GT(s.getAcceptanceRate(), 0.1);
    compare(s.middleAccepted, s.middleTrials, toy.middleAccepted, toy.jumps, 1);
    compare(s.stageAccepted, s.stageSteps, toy.stepsAccepted, toy.steps, 10); // rejections come in a row
    if (dynamics != StageDynamics::Langevin)                                  // the toy's is another splitting
        compare(s.accepted, s.trials, toy.accepted, toy.jumps, 1);
}

} // namespace

INSTANTIATE_TEST_SUITE_P(Platforms, AnnealedJumpOn, testing::ValuesIn(everydayPlatforms),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(SlowPlatforms, AnnealedJumpOn, testing::ValuesIn(otherPrecisions),
                         [](const auto& info) { return info.param; });

TEST(AnnealedJump, KeepsTheTargetWithLongSteps) {
    for (const StageDynamics dynamics : allDynamics)
        for (const MiddleJump middle : allMiddles)
            checkInvariance(dynamics, middle, 5000);
}

TEST(SlowAnnealedJump, KeepsTheTargetWithLongSteps) {
    checkInvariance(StageDynamics::LangevinShadowWork, MiddleJump::Always, 300000, 4, 2);
    checkInvariance(StageDynamics::Metropolised, MiddleJump::Decided, 300000, 4, 2);
}

// A3, 16 wells side by side, of which the flow moves two; stages soften these, dynamics moves all.
TEST(SlowAnnealedJump, KeepsManyWells) {
    const ManyWell wells;
    const int number = wells.getNumPairs(), samples = 300000;
    for (const StageDynamics dynamics : {StageDynamics::LangevinShadowWork, StageDynamics::Metropolised}) {
        const auto protocol = makeProtocol(dynamics, MiddleJump::Decided, 3, 2);
        protocol->setStepSize(dynamics == StageDynamics::Metropolised ? 0.15 : 0.1);
        FlowLangevinIntegrator integrator(unitTemperature, 1, 0.01, makeBroadFlow({0, 1}, 0.2, 1.3));
        integrator.setJumpRandomNumberSeed(22);
        integrator.setAnnealedProtocol(protocol);
        const auto system = makeSoftenedWells(number, 2);
        Context context(*system, integrator, getPlatform("Reference"));
        Random random(5);
        const at::Tensor drawn = wells.sample(samples, random);
        const auto pairs = drawn.accessor<double, 2>();
        int next = 0;
        const auto draw = [&] {
            std::vector<Vec3> x(number);
            for (int i = 0; i < number; i++)
                x[i] = Vec3(pairs[next][2 * i], pairs[next][2 * i + 1], random.normal());
            next++;
            return x;
        };
        const auto move = [&](std::vector<Vec3>& x) {
            context.setPositions(x);
            integrator.jump();
            x = context.getState(State::Positions).getPositions();
        };
        EXPECT_LT(largestDeviation<std::vector<Vec3>>(makeWellFunctions(), samples, draw, move), 4)
            << static_cast<int>(dynamics);
        EXPECT_GT(integrator.getJumpStatistics().getAcceptanceRate(), 0.02);
    }
}

// What that statistic sees, with the same protocol, bound and number of samples, when something is done wrong; and that
// nothing is wrong with the toy.
TEST(AnnealedJump, MistakesAreDetected) {
    const auto measure = [](StageDynamics dynamics, Mistake mistake) {
        AnnealedToy toy = makeToy(dynamics, MiddleJump::Decided);
        toy.mistake = mistake;
        return deviation(tilt, 5000, 5, [&](Point& x) { toy.jump(x); });
    };
    EXPECT_GT(measure(StageDynamics::LangevinShadowWork, Mistake::ShadowWorkIgnored), 4);
    EXPECT_GT(measure(StageDynamics::Metropolised, Mistake::VelocitiesNotReversed), 4);
    for (const StageDynamics dynamics : {StageDynamics::LangevinShadowWork, StageDynamics::Metropolised}) {
        EXPECT_LT(measure(dynamics, Mistake::None), 4);
        for (const Mistake mistake : {Mistake::AsymmetricProtocol, Mistake::EndpointEnergies,
                                      Mistake::KineticEnergyInWork, Mistake::WorkOfWrongSign, Mistake::MiddleInWork})
            EXPECT_GT(measure(dynamics, mistake), 4) << static_cast<int>(dynamics) << static_cast<int>(mistake);
    }
}

// Stages and dynamics in turn: a chain of both, from one start, visits the wells as often as it should.
TEST(AnnealedJump, ChainWithDynamicsSamplesTheTarget) {
    const auto system = makeAnnealedWell(tilt);
    const auto integrator = makeIntegrator(makeProtocol(StageDynamics::Metropolised), 0.03);
    integrator->setJumpInterval(5);
    integrator->setRecordTrials(false);
    Context context(*system, *integrator, getPlatform("Reference"));
    context.setPositions({Vec3(-2.4, 0, 0)});
    context.setVelocitiesToTemperature(unitTemperature, 3);
    const int blocks = 40, perBlock = 250;
    double sum = 0, squares = 0, kinetic = 0;
    for (int b = 0; b < blocks; b++) {
        double block = 0;
        for (int i = 0; i < perBlock; i++) {
            integrator->step(5);
            const State state = context.getState(State::Positions | State::Energy);
            block += state.getPositions()[0][0] > 0.0835 ? 1.0 / perBlock : 0.0;
            kinetic += state.getKineticEnergy() / (blocks * perBlock);
        }
        sum += block;
        squares += block * block;
    }
    const double mean = sum / blocks, error = std::sqrt((squares / blocks - mean * mean) / (blocks - 1));
    EXPECT_NEAR(mean, rightFraction(tilt), 4 * error);
    EXPECT_LT(error, 0.03);
    EXPECT_NEAR(kinetic, 1.5, 0.1);
}

// Everything again from the records: the decision, and the works of a protocol without steps from energies alone.
TEST_P(AnnealedJumpOn, RecordsSufficeToDecideAgain) {
    const auto system = makeAnnealedWell(tilt);
    const int numJumps = isOnDevice() ? 12 : 60;
    for (const StageDynamics dynamics : allDynamics)
        for (const MiddleJump middle : allMiddles)
            for (const AcceptanceTest test : {AcceptanceTest::Metropolis, AcceptanceTest::Barker}) {
                const auto integrator = makeIntegrator(makeProtocol(dynamics, middle));
                integrator->setAcceptanceTest(test);
                const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
                int decided = 0;
                for (int i = 0; i < numJumps; i++) {
                    const auto before = context->getState(State::Positions).getPositions();
                    const int accepted = integrator->jump();
                    const AnnealedRecord& r = integrator->getAnnealedRecords().back();
                    const JumpRecord& m = integrator->getJumpRecords().back();
                    EXPECT_EQ(r.accepted, accepted == 1);
                    EXPECT_EQ(r.accepted, !areEqual(before, context->getState(State::Positions).getPositions()));
                    EXPECT_TRUE(m.inTheMiddle);
                    EXPECT_EQ(m.accepted, r.jumped);
                    EXPECT_EQ(r.middleLogAlpha, middle == MiddleJump::Always ? m.logAlpha : 0.0);
                    EXPECT_EQ(m.accepted, middle == MiddleJump::Always || accept(test, m.logAlpha, m.uniform));
                    EXPECT_TRUE(dynamics == StageDynamics::LangevinShadowWork || r.shadowOut + r.shadowBack == 0);
                    if (!std::isfinite(r.logAlpha)) { // no jump, or steps so long that it came to no end
                        EXPECT_EQ(r.logAlpha, -INFINITY);
                        EXPECT_FALSE(r.accepted);
                        continue;
                    }
                    decided++;
                    EXPECT_EQ(r.stageSteps, 48);
                    EXPECT_NEAR(std::accumulate(r.stageWorks.begin(), r.stageWorks.end(), 0.0), r.workOut + r.workBack,
                                1e-12 * (1 + std::abs(r.workOut) + std::abs(r.workBack)));
                    EXPECT_EQ(r.logAlpha, r.middleLogAlpha - (r.workOut + r.shadowOut + r.workBack + r.shadowBack));
                    EXPECT_EQ(r.accepted, accept(test, r.logAlpha, r.uniform));
                }
                EXPECT_GT(decided, numJumps / 3);
                EXPECT_EQ(integrator->getAnnealedRecords().size(), static_cast<std::size_t>(numJumps));
                integrator->clearJumpRecords();
                EXPECT_TRUE(integrator->getAnnealedRecords().empty());
            }
}

// Switching at once is a bare jump: logAlpha = log w(x') - log w(x) of the simulation's own energy.
TEST_P(AnnealedJumpOn, WithoutStepsItIsABareJump) {
    const auto system = makeAnnealedWell(tilt);
    const auto integrator = makeIntegrator(makeProtocol(StageDynamics::LangevinShadowWork, MiddleJump::Always, 5, 0));
    const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0.2, 0)});
    const int numJumps = 300;
    int accepted = 0;
    for (int i = 0; i < numJumps; i++) {
        const double before = context->getState(State::Energy).getPotentialEnergy();
        accepted += integrator->jump();
        const AnnealedRecord& r = integrator->getAnnealedRecords().back();
        const JumpRecord& m = integrator->getJumpRecords().back();
        const double after = context->getState(State::Energy).getPotentialEnergy();
        if (r.accepted) {
            EXPECT_NEAR(r.logAlpha, (-after - m.logQNew) - (-before - m.logQOld), 1e-4);
        }
        EXPECT_NEAR(r.workOut, m.uOld - before, 1e-4);
    }
    EXPECT_GT(accepted, 3);
    EXPECT_LT(accepted, numJumps - 3);
}

TEST_P(AnnealedJumpOn, RejectedAndFailedJumpsLeaveNoTrace) {
    const auto base = makeAnnealedWell(tilt);
    base->setDefaultPeriodicBoxVectors(Vec3(9, 0, 0), Vec3(0, 8, 0), Vec3(0, 0, 7));
    for (const FaultyForce::Fault fault : {FaultyForce::Fault::Throws, FaultyForce::Fault::NotANumber})
        for (const StageDynamics dynamics : allDynamics) {
            const std::unique_ptr<System> system(XmlSerializer::clone(*base));
            auto* faulty = new FaultyForce(fault, 1e9);
            system->addForce(faulty);
            const auto protocol = makeProtocol(dynamics, MiddleJump::Always, 3, 2);
            protocol->setStepSize(0.1);
            const auto integrator = makeIntegrator(protocol);
            integrator->setJumpInterval(0);
            const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0.3, 0.1)});
            context->setVelocitiesToTemperature(unitTemperature, 7);
            integrator->step(3);
            int evaluations = 0, rejected = 0, unreached = 0;
            for (; unreached < 5; evaluations++) { // the first evaluation fails, then the second, and so on
                const State before = context->getState(everything);
                integrator->resetJumpStatistics();
                faulty->evaluationsLeft = evaluations;
                const int accepted = integrator->jump();
                const bool reached = faulty->evaluationsLeft < 0; // else the jump ended before
                unreached += !reached;
                faulty->evaluationsLeft = -1;
                const State after = context->getState(everything);
                EXPECT_EQ(after.getParameters(), before.getParameters());
                EXPECT_EQ(after.getTime(), before.getTime());
                EXPECT_EQ(after.getStepCount(), before.getStepCount());
                if (accepted == 0)
                    expectSameState(before, after);
                const JumpStatistics s = integrator->getJumpStatistics();
                EXPECT_EQ(s.trials, 1);
                EXPECT_LE(s.failed + s.nonFinite, reached ? 1 : 0) << evaluations;
                if (fault == FaultyForce::Fault::Throws && reached) {
                    EXPECT_EQ(accepted, 0) << evaluations;
                    EXPECT_EQ(s.failed, 1) << evaluations;
                }
                for (int k = 0; k < 3; k++)
                    EXPECT_TRUE(std::isfinite(after.getPositions()[0][k]));
                rejected += 1 - accepted;
            }
            EXPECT_GT(evaluations, 12);
            EXPECT_GT(rejected, 0);
            integrator->step(3); // and goes on
        }
}

TEST_P(AnnealedJumpOn, ContinuesFromACheckpointBitForBit) {
    const auto system = makeAnnealedWell(tilt);
    std::int64_t accepted = 0;
    for (const StageDynamics dynamics : allDynamics) {
        const auto integrator = makeIntegrator(makeProtocol(dynamics));
        integrator->setJumpInterval(3);
        integrator->setTrialsPerJump(5);
        const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
        integrator->step(20);
        std::stringstream checkpoint;
        context->createCheckpoint(checkpoint);
        const int steps = isOnDevice() ? 75 : 150;
        integrator->step(steps);
        const State expected = context->getState(everything);
        const JumpStatistics statistics = integrator->getJumpStatistics();
        const auto other = makeIntegrator(makeProtocol(dynamics)); // as another process would
        other->setJumpInterval(3);
        other->setTrialsPerJump(5);
        const auto restored = makeContext(*system, *other, {Vec3(0, 0, 0)});
        restored->loadCheckpoint(checkpoint);
        other->step(steps);
        expectSameState(expected, restored->getState(everything));
        const JumpStatistics again = other->getJumpStatistics();
        EXPECT_EQ(again.accepted, statistics.accepted);
        EXPECT_EQ(again.middleTrials, statistics.middleTrials);
        EXPECT_EQ(again.middleAccepted, statistics.middleAccepted);
        EXPECT_EQ(again.stageSteps, statistics.stageSteps);
        EXPECT_EQ(again.stageAccepted, statistics.stageAccepted);
        accepted += statistics.accepted;
    }
    EXPECT_GT(accepted, 0);
}

TEST_P(AnnealedJumpOn, AProtocolDoesNotChangePlainDynamics) {
    const auto system = makeAnnealedWell(tilt);
    std::vector<State> ends;
    for (const int which : {-1, 0, 1, 2}) {
        std::unique_ptr<LangevinMiddleIntegrator> integrator;
        if (which < 0) {
            integrator = std::make_unique<LangevinMiddleIntegrator>(unitTemperature, 2.0, 0.02);
            integrator->setRandomNumberSeed(21);
        } else {
            auto ours = makeIntegrator(makeProtocol(allDynamics[which]));
            ours->setJumpInterval(0);
            integrator = std::move(ours);
        }
        const auto context = makeContext(*system, *integrator, {Vec3(-2.4, 0, 0)});
        integrator->step(50);
        ends.push_back(context->getState(everything));
        expectSameState(ends[0], ends.back());
    }
}

// Constraints among the moved atoms, and a virtual site that carries energy: with short steps the total energy changes
// by friction and noise alone, so that next to no shadow work is left and every step is accepted. Positions of 2 nm in
// single precision hold constraints to 2e-7 nm, and so the constrained velocities to 1e-3 nm/ps at this step size: each
// step adds some 1e-3 kT of rounding to the kinetic energy.
TEST_P(AnnealedJumpOn, ConstraintsAndVirtualSitesAreFollowed) {
    const auto system = makeTrimer();
    system->addParticle(0.0);
    system->setVirtualSite(3, new ThreeParticleAverageSite(0, 1, 2, 0.2, 0.3, 0.5));
    auto* field = new CustomExternalForce("lambda*200*((x-1)^2 + 2*(y-2)^2 + z)");
    field->addGlobalParameter("lambda", 1.0);
    field->addParticle(3);
    system->addForce(field);
    auto positions = makeTrimerPositions(1.9);
    positions.emplace_back();
    const int numJumps = isOnDevice() ? 7 : 20;
    const double distance = byPrecision(5e-7, 1e-7, 1e-7), shadow = byPrecision(5e-2, 2e-4, 2e-4);
    for (const StageDynamics dynamics : {StageDynamics::LangevinShadowWork, StageDynamics::Metropolised}) {
        const auto protocol = makeProtocol(dynamics, MiddleJump::Always, 2, 20);
        protocol->setStepSize(0.0002);
        FlowLangevinIntegrator integrator(300.0, 5.0, 0.002, makeTrimerFlow(*makeTrimer()));
        integrator.setConstraintTolerance(1e-9);
        integrator.setRecordTrials(true);
        integrator.setRandomNumberSeed(1);
        integrator.setJumpRandomNumberSeed(2);
        integrator.setAnnealedProtocol(protocol);
        const auto context = makeContext(*system, integrator, positions);
        context->computeVirtualSites();
        for (int i = 0; i < numJumps; i++) {
            integrator.jump();
            const auto x = context->getState(State::Positions).getPositions();
            const Vec3 a = x[1] - x[0], b = x[2] - x[0], site = x[0] * 0.2 + x[1] * 0.3 + x[2] * 0.5 - x[3];
            EXPECT_NEAR(std::sqrt(a.dot(a)), 0.15, distance);
            EXPECT_NEAR(std::sqrt(b.dot(b)), 0.15, distance);
            EXPECT_NEAR(std::sqrt(site.dot(site)), 0, 1e-5);
            const AnnealedRecord& r = integrator.getAnnealedRecords().back();
            EXPECT_NEAR(r.shadowOut, 0, shadow);
            EXPECT_NEAR(r.shadowBack, 0, shadow);
        }
        const JumpStatistics s = integrator.getJumpStatistics();
        EXPECT_GT(s.accepted, numJumps / 7);
        EXPECT_EQ(s.failed, 0);
        EXPECT_GE(s.stageAccepted, s.stageSteps - 2);
    }
}

namespace {

/** The constrained trimer with a barrier that the stages take away. */
std::unique_ptr<System> makeHinderedTrimer() {
    auto system = makeTrimer();
    auto* angle = new CustomAngleForce("lambda*12*sin(theta)^4");
    angle->addGlobalParameter("lambda", 1.0);
    angle->addAngle(1, 0, 2);
    system->addForce(angle);
    return system;
}

// Annealed jumps alone: the mean of the metric's logarithm, from its value by quadrature and from that of the law
// without the metric factor, in standard errors.
std::pair<double, double> measureMetric(StageDynamics dynamics, MiddleJump middle, int perBlock) {
    const auto logMetric = [](double t) { return 0.5 * std::log(1 - std::cos(t) * std::cos(t) / 4); };
    const auto expect = [&](bool metric) {
        double sum = 0, all = 0;
        for (int i = 0; i < 10000; i++) {
            const double t = M_PI * (i + 0.5) / 10000;
            const double weight =
                std::exp(-12 * std::pow(std::sin(t), 4) / (0.00831446261815324 * 300) + (metric ? logMetric(t) : 0)) *
                std::sin(t);
            sum += weight * logMetric(t);
            all += weight;
        }
        return sum / all;
    };
    const auto system = makeHinderedTrimer();
    const auto protocol = makeProtocol(dynamics, middle, 2, 2);
    protocol->setStepSize(0.03);
    protocol->setFriction(5);
    FlowLangevinIntegrator integrator(300.0, 5.0, 0.002, makeTrimerFlow(*system));
    integrator.setConstraintTolerance(1e-8);
    integrator.setJumpRandomNumberSeed(4);
    integrator.setRandomNumberSeed(5);
    integrator.setTrialsPerJump(3);
    integrator.setAnnealedProtocol(protocol);
    Context context(*system, integrator, getPlatform("Reference"));
    context.setPositions(makeTrimerPositions(1.9));
    const int blocks = 40;
    double sum = 0, squares = 0;
    for (int b = 0; b < blocks; b++) {
        double block = 0;
        for (int i = 0; i < perBlock; i++) {
            integrator.jump();
            const auto x = context.getState(State::Positions).getPositions();
            const Vec3 u = x[1] - x[0], v = x[2] - x[0];
            block += logMetric(std::acos(u.dot(v) / std::sqrt(u.dot(u) * v.dot(v)))) / perBlock;
        }
        sum += block;
        squares += block * block;
    }
    const JumpStatistics s = integrator.getJumpStatistics();
    EXPECT_GT(s.getAcceptanceRate(), 0.3);
    EXPECT_EQ(s.stageAccepted < s.stageSteps, dynamics == StageDynamics::Metropolised);
    const double mean = sum / blocks, error = std::sqrt((squares / blocks - mean * mean) / (blocks - 1));
    return {(mean - expect(true)) / error, (mean - expect(false)) / error};
}

} // namespace

TEST(AnnealedJump, ConstrainedTrimerFollowsTheMetric) {
    EXPECT_LT(std::abs(measureMetric(StageDynamics::LangevinShadowWork, MiddleJump::Decided, 250).first), 4);
    EXPECT_LT(std::abs(measureMetric(StageDynamics::Metropolised, MiddleJump::Always, 250).first), 4);
}

TEST(SlowAnnealedJump, ConstrainedTrimerTellsTheMetric) {
    for (const auto& [dynamics, middle] : {std::pair(StageDynamics::LangevinShadowWork, MiddleJump::Decided),
                                           std::pair(StageDynamics::Metropolised, MiddleJump::Always)}) {
        const auto [right, wrong] = measureMetric(dynamics, middle, 4000);
        EXPECT_LT(std::abs(right), 4);
        EXPECT_GT(std::abs(wrong), 4);
    }
}

// Steps far too long for the constraints: whatever comes of it, no state that breaks them is accepted.
TEST(AnnealedJump, NoBrokenConstraintIsAccepted) {
    const auto system = makeHinderedTrimer();
    const auto protocol = makeProtocol(StageDynamics::LangevinShadowWork, MiddleJump::Decided, 2, 2);
    protocol->setStepSize(0.3);
    FlowLangevinIntegrator integrator(300.0, 5.0, 0.002, makeTrimerFlow(*system));
    integrator.setAnnealedProtocol(protocol);
    integrator.setRandomNumberSeed(5);
    integrator.setJumpRandomNumberSeed(4);
    Context context(*system, integrator, getPlatform("Reference"));
    context.setPositions(makeTrimerPositions(1.9));
    for (int i = 0; i < 300; i++) {
        integrator.jump();
        const auto x = context.getState(State::Positions).getPositions();
        for (const int k : {1, 2}) {
            const Vec3 d = x[k] - x[0];
            ASSERT_NEAR(std::sqrt(d.dot(d)), 0.15, 2e-4);
        }
    }
    EXPECT_GT(integrator.getJumpStatistics().nonFinite, 0);
}

// The integration force groups alone make energies, works and decisions: with a steep Force outside them, short steps
// leave no shadow work, and records agree with the energy of the groups.
TEST(AnnealedJump, OnlyIntegrationForceGroupsCount) {
    const int groups = (1 << 0) | (1 << 3);
    for (const StageDynamics dynamics : allDynamics) {
        const auto system = makeAnnealedWell(tilt);
        auto* second = new CustomExternalForce("lambda*30*x"); // part of the target
        second->addGlobalParameter("lambda", 1.0);
        second->addParticle(0);
        second->setForceGroup(3);
        system->addForce(second);
        auto* outside = new CustomExternalForce("lambda*100*x + 7*y"); // not
        outside->addGlobalParameter("lambda", 1.0);
        outside->addParticle(0);
        outside->setForceGroup(5);
        system->addForce(outside);
        const auto protocol = makeProtocol(dynamics, MiddleJump::Always, 2, 5);
        protocol->setStepSize(0.0005);
        const auto integrator = makeIntegrator(protocol);
        integrator->setIntegrationForceGroups(groups);
        Context context(*system, *integrator, getPlatform("Reference"));
        context.setPositions({Vec3(-2.4, 0, 0)});
        for (int i = 0; i < 20; i++) {
            const double before = context.getState(State::Energy, false, groups).getPotentialEnergy();
            context.setParameter("lambda", 0);
            const double last = context.getState(State::Energy, false, groups).getPotentialEnergy();
            context.setParameter("lambda", 1);
            integrator->jump();
            const AnnealedRecord& r = integrator->getAnnealedRecords().back();
            EXPECT_NEAR(r.workOut, last - before, 0.5); // the particle moves a little
            EXPECT_NEAR(r.shadowOut, 0, 1e-4);
            EXPECT_EQ(r.stageAccepted, r.stageSteps);
        }
    }
}

TEST(AnnealedJump, ProtocolsComeAndGoBetweenSteps) {
    const auto system = makeAnnealedWell(tilt);
    const auto integrator = makeIntegrator(nullptr);
    integrator->setJumpInterval(5);
    Context context(*system, *integrator, getPlatform("Reference"));
    context.setPositions({Vec3(-2.4, 0, 0)});
    integrator->step(5);
    EXPECT_EQ(integrator->getAnnealedProtocol(), nullptr);
    EXPECT_EQ(integrator->getJumpStatistics().stageSteps, 0);
    const auto protocol = makeProtocol(StageDynamics::LangevinShadowWork, MiddleJump::Always);
    integrator->setAnnealedProtocol(protocol);
    protocol->setStepsPerStage(1000); // the integrator has a copy
    integrator->step(5);
    EXPECT_EQ(integrator->getJumpStatistics().stageSteps, 48);
    EXPECT_EQ(integrator->getAnnealedProtocol()->getStepsPerStage(), 3);
    integrator->setAnnealedProtocol(nullptr);
    integrator->step(5);
    EXPECT_EQ(integrator->getJumpStatistics().stageSteps, 48);
    EXPECT_EQ(integrator->getJumpStatistics().jumps, 3);
    EXPECT_FALSE(integrator->getJumpRecords().back().inTheMiddle);
}

// What an integrator holds of a platform goes with the Context; what it has counted stays.
TEST(AnnealedJump, OutlivesItsContext) {
    const auto system = makeAnnealedWell(tilt);
    for (const char* platform : {"Reference", "CPU"}) {
        const auto integrator = makeIntegrator(makeProtocol(StageDynamics::Metropolised));
        integrator->setJumpInterval(5);
        auto context = std::make_unique<Context>(*system, *integrator, getPlatform(platform));
        context->setPositions({Vec3(-2.4, 0, 0)});
        integrator->step(10);
        context->reinitialize(true);
        integrator->setAnnealedProtocol(makeProtocol(StageDynamics::LangevinShadowWork));
        integrator->step(10);
        EXPECT_EQ(integrator->getJumpStatistics().jumps, 4);
        context.reset();
        integrator->setAnnealedProtocol(makeProtocol(StageDynamics::Langevin));
        integrator->setFlow(makeBroadFlow({0}, 0.0, 1.0));
        EXPECT_EQ(integrator->getJumpStatistics().jumps, 4);
        expectMessage([&] { integrator->jump(); }, "not bound to a context");
        expectMessage([&] { integrator->step(1); }, "not bound to a context");
    }
}

TEST(AnnealedJump, WorksWithinACompoundIntegrator) {
    const auto system = makeAnnealedWell(tilt);
    CompoundIntegrator compound;
    auto* ours = makeIntegrator(makeProtocol(StageDynamics::Metropolised)).release();
    ours->setJumpInterval(5);
    compound.addIntegrator(ours);
    compound.addIntegrator(new VerletIntegrator(0.001));
    Context context(*system, compound, getPlatform("Reference"));
    context.setPositions({Vec3(-2.4, 0, 0)});
    compound.step(20);
    compound.setCurrentIntegrator(1);
    compound.step(5);
    EXPECT_EQ(ours->getJumpStatistics().jumps, 4);
    EXPECT_EQ(context.getStepCount(), 25);
}

TEST(AnnealedProtocol, RefusesBadArguments) {
    expectMessage([] { AnnealedProtocol(-1, 0.001); }, "AnnealedProtocol::setStepsPerStage: steps is -1, but must be");
    expectMessage([] { AnnealedProtocol(1, 0); }, "AnnealedProtocol::setStepSize: size is 0, but must be positive");
    AnnealedProtocol protocol(1, 0.001);
    EXPECT_EQ(protocol.getNumStages(), 0);
    expectMessage([&] { protocol.setFriction(-1); }, "coefficient is -1, but must be at least 0 and finite");
    expectMessage([&] { protocol.addParameter("", {1, 0}); }, "name is empty");
    expectMessage([&] { protocol.addParameter("a", {1}); }, "number of values is 1, but must be at least 2");
    expectMessage([&] { protocol.addParameter("a", {1, NAN}); }, "a value of a is nan, but must be finite");
    EXPECT_EQ(protocol.addParameter("a", {1, 0.5, 0}), 0);
    EXPECT_EQ(protocol.getNumStages(), 2);
    expectMessage([&] { protocol.addParameter("a", {1, 0.5, 0}); }, "name is a, but must be that of a parameter which");
    expectMessage(
        [&] {
            protocol.addParameter("b", {1, 0});
        },
        "number of values is 2, but must be that of the other parameters, 3");
    expectMessage([&] { (void)protocol.getParameterName(1); }, "index is 1, but must be at least 0 and less than");
    expectMessage([&] { (void)protocol.getParameterValues(-1); }, "index is -1");
}

TEST(AnnealedProtocol, MustFitTheContext) {
    const auto system = makeAnnealedWell(tilt);
    const auto integrator = makeIntegrator(nullptr);
    expectMessage([&] { integrator->setAnnealedProtocol(std::make_shared<AnnealedProtocol>(1, 0.001)); },
                  "FlowLangevinIntegrator::setAnnealedProtocol: number of the protocol's parameters is 0");
    const auto wrong = std::make_shared<AnnealedProtocol>(1, 0.001);
    wrong->addParameter("mu", {1, 0});
    integrator->setAnnealedProtocol(wrong);
    expectMessage([&] { Context context(*system, *integrator, getPlatform("Reference")); },
                  "a parameter of the protocol is mu, but must be one of the Context's");
    const auto other = makeIntegrator(makeProtocol(StageDynamics::Metropolised));
    Context context(*system, *other, getPlatform("Reference"));
    context.setPositions({Vec3(-2.4, 0, 0)});
    expectMessage([&] { other->setAnnealedProtocol(wrong); }, "a parameter of the protocol is mu");
    EXPECT_EQ(other->getAnnealedProtocol()->getParameterName(0), "lambda"); // still
    other->jump();
    context.setParameter("lambda", 0.5);
    expectMessage([&] { other->jump(); }, "the Context's lambda is 0.5, but must be that of the protocol's stage 0, 1");
    EXPECT_EQ(other->getJumpStatistics().jumps, 1);
}
