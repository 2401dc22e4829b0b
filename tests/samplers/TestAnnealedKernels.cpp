// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "openmmflow/samplers/LatentKernel.h"
#include "samplers/AnnealedTargets.h"
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr int numWalkers = 150000, numWalkersSlow = 300000;

/** From a spring to A1, so that an intermediate lambda is no end. */
std::shared_ptr<PotentialPath> makePath() {
    return std::make_shared<PotentialPath>(std::make_shared<Spring>(2, 0.5, 0.4), makeA1());
}

/** pi_lambda of makePath(), tabulated: at 0.8, x in a double well, y about a middle. */
constexpr double lambda = 0.8;
std::shared_ptr<ExactTarget> makeStage() {
    const auto u = [](double x) { return 0.2 * 0.25 * (x - 0.4) * (x - 0.4) + lambda * doubleWell(x); };
    return std::make_shared<ExactTarget>(
        GridDensity(-6, 6, u), 0, [](double) { return 0.0; }, 0.17);
}
// y of pi_lambda is normal with precision .1 + .8 about .04/.9.
constexpr double precisionY = 0.2 * 0.5 + lambda, middleY = 0.2 * 0.5 * 0.4 / precisionY;

Tensor standardise(const Tensor& x) {
    return at::stack({x.select(1, 0), (x.select(1, 1) - middleY) * std::sqrt(precisionY)}, 1);
}

struct Outcome {
    double deviation, acceptance;
    PathState state;
};

// Exact samples of the stage, moved; the largest deviation of what comes out, in standard errors.
Outcome moveExactSamples(AnnealedKernel& kernel, int calls = 1, int number = numWalkers) {
    const auto stage = makeStage();
    const auto path = makePath();
    Random random(11);
    Tensor x = stage->sample(number, random);
    x = at::stack({x.select(1, 0), x.select(1, 1) / std::sqrt(precisionY) + middleY}, 1);
    Outcome outcome{0, 0, path->evaluate(x, 0.1)};
    for (int i = 0; i < calls; i++)
        outcome.acceptance += kernel.move(*path, 3, lambda, outcome.state, random) / calls;
    outcome.deviation = largestDeviation(*stage, standardise(outcome.state.x));
    const PathState again = path->evaluate(outcome.state.x, lambda, kernel.getGradient());
    EXPECT_TRUE(at::allclose(outcome.state.logDensity, again.logDensity));
    if (outcome.state.gradient.defined()) {
        EXPECT_TRUE(at::allclose(outcome.state.gradient, again.gradient));
    }
    EXPECT_GT((outcome.state.x != x).all(1).to(at::kDouble).mean().item<double>(), 0.3);
    return outcome;
}

void expectInvariant(AnnealedKernel& kernel, int calls = 1, int number = numWalkers) {
    const Outcome outcome = moveExactSamples(kernel, calls, number);
    EXPECT_LT(outcome.deviation, 4);
    EXPECT_GT(outcome.acceptance, 0.15);
    EXPECT_LT(outcome.acceptance, 0.95);
}

/** What goes wrong in a move. */
enum class Mistake { None, NoFlip, NoAsymmetry, StaleEnergy };

/** GHMC, MALA or a random walk in plain words, with or without a mistake. */
struct PlainKernel : AnnealedKernel {
    PlainKernel(double step, int numMoves, Mistake mistake) : step(step), numMoves(numMoves), mistake(mistake) {}
    double move(AnnealedPath& path, int, double at, PathState& state, Random& random) override {
        state = path.atLambda(state, at, Gradient::Compute);
        Tensor p = random.normal(state.x.size(0), state.x.size(1));
        double acceptance = 0;
        for (int i = 0; i < numMoves; i++) {
            const Tensor e = random.normal(state.x.size(0), state.x.size(1));
            const double r = mistake == Mistake::NoAsymmetry ? 1.0 : 0.2; // 1 is MALA
            p = std::sqrt(1 - r * r) * p + r * e;
            const Tensor half = p + 0.5 * step * state.gradient;
            PathState next = path.evaluate(state.x + step * half, at, Gradient::Compute);
            const Tensor end = half + 0.5 * step * next.gradient;
            Tensor logAlpha = next.logDensity - state.logDensity;
            if (mistake != Mistake::NoAsymmetry)
                logAlpha = logAlpha + 0.5 * (p.square() - end.square()).sum(1);
            const Tensor yes = random.uniform(state.x.size(0), 1).squeeze(1).log() < logAlpha;
            acceptance += yes.to(at::kDouble).mean().item<double>() / numMoves;
            if (mistake == Mistake::StaleEnergy)
                next.logDensity = state.logDensity;
            state = choose(yes, next, state);
            p = at::where(yes.unsqueeze(1), end, mistake == Mistake::NoFlip ? p : -p);
        }
        state = path.evaluate(state.x, at, Gradient::Compute);
        return acceptance;
    }
    [[nodiscard]] Gradient getGradient() const override { return Gradient::Compute; }
    double step;
    int numMoves;
    Mistake mistake;
};

