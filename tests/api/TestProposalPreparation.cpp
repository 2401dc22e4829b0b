// SPDX-License-Identifier: MIT

#include "api/ApiSystems.h"
#include "contracts/TestDevice.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include <ATen/ATen.h>
#include <csignal>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

constexpr auto WhenNeeded = ProposalPreparation::WhenNeeded, Ahead = ProposalPreparation::Ahead,
               AheadWithEnergies = ProposalPreparation::AheadWithEnergies;

/** Three particles on two bonds, at an angle. Parameters: "stiffness" of the bonds, in units of its default. */
std::unique_ptr<System> makeBentTrimer(bool constrained = false) {
    auto system = makeTrimer(constrained);
    auto* bonds = new CustomBondForce("stiffness*20000*(r-0.15)^2");
    bonds->addGlobalParameter("stiffness", 1.0);
    bonds->addBond(0, 1);
    bonds->addBond(0, 2);
    auto* angles = new HarmonicAngleForce();
    angles->addAngle(1, 0, 2, 1.8, 20.0);
    system->addForce(bonds);
    system->addForce(angles);
    return system;
}

/** A trimer's flow with a network in it. */
std::shared_ptr<Flow> makeNetworkFlow(const System& system, std::uint64_t seed = 1) {
    std::vector<Vec3> positions = makeTrimerPositions(1.9);
    positions.resize(system.getNumParticles(), Vec3(3, 3, 3));
    const auto chart = InternalCoordinates::fromSystem(system, {0, 1, 2}, positions);
    const int size = chart->getInputSize();
    std::vector<std::shared_ptr<Transform>> transforms;
    if (size > 1)
        transforms.push_back(std::make_shared<AffineCoupling>(size, std::vector<int>{size - 1},
                                                              Conditioner::Options{{32}, Activation::SiLU, seed}));
    std::vector<double> shift(size, 0.15), scale(size, 0.004);
    shift.back() = 1.7;
    scale.back() = 0.5;
    transforms.push_back(std::make_shared<Scaling>(shift, scale));
    transforms.push_back(chart);
    auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(size), std::make_shared<Sequence>(transforms),
                                       std::vector<int>{0, 1, 2});
    const at::NoGradGuard noGrad;
    for (const auto& [name, tensor] : flow->getParameters()) // couplings begin as the identity
        tensor.add_(0.05);
    return flow;
}

/** A simulation with jumps, and what it has come to. */
struct Simulation {
    std::unique_ptr<System> system;
    std::shared_ptr<Flow> flow;
    std::unique_ptr<FlowLangevinIntegrator> integrator;
    std::unique_ptr<Context> context;

    explicit Simulation(ProposalPreparation preparation, std::unique_ptr<System> newSystem = makeBentTrimer(),
                        const std::string& platform = "Reference", std::shared_ptr<Flow> newFlow = nullptr)
        : system(std::move(newSystem)), flow(newFlow ? std::move(newFlow) : makeNetworkFlow(*system)) {
        integrator = std::make_unique<FlowLangevinIntegrator>(300.0, 2.0, 0.001, flow);
        integrator->setRandomNumberSeed(11);
        integrator->setJumpRandomNumberSeed(12);
        integrator->setJumpInterval(5);
        integrator->setTrialsPerJump(20);
        integrator->setRecordTrials(true);
        integrator->setProposalPreparation(preparation);
        context = std::make_unique<Context>(*system, *integrator, getPlatform(platform), getProperties(platform));
        std::vector<Vec3> positions = makeTrimerPositions(1.9);
        positions.resize(system->getNumParticles(), Vec3(3, 3, 3));
        context->setPositions(positions);
        context->setVelocitiesToTemperature(300.0, 3);
    }
    [[nodiscard]] JumpStatistics statistics() const { return integrator->getJumpStatistics(); }
};

// Equal, or both NaN (log q outside a chart's domain) or infinite (and no energy there), up to a relative tolerance.
bool areSame(double a, double b, double tolerance = 0) {
    return a == b || (std::isnan(a) && std::isnan(b)) || std::abs(a - b) <= tolerance * (1 + std::abs(b));
}

