// SPDX-License-Identifier: MIT
// MixturePrior and FlowPrior: several modes in latent space, and mixtures of flows.

#include "JumpTargets.h"
#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/FlowPrior.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/samplers/LatentJump.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr std::int64_t numWalkers = 200000;

/** A normal variable with a middle of its own. */
std::shared_ptr<Prior> makeShifted(std::vector<double> middle, std::vector<double> sigma) {
    const auto prior = std::make_shared<GaussianPrior>(static_cast<int>(middle.size()));
    return std::make_shared<FlowPrior>(Flow(prior, std::make_shared<Scaling>(middle, sigma)));
}

/** A flow that is not linear, around a middle in the first variable. */
std::shared_ptr<Flow> makeStateFlow(double middle, double width, std::uint64_t seed) {
    const auto coupling = std::make_shared<AffineCoupling>(2, std::vector<int>{1},
                                                           Conditioner::Options{{5}, Activation::SiLU, seed}, 0.5);
    randomiseParameters(*coupling, 0.3, seed);
    const auto scaling = std::make_shared<Scaling>(std::vector<double>{middle, 0.1}, std::vector<double>{width, 1.1});
    return std::make_shared<Flow>(
        std::make_shared<GaussianPrior>(2),
        std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{coupling, scaling}));
}

const std::vector<double> stateWeights = {0.7, 0.4, 0.2};

/** One flow for each well of A1, and a wide one that overlaps with both. */
std::vector<std::shared_ptr<Flow>> makeStateFlows() {
    return {makeStateFlow(-2.5, 0.5, 5), makeStateFlow(2.3, 0.6, 6), makeStateFlow(0.0, 2.5, 7)};
}

std::shared_ptr<Flow> makeMixtureFlow() {
    std::vector<std::shared_ptr<Prior>> components;
    for (const auto& flow : makeStateFlows())
        components.push_back(std::make_shared<FlowPrior>(*flow));
    return std::make_shared<Flow>(std::make_shared<MixturePrior>(components, stateWeights),
                                  std::make_shared<Scaling>(std::vector<double>(2, 0.0), std::vector<double>(2, 1.0)));
}

/** A mixture that reports the density of one component, chosen by the sign of the first variable. */
class BlindMixture : public MixturePrior {
public:
    using MixturePrior::MixturePrior;
    Tensor logDensity(const Tensor& z) const override {
        const Tensor joint = logJoint(z);
        return at::where(z.select(1, 0) < 0, joint.select(1, 0), joint.select(1, 1));
    }
};

double deviationAfterJumps(const std::shared_ptr<Flow>& flow, JumpKind kind) {
    const auto target = makeDoubleWell();
    Random random(71);
    LatentJump jump(flow, target, {kind, AcceptanceTest::Metropolis, kind == JumpKind::RandomWalk ? 0.8 : 0.4, 9});
    JumpState state = jump.start(target->sample(numWalkers, random));
    const Tensor before = state.x;
    for (int i = 0; i < 4; i++)
        EXPECT_GT(jump.step(state).numAccepted, numWalkers / 20);
    if (kind != JumpKind::RandomWalk) { // jumps do cross the barrier
        const auto crossed = ((before.select(1, 0) < 0) & (state.x.select(1, 0) > 0)).sum().item<std::int64_t>();
        EXPECT_GT(crossed, numWalkers / 1000);
    }
    return largestDeviation(*target, state.x);
}

std::vector<double> toVector(const Tensor& tensor) {
    const Tensor values = tensor.contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

} // namespace