std::shared_ptr<Flow> makeFlow(double logDetFactor = 1) {
    return std::make_shared<Flow>(std::make_shared<GaussianPrior>(2),
                                  std::make_shared<WrongLogDet>(std::make_shared<TwoWellMap>(), logDetFactor));
}

void expectAllInvariant(int number) {
    RandomWalkKernel walk({0.8, 4, 0});
    LangevinKernel langevin({0.65, 4, 0});
    HamiltonianKernel hamiltonian({0.45, 3, 2, 0});
    GeneralizedHamiltonianKernel generalized({0.5, 1, 5, 0.3, 0});
    LatentKernel independent(makeFlow(), {JumpKind::Independence, 0.1, 2, 0});
    LatentKernel preserving(makeFlow(), {JumpKind::PriorPreserving, 0.4, 3, 0});
    LatentKernel latentWalk(makeFlow(), {JumpKind::RandomWalk, 0.4, 3, 0});
    for (AnnealedKernel* kernel :
         std::vector<AnnealedKernel*>{&walk, &langevin, &hamiltonian, &independent, &preserving, &latentWalk})
        expectInvariant(*kernel, 1, number);
    expectInvariant(generalized, 2, number);
}

} // namespace

TEST(AnnealedKernels, LeaveTheirStageInvariant) {
    expectAllInvariant(numWalkers);
}

TEST(SlowAnnealedKernels, LeaveTheirStageInvariant) {
    expectAllInvariant(numWalkersSlow);
}

// Momenta are part of the state: they stay normal and are carried from call to call.
TEST(GeneralizedHamiltonianKernel, KeepsMomentaAndTheirDistribution) {
    GeneralizedHamiltonianKernel kernel({0.5, 1, 5, 0.2, 0});
    const Outcome outcome = moveExactSamples(kernel, 2);
    const Tensor p = outcome.state.momentum;
    EXPECT_NEAR(p.mean().item<double>(), 0, 4 / std::sqrt(2.0 * numWalkers));
    EXPECT_NEAR(p.square().mean().item<double>(), 1, 4 * std::sqrt(2 / (2.0 * numWalkers)));
    // Small steps and little refreshment: where a walker goes next is where it went.
    GeneralizedHamiltonianKernel smooth({0.01, 1, 1, 0.01, 0});
    const auto path = makePath();
    Random random(1);
    PathState state = path->evaluate(random.normal(500, 2), lambda);
    smooth.move(*path, 0, lambda, state, random);
    const Tensor before = state.momentum;
    smooth.move(*path, 0, lambda, state, random);
    EXPECT_GT((before * state.momentum).mean().item<double>(), 0.9);
}

// The same statistic finds every one of these.
TEST(AnnealedKernels, MistakesAreDetected) {
    PlainKernel right(0.5, 8, Mistake::None), noFlip(0.5, 8, Mistake::NoFlip),
        noAsymmetry(0.5, 8, Mistake::NoAsymmetry), stale(0.5, 8, Mistake::StaleEnergy);
    EXPECT_LT(moveExactSamples(right).deviation, 4);
    EXPECT_GT(moveExactSamples(noFlip).deviation, 8);
    EXPECT_GT(moveExactSamples(noAsymmetry).deviation, 8);
    EXPECT_GT(moveExactSamples(stale).deviation, 8);
    LatentKernel noLogDet(makeFlow(0), {JumpKind::RandomWalk, 0.4, 3, 0});
    LatentKernel wrongSign(makeFlow(-1), {JumpKind::PriorPreserving, 0.4, 3, 0});
    EXPECT_GT(moveExactSamples(noLogDet).deviation, 8);
    EXPECT_GT(moveExactSamples(wrongSign).deviation, 8);
}

