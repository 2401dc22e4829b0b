// SPDX-License-Identifier: MIT

#include "JumpTargets.h"
#include "contracts/ExpectMessage.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/samplers/LatentJump.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr std::int64_t numWalkers = 200000;
constexpr int numJumps = 4;
constexpr JumpKind allKinds[] = {JumpKind::Independence, JumpKind::PriorPreserving, JumpKind::RandomWalk};
constexpr AcceptanceTest bothTests[] = {AcceptanceTest::Metropolis, AcceptanceTest::Barker};

std::shared_ptr<Flow> makeWellFlow() {
    return std::make_shared<Flow>(std::make_shared<GaussianPrior>(2, 1.1), std::make_shared<TwoWellMap>());
}

std::shared_ptr<Flow> makeTorsionFlow() {
    const std::vector<std::shared_ptr<Prior>> factors = {std::make_shared<GaussianPrior>(1, 0.8),
                                                         std::make_shared<UniformTorusPrior>(1)};
    return std::make_shared<Flow>(std::make_shared<ProductPrior>(factors), std::make_shared<CircleMap>());
}

LatentJump::Options makeOptions(JumpKind kind, AcceptanceTest test, std::uint64_t seed) {
    return {kind, test, kind == JumpKind::RandomWalk ? 0.8 : 0.6, seed};
}

// Walkers that start from exact samples of the target are its samples still after some jumps, or the kernel is wrong.
// The result is the largest deviation from the target in standard errors.
double deviationAfterJumps(const std::shared_ptr<Flow>& flow, const std::shared_ptr<ExactTarget>& target,
                           const LatentJump::Options& options) {
    Random random(options.seed + 1000);
    LatentJump jump(flow, target, options);
    JumpState state = jump.start(target->sample(numWalkers, random));
    double acceptance = 0;
    for (int i = 0; i < numJumps; i++)
        acceptance += static_cast<double>(jump.step(state).numAccepted) / numWalkers / numJumps;
    EXPECT_GT(acceptance, 0.05); // a kernel that stands still would pass any test of invariance
    return largestDeviation(*target, state.x);
}

// A jump written anew, in which two lines can be wrong: what is accepted, and whether the energy is renewed.
struct Wrong {
    bool acceptsNaN = false, keepsOldEnergy = false;
};
double deviationAfterLocalJumps(const Flow& flow, ExactTarget& target, Wrong wrong) {
    Random random(77);
    Tensor x = target.sample(numWalkers, random);
    Tensor u = target.evaluate(x, Gradient::Omit).u, logQ = flow.logQ(x);
    for (int i = 0; i < numJumps; i++) {
        const FlowSample proposal = flow.sample(numWalkers, random);
        const Tensor uNew = target.evaluate(proposal.x, Gradient::Omit).u;
        const Tensor logAlpha = (u + logQ) - (uNew + proposal.logQ);
        const Tensor logUniform = random.uniform(numWalkers, 1).squeeze(1).log();
        const Tensor accepted = wrong.acceptsNaN ? (logUniform > logAlpha).logical_not() : logUniform < logAlpha;
        x = at::where(accepted.unsqueeze(1), proposal.x, x);
        logQ = at::where(accepted, proposal.logQ, logQ);
        u = wrong.keepsOldEnergy ? u : at::where(accepted, uNew, u);
    }
    return largestDeviation(target, x);
}

std::vector<double> toVector(const Tensor& tensor) {
    const Tensor values = tensor.contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

// Works between a flow and a target (FreeEnergy.h): u + log q of the flow's samples, -(u + log q) of the target's.
BarResult barThroughFlow(const Flow& flow, ExactTarget& target, std::int64_t count, std::uint64_t seed) {
    Random random(seed);
    const FlowSample forward = flow.sample(count, random);
    const Tensor reverse = target.sample(count, random);
    return bar(toVector(target.evaluate(forward.x, Gradient::Omit).u + forward.logQ),
               toVector(-target.evaluate(reverse, Gradient::Omit).u - flow.logQ(reverse)));
}

} // namespace

