// SPDX-License-Identifier: MIT
// The arithmetic of the fused kernels for GPUs, on the processor; platforms/cuda launches the same functions.

#include "EmulatedDevice.h"
#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/FlowPrior.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "openmmflow/flows/Sequence.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr int numVariables = 4;
constexpr double bound = 2.0;

/** Points inside, outside and at the ends of two open and two circular splines. */
struct Problem {
    int bins;
    bool inverse;
    Tensor x, raw, circular = at::tensor({0, 1, 1, 0}).to(at::kBool), onValue, onLogDet;

    Problem(int bins, at::ScalarType dtype, bool inverse) : bins(bins), inverse(inverse) {
        constexpr int batch = 200;
        Random random(13);
        x = at::where(circular, 2 * M_PI * random.uniform(batch, numVariables) - M_PI, 1.5 * random.normal(batch, 4));
        x[0] = at::tensor({-bound, -M_PI, M_PI, bound}, at::kDouble);
        x[1] = at::tensor({bound + 1e-9, 9.0, -9.0, -bound - 1e-9}, at::kDouble);
        const int count = numVariables * RationalQuadraticSpline::countParameters(bins);
        raw = random.normal(batch, count).to(dtype);
        onValue = random.normal(batch, numVariables);
        onLogDet = random.normal(1, batch)[0];
    }
    /** Value, log-det, and the gradients by x and raw. */
    [[nodiscard]] std::vector<Tensor> run(const decltype(&RationalQuadraticSpline::apply)& map, const Tensor& point,
                                          const Tensor& parameters) const {
        const Tensor y = point.detach().clone().set_requires_grad(true);
        const Tensor p = parameters.detach().clone().set_requires_grad(true);
        const TransformResult result = map(y, p, circular, bins, bound, inverse);
        const auto gradients = torch::autograd::grad({loss(result)}, {y, p});
        return {result.value.detach(), result.logDet.detach(), gradients[0], gradients[1]};
    }
    [[nodiscard]] std::vector<Tensor> run(const decltype(&RationalQuadraticSpline::apply)& map) const {
        return run(map, x, raw);
    }
    [[nodiscard]] Tensor loss(const TransformResult& result) const {
        return (result.value * onValue).sum() + (result.logDet * onLogDet).sum();
    }
};

double distance(const Tensor& a, const Tensor& b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() / (1 + b.abs().max().item<double>());
}

/** Five atoms, one bond of them constrained: a Circle, and a Positive range. */
std::shared_ptr<InternalCoordinates> makeChart() {
    return std::make_shared<InternalCoordinates>(
        std::vector<ZMatrixRow>{{3, 1, 0, 2, TorsionRange::Circle, 0}, {4, 0, 1, 2, TorsionRange::Positive, 0}},
        std::vector<int>{0, 1, 2}, std::vector<double>{0, 0, 0, 0.11, 0});
}

Tensor makePositions(std::int64_t batch) {
    Random random(5);
    const Tensor xi = at::tensor({0.15, 0.14, 0.10, 1.9, 1.8, 2.0, 0.3, 1.5}, at::kDouble);
    const Tensor x = makeChart()->forward(xi + 0.02 * random.normal(batch, 8)).value;
    return x + random.normal(1, 3).repeat({1, 5});
}

} // namespace

// The specification in plain tensor operations is the judge. In single precision, both it and the kernel are compared
// with the result of the same numbers in double.
TEST(DeviceSpline, AgreesWithItsSpecification) {
    const EmulatedDevice device;
    for (const int bins : {2, 5, 8, 16, 64})
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
            for (const bool inverse : {false, true}) {
                SCOPED_TRACE(testing::Message()
                             << bins << " bins, " << at::toString(dtype) << (inverse ? ", inverse" : ""));
                const Problem problem(bins, dtype, inverse);
                const int before = EmulatedDevice::launches;
                const auto found = problem.run(RationalQuadraticSpline::apply);
                EXPECT_EQ(EmulatedDevice::launches, before + 2);
                const auto plain = problem.run(RationalQuadraticSpline::applyReference);
                const auto exact =
                    problem.run(RationalQuadraticSpline::applyReference, problem.x, problem.raw.to(at::kDouble));
                EXPECT_EQ(found[3].scalar_type(), dtype);
                for (std::size_t i = 0; i < found.size(); i++) {
                    const double rounding = 10 * distance(plain[i], exact[i]);
                    // Gradients by 64 bins are ill-conditioned: there the specification is rounded as much.
                    const double inDouble = bins == 64 && i >= 2 ? 1e-11 : 1e-12;
                    EXPECT_LE(distance(found[i], exact[i]), dtype == at::kDouble ? inDouble : 1e-6 + rounding) << i;
                }
            }
}