// In eight dimensions, where all pairs have the same distribution.
TEST(AnnealedKernels, LeaveManyWellsInvariant) {
    constexpr int copies = 4, n = 50000;
    const auto target = makeManyWell(copies);
    const auto pair = makePair();
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(2 * copies, 1.0), target);
    RandomWalkKernel walk({0.25, 5, 0});
    LangevinKernel langevin({0.2, 5, 0});
    HamiltonianKernel hamiltonian({0.2, 4, 2, 0});
    GeneralizedHamiltonianKernel generalized({0.15, 2, 5, 0.4, 0});
    for (AnnealedKernel* kernel : std::vector<AnnealedKernel*>{&walk, &langevin, &hamiltonian, &generalized}) {
        Random random(12);
        const Tensor x = pair->sample(n * copies, random).view({n, 2 * copies});
        PathState state = path->evaluate(x, 1.0);
        const double acceptance = kernel->move(*path, 1, 1.0, state, random);
        EXPECT_GT(acceptance, 0.2);
        EXPECT_LT(acceptance, 0.99);
        EXPECT_LT(largestDeviation(*pair, state.x.reshape({n * copies, 2})), 4);
    }
}

TEST(SlowAnnealedKernels, LeaveThirtyTwoDimensionsInvariant) {
    constexpr int copies = 16, n = numWalkersSlow;
    const auto pair = makePair();
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(32, 1.0), makeManyWell(copies));
    RandomWalkKernel walk({0.15, 5, 0});
    LangevinKernel langevin({0.15, 5, 0});
    HamiltonianKernel hamiltonian({0.13, 5, 1, 0});
    GeneralizedHamiltonianKernel generalized({0.1, 2, 3, 0.4, 0});
    for (AnnealedKernel* kernel : std::vector<AnnealedKernel*>{&walk, &langevin, &hamiltonian, &generalized}) {
        Random random(13);
        PathState state = path->evaluate(pair->sample(n * copies, random).view({n, 32}), 1.0);
        kernel->move(*path, 1, 1.0, state, random);
        EXPECT_LT(largestDeviation(*pair, state.x.reshape({n * copies, 2})), 4);
    }
}

TEST(RandomWalkKernel, ComputesNoGradients) {
    const auto target = makeA1();
    PotentialPath path(std::make_shared<Spring>(2, 1.0), target);
    RandomWalkKernel kernel({0.5, 3, 0});
    Random random(2);
    PathState state = path.evaluate(random.normal(10, 2), 0.0, kernel.getGradient());
    kernel.move(path, 1, 0.5, state, random);
    EXPECT_EQ(path.getNumGradients(), 0);
    EXPECT_EQ(target->numGradients, 0);
    EXPECT_EQ(path.getNumEvaluations(), 2 * 10 * 4);
}

// A proposal without a density is refused, and walkers that have none stay where they are.
TEST(AnnealedKernels, NothingThatIsNotFiniteIsAccepted) {
    PotentialPath path(std::make_shared<Spring>(2, 1.0), std::make_shared<Wall>(NAN));
    RandomWalkKernel walk({1.0, 5, 0});
    LangevinKernel langevin({1.0, 5, 0});
    HamiltonianKernel hamiltonian({0.7, 2, 3, 0});
    GeneralizedHamiltonianKernel generalized({0.7, 2, 3, 0.5, 0});
    LatentKernel latent(makeFlow(), {JumpKind::RandomWalk, 1.0, 5, 0});
    for (AnnealedKernel* kernel : std::vector<AnnealedKernel*>{&walk, &langevin, &hamiltonian, &generalized, &latent}) {
        Random random(3);
        const Tensor x = random.normal(2000, 2);
        PathState state = path.evaluate(x, 1.0);
        kernel->move(path, 1, 1.0, state, random);
        const Tensor left = x.select(1, 0) < 0;
        EXPECT_TRUE(at::equal(state.x.index({left}), x.index({left})));
        EXPECT_TRUE((state.x.select(1, 0).index({left.logical_not()}) > 0).all().item<bool>());
        EXPECT_FALSE(at::equal(state.x, x));
    }
}

