// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

struct Problem {
    Tensor x, raw, circular;
};

Problem makeProblem(int bins, at::ScalarType dtype, double scale = 1.0) {
    constexpr int batch = 200, n = 4;
    Random random(13);
    const Tensor circular = at::tensor({0, 1, 1, 0}).to(at::kBool);
    Tensor x = 1.5 * random.normal(batch, n);
    x = at::where(circular, 2 * M_PI * random.uniform(batch, n) - M_PI, x);
    return {x, (scale * random.normal(batch, n * RationalQuadraticSpline::countParameters(bins))).to(dtype), circular};
}

double largest(const Tensor& t) {
    return t.abs().max().item<double>();
}

} // namespace

// The fused kernels against plain tensor operations: values, log-dets and gradients, both directions, common and odd
// bins.
TEST(RationalQuadraticSpline, AgreesWithItsSpecification) {
    for (const int bins : {2, 5, 8, 16})
        for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
            for (const bool inverse : {false, true}) {
                SCOPED_TRACE(testing::Message()
                             << bins << " bins, " << at::toString(dtype) << (inverse ? ", inverse" : ""));
                Problem p = makeProblem(bins, dtype);
                p.x.set_requires_grad(true);
                p.raw.set_requires_grad(true);
                const TransformResult fast = RationalQuadraticSpline::apply(p.x, p.raw, p.circular, bins, 2.0, inverse);
                const TransformResult plain =
                    RationalQuadraticSpline::applyReference(p.x, p.raw, p.circular, bins, 2.0, inverse);
                const double tolerance = dtype == at::kDouble ? 1e-11 : 2e-4;
                EXPECT_LE(largest(fast.value - plain.value), tolerance);
                EXPECT_LE(largest(fast.logDet - plain.logDet), tolerance);
                Random random(2);
                const Tensor weight = random.normal(p.x.size(0), p.x.size(1)),
                             logDetWeight = random.normal(1, p.x.size(0))[0];
                const auto gradients = [&](const TransformResult& r) {
                    return torch::autograd::grad({(r.value * weight).sum() + (r.logDet * logDetWeight).sum()},
                                                 {p.x, p.raw});
                };
                const auto a = gradients(fast), b = gradients(plain);
                const double relative = dtype == at::kDouble ? 1e-9 : 2e-3;
                for (int i = 0; i < 2; i++)
                    EXPECT_LE(largest(a[i] - b[i]), relative * (1 + largest(b[i]))) << (i == 0 ? "by x" : "by raw");
            }
}

TEST(RationalQuadraticSpline, ZeroParametersAreTheIdentity) {
    Problem p = makeProblem(8, at::kDouble, 0.0);
    const TransformResult result = RationalQuadraticSpline::apply(p.x, p.raw, p.circular, 8, 2.0, false);
    EXPECT_LE(largest(result.value - p.x), 1e-14);
    EXPECT_LE(largest(result.logDet), 1e-13);
}

// Both directions compute the same knots from float32 parameters, so that the round trip is as good as the map is
// conditioned: always in y, and in x too where slopes are not extreme.
TEST(RationalQuadraticSpline, InvertsItselfWithFloatParameters) {
    for (const double scale : {1.0, 4.0}) {
        const Problem p = makeProblem(8, at::kFloat, scale);
        const auto apply = [&p](const Tensor& x, bool inverse) {
            return RationalQuadraticSpline::apply(x, p.raw, p.circular, 8, 2.0, inverse);
        };
        const TransformResult there = apply(p.x, false), back = apply(there.value, true);
        EXPECT_LE(largest(apply(back.value, false).value - there.value), 1e-12) << "scale " << scale;
        if (scale == 1.0) {
            EXPECT_LE(largest(back.value - p.x), 1e-10);
            EXPECT_LE(largest(back.logDet + there.logDet), 1e-9);
        }
    }
}

TEST(RationalQuadraticSpline, IsTheIdentityOutsideItsInterval) {
    const Tensor x = at::tensor({-7.0, -2.0, 2.0, 3.5}, at::kDouble).unsqueeze(1);
    Random random(1);
    const Tensor raw = random.normal(4, 25), circular = at::zeros({1}, at::kBool);
    const TransformResult result = RationalQuadraticSpline::apply(x, raw, circular, 8, 2.0, false);
    EXPECT_LE(largest(result.value - x), 1e-14);
    EXPECT_EQ(result.logDet[0].item<double>(), 0.0);
    EXPECT_NEAR(result.logDet[1].item<double>(), 0.0, 1e-12); // slope 1 at the ends
}

TEST(RationalQuadraticSpline, IsSmoothAroundTheCircle) {
    Random random(4);
    const Tensor raw = random.normal(1, 25).repeat({2, 1}), circular = at::ones({1}, at::kBool);
    const Tensor ends =
        at::tensor({-M_PI + 1e-9, M_PI - 1e-9}, at::kDouble).unsqueeze(1) - raw.select(1, 24).unsqueeze(1);
    const Tensor x = at::remainder(ends + M_PI, 2 * M_PI) - M_PI;
    const TransformResult result = RationalQuadraticSpline::apply(x, raw, circular, 8, 2.0, false);
    EXPECT_NEAR(std::cos(result.value[0].item<double>() - result.value[1].item<double>()), 1.0, 1e-14);
    EXPECT_NEAR(result.logDet[0].item<double>(), result.logDet[1].item<double>(), 1e-6);
}

TEST(RationalQuadraticSpline, IsMonotonicWithExtremeParameters) {
    Random random(6);
    const Tensor raw = (20 * random.normal(1, 25)).to(at::kFloat).repeat({4001, 1}),
                 circular = at::zeros({1}, at::kBool);
    const Tensor x = at::linspace(-2, 2, 4001, at::kDouble).unsqueeze(1);
    const Tensor y = RationalQuadraticSpline::apply(x, raw, circular, 8, 2.0, false).value.squeeze(1);
    EXPECT_GT((y.narrow(0, 1, 4000) - y.narrow(0, 0, 4000)).min().item<double>(), 0.0);
}

TEST(RationalQuadraticSpline, RefusesBadArguments) {
    const Problem p = makeProblem(8, at::kDouble);
    const auto call = [&](const Tensor& x, const Tensor& raw, int bins, double bound) {
        return [=, &p] { (void)RationalQuadraticSpline::apply(x, raw, p.circular, bins, bound, false); };
    };
    expectMessage(call(p.x, p.raw, 1, 2.0), "bins is 1, but must be between 2 and 64");
    expectMessage(call(p.x, p.raw, 8, 0.0), "bound is 0, but must be positive and finite");
    expectMessage(call(p.x.to(at::kFloat), p.raw, 8, 2.0), "float64 [batch, n]");
    expectMessage(call(p.x, p.raw, 7, 2.0), "shape of raw");
}
