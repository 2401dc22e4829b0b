// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/estimators/FlowFreeEnergy.h"
#include "openmmflow/estimators/TimeSeries.h"
#include <cmath>
#include <numeric>
#include <random>

using namespace OpenMMFlow;
using std::vector;

namespace {

/** Target exp(-u) = Z N(0, 1), F = -ln Z, and a flow N(0, s^2): log w. */
struct Normals {
    double s, logZ = 3.0;
    [[nodiscard]] double logWeight(double x) const { return logZ - 0.5 * x * x * (1 - 1 / (s * s)) + std::log(s); }
    [[nodiscard]] vector<double> sample(double sigma, int count, std::mt19937_64& random) const {
        std::normal_distribution<double> normal(0, sigma);
        vector<double> result(count);
        for (double& y : result)
            y = logWeight(normal(random));
        return result;
    }
    [[nodiscard]] vector<double> fromFlow(int count, std::mt19937_64& random) const { return sample(s, count, random); }
    [[nodiscard]] vector<double> fromTarget(int count, std::mt19937_64& random) const {
        return sample(1, count, random);
    }
};

/** Mean and standard deviation of z-scores, over repetitions. */
struct Scores {
    double sum = 0, squares = 0;
    int count = 0;
    void add(double z) {
        sum += z;
        squares += z * z;
        count++;
    }
    [[nodiscard]] double mean() const { return sum / count; }
    [[nodiscard]] double deviation() const { return std::sqrt(squares / count - mean() * mean()); }
};

} // namespace

TEST(FlowFreeEnergy, IsItsDefinitionOnFewWeights) {
    const vector<double> flow = {std::log(1.0), std::log(3.0)}, target = {std::log(2.0), std::log(4.0), std::log(4.0)};
    const FlowFreeEnergy f = flowFreeEnergy(flow, target);
    EXPECT_NEAR(f.fromFlow.value, -std::log(2.0), 1e-14);
    EXPECT_NEAR(f.fromFlow.standardError, std::sqrt(1.0 / 4 / 2), 1e-14);
    EXPECT_NEAR(f.fromFlowBias, 1.0 / 16, 1e-14);
    EXPECT_NEAR(f.fromTarget.value, std::log(1.0 / 3), 1e-14);
    EXPECT_NEAR(f.covered.value, 2.0 / 3, 1e-14);
    EXPECT_NEAR(f.upperBound.value, -0.5 * std::log(3.0), 1e-14);
    EXPECT_NEAR(f.lowerBound.value, -(std::log(2.0) + 2 * std::log(4.0)) / 3, 1e-14);
    EXPECT_NEAR(f.reverseFraction, 16.0 / 10 / 2, 1e-14);
    EXPECT_NEAR(f.forwardFraction, 3.0 / (10.0 / 3), 1e-14);
    EXPECT_EQ(f.numFlow, 2);
    EXPECT_EQ(f.numTarget, 3);
}

TEST(FlowFreeEnergy, EstimatesBoundTheTruthFromBothSidesWithCalibratedErrors) {
    const Normals normals{1.3};
    std::mt19937_64 random(71);
    Scores fromFlow, fromTarget, upper, lower;
    for (int i = 0; i < 400; i++) {
        const FlowFreeEnergy f = flowFreeEnergy(normals.fromFlow(4000, random), normals.fromTarget(4000, random));
        fromFlow.add((f.fromFlow.value + normals.logZ) / f.fromFlow.standardError);
        fromTarget.add((f.fromTarget.value + normals.logZ) / f.fromTarget.standardError);
        // E_q[-log w] = F + KL(q|p), E_p[-log w] = F - KL(p|q)
        const double s2 = normals.s * normals.s, klQP = 0.5 * (s2 - 1) - std::log(normals.s),
                     klPQ = 0.5 * (1 / s2 - 1) + std::log(normals.s);
        upper.add((f.upperBound.value + normals.logZ - klQP) / f.upperBound.standardError);
        lower.add((f.lowerBound.value + normals.logZ + klPQ) / f.lowerBound.standardError);
        EXPECT_GT(f.upperBound.value, f.lowerBound.value);
    }
    for (const Scores& scores : {fromFlow, fromTarget, upper, lower}) {
        EXPECT_LT(std::abs(scores.mean()), 0.2); // four standard errors of the mean of 400
        EXPECT_NEAR(scores.deviation(), 1, 0.15);
    }
}

// In small samples the estimates are biased, to either side, as the delta method says.
TEST(FlowFreeEnergy, BiasesAreThoseOfTheDeltaMethod) {
    const Normals normals{1.15};
    std::mt19937_64 random(72);
    Scores fromFlow, fromTarget;
    double expectedFlow = 0, expectedTarget = 0;
    constexpr int repetitions = 200000;
    for (int i = 0; i < repetitions; i++) {
        const FlowFreeEnergy f = flowFreeEnergy(normals.fromFlow(20, random), normals.fromTarget(20, random));
        fromFlow.add(f.fromFlow.value + normals.logZ);
        fromTarget.add(f.fromTarget.value + normals.logZ);
        expectedFlow += f.fromFlowBias / repetitions;
        expectedTarget += f.fromTargetBias / repetitions;
    }
    const double error = std::sqrt(1.0 / repetitions);
    EXPECT_GT(expectedFlow, 6 * fromFlow.deviation() * error); // there is something to see
    EXPECT_NEAR(fromFlow.mean(), expectedFlow, 4 * fromFlow.deviation() * error + 0.1 * expectedFlow);
    EXPECT_LT(expectedTarget, -6 * fromTarget.deviation() * error);
    EXPECT_NEAR(fromTarget.mean(), expectedTarget, 4 * fromTarget.deviation() * error - 0.1 * expectedTarget);
}