TEST(JumpTargets, ExactTargetsAreThoseOfTheReferences) {
    const auto well = makeDoubleWell();
    EXPECT_NEAR(well->logNorm(), 12.06492900, 1e-7);
    EXPECT_NEAR(well->density.expectation([](double x) { return x; }), -2.44109667, 1e-7);
    EXPECT_NEAR(well->density.cdf(well->boundary), .99165366, 1e-7);
    Random random(3);
    EXPECT_LT(largestDeviation(*well, well->sample(numWalkers, random)), 4);
    EXPECT_LT(largestDeviation(*makeTorsion(), makeTorsion()->sample(numWalkers, random)), 4);
}

TEST(LatentJump, LeavesTheDoubleWellInvariant) {
    for (JumpKind kind : allKinds)
        for (AcceptanceTest test : bothTests)
            EXPECT_LT(deviationAfterJumps(makeWellFlow(), makeDoubleWell(), makeOptions(kind, test, 101)), 4)
                << static_cast<int>(kind) << static_cast<int>(test);
}

TEST(LatentJump, LeavesATorsionInvariant) {
    for (JumpKind kind : allKinds)
        for (AcceptanceTest test : bothTests)
            EXPECT_LT(deviationAfterJumps(makeTorsionFlow(), makeTorsion(), makeOptions(kind, test, 102)), 4)
                << static_cast<int>(kind) << static_cast<int>(test);
}

TEST(LatentJump, LeavesAStateBehindAWallInvariant) {
    for (double outside : {static_cast<double>(INFINITY), static_cast<double>(NAN)})
        for (JumpKind kind : allKinds) {
            const auto target = makeDoubleWell(-6, -2.4);
            target->density.outside = outside;
            EXPECT_LT(deviationAfterJumps(makeWellFlow(), target, makeOptions(kind, AcceptanceTest::Metropolis, 103)),
                      4);
        }
}

// The same checks catch what they are for.
TEST(LatentJump, InvarianceCatchesAWrongLogDet) {
    const auto spoil = [](const std::shared_ptr<Flow>& flow, double factor) {
        return std::make_shared<Flow>(flow->getPrior(), std::make_shared<WrongLogDet>(flow->getTransform(), factor));
    };
    for (double factor : {0.0, -1.0})
        for (JumpKind kind : allKinds) {
            for (AcceptanceTest test : bothTests)
                EXPECT_GT(
                    deviationAfterJumps(spoil(makeWellFlow(), factor), makeDoubleWell(), makeOptions(kind, test, 101)),
                    8);
            EXPECT_GT(deviationAfterJumps(spoil(makeTorsionFlow(), factor), makeTorsion(),
                                          makeOptions(kind, AcceptanceTest::Metropolis, 102)),
                      8);
        }
}

TEST(LatentJump, InvarianceCatchesAWrongPrior) {
    const auto flow = std::make_shared<Flow>(std::make_shared<WrongSigma>(2, 1.1, 1.2), std::make_shared<TwoWellMap>());
    for (JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving})
        for (AcceptanceTest test : bothTests)
            EXPECT_GT(deviationAfterJumps(flow, makeDoubleWell(), makeOptions(kind, test, 101)), 8);
}

TEST(LatentJump, InvarianceCatchesAcceptedNaNAndStaleEnergy) {
    const auto wall = makeDoubleWell(-6, -2.4);
    wall->density.outside = NAN;
    EXPECT_LT(deviationAfterLocalJumps(*makeWellFlow(), *wall, {}), 4);
    EXPECT_GT(deviationAfterLocalJumps(*makeWellFlow(), *wall, {.acceptsNaN = true}), 8);
    EXPECT_LT(deviationAfterLocalJumps(*makeWellFlow(), *makeDoubleWell(), {}), 4);
    EXPECT_GT(deviationAfterLocalJumps(*makeWellFlow(), *makeDoubleWell(), {.keepsOldEnergy = true}), 8);
}