TEST(DeviceSpline, GradientsMeetCentralDifferences) {
    const EmulatedDevice device;
    for (const bool inverse : {false, true}) {
        const Problem problem(8, at::kDouble, inverse);
        // Away from the ends, where there is no derivative.
        const Tensor x = 0.9 * problem.x.narrow(0, 2, 198), raw = problem.raw.narrow(0, 2, 198);
        Problem part = problem;
        part.onValue = problem.onValue.narrow(0, 2, 198);
        part.onLogDet = problem.onLogDet.narrow(0, 2, 198);
        const auto gradients = part.run(RationalQuadraticSpline::apply, x, raw);
        Random random(7);
        for (const int k : {2, 3}) {
            const Tensor direction = random.normal(198, k == 2 ? x.size(1) : raw.size(1));
            const auto along = [&](double step) {
                const Tensor y = k == 2 ? x + step * direction : x, p = k == 3 ? raw + step * direction : raw;
                return part.loss(RationalQuadraticSpline::apply(y, p, part.circular, 8, bound, inverse)).item<double>();
            };
            const double h = 1e-6, expected = (gradients[k] * direction).sum().item<double>();
            EXPECT_NEAR((along(h) - along(-h)) / (2 * h), expected, 1e-5 * (1 + std::abs(expected))) << k;
        }
    }
}

TEST(DeviceSpline, KeepsWhatIsOutsideOrNotANumber) {
    const EmulatedDevice device;
    Random random(1);
    const Tensor x = at::tensor({-7.0, 2.5, NAN, INFINITY}, at::kDouble).unsqueeze(1), raw = random.normal(4, 25);
    const auto result =
        RationalQuadraticSpline::apply(x, raw, at::zeros({1}, at::kBool), 8, bound, /* inverse */ false);
    EXPECT_TRUE(at::equal(result.value.nan_to_num(-1), x.nan_to_num(-1)));
    EXPECT_TRUE(at::equal(result.logDet, at::zeros({4}, at::kDouble)));
    const auto empty = RationalQuadraticSpline::apply(x.narrow(0, 0, 0), raw.narrow(0, 0, 0), at::zeros({1}, at::kBool),
                                                      8, bound, false);
    EXPECT_EQ(empty.value.numel() + empty.logDet.numel(), 0);
}

TEST(DeviceSpline, CouplingsKeepTheFlowContract) {
    const EmulatedDevice device;
    Random random(3);
    const Tensor circular = at::tensor({0, 1, 0, 1, 0}).to(at::kBool);
    const Tensor z = at::where(circular, 2 * M_PI * random.uniform(70, 5) - M_PI, random.normal(70, 5));
    checkFlowContract({"SplineCoupling",
                       std::make_shared<SplineCoupling>(5, std::vector<int>{4, 1, 2}, std::vector<int>{1, 3},
                                                        SplineCoupling::Options{8, 2.0, {{8}, Activation::Tanh, 3}}),
                       z, true});
}

TEST(DeviceSpline, HasNoSecondDerivatives) {
    const EmulatedDevice device;
    const Problem problem(8, at::kDouble, false);
    const Tensor x = problem.x.clone().set_requires_grad(true);
    const auto result = RationalQuadraticSpline::apply(x, problem.raw, problem.circular, 8, bound, false);
    expectMessage([&] { (void)torch::autograd::grad({problem.loss(result)}, {x}, {}, true, true); },
                  "create_graph is true, but must be false");
}