/** What two runs have decided and where they are is the same; energies of trials to a tolerance. */
void expectSame(const Simulation& a, const Simulation& b, double tolerance) {
    const int types = State::Positions | State::Velocities | State::Energy;
    const State one = a.context->getState(types), two = b.context->getState(types);
    EXPECT_TRUE(areEqual(one.getPositions(), two.getPositions()));
    EXPECT_TRUE(areEqual(one.getVelocities(), two.getVelocities()));
    EXPECT_EQ(one.getPotentialEnergy(), two.getPotentialEnergy());
    const auto &first = a.integrator->getJumpRecords(), &second = b.integrator->getJumpRecords();
    ASSERT_EQ(first.size(), second.size());
    for (std::size_t i = 0; i < first.size(); i++) {
        ASSERT_EQ(first[i].accepted, second[i].accepted) << i;
        ASSERT_EQ(first[i].uniform, second[i].uniform) << i;
        ASSERT_TRUE(areSame(first[i].logQNew, second[i].logQNew)) << i;
        ASSERT_EQ(first[i].uOld, second[i].uOld) << i;
        ASSERT_TRUE(areSame(first[i].uNew, second[i].uNew, tolerance))
            << i << ": " << first[i].uNew << " " << second[i].uNew;
    }
    EXPECT_EQ(a.statistics().accepted, b.statistics().accepted);
    EXPECT_EQ(a.statistics().nonFinite, b.statistics().nonFinite);
    EXPECT_EQ(a.statistics().failed, b.statistics().failed);
}

/**
 * Do the same in runs that prepare nothing, proposals, and energies too, one after the other: Reference's random
 * numbers are shared by a process. Returns the last.
 */
template <class Make, class Action>
std::unique_ptr<Simulation> compareSimulations(const Make& make, const Action& action, double tolerance = 1e-12) {
    std::unique_ptr<Simulation> plain = make(WhenNeeded), latest;
    action(*plain);
    EXPECT_EQ(plain->statistics().preparedProposals, 0);
    EXPECT_EQ(plain->statistics().rejectedAhead, 0);
    for (const ProposalPreparation preparation : {Ahead, AheadWithEnergies}) {
        SCOPED_TRACE(static_cast<int>(preparation));
        latest = make(preparation);
        action(*latest);
        expectSame(*plain, *latest, preparation == Ahead ? 0 : tolerance);
        EXPECT_GT(latest->statistics().preparedProposals, 0);
        if (preparation == Ahead) {
            EXPECT_EQ(latest->statistics().rejectedAhead, 0);
        }
    }
    EXPECT_GT(plain->statistics().accepted, 0);
    return latest;
}

std::unique_ptr<Simulation> makeSimulation(ProposalPreparation preparation) {
    return std::make_unique<Simulation>(preparation);
}

} // namespace

struct ProposalPreparationOn : PlatformTest {};
INSTANTIATE_TEST_SUITE_P(Platforms, ProposalPreparationOn, testing::Values("Reference", "CPU"),
                         [](const auto& info) { return info.param; });

TEST_P(ProposalPreparationOn, ChangesNothingButTime) {
    for (const bool constrained : {false, true})
        for (const int trials : {1, 20, 100}) {
            SCOPED_TRACE(trials);
            const auto latest = compareSimulations(
                [&](ProposalPreparation preparation) {
                    auto run = std::make_unique<Simulation>(preparation, makeBentTrimer(constrained), GetParam());
                    run->integrator->setTrialsPerJump(trials);
                    return run;
                },
                [&](Simulation& run) { run.integrator->step(trials == 1 ? 500 : 100); });
            const JumpStatistics statistics = latest->statistics();
            EXPECT_LE(statistics.trials - statistics.preparedProposals,
                      std::max(64, trials)); // all but the first batch
            EXPECT_GT(statistics.rejectedAhead, 0.7 * (statistics.preparedProposals - statistics.accepted));
        }
}

