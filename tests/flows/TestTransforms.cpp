// SPDX-License-Identifier: MIT
// The contract of Transform.h for every transform that keeps the number of variables, and the refusals of their
// constructors.

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"
#include <gtest/gtest-spi.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

Conditioner::Options small() {
    return {{7}, Activation::SiLU, 5};
}

// Five variables, of which 1 and 3 are circular: within [-pi, pi) there, and reaching beyond +-bound elsewhere.
Tensor makePoints() {
    Random random(31);
    Tensor z = 1.5 * random.normal(6, 5);
    for (const int i : {1, 3})
        z.select(1, i).copy_(2 * M_PI * random.uniform(1, 6)[0] - M_PI);
    return z;
}

std::shared_ptr<Transform> makeSpline(std::vector<int> active, int bins) {
    return std::make_shared<SplineCoupling>(5, std::move(active), std::vector<int>{1, 3},
                                            SplineCoupling::Options{bins, 2.0, small()});
}

std::vector<FlowContractCase> makeCases() {
    const Tensor z = makePoints();
    const auto affine = std::make_shared<AffineCoupling>(5, std::vector<int>{4, 0}, small());
    const auto shift = std::make_shared<CircularShift>(5, std::vector<int>{3, 1}, std::vector<double>{2.5, -4.0});
    const auto scaling =
        std::make_shared<Scaling>(std::vector<double>{0.1, 0, -2, 0, 1}, std::vector<double>{2, 1, -0.3, 1, 1.5});
    return {
        {"Permutation", std::make_shared<Permutation>(std::vector<int>{3, 0, 4, 1, 2}), z},
        {"Scaling", scaling, z},
        {"CircularShift", shift, z},
        {"AffineCoupling", affine, z, true},
        {"SplineCoupling of open variables", makeSpline({0, 2}, 8), z, true},
        {"SplineCoupling of circular variables", makeSpline({3, 1}, 5), z, true},
        {"SplineCoupling of both", makeSpline({4, 1, 2}, 8), z, true},
        {"Inverse", std::make_shared<Inverse>(makeSpline({4, 1}, 3)), z, true},
        {"Sequence",
         std::make_shared<Sequence>(
             std::vector<std::shared_ptr<Transform>>{makeSpline({4, 1}, 4), shift, makeSpline({0, 2, 3}, 8)}),
         z},
        {"Sequence of constant log-det",
         std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{scaling, scaling}), z},
    };
}

class FlowContract : public testing::TestWithParam<int> {};

} // namespace

TEST_P(FlowContract, Holds) {
    checkFlowContract(makeCases()[GetParam()]);
}

INSTANTIATE_TEST_SUITE_P(Transforms, FlowContract, testing::Range(0, static_cast<int>(makeCases().size())));

// Pull-backs that forget the log-det, or are off by little more than rounding, are found.
TEST(FlowContractItself, FindsWrongPullBacks) {
    using PullBack = std::function<Tensor(const Tensor& onValue)>;
    struct Mutant : AffineCoupling {
        std::function<Tensor(const PullBack&, const Tensor&)> change;
        explicit Mutant(decltype(change) change) : AffineCoupling(5, {4, 0}, small()), change(std::move(change)) {}
        [[nodiscard]] PulledResult inverseWithPullBack(const Tensor& x) const override {
            const auto right = [x, this](const Tensor& on) {
                return AffineCoupling::inverseWithPullBack(x).pullBack(on);
            };
            return {AffineCoupling::inverseWithPullBack(x).result,
                    [right, this](const Tensor& on) { return change(right, on); }};
        }
    };
    const auto countFailures = [](const Mutant& mutant) {
        randomiseParameters(mutant);
        const Tensor x = makePoints();
        testing::TestPartResultArray failures;
        const testing::ScopedFakeTestPartResultReporter reporter(&failures);
        checkPullBack(mutant, x);
        return failures.size();
    };
    EXPECT_EQ(countFailures(Mutant([](const PullBack& right, const Tensor& on) { return right(on); })), 0);
    const auto forgetLogDet = [](const PullBack& right, const Tensor& on) { return right(on) - right(0 * on); };
    EXPECT_GT(countFailures(Mutant(forgetLogDet)), 0);
    const auto scale = [](const PullBack& right, const Tensor& on) { return (1 + 1e-11) * right(on); };
    EXPECT_GT(countFailures(Mutant(scale)), 0);
}

TEST(Coupling, LeavesPassiveVariablesAlone) {
    const Tensor z = makePoints();
    const auto spline = makeSpline({4, 1}, 8);
    randomiseParameters(*spline);
    const Tensor x = spline->forward(z).value;
    for (const int i : {0, 2, 3})
        EXPECT_TRUE(at::equal(x.select(1, i), z.select(1, i)));
    EXPECT_GT((x - z).abs().max().item<double>(), 0.1);
}

TEST(Coupling, PropagatesNonFiniteRowsAlone) {
    Tensor z = makePoints();
    z[2][0] = NAN;
    const auto spline = makeSpline({4, 1}, 8);
    randomiseParameters(*spline);
    const TransformResult result = spline->forward(z);
    EXPECT_TRUE(at::isfinite(result.logDet.index_select(0, at::tensor({0L, 1L, 3L, 4L, 5L}))).all().item<bool>());
    EXPECT_TRUE(at::isnan(result.value[2]).any().item<bool>());
    // The same without a graph, and of gradients.
    const auto others = at::tensor({0L, 1L, 3L, 4L, 5L});
    const PulledResult pulled = spline->inverseWithPullBack(z);
    const Tensor gradient = pulled.pullBack(at::ones_like(z));
    EXPECT_TRUE(at::isfinite(gradient.index_select(0, others)).all().item<bool>());
    EXPECT_TRUE(at::isnan(gradient[2]).any().item<bool>());
    EXPECT_TRUE(at::isnan(pulled.result.logDet[2]).item<bool>());
    EXPECT_TRUE(at::isfinite(pulled.result.logDet.index_select(0, others)).all().item<bool>());
}

TEST(Transform, RefusesBadArguments) {
    expectMessage([] { Permutation({0, 0}); }, "Permutation::Permutation: order[1] is 0");
    expectMessage([] { Scaling({0}, {0}); }, "Scaling::Scaling: scale[0] is 0, but must be finite and not zero");
    expectMessage([] { Scaling({0, 1}, {1}); }, "size of scale is 1");
    expectMessage([] { CircularShift(2, {2}, {0.1}); }, "indices[0] is 2");
    expectMessage(
        [] {
            AffineCoupling(2, {0, 1});
        },
        "number of active variables is 2, but must be between 1 and size-1");
    expectMessage([] { SplineCoupling(3, {0}, {}, {1, 2.0, small()}); }, "bins is 1");
    expectMessage([] { SplineCoupling(3, {0}, {}, {8, -2.0, small()}); }, "bound is -2");
    expectMessage([] { SplineCoupling(3, {0}, {5}, {8, 2.0, small()}); }, "a circular variable is 5");
    expectMessage([] { Sequence({}); }, "number of transforms is 0");
    expectMessage(
        [] {
            Sequence({std::make_shared<Permutation>(std::vector<int>{0, 1}),
                      std::make_shared<Scaling>(std::vector<double>{0}, std::vector<double>{1})});
        },
        "input size of transform 1 is 1, but must be the output size of the one before, 2");
    expectMessage([] { Transform::create({{"type", "os.system"}}); }, "Transform::create: type is os.system");
    expectMessage([] { Transform::create({{"type", "Permutation"}, {"order", "x"}}); }, "the description is not valid");
}
