// SPDX-License-Identifier: MIT
// The state of a trial on every Platform, in a box where molecules are wrapped and OpenMM changes the order of its
// arrays.

#include "api/ApiSystems.h"
#include "contracts/ExpectMessage.h"
#include "contracts/TestDevice.h"
#include "openmmflow/FlowForce.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/internal/MovedAtomsKernel.h"
#include "openmmflow/internal/PlatformKernels.h"
#include <ATen/ATen.h>
#include <sstream>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

constexpr int everything = State::Positions | State::Velocities | State::Forces | State::Energy | State::Parameters;
constexpr double boxWidth = 1.6, roomTemperature = 300, kT = 0.00831446261815324 * roomTemperature;
const std::vector<int> moved = {2, 0, 3}; // in the order of the flow, not that of the System

/**
 * A chain of four atoms across the side x = 0 of a periodic box of rigid water, and another like it; lambda makes their
 * bonds stiffer. Devices hold Lennard-Jones parameters and exceptions as float in every precision: here these are
 * numbers that a float has exactly, so that energies in double are those of Reference.
 */
std::unique_ptr<System> makeBox(std::vector<Vec3>& positions) {
    auto system = std::make_unique<System>();
    system->setDefaultPeriodicBoxVectors(Vec3(boxWidth, 0, 0), Vec3(0, boxWidth, 0), Vec3(0, 0, boxWidth));
    auto* nonbonded = new NonbondedForce();
    nonbonded->setNonbondedMethod(NonbondedForce::CutoffPeriodic);
    nonbonded->setCutoffDistance(0.7);
    auto* bonds = new CustomBondForce("500*(1 + lambda)*(r - 0.14)^2");
    bonds->addGlobalParameter("lambda", 1.0);
    const auto add = [&](const Vec3& at, double mass, double charge, double sigma) {
        positions.push_back(at);
        nonbonded->addParticle(charge, sigma, sigma > 0.1 ? 0.5625 : 0.0);
        return system->addParticle(mass);
    };
    const std::vector<Vec3> chain = {{-0.22, 0.8, 0.8}, {-0.1, 0.87, 0.8}, {0.02, 0.8, 0.83}, {0.14, 0.85, 0.78}};
    std::vector<std::pair<int, int>> bonded;
    for (int i = 0; i < 8; i++) {
        add(chain[i % 4] + Vec3(0.7 - boxWidth, 0.3, 0.5) * (i / 4), 12.0, i % 2 == 0 ? 0.3 : -0.3, 0.3125);
        if (i % 4 > 0) {
            bonds->addBond(i - 1, i);
            bonded.emplace_back(i - 1, i);
        }
    }
    const std::vector<Vec3> chains = positions;
    for (int site = 0; site < 64; site++) {
        // Two cells away, some of them: unwrapped positions are the user's.
        const Vec3 at(0.05 + 0.4 * (site % 4), 0.05 + 0.4 * (site / 4 % 4), 0.05 + 0.4 * (site / 16));
        bool free = true;
        for (const Vec3& atom : chains) {
            Vec3 d = at - atom;
            for (int k = 0; k < 3; k++)
                d[k] -= boxWidth * std::round(d[k] / boxWidth);
            free = free && std::sqrt(d.dot(d)) > 0.3;
        }
        if (!free)
            continue;
        const Vec3 cell = site % 3 == 0 ? Vec3(2 * boxWidth, -boxWidth, 0) : Vec3();
        const int o = add(at + cell, 16.0, -0.8, 0.3125);
        add(at + cell + Vec3(0.1, 0, 0), 1.0, 0.4, 0.05);
        add(at + cell + Vec3(0, 0.1, 0), 1.0, 0.4, 0.05);
        for (int k = 0; k < 3; k++) {
            const int i = k == 2 ? o + 1 : o, j = k == 0 ? o + 1 : o + 2;
            system->addConstraint(i, j, k == 2 ? 0.1 * std::sqrt(2.0) : 0.1);
            bonded.emplace_back(i, j);
        }
    }
    nonbonded->createExceptionsFromBonds(bonded, 0.0, 0.5);
    system->addForce(bonds);
    system->addForce(nonbonded);
    return system;
}