TEST(ProposalPreparation, PreparesWithFlowsOnADevice) {
    compareSimulations(
        [](ProposalPreparation preparation) {
            const auto system = makeBentTrimer();
            return std::make_unique<Simulation>(preparation, makeBentTrimer(), "Reference",
                                                makeNetworkFlow(*system)->to(getTestDevice()));
        },
        [](Simulation& run) { run.integrator->step(60); });
}

TEST(ProposalPreparation, CheckpointsContinueBitForBit) {
    const auto latest = compareSimulations(makeSimulation, [](Simulation& run) {
        run.integrator->step(43);
        std::stringstream checkpoint;
        run.context->createCheckpoint(checkpoint);
        run.integrator->step(60);
        const auto expected = run.context->getState(State::Positions).getPositions();
        run.context->loadCheckpoint(checkpoint);
        run.integrator->step(60);
        EXPECT_TRUE(areEqual(expected, run.context->getState(State::Positions).getPositions()));
    });
    EXPECT_GT(latest->statistics().rejectedAhead, 0);
}

// Everything that a prepared batch depends on, changed between steps while one is ready or on its way.
TEST(ProposalPreparation, FollowsChangesOfTheFlow) {
    compareSimulations(makeSimulation, [](Simulation& run) {
        run.integrator->step(43);
        {
            const at::NoGradGuard noGrad;
            run.flow->getParameters().back().second.add_(0.3); // as training does
        }
        run.integrator->step(43);
        run.integrator->setFlow(makeNetworkFlow(*run.system, 7));
        run.integrator->step(43);
        run.integrator->setTrialsPerJump(9); // batches of another size
        run.integrator->step(43);
    });
}

TEST(ProposalPreparation, FollowsTheTemperatureOfAFlowThatScales) {
    compareSimulations(
        [](ProposalPreparation preparation) {
            const auto flow = makeWellFlow();
            flow->setTemperature(300);
            return std::make_unique<Simulation>(preparation, makeDoubleWell(0.3), "Reference", flow);
        },
        [](Simulation& run) {
            for (const double temperature : {300.0, 360.0, 330.0}) {
                run.integrator->setTemperature(temperature);
                run.integrator->step(43);
            }
        });
}

TEST(ProposalPreparation, EnergiesFollowParametersTemperatureAndForceGroups) {
    const auto change = [](auto&& changeRun, bool usedAfterwards) {
        std::int64_t before = 0;
        const auto latest = compareSimulations(makeSimulation, [&](Simulation& run) {
            run.integrator->step(43);
            changeRun(run);
            run.integrator->step(5); // a jump with what was prepared before
            before = run.statistics().rejectedAhead;
            run.integrator->step(100);
        });
        EXPECT_GT(before, 0);
        if (usedAfterwards)
            EXPECT_GT(latest->statistics().rejectedAhead, before);
        else
            EXPECT_EQ(latest->statistics().rejectedAhead, before);
    };
    change([](Simulation& run) { run.context->setParameter("stiffness", 0.5); }, true);
    change([](Simulation& run) { run.integrator->setTemperature(350.0); }, true);
    change([](Simulation& run) { run.integrator->setIntegrationForceGroups(2); }, false);
    change(
        [](Simulation& run) {
            auto& angles = dynamic_cast<HarmonicAngleForce&>(run.system->getForce(2));
            angles.setAngleParameters(0, 1, 0, 2, 1.6, 30.0);
            angles.updateParametersInContext(*run.context);
        },
        false);
}

