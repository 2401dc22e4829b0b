// SPDX-License-Identifier: MIT

#include "JumpTargets.h"
#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/samplers/LatentJump.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr std::int64_t numWalkers = 200000;

/** u = x0^4 + x0 x1^2, a sample of which with x0 > 100 has no energy. */
class Quartic : public ReducedPotential {
public:
    int getSize() const override { return 2; }
    EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
        const Tensor a = x.select(1, 0), b = x.select(1, 1), finite = a <= 100;
        const Tensor u = at::where(finite, a.pow(4) + a * b.square(), at::full_like(a, INFINITY));
        EnergyResult result{u, {}, finite.logical_not().sum().item<std::int64_t>()};
        if (gradient == Gradient::Compute)
            result.gradient = columns(4 * a.pow(3) + b.square(), 2 * a * b) * finite.unsqueeze(1);
        return result;
    }
};

/** A map of two variables beside a third, which stays. */
class Beside : public LocalTransform {
public:
    explicit Beside(std::shared_ptr<Transform> map) : map(std::move(map)) {}
    int getInputSize() const override { return 3; }
    TransformResult forward(const Tensor& z) const override { return join(map->forward(z.slice(1, 0, 2)), z); }
    TransformResult inverse(const Tensor& x) const override { return join(map->inverse(x.slice(1, 0, 2)), x); }

private:
    static TransformResult join(const TransformResult& two, const Tensor& three) {
        return {at::cat({two.value, three.slice(1, 2)}, 1), two.logDet};
    }
    std::shared_ptr<Transform> map;
};

std::shared_ptr<Transform> makeCoupling(std::vector<int> active, std::uint64_t seed) {
    const Conditioner::Options network{{6}, Activation::SiLU, seed};
    const auto coupling = std::make_shared<AffineCoupling>(3, std::move(active), network, 0.5);
    randomiseParameters(*coupling, 0.4, seed);
    return coupling;
}

/** x and a depend on each other through two couplings. */
std::shared_ptr<Flow> makeAugmentedFlow() {
    const std::vector<std::shared_ptr<Transform>> transforms = {
        makeCoupling({0, 1}, 3), std::make_shared<Beside>(std::make_shared<TwoWellMap>()), makeCoupling({2}, 4)};
    return std::make_shared<Flow>(std::make_shared<GaussianPrior>(3, 1.1), std::make_shared<Sequence>(transforms));
}

/** (x, a) of a target that can be sampled exactly. */
Tensor sampleJointly(const ExactTarget& target, std::int64_t count, Random& random) {
    return at::cat({target.sample(count, random), random.normal(count, 1)}, 1);
}

/** In standard errors: x from the target, a from N(0, 1), and their covariance from 0. */
double largestDeviationOfBoth(const ExactTarget& target, const Tensor& y) {
    const double n = static_cast<double>(y.size(0));
    const Tensor x = y.slice(1, 0, 2).contiguous(), a = y.select(1, 2);
    const Tensor x0 = (x.select(1, 0) - x.select(1, 0).mean()) / x.select(1, 0).std();
    return std::max({largestDeviation(target, x), std::abs(a.sum().item<double>()) / std::sqrt(n),
                     std::abs(a.square().sum().item<double>() - n) / std::sqrt(2 * n),
                     std::abs((a * x0).sum().item<double>()) / std::sqrt(n)});
}

double deviationAfterJumps(const std::shared_ptr<ReducedPotential>& potential, const ExactTarget& target, JumpKind kind,
                           bool refreshes) {
    Random random(17);
    LatentJump jump(makeAugmentedFlow(), potential,
                    {kind, AcceptanceTest::Metropolis, kind == JumpKind::RandomWalk ? 0.8 : 0.6, 5});
    JumpState state = jump.start(sampleJointly(target, numWalkers, random));
    for (int i = 0; i < 4; i++) {
        const Tensor before = state.x;
        const JumpInfo info = jump.step(state);
        EXPECT_GT(info.numAccepted, numWalkers / 20);
        // x of a rejected walker stays, and its a is new where it is drawn anew.
        const Tensor rejected = info.accepted.logical_not();
        EXPECT_TRUE(at::equal(state.x.slice(1, 0, 2).index({rejected}), before.slice(1, 0, 2).index({rejected})));
        EXPECT_EQ((state.x != before).select(1, 2).all().item<bool>(), refreshes);
    }
    const double recomputed = (jump.start(state.x).u - state.u).abs().max().item<double>();
    EXPECT_LE(recomputed, 1e-9);
    return largestDeviationOfBoth(target, state.x);
}

/** u(x, a) as a potential like any other, with or without the part of a. */
class Plain : public ReducedPotential {
public:
    Plain(std::shared_ptr<ReducedPotential> physical, double factor) : physical(std::move(physical)), factor(factor) {}
    int getSize() const override { return 3; }
    EnergyResult evaluate(const Tensor& y, Gradient gradient) override {
        EnergyResult result = physical->evaluate(y.slice(1, 0, 2), gradient);
        result.u = result.u + factor * 0.5 * y.select(1, 2).square();
        return result;
    }

private:
    std::shared_ptr<ReducedPotential> physical;
    double factor;
};

