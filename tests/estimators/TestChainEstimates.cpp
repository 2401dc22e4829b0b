// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/estimators/ChainEstimates.h"
#include "openmmflow/estimators/FlowFreeEnergy.h"
#include "openmmflow/estimators/TimeSeries.h"
#include <cmath>
#include <random>

using namespace OpenMMFlow;
using std::vector;

namespace {

/** log w of a flow N(0, s^2) and a target N(0, 1). */
vector<double> normalWeights(double s, int count, std::mt19937_64& random) {
    std::normal_distribution<double> normal(0, s);
    vector<double> result(count);
    for (double& y : result) {
        const double x = normal(random);
        y = 0.5 * x * x * (1 / (s * s) - 1);
    }
    return result;
}

/** E_p[1/alpha] - 1/2 of the same: w falls with |x|, so that the acceptance from x on is a sum of two error functions.
 */
double exactTau(double s) {
    double sum = 0;
    constexpr double h = 1e-3;
    for (double x = h / 2; x < 9; x += h) {
        // E_q[min(1, w'/w)]: |x'| < |x| has more weight; beyond, the target's tail over w(x).
        const double inside = std::erf(x / s / std::sqrt(2.0)), outside = std::erfc(x / std::sqrt(2.0));
        const double ratio = s * std::exp(-0.5 * x * x * (1 - 1 / (s * s))); // p/q at x
        sum += 2 * h * std::exp(-0.5 * x * x) / std::sqrt(2 * M_PI) / (inside + outside / ratio);
    }
    return sum - 0.5;
}

} // namespace

TEST(ChainEstimates, EffectiveSizeIsThatOfTheAutocorrelationTime) {
    std::mt19937_64 random(81);
    std::normal_distribution<double> normal;
    constexpr double rho = 0.6;
    vector<double> series(100000);
    for (std::size_t i = 1; i < series.size(); i++)
        series[i] = rho * series[i - 1] + normal(random);
    const WeightStatistic size = chainEffectiveSize(series);
    EXPECT_NEAR(size.value, 100000 * (1 - rho) / (1 + rho), 4 * size.standardError);
    EXPECT_LT(size.standardError, 0.05 * size.value);
    expectMessage([] { chainEffectiveSize({1, 1, 1, 1}); }, "autocorrelationTime");
}

// tau = 1/2 + sum_t C(t), C(t) the part of pairs t apart between which nothing was accepted.
TEST(ChainEstimates, RejectionTimeIsItsDefinition) {
    EXPECT_NEAR(rejectionAutocorrelationTime({0, 1, 2, 3}).value, 0.5, 1e-15);
    EXPECT_NEAR(rejectionAutocorrelationTime({0, 1, 2, 3}).standardError, 0, 1e-15);
    EXPECT_NEAR(rejectionAutocorrelationTime({0, 0, 0, 3, 4, 4}).value, (9 + 1 + 4) / 12.0, 1e-15);
    std::mt19937_64 random(82);
    const vector<int> states = independenceChain(normalWeights(2.5, 50000, random), 3).states;
    double sum = 0.5;
    for (std::size_t lag = 1; lag < 400; lag++) {
        int same = 0;
        for (std::size_t i = 0; i + lag < states.size(); i++)
            same += states[i] == states[i + lag];
        sum += same / static_cast<double>(states.size());
    }
    EXPECT_NEAR(rejectionAutocorrelationTime(states).value, sum, 1e-9);
    expectMessage([] { independenceAutocorrelationTime({0, -800, -900}); }, "number of weights above zero is 1");
    expectMessage([] { rejectionAutocorrelationTime({1}); }, "number of states is 1");
}