// Where another Context's energies are not known to be this one's, none are used.
TEST(ProposalPreparation, EnergiesServeOnlyWhereTheyAreSure) {
    const auto rejectedAhead = [](const auto& addTo, const std::string& platform = "Reference") {
        std::int64_t rejected = 0;
        const auto latest = compareSimulations(
            [&](ProposalPreparation preparation) {
                auto system = makeBentTrimer();
                addTo(*system);
                return std::make_unique<Simulation>(preparation, std::move(system), platform);
            },
            [](Simulation& run) { run.integrator->step(100); });
        EXPECT_GT(latest->statistics().preparedProposals, 0);
        rejected = latest->statistics().rejectedAhead;
        return rejected;
    };
    const auto addBorn = [](const std::string& energy) {
        return [energy](System& system) {
            auto* force = new CustomGBForce();
            for (int i = 0; i < 3; i++)
                force->addParticle({});
            force->addComputedValue("sum", "r", CustomGBForce::ParticlePair);
            force->addEnergyTerm(energy, CustomGBForce::SingleParticle);
            system.addForce(force);
        };
    };
    EXPECT_GT(rejectedAhead([](System&) {}), 0);
    EXPECT_GT(rejectedAhead([](System& system) { system.addForce(new CMMotionRemover()); }), 0);
    EXPECT_GT(rejectedAhead(addBorn("1.5")), 0);
    EXPECT_EQ(rejectedAhead(addBorn("0.1*(x+y)")), 0);
    EXPECT_EQ(rejectedAhead([](System& system) { system.addForce(new FaultyForce(FaultyForce::Fault::Throws, 1e9)); }),
              0);
    EXPECT_EQ(rejectedAhead([](System& system) { system.addParticle(10.0); }), 0);
    EXPECT_EQ(rejectedAhead([](System& system) {
                  auto* field = new CustomExternalForce("0.1*z");
                  field->addParticle(0);
                  system.addForce(field);
              }),
              0);
    EXPECT_EQ(rejectedAhead([](System& system) {
                  auto* bond = new HarmonicBondForce();
                  bond->addBond(1, 2, 0.2, 10);
                  bond->setUsesPeriodicBoundaryConditions(true);
                  system.addForce(bond);
              }),
              0);
}

// A copy in another process has no thread.
TEST(ProposalPreparation, GoesOnInAForkedProcess) {
    Simulation run(AheadWithEnergies);
    run.integrator->step(43);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        alarm(60);
        run.integrator->step(100);
        const auto positions = run.context->getState(State::Positions).getPositions();
        const auto size = positions.size() * sizeof(Vec3);
        const bool written = write(ends[1], positions.data(), size) == static_cast<ssize_t>(size);
        _exit(written ? 0 : 1); // OpenMM can't destroy a Context here
    }
    close(ends[1]);
    run.integrator->step(100);
    std::vector<Vec3> found(3);
    EXPECT_EQ(read(ends[0], found.data(), sizeof(Vec3) * 3), static_cast<ssize_t>(sizeof(Vec3) * 3));
    close(ends[0]);
    int status = 1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(areEqual(found, run.context->getState(State::Positions).getPositions()));
}

TEST(ProposalPreparation, ThreadsEndWithTheirOwnersAndWithTheProgram) {
    for (int i = 0; i < 5; i++) {
        Simulation run(AheadWithEnergies);
        run.integrator->setTrialsPerJump(5000);
        run.integrator->jump(); // leaves 5000 proposals on their way
    }
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_EXIT(
        {
            static Simulation run(AheadWithEnergies);
            run.integrator->setTrialsPerJump(20000);
            run.integrator->jump();
            std::exit(0);
        },
        testing::ExitedWithCode(0), "");
}

// What is thrown while a batch is prepared is thrown where it would be without.
TEST(ProposalPreparation, ErrorsAreThoseOfTheJump) {
    for (const ProposalPreparation preparation : {WhenNeeded, Ahead}) {
        Simulation run(preparation);
        run.integrator->step(43);
        const at::Tensor weights = run.flow->getParameters().back().second;
        const at::Tensor saved = weights.detach().clone();
        weights.set_data(at::zeros({7}));
        EXPECT_THROW(run.integrator->step(5), OpenMMException);
        weights.set_data(saved);
        run.integrator->step(100); // and goes on
        EXPECT_EQ(run.statistics().preparedProposals > 0, preparation == Ahead);
    }
}