/** A FlowLangevinIntegrator that lets a test at its Context. */
struct Probe : FlowLangevinIntegrator {
    explicit Probe(const std::shared_ptr<Flow>& flow) : FlowLangevinIntegrator(roomTemperature, 5.0, 0.001, flow) {
        setRandomNumberSeed(31);
        setJumpRandomNumberSeed(32);
        setJumpInterval(0);
        setRecordTrials(true);
    }
    ContextImpl& impl() { return *context; }
};

/** The box on one Platform, run until OpenMM has changed its order. */
struct BoxRun {
    std::vector<Vec3> positions;
    std::unique_ptr<System> system = makeBox(positions);
    Probe integrator;
    std::unique_ptr<Context> context;

    explicit BoxRun(const std::shared_ptr<Flow>& flow = makeBroadFlow(moved, 0.8, 0.3)) : integrator(flow) {}
    void start(const std::string& platform, int steps) {
        context = std::make_unique<Context>(*system, integrator, getPlatform(platform), getProperties(platform));
        context->setPositions(positions);
        context->setVelocitiesToTemperature(roomTemperature, 7);
        integrator.step(steps);
    }
    /** The chains in each other's place, until OpenMM has them in another order. */
    void exchangeChains() {
        std::vector<Vec3> exchanged = where();
        std::swap_ranges(exchanged.begin(), exchanged.begin() + 4, exchanged.begin() + 4);
        context->setPositions(exchanged);
        integrator.step(300);
    }
    [[nodiscard]] double energy() const { return context->getState(State::Energy).getPotentialEnergy(); }
    [[nodiscard]] std::vector<Vec3> where() const { return context->getState(State::Positions).getPositions(); }
    /** What a checkpoint has of the state, up to the box; random numbers come after it. */
    [[nodiscard]] std::string bytes() const {
        std::stringstream stream;
        context->createCheckpoint(stream);
        const Vec3 box[3] = {{boxWidth, 0, 0}, {0, boxWidth, 0}, {0, 0, boxWidth}};
        const std::string all = stream.str();
        const std::size_t found = all.rfind(std::string(reinterpret_cast<const char*>(box), sizeof(box)));
        EXPECT_NE(found, std::string::npos);
        return all.substr(0, found);
    }
};

at::Tensor makeRow(const std::vector<Vec3>& all) {
    at::Tensor row = at::empty({1, 3 * static_cast<std::int64_t>(moved.size())}, at::kDouble);
    for (int i = 0; i < row.size(1); i++)
        row[0][i] = all[moved[i / 3]][i % 3];
    return row;
}

bool isMoved(std::size_t atom) {
    return std::find(moved.begin(), moved.end(), static_cast<int>(atom)) != moved.end();
}

double largestDifference(const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>();
}

/** A Context for all bodies that run on a Platform, each of which begins where the last has ended. */
struct TrialStateOn : PlatformTest {
    static inline std::unique_ptr<BoxRun> shared;
    static inline std::string sharedPlatform;

    static void TearDownTestSuite() { shared.reset(); }
    static BoxRun& getRun() {
        if (sharedPlatform != GetParam()) {
            sharedPlatform = GetParam();
            shared = std::make_unique<BoxRun>();
            shared->start(GetParam(), 300);
        }
        return *shared;
    }
    static void expectSameForces(const State& a, const State& b) {
        // The order of sums, on all but Reference, depends on when a neighbour list was made.
        const double precision = isReference() ? 0 : isOnDevice() && isDouble() ? 1e-12 : 1e-6;
        EXPECT_NEAR(a.getPotentialEnergy(), b.getPotentialEnergy(), precision * std::abs(b.getPotentialEnergy()));
        double largest = 0, difference = 0;
        for (std::size_t i = 0; i < b.getForces().size(); i++)
            for (int k = 0; k < 3; k++) {
                largest = std::max(largest, std::abs(b.getForces()[i][k]));
                difference = std::max(difference, std::abs(a.getForces()[i][k] - b.getForces()[i][k]));
            }
        EXPECT_LE(difference, 10 * precision * largest);
    }
};

} // namespace

