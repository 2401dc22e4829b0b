// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/estimators/EffectiveSampleSize.h"
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

using namespace OpenMMFlow;
using std::vector;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

vector<double> logOf(vector<double> weights, double shift = 0) {
    for (double& weight : weights)
        weight = std::log(weight) + shift;
    return weights;
}

// Case G: target N(0, I_d), proposal N(0, s^2 I_d); log weights of proposals.
vector<double> logWeightsOfG(int d, double s, int count, std::mt19937_64& random) {
    std::normal_distribution<double> normal;
    vector<double> result(count);
    for (double& logWeight : result) {
        double squares = 0;
        for (int i = 0; i < d; i++)
            squares += std::pow(normal(random), 2);
        logWeight = 0.5 * (1 - s * s) * squares + d * std::log(s);
    }
    return result;
}

} // namespace

TEST(EffectiveSampleSize, IsKishsFormula) {
    for (double shift : {0.0, -1e4, 1e4}) {
        const EffectiveSampleSize result = effectiveSampleSize(logOf({1, 2, 3, 0}, shift));
        EXPECT_NEAR(result.size, 36.0 / 14, 1e-10);
        EXPECT_EQ(result.numSamples, 4);
        EXPECT_EQ(result.numZero, 1);
        EXPECT_EQ(result.numClipped, 0);
        EXPECT_NEAR(result.getFraction(), 36.0 / 14 / 4, 1e-10);
    }
}

TEST(EffectiveSampleSize, EqualWeightsCountInFull) {
    EXPECT_NEAR(effectiveSampleSize(vector<double>(1000, -3.7)).size, 1000, 1e-9);
    EXPECT_NEAR(effectiveSampleSize({5.0}).size, 1, 1e-15);
}

TEST(EffectiveSampleSize, AgreesWithCaseG) {
    // The ratio's error follows from the variances of w and w^2: quoted here from 20 independent repetitions.
    std::mt19937_64 random(31);
    for (auto [d, s] : {std::pair{1, 1.5}, {3, 1.5}, {10, 1.2}}) {
        const double exact = std::pow(std::sqrt(2 * s * s - 1) / (s * s), d);
        const int repetitions = 20;
        double sum = 0, sumSquares = 0;
        for (int i = 0; i < repetitions; i++) {
            const double fraction = effectiveSampleSize(logWeightsOfG(d, s, 20000, random)).getFraction();
            sum += fraction;
            sumSquares += fraction * fraction;
        }
        const double mean = sum / repetitions;
        const double error = std::sqrt((sumSquares / repetitions - mean * mean) / (repetitions - 1));
        EXPECT_NEAR(mean, exact, 4 * error);
        EXPECT_LT(error, 0.01);
    }
}

TEST(ClippedEffectiveSampleSize, LowersTheTopToItsSmallest) {
    // floor(0.4 * 10) = 4 weights are at or above the cut 3, three of them above it.
    const vector<double> weights = {1, 50, 2, 1, 3, 1, 7, 1, 9, 2};
    const EffectiveSampleSize result = clippedEffectiveSampleSize(logOf(weights), 0.4);
    const vector<double> clipped = {1, 3, 2, 1, 3, 1, 3, 1, 3, 2};
    EXPECT_NEAR(result.size, effectiveSampleSize(logOf(clipped)).size, 1e-12);
    EXPECT_EQ(result.numClipped, 3);
    EXPECT_EQ(result.numSamples, 10);
}

TEST(ClippedEffectiveSampleSize, ClipsAtLeastTheLargestWeight) {
    const EffectiveSampleSize result = clippedEffectiveSampleSize(logOf({1, 100, 4}), 1e-4);
    EXPECT_NEAR(result.size, 81.0 / 33, 1e-12);
    EXPECT_EQ(result.numClipped, 1);
}

TEST(LogMeanWeight, IsTheLogOfTheMean) {
    // Weights 1 and 3 and 0: mean 4/3, population variance 14/9.
    const WeightStatistic result = logMeanWeight(logOf({1, 3, 0}, 2000.0));
    EXPECT_NEAR(result.value, 2000 + std::log(4.0 / 3), 1e-10);
    EXPECT_NEAR(result.standardError, std::sqrt(14.0 / 9 / 3) / (4.0 / 3), 1e-12);
}

TEST(LogMeanWeight, ErrorIsCalibrated) {
    std::mt19937_64 random(32);
    const int repetitions = 2000;
    double sum = 0, sumSquares = 0;
    for (int i = 0; i < repetitions; i++) {
        const WeightStatistic logZ = logMeanWeight(logWeightsOfG(3, 1.5, 400, random)); // of a normalised density: 0
        const double z = logZ.value / logZ.standardError;
        sum += z;
        sumSquares += z * z;
    }
    EXPECT_LT(std::abs(sum / repetitions), 0.15);
    EXPECT_NEAR(std::sqrt(sumSquares / repetitions), 1.0, 0.15);
}

