// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/latent/Prior.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

std::shared_ptr<Prior> makeGaussian() {
    return std::make_shared<GaussianPrior>(1, 1.7);
}

std::shared_ptr<Prior> makeTorus() {
    return std::make_shared<UniformTorusPrior>(1);
}

std::shared_ptr<Prior> makeMixture() {
    const std::vector<std::shared_ptr<Prior>> components = {std::make_shared<GaussianPrior>(1, 0.4),
                                                            std::make_shared<GaussianPrior>(1, 2.3)};
    return std::make_shared<MixturePrior>(components, std::vector<double>{0.5, 1.5});
}

// Integral of a function of one latent variable over [-20, 20] or the circle, by the midpoint rule.
double integrate(const Prior& prior, const std::function<Tensor(const Tensor&)>& f) {
    const double half = prior.getCircularIndices().empty() ? 20.0 : M_PI;
    constexpr int n = 20000;
    const Tensor z = ((at::arange(n, at::kDouble) + 0.5) / n * 2 - 1) * half;
    return (f(z.unsqueeze(1)) * prior.logDensity(z.unsqueeze(1)).exp()).sum().item<double>() * 2 * half / n;
}

} // namespace

TEST(Prior, DensityIsNormalised) {
    for (const auto& prior : {makeGaussian(), makeTorus(), makeMixture()})
        EXPECT_NEAR(integrate(*prior, [](const Tensor& z) { return at::ones({z.size(0)}, at::kDouble); }), 1.0, 1e-9);
}

TEST(Prior, GradientIsThatOfTheDensity) {
    const auto product =
        std::make_shared<ProductPrior>(std::vector<std::shared_ptr<Prior>>{makeTorus(), makeMixture(), makeGaussian()});
    for (const std::shared_ptr<Prior>& prior :
         {makeGaussian(), makeTorus(), makeMixture(), std::shared_ptr<Prior>(product)}) {
        Random random(3);
        const Tensor z = 1.5 * random.normal(7, prior->getSize());
        const auto [logDensity, gradient] = prior->logDensityWithGradient(z);
        EXPECT_TRUE(at::allclose(logDensity, prior->logDensity(z), 0, 1e-13));
        const DensityGradient byAutograd = prior->Prior::logDensityWithGradient(z);
        EXPECT_TRUE(at::allclose(gradient, byAutograd.gradient, 1e-12, 1e-14));
        const double h = 1e-5;
        for (int i = 0; i < prior->getSize(); i++) {
            Tensor step = at::zeros_like(z);
            step.select(1, i).fill_(h);
            const Tensor difference = (prior->logDensity(z + step) - prior->logDensity(z - step)) / (2 * h);
            EXPECT_TRUE(at::allclose(gradient.select(1, i), difference, 1e-7, 1e-8));
        }
    }
}

// A component of a mixture with no density at z has no say in the gradient.
TEST(Prior, GradientOfAMixtureIgnoresComponentsElsewhere) {
    const auto narrow = std::make_shared<GaussianPrior>(1, 1e-3), wide = std::make_shared<GaussianPrior>(1, 2.0);
    const MixturePrior mixture({narrow, wide}, {1, 1});
    const Tensor z = at::full({1, 1}, 3.0, at::kDouble);
    EXPECT_NEAR(mixture.logDensityWithGradient(z).gradient.item<double>(), -3.0 / 4.0, 1e-12);
}

TEST(Prior, SamplesFollowTheDensity) {
    constexpr int n = 100000;
    for (const auto& prior : {makeGaussian(), makeTorus(), makeMixture()}) {
        Random random(5);
        const Tensor z = prior->sample(n, random);
        const auto square = [](const Tensor& y) { return y.select(1, 0).square(); };
        const double mean = integrate(*prior, square);
        const double variance = integrate(*prior, [&](const Tensor& y) { return square(y).square(); }) - mean * mean;
        EXPECT_NEAR(square(z).mean().item<double>(), mean, 4 * std::sqrt(variance / n));
    }
}