TEST(KernelSequence, MovesByEachInTurn) {
    const auto walk = std::make_shared<RandomWalkKernel>(RandomWalkKernel::Options{0.8, 2, 0});
    const auto langevin = std::make_shared<LangevinKernel>(LangevinKernel::Options{0.65, 2, 0});
    using Kernels = std::vector<std::shared_ptr<AnnealedKernel>>;
    KernelSequence sequence(Kernels{langevin, walk});
    EXPECT_EQ(sequence.getGradient(), Gradient::Compute);
    EXPECT_EQ(KernelSequence(Kernels{walk, langevin}).getGradient(), Gradient::Omit);
    const Outcome outcome = moveExactSamples(sequence);
    EXPECT_LT(outcome.deviation, 4);
    ASSERT_EQ(sequence.getAcceptances().size(), 2u);
    EXPECT_NEAR(outcome.acceptance, 0.5 * (sequence.getAcceptances()[0] + sequence.getAcceptances()[1]), 1e-12);
    expectMessage([] { KernelSequence(std::vector<std::shared_ptr<AnnealedKernel>>{}); }, "number of kernels is 0");
    expectMessage([] { KernelSequence(std::vector<std::shared_ptr<AnnealedKernel>>(1)); }, "a kernel is null");
}

TEST(StepSizes, FollowTheAcceptanceStageByStage) {
    StepSizes steps("Some", 1.0, 0.5, 1.2);
    EXPECT_EQ(steps.get(4), 1.0);
    steps.adapt(2, 0.4);
    EXPECT_EQ(steps.getAll(), (std::vector<double>{1.0, 1.0, 1 / 1.1}));
    EXPECT_EQ(steps.get(3), 1 / 1.1); // that of the stage before
    steps.adapt(0, 0.6);
    steps.adapt(0, 0.6);
    EXPECT_EQ(steps.get(0), 1.2); // the largest
    steps.setAdaptive(false);
    steps.adapt(1, 0.6);
    steps.setAdaptive(true);
    steps.suspend(true);
    steps.adapt(1, 0.6);
    EXPECT_EQ(steps.get(1), 1.0);
    steps.suspend(false);
    steps.adapt(1, 0.6);
    EXPECT_EQ(steps.get(1), 1.1);
    expectMessage([&] { (void)steps.get(-1); }, "Some::getStepSize: stage is -1");
    expectMessage([&] { steps.setAll({0.5, 0}); }, "Some::setStepSizes: a step size is 0");
    expectMessage([&] { steps.setAll({1.3}); }, "a step size is 1.3");
}

TEST(AnnealedKernels, RefuseBadArguments) {
    expectMessage([] { RandomWalkKernel({0, 1, 0}); }, "RandomWalkKernel::RandomWalkKernel: stepSize is 0");
    expectMessage([] { RandomWalkKernel({1, 0, 0}); }, "numMoves is 0");
    expectMessage([] { LangevinKernel({1, 1, 1}); }, "LangevinKernel::LangevinKernel: targetAcceptance is 1");
    expectMessage([] { LangevinKernel({1, 0, 0}); }, "numMoves is 0");
    expectMessage([] { HamiltonianKernel({0, 5, 1, 0.5}); }, "HamiltonianKernel::HamiltonianKernel: stepSize is 0");
    expectMessage([] { HamiltonianKernel({0.1, 0, 1, 0.5}); }, "numSteps is 0");
    expectMessage([] { HamiltonianKernel({0.1, 1, 0, 0.5}); }, "numMoves is 0");
    expectMessage([] { GeneralizedHamiltonianKernel({0.1, 1, 1, 0, 0.5}); }, "refreshment is 0");
    expectMessage([] { GeneralizedHamiltonianKernel({0.1, 1, 1, 1.5, 0.5}); }, "refreshment is 1.5");
    expectMessage([] { GeneralizedHamiltonianKernel({0.1, 0, 1, 0.5, 0.5}); }, "numSteps is 0");
    expectMessage([] { GeneralizedHamiltonianKernel({0.1, 1, 0, 0.5, 0.5}); }, "numMoves is 0");
    expectMessage([] { LatentKernel(nullptr, {}); }, "flow is null");
    expectMessage([] { LatentKernel(makeFlow(), {JumpKind::PriorPreserving, 1.5, 1, 0}); }, "stepSize is 1.5");
    expectMessage([] { LatentKernel(makeFlow(), {JumpKind::RandomWalk, 0.0, 1, 0}); }, "stepSize is 0");
    expectMessage([] { LatentKernel(makeFlow(), {JumpKind::RandomWalk, 0.1, 0, 0}); }, "numMoves is 0");
    PotentialPath path(std::make_shared<Spring>(3, 1.0), std::make_shared<Spring>(3, 1.0));
    PathState state = path.evaluate(at::zeros({1, 3}), 0.0);
    Random random(1);
    LatentKernel latent(makeFlow(), {});
    expectMessage([&] { latent.move(path, 0, 0.0, state, random); }, "size of the path is 3");
}