INSTANTIATE_TEST_SUITE_P(Platforms, TrialStateOn,
                         testing::Values("Reference", "CPU", "OpenCL_single", "OpenCL_mixed", "OpenCL_double",
                                         "CUDA_single", "CUDA_mixed", "CUDA_double"),
                         [](const auto& info) { return info.param; });

TEST_P(TrialStateOn, SaysWhereItIs) {
    EXPECT_EQ(Probe(makeWellFlow()).getJumpPlatform(), "");
    BoxRun& run = getRun();
    const std::string name = GetParam().substr(0, GetParam().find('_'));
    EXPECT_EQ(run.integrator.getJumpPlatform(),
              name + (isOnDevice() ? ": on the device" : ": on the host, as everything there"));
}

TEST_P(TrialStateOn, GathersPositionsAndForcesOfTheUser) {
    BoxRun& run = getRun();
    ContextImpl& impl = run.integrator.impl();
    MovedAtoms atoms = makeMovedAtoms(impl, moved);
    auto& kernel = atoms.kernel.getAs<MovedAtomsKernel>();
    EXPECT_EQ(largestDifference(kernel.gather(impl), makeRow(run.where())), 0);
    run.exchangeChains();
    const State state = run.context->getState(State::Positions | State::Forces);
    EXPECT_EQ(largestDifference(kernel.gather(impl), makeRow(state.getPositions())), 0);
    const double scale = makeRow(state.getForces()).abs().max().item<double>();
    EXPECT_LE(largestDifference(kernel.gatherForces(impl), makeRow(state.getForces())),
              byPrecision(1e-7, 0.0, 0.0) * scale);
    if (isOnDevice()) { // the arrays have the chain elsewhere: it began on both sides of x = 0
        std::vector<Vec3> wrapped;
        impl.getPositions(wrapped, true);
        EXPECT_GT(largestDifference(makeRow(wrapped), makeRow(state.getPositions())), 1.0);
    }
}

TEST_P(TrialStateOn, ScatterMovesItsAtomsAlone) {
    BoxRun& run = getRun();
    ContextImpl& impl = run.integrator.impl();
    MovedAtoms atoms = makeMovedAtoms(impl, moved);
    auto& kernel = atoms.kernel.getAs<MovedAtomsKernel>();
    const at::Tensor before = kernel.gather(impl);
    const std::vector<Vec3> all = run.where();
    const double energy = run.energy();
    Random random(3);
    const at::Tensor row = before + 0.04 * random.normal(1, 9);
    kernel.scatter(impl, row);
    EXPECT_LT(largestDifference(kernel.gather(impl), row), byPrecision(2e-7, 1e-13, 1e-14));
    const std::vector<Vec3> after = run.where();
    for (std::size_t i = 0; i < all.size(); i++)
        if (!isMoved(i)) {
            EXPECT_EQ(all[i], after[i]) << i;
        }
    BoxRun reference;
    reference.start("Reference", 0);
    reference.context->setPositions(after);
    const double precision = byPrecision(1e-5, 1e-5, 1e-6); // the CPU Platform has floats
    EXPECT_NEAR(run.energy(), reference.energy(), precision * std::abs(energy));
    EXPECT_GT(std::abs(run.energy() - energy), 0.1);
    kernel.scatter(impl, before); // charges, which devices keep beside positions, are those of before
    EXPECT_NEAR(run.energy(), energy, (isDouble() ? 1e-9 : 1e-6) * std::abs(energy));
}