// Two normal densities in the plane, written out.
TEST(MixturePrior, IsTheSumOfItsComponents) {
    const MixturePrior prior({makeShifted({-2, 1}, {0.5, 2}), makeShifted({3, 0.3}, {1.5, 0.7})}, {3, 1});
    const Tensor z = 2 * Random(4).normal(20, 2);
    const auto density = [&](double m0, double m1, double s0, double s1) {
        const Tensor square = ((z.select(1, 0) - m0) / s0).square() + ((z.select(1, 1) - m1) / s1).square();
        return (-0.5 * square).exp() / (2 * M_PI * s0 * s1);
    };
    const Tensor expected = (0.75 * density(-2, 1, 0.5, 2) + 0.25 * density(3, 0.3, 1.5, 0.7)).log();
    EXPECT_TRUE(at::allclose(prior.logDensity(z), expected, 0, 1e-12));
    // Where every component is 0 to double precision, the log density still is not.
    EXPECT_NEAR(prior.logDensity(at::full({1, 2}, 100.0, at::kDouble)).item<double>(),
                std::log(0.25 / (2 * M_PI * 1.5 * 0.7)) - 0.5 * (std::pow(97 / 1.5, 2) + std::pow(99.7 / 0.7, 2)),
                1e-9);
}

TEST(MixturePrior, DrawsComponentsByTheirWeights) {
    const MixturePrior prior({makeShifted({-40, 0}, {1, 1}), makeShifted({0, 5}, {1, 2}), makeShifted({40, 1}, {3, 1})},
                             {1, 5, 2});
    Random random(3);
    constexpr int n = 100000;
    const Tensor z = prior.sample(n, random), x = z.select(1, 0);
    const auto share = [&](const Tensor& chosen, double expected) {
        EXPECT_NEAR(chosen.to(at::kDouble).mean().item<double>(), expected,
                    4 * std::sqrt(expected * (1 - expected) / n));
    };
    share(x < -20, 1.0 / 8);
    share(x.abs() < 20, 5.0 / 8);
    share(x > 20, 2.0 / 8);
    const Tensor middle = z.index({x.abs() < 20}).select(1, 1);
    EXPECT_NEAR(middle.mean().item<double>(), 5.0, 4 * 2 / std::sqrt(5.0 / 8 * n));
    EXPECT_NEAR(middle.std().item<double>(), 2.0, 4 * 2 / std::sqrt(2 * 5.0 / 8 * n));
}

// Small moves stay near, and some of them are independent draws: step s of them.
TEST(MixturePrior, PerturbIsLocalOrAnew) {
    const MixturePrior prior({makeShifted({-40}, {1}), makeShifted({40}, {1})}, {1, 3});
    Random random(3);
    constexpr int n = 100000;
    const Tensor z = prior.sample(n, random), moved = prior.perturb(z, 0.1, random);
    const double expected = 0.1 * 2 * 0.25 * 0.75;
    EXPECT_NEAR(((z < 0) != (moved < 0)).to(at::kDouble).mean().item<double>(), expected,
                4 * std::sqrt(expected * (1 - expected) / n));
}

TEST(MixturePrior, RefusesComponentsThatDoNotMatch) {
    const auto two = std::make_shared<GaussianPrior>(2);
    expectMessage([] { MixturePrior({}, {}); }, "number of components is 0");
    expectMessage(
        [&] {
            MixturePrior({two, std::make_shared<GaussianPrior>(1)}, {1, 1});
        },
        "size of a component is 1, but must be that of the first, 2");
    expectMessage(
        [&] {
            MixturePrior({two, std::make_shared<UniformTorusPrior>(2)}, {1, 1});
        },
        "circular variables of a component is others");
    expectMessage([&] { MixturePrior({two}, {1, 1}); }, "number of weights is 2");
    expectMessage([&] { MixturePrior({two, two}, {1, 0}); }, "a weight is 0, but must be positive and finite");
    EXPECT_EQ(MixturePrior({two}, {1}).scaleVariance(2), nullptr);
}