// Exact start: z from the prior, one move with a step that is neither small nor large; the correlation of cos(z) before
// and after shows that the move is one.
TEST(Prior, PerturbLeavesThePriorInvariant) {
    constexpr int n = 200000;
    for (const auto& prior : {makeGaussian(), makeTorus(), makeMixture()})
        for (const double step : {0.2, 0.7, 1.0}) {
            Random random(9);
            Tensor z = prior->sample(n, random);
            for (int i = 0; i < 3; i++)
                z = prior->perturb(z, step, random);
            const auto square = [](const Tensor& y) { return y.select(1, 0).square(); };
            const double mean = integrate(*prior, square);
            const double variance =
                integrate(*prior, [&](const Tensor& y) { return square(y).square(); }) - mean * mean;
            EXPECT_NEAR(square(z).mean().item<double>(), mean, 4 * std::sqrt(variance / n)) << "step " << step;
            EXPECT_NEAR(z.mean().item<double>(), 0.0, 4 * std::sqrt(mean / n)) << "step " << step;
        }
}

TEST(Prior, PerturbAtOneIsIndependent) {
    constexpr int n = 100000;
    for (const auto& prior : {makeGaussian(), makeTorus(), makeMixture()}) {
        Random random(2);
        const Tensor z = prior->sample(n, random), moved = prior->perturb(z, 1.0, random);
        const double correlation = (z.cos() * moved.cos()).mean().item<double>() -
                                   z.cos().mean().item<double>() * moved.cos().mean().item<double>();
        EXPECT_NEAR(correlation, 0.0, 4.0 / std::sqrt(n));
    }
}

TEST(ProductPrior, JoinsItsFactors) {
    const ProductPrior prior({std::make_shared<GaussianPrior>(2, 0.5), std::make_shared<UniformTorusPrior>(3)});
    EXPECT_EQ(prior.getSize(), 5);
    EXPECT_EQ(prior.getCircularIndices(), (std::vector<int>{2, 3, 4}));
    Random random(1);
    const Tensor z = prior.sample(4, random);
    const Tensor expected =
        GaussianPrior(2, 0.5).logDensity(z.narrow(1, 0, 2)) + UniformTorusPrior(3).logDensity(z.narrow(1, 2, 3));
    EXPECT_TRUE(at::allclose(prior.logDensity(z), expected, 0, 1e-14));
    EXPECT_LE(z.narrow(1, 2, 3).abs().max().item<double>(), M_PI);
}

// p(z)^(1/factor) up to its normalisation: log densities differ between points 1/factor as much.
TEST(Prior, ScalesItsVariance) {
    const ProductPrior prior({std::make_shared<GaussianPrior>(2, 0.5), std::make_shared<UniformTorusPrior>(1)});
    Random random(8);
    const Tensor z = prior.sample(5, random);
    const auto scaled = prior.scaleVariance(2.5);
    const auto relative = [&z](const Prior& p) {
        const Tensor density = p.logDensity(z);
        return density - density[0];
    };
    EXPECT_TRUE(at::allclose(relative(*scaled), relative(prior) / 2.5, 0, 1e-12));
    expectMessage([&] { (void)prior.scaleVariance(0); }, "factor is 0, but must be positive and finite");
}

TEST(Prior, IsMadeAgainFromItsArchitecture) {
    const ProductPrior prior({std::make_shared<GaussianPrior>(2, 0.5), std::make_shared<UniformTorusPrior>(3)});
    const auto copy = Prior::create(prior.getArchitecture());
    EXPECT_EQ(copy->getArchitecture(), prior.getArchitecture());
}

TEST(Prior, RefusesBadArguments) {
    expectMessage([] { GaussianPrior(0); }, "GaussianPrior::GaussianPrior: size is 0, but must be at least 1");
    expectMessage([] { GaussianPrior(1, -1); }, "sigma is -1, but must be positive and finite");
    expectMessage([] { GaussianPrior(1, NAN); }, "sigma is nan");
    expectMessage([] { UniformTorusPrior(-2); }, "size is -2");
    expectMessage([] { ProductPrior({}); }, "number of factors is 0");
    expectMessage([] { (void)GaussianPrior(2).logDensity(at::zeros({3, 1}, at::kDouble)); }, "but must be [batch, 2]");
    Random random(1);
    expectMessage(
        [&] {
            (void)GaussianPrior(1).perturb(at::zeros({3, 1}, at::kDouble), 1.5, random);
        },
        "stepSize is 1.5, but must be in (0, 1]");
    expectMessage([] { Prior::create({{"type", "Cauchy"}}); }, "type is Cauchy");
    expectMessage([] { Prior::create({{"type", "GaussianPrior"}}); }, "the description is not valid");
}