TEST_P(TrialStateOn, RestoresEveryBit) {
    BoxRun& run = getRun();
    ContextImpl& impl = run.integrator.impl();
    MovedAtoms atoms = makeMovedAtoms(impl, moved);
    auto& kernel = atoms.kernel.getAs<MovedAtomsKernel>();
    const std::string before = run.bytes();
    const State state = run.context->getState(everything);
    kernel.save(impl);
    for (const int steps : {0, 3, 600}) { // 600: the order of the arrays changes
        kernel.scatter(impl, kernel.gather(impl) + 0.01);
        run.integrator.step(steps);
        EXPECT_NE(run.bytes(), before);
        kernel.restore(impl);
        impl.setTime(state.getTime());
        impl.setStepCount(state.getStepCount());
        EXPECT_EQ(run.bytes(), before) << steps;
        const State again = run.context->getState(everything);
        EXPECT_TRUE(areEqual(again.getPositions(), state.getPositions()));
        EXPECT_TRUE(areEqual(again.getVelocities(), state.getVelocities()));
        EXPECT_EQ(largestDifference(kernel.gather(impl), makeRow(state.getPositions())), 0);
        expectSameForces(again, state);
    }
}

// Proposals anywhere in the box, which clash with the water; and some that are no numbers.
TEST_P(TrialStateOn, RejectedJumpsLeaveNoTrace) {
    for (const double width : {0.3, 1e200, 1e308}) {
        BoxRun& run = getRun();
        run.integrator.setFlow(makeBroadFlow(moved, 0.8, width));
        run.integrator.setJumpKind(JumpKind::Independence);
        run.integrator.setTrialsPerJump(3);
        run.integrator.resetJumpStatistics();
        const std::string before = run.bytes();
        const State state = run.context->getState(everything);
        for (int i = 0; i < 3; i++)
            EXPECT_EQ(run.integrator.jump(), 0);
        EXPECT_EQ(run.bytes(), before) << width;
        const State after = run.context->getState(everything);
        expectSameForces(after, state);
        EXPECT_EQ(run.integrator.getJumpStatistics().trials, 9);
        run.integrator.step(5);
        EXPECT_TRUE(std::isfinite(run.energy()));
    }
}

TEST_P(TrialStateOn, RejectedAnnealedJumpsLeaveNoTrace) {
    for (const StageDynamics dynamics : {StageDynamics::Langevin, StageDynamics::Metropolised}) {
        BoxRun& run = getRun();
        run.integrator.setFlow(makeBroadFlow(moved, 0.8, 0.3));
        run.integrator.setJumpKind(JumpKind::Independence);
        run.integrator.setTrialsPerJump(1);
        run.integrator.resetJumpStatistics();
        AnnealedProtocol protocol(150, 0.001); // two stages: longer than OpenMM keeps an order
        protocol.setStageDynamics(dynamics);
        protocol.setMiddleJump(MiddleJump::Decided);
        protocol.addParameter("lambda", {1.0, 0.5, 0.0});
        run.integrator.setAnnealedProtocol(std::make_shared<AnnealedProtocol>(protocol));
        const std::string before = run.bytes();
        const State state = run.context->getState(everything);
        EXPECT_EQ(run.integrator.jump(), 0);
        EXPECT_EQ(run.integrator.getJumpStatistics().stageSteps, 300);
        EXPECT_EQ(run.bytes(), before);
        const State after = run.context->getState(everything);
        expectSameForces(after, state);
        EXPECT_EQ(after.getParameters(), state.getParameters());
        run.integrator.setAnnealedProtocol(nullptr);
    }
}

/** Jumps of a flow on a device of tensors, from the same random numbers for each: every number that decides. */
struct Decisions {
    std::vector<JumpRecord> records;
    at::Tensor end;
    Decisions(const std::string& platform, const std::string& device) {
        BoxRun run(makeBroadFlow(moved, 0.8, 0.3)->to(device));
        run.integrator.setLatentStepSize(0.04);
        run.integrator.setTrialsPerJump(4);
        run.start(platform, 0);
        for (int i = 0; i < 12; i++) {
            run.integrator.setJumpKind(i % 4 == 3 ? JumpKind::Independence : JumpKind::RandomWalk);
            run.integrator.jump();
        }
        records = run.integrator.getJumpRecords();
        end = makeRow(run.where());
    }
};