// Formulas are tested in TestInternalCoordinates; here, that the kernels get the chart's tables and rows, also those
// outside of the domain.
TEST(DeviceChart, IsTheSameAsOnTheProcessor) {
    const auto chart = makeChart();
    Tensor x = makePositions(70);
    x[3].fill_(NAN);
    x[5] = x[5][0].expand({15}); // on one point
    Tensor xi = chart->inverse(x).value;
    xi[7][3] = -0.1; // no angle
    for (const bool inverse : {false, true}) {
        const Tensor& argument = inverse ? x : xi;
        Random random(2);
        const Tensor onValue = random.normal(70, inverse ? 8 : 15), onLogDet = random.normal(1, 70)[0];
        const auto run = [&] {
            const Tensor y = argument.clone().set_requires_grad(true);
            const TransformResult result = inverse ? chart->inverse(y) : chart->forward(y);
            const auto gradient = torch::autograd::grad({result.value, result.logDet}, {y}, {onValue, onLogDet})[0];
            return std::vector<Tensor>{result.value.detach(), result.logDet.detach(), gradient};
        };
        const auto plain = run();
        const EmulatedDevice device;
        const int before = EmulatedDevice::launches;
        const auto found = run();
        EXPECT_EQ(EmulatedDevice::launches, before + 2);
        for (std::size_t i = 0; i < plain.size(); i++)
            EXPECT_TRUE(at::equal(found[i].nan_to_num(-9), plain[i].nan_to_num(-9))) << i << inverse;
        EXPECT_FALSE(at::isfinite(plain[1]).all().item<bool>());
        EXPECT_TRUE(at::isfinite(found[2]).all().item<bool>());
    }
}

TEST(DeviceChart, GivesFlowsTheirGradient) {
    const auto chart = makeChart();
    const auto sequence = std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
        std::make_shared<SplineCoupling>(8, std::vector<int>{0, 3, 6}, std::vector<int>{6},
                                         SplineCoupling::Options{8, 4.0, {{8}, Activation::Tanh, 3}}),
        chart});
    randomiseParameters(*sequence);
    const Flow flow(std::make_shared<GaussianPrior>(8), sequence);
    const Tensor x = makePositions(70);
    const LogQGradient plain = flow.logQWithGradient(x);
    const EmulatedDevice device;
    const int before = EmulatedDevice::launches;
    const LogQGradient found = flow.logQWithGradient(x);
    EXPECT_EQ(EmulatedDevice::launches, before + 4); // two kernels, each forwards and back
    EXPECT_LE(distance(found.logQ, plain.logQ), 1e-12);
    EXPECT_LE(distance(found.gradient, plain.gradient), 1e-12);
}

TEST(FlowOnDevice, CopyOnTheProcessorSharesNothing) {
    const auto spline = std::make_shared<SplineCoupling>(3, std::vector<int>{0}, std::vector<int>{},
                                                         SplineCoupling::Options{8, 4.0, {{6}, Activation::Tanh, 3}});
    randomiseParameters(*spline);
    const Flow flow(std::make_shared<GaussianPrior>(3), spline);
    const auto copy = flow.to("cpu");
    EXPECT_EQ(copy->getDevice(), "cpu");
    Random random(4);
    const Tensor x = random.normal(20, 3), before = copy->logQ(x);
    EXPECT_TRUE(at::equal(flow.logQ(x), before));
    for (const auto& [name, tensor] : flow.getParameters())
        tensor.detach().mul_(2);
    EXPECT_TRUE(at::equal(copy->logQ(x), before));
    EXPECT_FALSE(at::equal(flow.logQ(x), before));
}

TEST(FlowOnDevice, SaysWhatCannotGoThere) {
    const Flow flow(std::make_shared<GaussianPrior>(1), std::make_shared<ExpScaling>(1));
    expectMessage([&] { (void)flow.to("nowhere"); }, "Flow::to: nowhere: ");
    if (!at::hasCUDA())
        expectMessage([&] { (void)flow.to("cuda"); }, "Flow::to: cuda: ");
    const auto onDevice = flow.to(getTestDevice());
    const at::Tensor there = at::ones({2, 1}, at::kDouble);
    expectMessage([&] { (void)onDevice->logQ(there); },
                  "Flow::toLatent: device of the argument is cpu, but must be that of the flow, " + getTestDevice());
    expectMessage([&] { (void)onDevice->fromLatent(there); }, "Flow::fromLatent: device of the argument is cpu");
    expectMessage([&] { (void)onDevice->logQWithGradient(there); }, "Flow::logQWithGradient: device of the argument");
    expectMessage([] { (void)ExpScaling(1).Transform::getConstants(); }, // as of a transform that says nothing
                  "Flow::to: device of ExpScaling is another than cpu, but must be cpu");
    const auto mixed = std::make_shared<FlowPrior>(flow);
    expectMessage([&] { (void)Flow(mixed, std::make_shared<ExpScaling>(1)).to("cuda"); },
                  "Flow::to: device is cuda, but must be cpu: a prior with tensors");
}