// Case G: target N(0, I_d), proposals N(0, s^2 I_d).
TEST(LatentJump, AcceptanceOfIndependentProposalsIsThatOfTheLiterature) {
    class Normal : public ReducedPotential {
    public:
        explicit Normal(int size) : size(size) {}
        int getSize() const override { return size; }
        EnergyResult evaluate(const Tensor& x, Gradient) override { return {0.5 * x.square().sum(1), {}}; }

    private:
        int size;
    };
    struct Row {
        int d;
        double s, acceptance;
    };
    for (const auto& [d, s, acceptance] : {Row{1, 1.5, .74866817}, {3, 1.5, .52264931}, {10, 1.2, .57491095}}) {
        const auto identity = std::make_shared<Scaling>(std::vector<double>(d, 0.0), std::vector<double>(d, 1.0));
        const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(d, s), identity);
        LatentJump jump(flow, std::make_shared<Normal>(d), {.seed = 104});
        Random random(105);
        JumpState state = jump.start(random.normal(numWalkers, d));
        const double measured = static_cast<double>(jump.step(state).numAccepted) / numWalkers;
        EXPECT_NEAR(measured, acceptance, 4 * std::sqrt(acceptance * (1 - acceptance) / numWalkers));
    }
}

TEST(LatentJump, KeepsWhatItRejectsAndKnowsWhatItAccepts) {
    for (JumpKind kind : allKinds) {
        const auto target = makeTorsion();
        Random random(106);
        LatentJump jump(makeTorsionFlow(), target, makeOptions(kind, AcceptanceTest::Metropolis, 107));
        const JumpState before = jump.start(target->sample(1000, random));
        const Tensor copyOfX = before.x.clone();
        JumpState after = before;
        const JumpInfo info = jump.step(after);
        const Tensor rejected = info.accepted.logical_not();
        EXPECT_EQ(info.accepted.sum().item<std::int64_t>(), info.numAccepted);
        EXPECT_GT(info.numAccepted, 100);
        EXPECT_LT(info.numAccepted, 900);
        EXPECT_TRUE(at::equal(before.x, copyOfX)); // replaced, not modified in place
        EXPECT_TRUE(at::equal(after.x.index({rejected}), before.x.index({rejected})));
        EXPECT_TRUE(at::equal(after.u.index({rejected}), before.u.index({rejected})));
        EXPECT_FALSE((after.x == before.x).all(1).index({info.accepted}).any().item<bool>());
        const JumpState fresh = jump.start(after.x);
        EXPECT_TRUE(at::allclose(after.u, fresh.u, 0, 1e-12));
        EXPECT_TRUE(at::allclose(after.logQ, fresh.logQ, 0, 1e-10));
        EXPECT_TRUE(at::allclose(after.logDet, fresh.logDet, 0, 1e-10));
        EXPECT_TRUE(at::allclose(after.z, fresh.z, 0, 1e-10));
    }
}

TEST(LatentJump, RepeatsItselfFromASeed) {
    const auto target = makeTorsion();
    Random random(108);
    const Tensor x = target->sample(100, random);
    const auto run = [&](std::uint64_t seed) {
        LatentJump jump(makeTorsionFlow(), target,
                        makeOptions(JumpKind::PriorPreserving, AcceptanceTest::Barker, seed));
        JumpState state = jump.start(x);
        for (int i = 0; i < 3; i++)
            jump.step(state);
        return state.x;
    };
    EXPECT_TRUE(at::equal(run(5), run(5)));
    EXPECT_FALSE(at::equal(run(5), run(6)));
}

