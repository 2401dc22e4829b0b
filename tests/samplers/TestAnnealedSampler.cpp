// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/samplers/AnnealedSampler.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "samplers/AnnealedTargets.h"
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** Draws anew from N(0, 1/K), K = (1 - lambda) 1 + lambda 4: the perfect transition between springs of 1 and 4. */
struct PerfectKernel : AnnealedKernel {
    double move(AnnealedPath& path, int, double lambda, PathState& state, Random& random) override {
        state = path.evaluate(random.normal(state.x.size(0), state.x.size(1)) / std::sqrt(1 + 3 * lambda), lambda);
        return 1;
    }
};

std::shared_ptr<PotentialPath> makePath(int size = 1) {
    return std::make_shared<PotentialPath>(std::make_shared<Spring>(size, 1.0), std::make_shared<Spring>(size, 4.0));
}

/** u of a double well, u = x^4/4 - 1.5 x^2 + x/2, one variable. */
struct Quartic : ReducedPotential {
    [[nodiscard]] int getSize() const override { return 1; }
    [[nodiscard]] EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
        const Tensor v = x.select(1, 0);
        EnergyResult result{0.25 * v.pow(4) - 1.5 * v.square() + 0.5 * v, {}, 0, 0};
        if (gradient == Gradient::Compute)
            result.gradient = (v.pow(3) - 3 * v + 0.5).unsqueeze(1);
        return result;
    }
};

GridDensity quarticDensity() {
    return {-6, 6, [](double v) { return 0.25 * v * v * v * v - 1.5 * v * v + 0.5 * v; }};
}

HamiltonianKernel::Options fixedStep(double stepSize, int numSteps, int numMoves = 1) {
    return {stepSize, numSteps, numMoves, 0.0};
}

double average(const Tensor& values) {
    return values.mean().item<double>();
}

} // namespace

// E[work] = sum dK/(2 K), Var = sum dK^2/(2 K^2), where the work is -log w: independent stages.
TEST(AnnealedSampler, PerfectTransitionsDoTheKnownWork) {
    constexpr int count = 400000;
    const std::vector<std::tuple<int, double, double>> cases = {
        {2, 1.05, 1.305}, {8, .76887562, .17779689}, {32, .71106831, .03728366}};
    for (const auto& [numStages, work, variance] : cases) {
        const int n = count / numStages;
        Random random(numStages);
        AnnealedSampler sampler(makePath(), std::make_shared<PerfectKernel>(), AnnealedSampler::equalSteps(numStages));
        const AnnealedResult result = sampler.run(random.normal(n, 1), random);
        EXPECT_NEAR(-average(result.logWeight), work, 4 * std::sqrt(variance / n)) << numStages;
        // The work of one stage is dK x^2/2: its fourth moment about the mean is 15 times its variance squared.
        EXPECT_NEAR(result.logWeight.var().item<double>(), variance, 4 * variance * std::sqrt(14.0 / n)) << numStages;
        const Tensor w = result.logWeight.exp();
        EXPECT_NEAR(std::log(average(w)), -0.5 * std::log(4.0),
                    4 * w.std().item<double>() / average(w) / std::sqrt(static_cast<double>(n)));
    }
}

TEST(AnnealedSampler, HamiltonianMovesGiveTheFreeEnergyDifference) {
    constexpr int n = 20000;
    Random random(2);
    const auto path = makePath(3);
    AnnealedSampler sampler(path, std::make_shared<HamiltonianKernel>(fixedStep(0.4, 3)),
                            AnnealedSampler::equalSteps(8));
    const AnnealedResult result = sampler.run(random.normal(n, 3), random);
    const Tensor w = result.logWeight.exp();
    EXPECT_NEAR(-std::log(average(w)), 3 * .69314718, 4 * w.std().item<double>() / average(w) / std::sqrt(1.0 * n));
    // The weighted end points are those of the stiff spring.
    const Tensor p = result.logWeight.softmax(0), squares = result.x.square().sum(1);
    const double error = std::sqrt((p.square() * (squares - 0.75).square()).sum().item<double>());
    EXPECT_NEAR((p * squares).sum().item<double>(), 3 * 0.25, 4 * error);
    // One evaluation at the start, and one for each leapfrog step of 7 stages with moves; two energies each.
    EXPECT_EQ(path->getNumEvaluations(), 2 * n * (1 + 7 * 3));
    EXPECT_EQ(result.acceptance.size(), 7u);
    EXPECT_EQ(result.numEvaluations, path->getNumEvaluations());
    EXPECT_EQ(result.numGradients, result.numEvaluations);
    EXPECT_TRUE(at::allclose(result.state.logDensity, -2 * result.x.square().sum(1)));
    EXPECT_TRUE(at::allclose(path->atLambda(result.state, 0.0).logDensity, -0.5 * result.x.square().sum(1)));
}

// Uneven lambdas, a shifted target and few poor moves: the weights make up for everything.
TEST(AnnealedSampler, WeightsAreExactWhateverTheMoves) {
    constexpr int n = 100000;
    Random random(3);
    const auto target = std::make_shared<Quartic>();
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(1, 0.25, -0.5), target);
    AnnealedSampler sampler(path, std::make_shared<HamiltonianKernel>(fixedStep(0.9, 2)),
                            std::vector<double>{0, 0.1, 0.5, 1});
    const AnnealedResult result = sampler.run(2 * random.normal(n, 1) - 0.5, random);
    const GridDensity exact = quarticDensity();
    const Tensor w = result.logWeight.exp(), p = result.logWeight.softmax(0), x = result.x.squeeze(1);
    EXPECT_NEAR(std::log(average(w)), exact.logNorm() - std::log(2 * std::sqrt(2 * M_PI)),
                4 * w.std().item<double>() / average(w) / std::sqrt(1.0 * n));
    const double meanX = exact.expectation([](double v) { return v; });
    const double error = std::sqrt((p.square() * (x - meanX).square()).sum().item<double>());
    EXPECT_NEAR((p * x).sum().item<double>(), meanX, 4 * error);
}