// And so every decision where Platforms are precise enough, wherever the flow is.
TEST_P(TrialStateOn, DecidesAsReferenceDoes) {
    const Decisions reference("Reference", "cpu");
    const double precision = isOnDevice() ? byPrecision(1e-3, 1e-3, 1e-7) : isReference() ? 0 : 1e-4;
    for (const std::string& device : {std::string("cpu"), getTestDevice()}) {
        SCOPED_TRACE(device);
        const Decisions found(GetParam(), device);
        int accepted = 0;
        for (std::size_t i = 0; i < reference.records.size(); i++) {
            const JumpRecord &a = reference.records[i], &b = found.records[i];
            ASSERT_EQ(a.uniform, b.uniform);
            if (std::abs(a.logAlpha) < 1e3) { // else a clash
                EXPECT_NEAR(a.logAlpha, b.logAlpha, precision * (1 + std::abs(a.logAlpha))) << i;
            }
            ASSERT_EQ(a.accepted, b.accepted) << i;
            accepted += a.accepted;
        }
        EXPECT_GT(accepted, 5);
        EXPECT_LT(accepted, 30);
        EXPECT_LT(largestDifference(reference.end, found.end), byPrecision(1e-6, 1e-7, 1e-9));
    }
}

// The state after an accepted jump is that which was measured, and all others are where they were.
TEST_P(TrialStateOn, AcceptedJumpsMoveTheirAtomsAlone) {
    BoxRun& run = getRun();
    run.integrator.setFlow(makeBroadFlow(moved, 0.8, 0.3));
    run.integrator.setJumpKind(JumpKind::RandomWalk);
    run.integrator.setLatentStepSize(0.01);
    run.integrator.setTrialsPerJump(3);
    int accepted = 0;
    for (int i = 0; i < 8; i++) {
        const std::vector<Vec3> before = run.where();
        run.integrator.clearJumpRecords();
        accepted += run.integrator.jump();
        double u = run.integrator.getJumpRecords()[0].uOld;
        for (const JumpRecord& record : run.integrator.getJumpRecords())
            u = record.accepted ? record.uNew : u;
        EXPECT_NEAR(run.energy() / kT, u, byPrecision(1e-4, 1e-4, 1e-4));
        const std::vector<Vec3> after = run.where();
        for (std::size_t k = 0; k < before.size(); k++)
            if (!isMoved(k)) {
                EXPECT_EQ(before[k], after[k]);
            }
    }
    EXPECT_GT(accepted, 3);
}

// Beside other Forces and after the order has changed: FlowForce's forces go to the right atoms.
TEST_P(TrialStateOn, FlowForceFindsItsAtoms) {
    for (const std::string& device : {std::string("cpu"), getTestDevice()}) {
        SCOPED_TRACE(device);
        BoxRun run;
        auto* force = new FlowForce(makeBroadFlow(moved, 0.8, 0.2)->to(device), roomTemperature);
        force->setForceGroup(2);
        run.system->addForce(force);
        run.start(GetParam(), 1);
        run.exchangeChains();
        BoxRun reference;
        auto* same = new FlowForce(makeBroadFlow(moved, 0.8, 0.2), roomTemperature);
        same->setForceGroup(2);
        reference.system->addForce(same);
        reference.start("Reference", 0);
        reference.context->setPositions(run.where());
        for (const int groups : {1 << 2, (1 << 2) | 1, 1}) {
            const State a = run.context->getState(State::Energy | State::Forces, false, groups);
            const State b = reference.context->getState(State::Energy | State::Forces, false, groups);
            const double precision = groups == 1 << 2 ? byPrecision(1e-6, 1e-7, 1e-9) : 1e-4;
            EXPECT_NEAR(a.getPotentialEnergy(), b.getPotentialEnergy(), precision * std::abs(b.getPotentialEnergy()));
            double largest = 0;
            for (const Vec3& f : b.getForces())
                largest = std::max(largest, std::sqrt(f.dot(f)));
            for (std::size_t i = 0; i < b.getForces().size(); i++)
                for (int k = 0; k < 3; k++)
                    EXPECT_NEAR(a.getForces()[i][k], b.getForces()[i][k], precision * largest) << i;
        }
    }
}