TEST(LatentJump, RejectsAndCountsProposalsThatAreNotFinite) {
    // A flow whose every third sample is not a number, and a potential that does not notice.
    class Broken : public TwoWellMap {
    public:
        TransformResult forward(const Tensor& z) const override {
            TransformResult result = TwoWellMap::forward(z);
            const Tensor broken = (at::arange(z.size(0)).remainder(3) == 0).unsqueeze(1);
            return {at::where(broken, at::full_like(z, NAN), result.value), result.logDet};
        }
    };
    class Flat : public ReducedPotential {
    public:
        int getSize() const override { return 2; }
        EnergyResult evaluate(const Tensor& x, Gradient) override { return {at::zeros({x.size(0)}, at::kDouble), {}}; }
    };
    const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(2), std::make_shared<Broken>());
    LatentJump jump(flow, std::make_shared<Flat>(), {.seed = 109});
    JumpState state = jump.start(at::zeros({300, 2}, at::kDouble));
    const JumpInfo info = jump.step(state);
    EXPECT_EQ(info.nonFinite, 100);
    EXPECT_GT(info.numAccepted, 0);
    EXPECT_TRUE(at::isfinite(state.x).all().item<bool>());
}

TEST(LatentJump, PlacesProposalsOnTheWalkersFrame) {
    // One latent variable, the distance of two points on a line; the first point is the frame.
    class Distance : public LocalTransform {
    public:
        int getInputSize() const override { return 1; }
        int getOutputSize() const override { return 2; }
        TransformResult forward(const Tensor& z) const override {
            return {at::cat({at::zeros_like(z), z}, 1), at::zeros({z.size(0)}, at::kDouble)};
        }
        TransformResult inverse(const Tensor& x) const override {
            return {x.narrow(1, 1, 1) - x.narrow(1, 0, 1), at::zeros({x.size(0)}, at::kDouble)};
        }
        Tensor place(const Tensor& x, const Tensor& reference) const override { return x + reference.narrow(1, 0, 1); }
    };
    class Spring : public ReducedPotential {
    public:
        int getSize() const override { return 2; }
        EnergyResult evaluate(const Tensor& x, Gradient) override {
            return {0.5 * (x.select(1, 1) - x.select(1, 0)).square(), {}};
        }
    };
    const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(1), std::make_shared<Distance>());
    LatentJump jump(flow, std::make_shared<Spring>(), {.seed = 110});
    Random random(111);
    const Tensor x = random.normal(50, 2);
    JumpState state = jump.start(x);
    EXPECT_EQ(jump.step(state).numAccepted, 50); // the flow is exact
    EXPECT_TRUE(at::equal(state.x.select(1, 0), x.select(1, 0)));
    EXPECT_TRUE(at::allclose(state.x.select(1, 1) - state.x.select(1, 0), state.z.select(1, 0), 0, 1e-14));
}

TEST(ProposeLatent, WrapsTheRandomWalkOnCirclesAlone) {
    const auto prior = makeTorsionFlow()->getPrior();
    const Tensor z = at::tensor({3.0, 3.0}, at::kDouble).expand({numWalkers, 2});
    Random random(112);
    const Tensor moved = proposeLatent(*prior, JumpKind::RandomWalk, 0.5, z, random);
    const Tensor open = moved.select(1, 0), circular = moved.select(1, 1);
    EXPECT_GT(open.max().item<double>(), M_PI);
    EXPECT_LT(circular.max().item<double>(), M_PI);
    EXPECT_GE(circular.min().item<double>(), -M_PI);
    // E[cos(step)] = exp(-s^2/2), whether wrapped or not; the variance of one cos is (1 - exp(-s^2))^2/2.
    const double error = (1 - std::exp(-0.25)) / std::sqrt(2.0 * numWalkers);
    EXPECT_NEAR((circular - 3).cos().mean().item<double>(), std::exp(-0.125), 4 * error);
    EXPECT_NEAR((open - 3).cos().mean().item<double>(), std::exp(-0.125), 4 * error);
    EXPECT_NEAR((circular - 3).sin().mean().item<double>(), 0, 4 * std::sqrt((1 - std::exp(-0.5)) / 2 / numWalkers));
}