TEST(FlowPrior, IsTheDensityOfItsFlowAndDoesNotChangeWithIt) {
    const auto flow = makeStateFlow(1.0, 0.5, 3);
    const FlowPrior prior(*flow);
    Random one(8), other(8);
    const FlowSample sample = flow->sample(10, one);
    const Tensor x = sample.x.detach();
    EXPECT_TRUE(at::equal(prior.sample(10, other), x));
    EXPECT_TRUE(at::allclose(prior.logDensity(x), sample.logQ, 0, 1e-10));
    const Tensor before = prior.logDensity(x);
    EXPECT_FALSE(before.requires_grad());
    randomiseParameters(*flow->getTransform(), 1.0, 99);
    EXPECT_TRUE(at::equal(prior.logDensity(x), before));
    EXPECT_GT((flow->logQ(x) - before).abs().max().item<double>(), 0.01);
    // The gradient by z, which losses need.
    const Tensor z = x.clone().set_requires_grad(true), direction = Random(2).normal(10, 2);
    const Tensor gradient = torch::autograd::grad({prior.logDensity(z).sum()}, {z})[0];
    const double h = 1e-6,
                 difference = (prior.logDensity(x + h * direction).sum() - prior.logDensity(x - h * direction).sum())
                                  .item<double>() /
                              (2 * h);
    EXPECT_NEAR((gradient * direction).sum().item<double>(), difference, 1e-6 * (1 + std::abs(difference)));
    EXPECT_TRUE(at::allclose(prior.logDensityWithGradient(x).gradient, gradient, 1e-10, 1e-12));
    EXPECT_TRUE(at::allclose(prior.logDensityWithGradient(x).logDensity, prior.logDensity(x), 0, 1e-12));
}

TEST(FlowPrior, RefusesAFlowThatIsNotSquareAndColumnsThatAreNone) {
    const Flow flow(std::make_shared<GaussianPrior>(2), std::make_shared<LearnedScaling>(2));
    expectMessage([&] { FlowPrior(flow, {2}); }, "a circular column is 2");
    expectMessage([&] { FlowPrior(flow, {1, 1}); }, "a circular column is 1");
    EXPECT_EQ(FlowPrior(flow, {1, 0}).getCircularIndices(), (std::vector<int>{0, 1}));
}

// A mixture of flows, saved as such, with the weights of its networks.
TEST(MixtureOfFlows, IsSavedWithItsTensors) {
    const auto flow = makeMixtureFlow();
    const auto copy = Flow::deserialize(flow->serialize());
    const Tensor x = 2 * Random(5).normal(20, 2);
    EXPECT_TRUE(at::equal(copy->logQ(x), flow->logQ(x)));
    Random one(8), other(8);
    EXPECT_TRUE(at::equal(copy->sample(50, one).x, flow->sample(50, other).x));
    Tensor expected = at::zeros({20}, at::kDouble);
    for (std::size_t k = 0; k < stateWeights.size(); k++)
        expected = expected + stateWeights[k] / 1.3 * makeStateFlows()[k]->logQ(x).exp();
    EXPECT_TRUE(at::allclose(flow->logQ(x), expected.log(), 0, 1e-9));
    EXPECT_TRUE(flow->getParameters().empty());
}

TEST(MixtureOfFlows, LeavesTheDoubleWellInvariant) {
    for (JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving, JumpKind::RandomWalk})
        EXPECT_LT(deviationAfterJumps(makeMixtureFlow(), kind), 4) << static_cast<int>(kind);
}

// The usual mistake: the density of the component that proposed, without the others.
TEST(MixtureOfFlows, InvarianceCatchesADensityOfOneComponent) {
    std::vector<std::shared_ptr<Prior>> components;
    for (const auto& flow : makeStateFlows())
        components.push_back(std::make_shared<FlowPrior>(*flow));
    const auto flow = std::make_shared<Flow>(std::make_shared<BlindMixture>(components, stateWeights),
                                             makeMixtureFlow()->getTransform());
    EXPECT_GT(deviationAfterJumps(flow, JumpKind::Independence), 8);
    EXPECT_GT(deviationAfterJumps(flow, JumpKind::PriorPreserving), 8);
}

TEST(MixtureOfFlows, GivesTheFreeEnergy) {
    const auto flow = makeMixtureFlow();
    const auto target = makeDoubleWell();
    Random random(31);
    const FlowSample forward = flow->sample(50000, random);
    const Tensor reverse = target->sample(50000, random);
    const BarResult result = bar(toVector(target->evaluate(forward.x, Gradient::Omit).u + forward.logQ),
                                 toVector(-target->evaluate(reverse, Gradient::Omit).u - flow->logQ(reverse)));
    EXPECT_NEAR(result.deltaF, -target->logNorm(), 4 * result.standardError);
    EXPECT_LT(result.standardError, 0.02);
}