TEST(FlowFreeEnergy, EffectiveSizesAreThoseOfNormalDensities) {
    const Normals normals{1.2};
    std::mt19937_64 random(73);
    const FlowFreeEnergy f = flowFreeEnergy(normals.fromFlow(400000, random), normals.fromTarget(400000, random));
    const double exact = std::sqrt(2 * 1.44 - 1) / 1.44; // case G; both definitions have the same limit
    EXPECT_NEAR(f.reverseFraction, exact, 0.003);
    EXPECT_NEAR(f.forwardFraction, exact, 0.003);
    EXPECT_NEAR(f.covered.value, 1, 4 * f.covered.standardError);
    EXPECT_LT(f.covered.standardError, 0.005);
}

// A flow that is one of two far modes: every reverse diagnostic is perfect, and the target's samples tell.
TEST(FlowFreeEnergy, ShowsADroppedMode) {
    constexpr double left = 0.7, logZ = 2.0, distance = 30;
    std::mt19937_64 random(74);
    std::normal_distribution<double> normal;
    std::bernoulli_distribution inLeft(left);
    const auto logWeight = [&](double x) { // target: modes at 0 and at `distance`; the flow: that at 0
        const double logP =
            std::log(left * std::exp(-0.5 * x * x) + (1 - left) * std::exp(-0.5 * (x - distance) * (x - distance)));
        return logZ + logP + 0.5 * x * x;
    };
    vector<double> flow(20000), target(20000);
    for (double& y : flow)
        y = logWeight(normal(random));
    for (double& y : target)
        y = logWeight(normal(random) + (inLeft(random) ? 0 : distance));
    const FlowFreeEnergy f = flowFreeEnergy(flow, target);
    EXPECT_GT(f.reverseFraction, 0.999);
    EXPECT_NEAR(f.fromFlow.value, -logZ - std::log(left), 1e-6);
    EXPECT_NEAR(f.fromTarget.value, -logZ, 4 * f.fromTarget.standardError);
    EXPECT_NEAR(f.covered.value, left, 4 * f.covered.standardError);
    EXPECT_LT(f.forwardFraction, 1e-10);
}

// The target is uniform on [0, 1), the flow on [0, a): w = a inside, and 1/w = 0 beyond.
TEST(FlowFreeEnergy, SamplesWhereTheFlowHasNoDensityAreLacking) {
    constexpr double a = 0.8;
    vector<double> target(1000, std::log(a));
    std::fill(target.begin(), target.begin() + 200, INFINITY);
    const FlowFreeEnergy f = flowFreeEnergy(vector<double>(500, std::log(a)), target);
    EXPECT_NEAR(f.covered.value, a, 1e-12);
    EXPECT_NEAR(f.covered.standardError, std::sqrt(a * (1 - a) / 1000), 1e-12); // binomial
    EXPECT_EQ(f.forwardFraction, 0);
    EXPECT_EQ(f.lowerBound.value, -INFINITY);
}

TEST(IndependenceChain, SamplesTheTarget) {
    const Normals normals{1.5};
    std::mt19937_64 random(75);
    std::normal_distribution<double> normal(0, normals.s);
    constexpr int count = 200000;
    vector<double> x(count), logWeights(count), squares(count);
    for (int i = 0; i < count; i++)
        logWeights[i] = normals.logWeight(x[i] = normal(random));
    const IndependenceChain chain = independenceChain(logWeights, 5);
    ASSERT_EQ(chain.states.size(), static_cast<std::size_t>(count));
    for (int i = 0; i < count; i++)
        squares[i] = x[chain.states[i]] * x[chain.states[i]];
    const MeanResult mean = meanWithError(squares);
    EXPECT_NEAR(mean.mean, 1, 4 * mean.standardError);
    EXPECT_NEAR(chain.acceptance, .74866817, 0.005); // case G
    EXPECT_NEAR(chain.acceptance, independenceAcceptance(logWeights).value, 0.005);
}

TEST(IndependenceChain, LeavesOutSamplesWithoutWeightAndCountsRuns) {
    const double never = -INFINITY;
    const IndependenceChain chain = independenceChain({never, 0.0, never, never, 800.0, 0.0, 0.0, 0.0, 900.0}, 3);
    EXPECT_EQ(chain.states, (vector<int>{1, 1, 1, 4, 4, 4, 4, 8}));
    EXPECT_EQ(chain.longestRun, 3);
    EXPECT_NEAR(chain.acceptance, 2.0 / 7, 1e-15);
}

TEST(FlowFreeEnergy, RefusesWhatIsNoWeight) {
    expectMessage([] { flowFreeEnergy({0, 1}, {0}); }, "number of log weights of the target is 1");
    expectMessage([] { flowFreeEnergy({0, 1}, {0, -INFINITY}); }, "a log weight of the target is -inf");
    expectMessage([] { flowFreeEnergy({0, 1}, {0, NAN}); }, "a log weight of the target is nan");
    expectMessage([] { flowFreeEnergy({0, 1}, {INFINITY, INFINITY}); }, "where the flow has a density is 0");
    expectMessage([] { flowFreeEnergy({0, NAN}, {0, 1}); }, "a log weight is nan");
    expectMessage([] { independenceChain({-INFINITY, -INFINITY}); }, "number of weights above zero is 0");
    EXPECT_EQ(flowFreeEnergy({0, -INFINITY}, {0, 1}).upperBound.value, INFINITY);
}