TEST(IndependenceAcceptance, IsTheSumOverAllPairs) {
    std::mt19937_64 random(33);
    vector<double> logWeights = logWeightsOfG(5, 1.4, 200, random);
    logWeights[3] = logWeights[10] = -infinity;
    logWeights[7] = logWeights[8]; // a tie
    double pairs = 0, sum = 0;
    for (double a : logWeights) {
        sum += std::exp(a);
        for (double b : logWeights)
            pairs += std::exp(std::min(a, b));
    }
    const double expected = (pairs - sum) / (199 * sum);
    EXPECT_NEAR(independenceAcceptance(logWeights).value, expected, 1e-13);
    for (double& logWeight : logWeights)
        logWeight += 5000;
    EXPECT_NEAR(independenceAcceptance(logWeights).value, expected, 1e-11);
}

TEST(IndependenceAcceptance, IsOneForAPerfectFlow) {
    const WeightStatistic result = independenceAcceptance(vector<double>(100, 12.5));
    EXPECT_NEAR(result.value, 1.0, 1e-14);
    EXPECT_NEAR(result.standardError, 0.0, 1e-14);
}

TEST(IndependenceAcceptance, AgreesWithCaseG) {
    std::mt19937_64 random(34);
    const double exact[] = {.74866817, .52264931, .57491095};
    int row = 0;
    for (auto [d, s] : {std::pair{1, 1.5}, {3, 1.5}, {10, 1.2}}) {
        const WeightStatistic result = independenceAcceptance(logWeightsOfG(d, s, 400000, random));
        EXPECT_NEAR(result.value, exact[row++], 4 * result.standardError);
        EXPECT_LT(result.standardError, 2e-3);
    }
}

TEST(IndependenceAcceptance, ErrorIsCalibrated) {
    std::mt19937_64 random(35);
    const int repetitions = 2000;
    double sum = 0, sumSquares = 0;
    for (int i = 0; i < repetitions; i++) {
        const WeightStatistic result = independenceAcceptance(logWeightsOfG(3, 1.5, 400, random));
        const double z = (result.value - .52264931) / result.standardError;
        sum += z;
        sumSquares += z * z;
    }
    EXPECT_LT(std::abs(sum / repetitions), 0.15);
    EXPECT_NEAR(std::sqrt(sumSquares / repetitions), 1.0, 0.15);
}

TEST(Quantiles, InterpolateBetweenOrderStatistics) {
    const vector<double> result = quantiles({4, 1, 3, 2}, {0, 0.25, 0.5, 1});
    EXPECT_DOUBLE_EQ(result[0], 1);
    EXPECT_DOUBLE_EQ(result[1], 1.75);
    EXPECT_DOUBLE_EQ(result[2], 2.5);
    EXPECT_DOUBLE_EQ(result[3], 4);
}

TEST(Quantiles, StayNumbersBesideInfinities) {
    const vector<double> result = quantiles({-infinity, -infinity, 0, 1}, {0, 0.2, 0.5, 0.9});
    EXPECT_EQ(result[0], -infinity);
    EXPECT_EQ(result[1], -infinity);
    EXPECT_EQ(result[2], -infinity); // halfway between -inf and 0
    EXPECT_NEAR(result[3], 0.7, 1e-12);
}

TEST(EffectiveSampleSize, RefusesWeightsThatAreNotWeights) {
    expectMessage([] { effectiveSampleSize({}); },
                  "effectiveSampleSize: number of log weights is 0, but must be at least 1");
    expectMessage(
        [] {
            effectiveSampleSize({0, NAN});
        },
        "effectiveSampleSize: a log weight is nan, but must be finite or -inf");
    expectMessage(
        [] {
            logMeanWeight({0, infinity});
        },
        "logMeanWeight: a log weight is inf, but must be finite or -inf");
    expectMessage(
        [] {
            independenceAcceptance({-infinity, -infinity});
        },
        "independenceAcceptance: number of weights above zero is 0, but must be at least 1");
    expectMessage(
        [] {
            clippedEffectiveSampleSize({0, 1}, 1.0);
        },
        "clippedEffectiveSampleSize: fraction is 1, but must be in (0, 1)");
    expectMessage(
        [] {
            clippedEffectiveSampleSize({0, -infinity, -infinity}, 0.1);
        },
        "clippedEffectiveSampleSize: smallest of the clipped log weights is -inf, but must be finite");
    expectMessage([] { quantiles({1.0}, {1.5}); }, "quantiles: a probability is 1.5, but must be in [0, 1]");
    expectMessage([] { quantiles({NAN}, {0.5}); }, "quantiles: a value is nan, but must be a number");
}