TEST(LatentJump, RefusesWhatCanNotJump) {
    const auto flow = makeWellFlow();
    const auto target = makeDoubleWell(-6, 0);
    expectMessage([&] { LatentJump(nullptr, target, {}); }, "LatentJump::LatentJump: flow is null, but must be a Flow");
    expectMessage([&] { LatentJump(flow, nullptr, {}); }, "potential is null, but must be a ReducedPotential");
    expectMessage([&] { LatentJump(flow, target, {.kind = JumpKind::PriorPreserving, .stepSize = 1.5}); },
                  "stepSize is 1.5, but must be in (0, 1]");
    expectMessage([&] { LatentJump(flow, target, {.kind = JumpKind::RandomWalk, .stepSize = 0}); },
                  "stepSize is 0, but must be positive and finite");
    const auto larger =
        std::make_shared<Flow>(std::make_shared<GaussianPrior>(3),
                               std::make_shared<Scaling>(std::vector<double>(3, 0.0), std::vector<double>(3, 1.0)));
    expectMessage([&] { LatentJump(larger, target, {}); },
                  "size of the flow is 3, but must be that of the potential, 2");
    LatentJump jump(flow, target, {});
    expectMessage(
        [&] {
            (void)jump.start(at::ones({4, 2}, at::kDouble));
        },
        "LatentJump::start: number of configurations whose energy is not finite is 4, but must be 0");
}

TEST(LatentJump, FindsTheFreeEnergyDifferenceOfTheWells) {
    // From the bottom of the left well alone; walkers are independent, so their scatter is the error.
    const auto target = makeDoubleWell();
    LatentJump jump(makeWellFlow(), target, {.seed = 113});
    JumpState state = jump.start(at::tensor({-2.528918, 0.0}, at::kDouble).expand({numWalkers, 2}).contiguous());
    constexpr int burnIn = 80, production = 80;
    for (int i = 0; i < burnIn; i++)
        jump.step(state);
    Tensor visits = at::zeros({numWalkers}, at::kDouble);
    for (int i = 0; i < production; i++) {
        jump.step(state);
        visits = visits + (state.x.select(1, 0) > target->boundary);
    }
    const Tensor fraction = visits / production;
    const double right = fraction.mean().item<double>();
    const double error = std::sqrt(fraction.var().item<double>() / numWalkers) / (right * (1 - right));
    const double difference = std::log((1 - right) / right);
    EXPECT_LT(error, 0.02 / 3);
    EXPECT_NEAR(difference, 4.77755032, 0.02);
    EXPECT_NEAR(difference, 4.77755032, 4 * error);
    RecordProperty("difference", std::to_string(difference) + " +- " + std::to_string(error));
}

TEST(BarThroughFlow, FindsTheFreeEnergyOfTheDoubleWell) {
    const auto broad = std::make_shared<Scaling>(std::vector<double>{-0.2, 0.1}, std::vector<double>{2.6, 1.3});
    const Flow flow(std::make_shared<GaussianPrior>(2), broad);
    const BarResult result = barThroughFlow(flow, *makeDoubleWell(), 1000000, 114);
    EXPECT_LT(result.standardError, 0.01 / 3);
    EXPECT_NEAR(result.deltaF, -12.064929, 0.01);
    EXPECT_NEAR(result.deltaF, -12.064929, 4 * result.standardError);
    RecordProperty("deltaF", std::to_string(result.deltaF) + " +- " + std::to_string(result.standardError));
}

TEST(BarThroughFlow, ConnectsTwoStatesThroughTheLatentState) {
    // F8: each well alone against the prior, u = +inf in the other.
    const double boundary = makeDoubleWell()->boundary;
    const BarResult left = barThroughFlow(*makeWellFlow(), *makeDoubleWell(-6, boundary), numWalkers, 115);
    const BarResult right = barThroughFlow(*makeWellFlow(), *makeDoubleWell(boundary, 6), numWalkers, 116);
    EXPECT_GT(left.numForwardInfinite, numWalkers / 4);
    EXPECT_GT(right.numForwardInfinite, numWalkers / 4);
    const double error = std::hypot(left.standardError, right.standardError);
    EXPECT_NEAR(right.deltaF - left.deltaF, 4.77755032, 4 * error);
    EXPECT_LT(error, 0.02);
    RecordProperty("deltaF", std::to_string(right.deltaF - left.deltaF) + " +- " + std::to_string(error));
}