std::vector<double> toVector(const Tensor& tensor) {
    const Tensor values = tensor.contiguous();
    return {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()};
}

} // namespace

TEST(AugmentedPotential, AddsANormalDensity) {
    AugmentedPotential potential(std::make_shared<Quartic>(), 3);
    const Tensor y = Random(2).normal(7, 5);
    const EnergyResult result = potential.evaluate(y, Gradient::Compute);
    const Tensor expected =
        Quartic().evaluate(y.slice(1, 0, 2), Gradient::Omit).u - GaussianPrior(3).logDensity(y.slice(1, 2));
    EXPECT_TRUE(at::allclose(result.u, expected, 0, 1e-12));
    const Tensor direction = Random(3).normal(7, 5);
    const double h = 1e-6;
    const Tensor difference =
        (potential.evaluate(y + h * direction).u - potential.evaluate(y - h * direction).u) / (2 * h);
    EXPECT_TRUE(at::allclose((result.gradient * direction).sum(1), difference, 1e-7, 1e-7));
    EXPECT_FALSE(potential.evaluate(y).gradient.defined());
}

TEST(AugmentedPotential, HasNoEnergyWhereOneOfItsPartsHasNone) {
    AugmentedPotential potential(std::make_shared<Quartic>(), 1);
    Tensor y = at::ones({4, 3}, at::kDouble);
    y[1][0] = 101;
    y[2][2] = NAN;
    y[3][2] = INFINITY;
    const EnergyResult result = potential.evaluate(y, Gradient::Compute);
    EXPECT_TRUE(std::isfinite(result.u[0].item<double>()));
    for (int i = 1; i < 4; i++) {
        EXPECT_EQ(result.u[i].item<double>(), INFINITY);
        EXPECT_EQ(result.gradient[i].abs().max().item<double>(), 0.0);
    }
    EXPECT_EQ(result.nonFinite, 3);
}

TEST(AugmentedPotential, DrawsNormalVariables) {
    const AugmentedPotential potential(std::make_shared<Quartic>(), 2);
    Random random(6);
    const Tensor x = at::full({100000, 2}, 3.0, at::kDouble), y = potential.augment(x, random);
    EXPECT_TRUE(at::equal(potential.takePhysical(y), x));
    const Tensor a = y.slice(1, 2);
    EXPECT_NEAR(a.mean().item<double>(), 0, 4 / std::sqrt(2e5));
    EXPECT_NEAR(a.square().mean().item<double>(), 1, 4 * std::sqrt(2 / 2e5));
    EXPECT_NEAR((a.select(1, 0) * a.select(1, 1)).mean().item<double>(), 0, 4 / std::sqrt(1e5));
}

TEST(AugmentedPotential, RefusesBadArguments) {
    expectMessage([] { AugmentedPotential(nullptr, 1); }, "physical is null, but must be a ReducedPotential");
    expectMessage([] { AugmentedPotential(std::make_shared<Quartic>(), 0); }, "numAugmented is 0");
    AugmentedPotential potential(std::make_shared<Quartic>(), 1);
    expectMessage([&] { (void)potential.evaluate(at::zeros({1, 2}, at::kDouble)); }, "but must be [batch, 3]");
    Random random(1);
    expectMessage([&] { (void)potential.augment(at::zeros({1, 3}, at::kDouble), random); }, "but must be [batch, 2]");
}

TEST(AugmentedJumps, LeaveTheDoubleWellInvariant) {
    const auto target = makeDoubleWell();
    for (JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving, JumpKind::RandomWalk})
        EXPECT_LT(deviationAfterJumps(std::make_shared<AugmentedPotential>(target, 1), *target, kind, true), 4)
            << static_cast<int>(kind);
}

// Without a drawn anew jumps are exact too. Without its density they are not.
TEST(AugmentedJumps, InvarianceCatchesAMissingDensityOfTheAugmentedVariables) {
    const auto target = makeDoubleWell();
    EXPECT_LT(deviationAfterJumps(std::make_shared<Plain>(target, 1.0), *target, JumpKind::RandomWalk, false), 4);
    for (JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving, JumpKind::RandomWalk})
        EXPECT_GT(deviationAfterJumps(std::make_shared<Plain>(target, 0.0), *target, kind, false), 8);
}

// Works against u(x, a) give ln Z of x.
TEST(AugmentedPotential, KeepsTheFreeEnergy) {
    const auto target = makeDoubleWell();
    AugmentedPotential potential(target, 1);
    const auto flow = makeAugmentedFlow();
    Random random(31);
    const FlowSample forward = flow->sample(50000, random);
    const Tensor reverse = sampleJointly(*target, 50000, random);
    const BarResult result = bar(toVector(potential.evaluate(forward.x).u + forward.logQ),
                                 toVector(-potential.evaluate(reverse).u - flow->logQ(reverse)));
    EXPECT_NEAR(result.deltaF, -target->logNorm(), 4 * result.standardError);
    EXPECT_LT(result.standardError, 0.05);
}