TEST(HamiltonianKernel, LeavesTheDensityInvariant) {
    constexpr int n = 100000;
    const GridDensity exact = quarticDensity();
    Random random(4);
    Tensor start = at::empty({n, 1}, at::kDouble);
    for (int i = 0; i < n; i++)
        start[i][0] = exact.quantile(random.uniform());
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(1, 1.0), std::make_shared<Quartic>());
    HamiltonianKernel kernel(fixedStep(0.8, 2, 3)); // accepts some two thirds
    PathState state = path->evaluate(start, 0.3);
    const double acceptance = kernel.move(*path, 1, 1.0, state, random);
    EXPECT_GT(acceptance, 0.3);
    EXPECT_LT(acceptance, 0.95);
    EXPECT_FALSE(at::equal(state.x, start));
    for (int power = 1; power <= 4; power++) {
        const double moment = exact.expectation([&](double v) { return std::pow(v, power); });
        const double square = exact.expectation([&](double v) { return std::pow(v, 2 * power); });
        EXPECT_NEAR(average(state.x.pow(power)), moment, 4 * std::sqrt((square - moment * moment) / n)) << power;
    }
    // The state knows its own densities.
    const PathState again = path->evaluate(state.x, 1.0, Gradient::Compute);
    EXPECT_TRUE(at::allclose(state.logDensity, again.logDensity));
    EXPECT_TRUE(at::allclose(state.gradient, again.gradient));
    EXPECT_EQ(state.lambda, 1.0);
}

TEST(HamiltonianKernel, StepSizeFollowsTheAcceptance) {
    Random random(5);
    const auto path = makePath(2);
    HamiltonianKernel kernel({3.0, 2, 1, 0.8}); // far too long
    PathState state = path->evaluate(random.normal(200, 2), 0.0);
    for (int i = 0; i < 60; i++)
        kernel.move(*path, 2, 0.5, state, random);
    EXPECT_LT(kernel.getStepSize(2), 1.5);
    EXPECT_EQ(kernel.getStepSize(1), 3.0); // stages are apart
    double acceptance = 0;
    for (int i = 0; i < 20; i++)
        acceptance += kernel.move(*path, 2, 0.5, state, random) / 20;
    EXPECT_NEAR(acceptance, 0.8, 0.1);
}

// Walkers without a weight, at the start or on the way, neither move to nonsense nor disturb the others.
TEST(AnnealedSampler, WalkersOutsideTheTargetHaveNoWeight) {
    struct Wall : Spring {
        Wall() : Spring(1, 4.0) {}
        [[nodiscard]] EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
            EnergyResult result = Spring::evaluate(x, gradient);
            const Tensor outside = x.select(1, 0) < 0;
            result.u = result.u.masked_fill(outside, INFINITY);
            if (result.gradient.defined())
                result.gradient = result.gradient.masked_fill(outside.unsqueeze(1), 0.0);
            return result;
        }
    };
    constexpr int n = 50000;
    Random random(8);
    AnnealedSampler sampler(std::make_shared<PotentialPath>(std::make_shared<Spring>(1, 1.0), std::make_shared<Wall>()),
                            std::make_shared<HamiltonianKernel>(fixedStep(0.5, 2)), AnnealedSampler::equalSteps(4));
    const AnnealedResult result = sampler.run(random.normal(n, 1), random);
    const Tensor w = result.logWeight.exp();
    EXPECT_FALSE(w.isnan().any().item<bool>());
    EXPECT_NEAR(average((w == 0).to(at::kDouble)), 0.5, 4 * 0.5 / std::sqrt(1.0 * n));
    // Half of the stiff spring's integral.
    EXPECT_NEAR(average(w), 0.25, 4 * w.std().item<double>() / std::sqrt(1.0 * n));
}

TEST(AnnealedSampler, RefusesBadArguments) {
    const auto path = makePath();
    const auto kernel = std::make_shared<PerfectKernel>();
    expectMessage([&] { AnnealedSampler(nullptr, kernel, {0, 1}); }, "path is null");
    expectMessage([&] { AnnealedSampler(path, nullptr, {0, 1}); }, "kernel is null");
    expectMessage([&] { (void)AnnealedSampler::equalSteps(0); }, "numStages is 0");
    expectMessage([&] { AnnealedSampler(path, kernel, {0, 0.5, 0.5, 1}); }, "a lambda is 0.5");
    expectMessage([&] { AnnealedSampler(path, kernel, {0.1, 1}); }, "the first lambda is 0.1");
    expectMessage([&] { AnnealedSampler(path, kernel, {0, 0.9}); }, "the last lambda is 0.9");
    Random random(1);
    expectMessage(
        [&] {
            (void)AnnealedSampler(path, kernel, {0, 1}).run(at::zeros({3, 2}), random);
        },
        "shape of start is [3, 2]");
    expectMessage([] { HamiltonianKernel({0, 5, 1, 0.5}); }, "stepSize is 0");
    expectMessage([] { HamiltonianKernel({0.1, 0, 1, 0.5}); }, "numSteps is 0");
    expectMessage([] { HamiltonianKernel({0.1, 1, 1, 1}); }, "targetAcceptance is 1");
}