TEST(ChainEstimates, TimesOfTheChainAndOfTheWeightsAreTheExactOne) {
    for (const double s : {1.3, 1.8}) {
        std::mt19937_64 random(83);
        const vector<double> weights = normalWeights(s, 200000, random);
        const double exact = exactTau(s);
        const WeightStatistic fromWeights = independenceAutocorrelationTime(weights);
        EXPECT_NEAR(fromWeights.value, exact, 4 * fromWeights.standardError);
        EXPECT_LT(fromWeights.standardError, 0.01 * exact);
        const WeightStatistic fromChain = rejectionAutocorrelationTime(independenceChain(weights, 4).states);
        EXPECT_NEAR(fromChain.value, exact, 4 * fromChain.standardError);
        EXPECT_LT(fromChain.standardError, 0.02 * exact);
    }
    EXPECT_NEAR(independenceAutocorrelationTime({0.3, 0.3, 0.3}).value, 0.5, 1e-15); // all are accepted
    // Half of the proposals have no weight and are refused: alpha = 1/2 up to 1/N.
    vector<double> half(2000, -INFINITY);
    std::fill(half.begin(), half.begin() + 1000, 0.0);
    EXPECT_NEAR(independenceAutocorrelationTime(half).value, 1.5, 2e-3);
}

TEST(ChainEstimates, ErrorsOfTheTimesAreCalibrated) {
    std::mt19937_64 random(84);
    const double exact = exactTau(1.5);
    double sums[2] = {}, squares[2] = {};
    constexpr int repetitions = 400;
    for (int i = 0; i < repetitions; i++) {
        const vector<double> weights = normalWeights(1.5, 2000, random);
        const WeightStatistic times[] = {independenceAutocorrelationTime(weights),
                                         rejectionAutocorrelationTime(independenceChain(weights, 1 + i).states)};
        for (int k = 0; k < 2; k++) {
            const double z = (times[k].value - exact) / times[k].standardError;
            sums[k] += z / repetitions;
            squares[k] += z * z / repetitions;
        }
    }
    for (int k = 0; k < 2; k++) {
        EXPECT_NEAR(sums[k], 0, 0.2);
        EXPECT_NEAR(std::sqrt(squares[k] - sums[k] * sums[k]), 1, 0.15);
    }
}

TEST(EffectiveSupport, ShowsWhatAFlowHasDropped) {
    std::mt19937_64 random(85);
    std::normal_distribution<double> normal;
    vector<double> flow(50000), same(50000), target(50000);
    for (int i = 0; i < 50000; i++) {
        flow[i] = -0.5 * std::pow(normal(random), 2);
        same[i] = -0.5 * std::pow(normal(random), 2);
        target[i] = -0.5 * std::pow(normal(random) + (i % 10 < 3 ? 20 : 0), 2); // three tenths in a mode of their own
    }
    const EffectiveSupport perfect = effectiveSupport(flow, same, 0.01), dropped = effectiveSupport(flow, target, 0.01);
    EXPECT_NEAR(std::sqrt(-2 * perfect.threshold), 2.5758, 0.05); // the two-sided 1 % point
    // The threshold has an error of its own, as large.
    EXPECT_NEAR(perfect.targetInside.value, 0.99, 4 * std::sqrt(2.0) * perfect.targetInside.standardError);
    EXPECT_NEAR(dropped.targetInside.value, 0.7 * 0.99, 4 * dropped.targetInside.standardError);
    EXPECT_NEAR(dropped.targetInside.standardError, std::sqrt(0.693 * 0.307 / 50000), 1e-4);
    EXPECT_EQ(effectiveSupport(flow, {0, 0}, 0.01).targetInside.value, 1);
    EXPECT_GT(effectiveSupport(flow, {0, 0}, 0.01).targetInside.standardError, 0.1);
    expectMessage([&] { effectiveSupport({1, 2, 3}, same); }, "number of samples of the flow is 3");
    expectMessage([&] { effectiveSupport(flow, {1}); }, "number of samples of the target is 1");
    expectMessage([&] { effectiveSupport(flow, {1, NAN}); }, "a log q of the target is nan");
    expectMessage([&] { effectiveSupport(flow, same, 0.5); }, "tail is 0.5");
}
