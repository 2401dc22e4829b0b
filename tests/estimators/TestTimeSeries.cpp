// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/estimators/TimeSeries.h"
#include <cmath>
#include <functional>
#include <random>

using namespace OpenMMFlow;
using std::vector;

namespace {

// Stationary x' = rho x + e, variance 1, statistical inefficiency (1 + rho)/(1 - rho).
vector<double> autoregressive(double rho, int count, double mean, std::mt19937_64& random) {
    std::normal_distribution<double> normal;
    vector<double> series(count);
    double x = normal(random);
    for (double& value : series) {
        value = mean + x;
        x = rho * x + std::sqrt(1 - rho * rho) * normal(random);
    }
    return series;
}

// The standard error that the mean of an AR(1) series really has: variance (1/N)(1 + 2 sum (1 - t/N) rho^t).
double exactError(double rho, int count) {
    double g = 1, power = 1;
    for (int t = 1; t < count; t++)
        g += 2 * (1 - static_cast<double>(t) / count) * (power *= rho);
    return std::sqrt(g / count);
}

} // namespace

TEST(StatisticalInefficiency, IsTheDefinitionOnAShortSeries) {
    // Mean 0 and variance 1; C(1) = 5/7, C(2) = 2/6, C(3) = -1/5, and C(4) = -1 ends the sum.
    const double g = 1 + 2 * (5.0 / 7 * 7 / 8 + 2.0 / 6 * 6 / 8 - 1.0 / 5 * 5 / 8);
    EXPECT_NEAR(statisticalInefficiency({1, 1, 1, 1, -1, -1, -1, -1}), g, 1e-14);
}

TEST(StatisticalInefficiency, AgreesWithAutoregressiveSeries) {
    std::mt19937_64 random(41);
    for (double rho : {0.0, 0.5, 0.9}) {
        const double exact = (1 + rho) / (1 - rho);
        const int repetitions = 30;
        double sum = 0, sumSquares = 0;
        for (int i = 0; i < repetitions; i++) {
            const double g = statisticalInefficiency(autoregressive(rho, 50000, 100.0, random));
            sum += g;
            sumSquares += g * g;
        }
        const double mean = sum / repetitions;
        const double deviation = std::sqrt(sumSquares / repetitions - mean * mean);
        // Stopping at the first zero of C(t), and g >= 1, bias g upward by less than one deviation.
        EXPECT_NEAR(mean, exact, deviation + 4 * deviation / std::sqrt(repetitions)) << rho;
        EXPECT_LT(deviation / exact, 0.1);
    }
}

TEST(StatisticalInefficiency, IsAtLeastOne) {
    std::mt19937_64 random(42);
    EXPECT_EQ(statisticalInefficiency(autoregressive(-0.5, 2000, 0, random)), 1.0);
}

TEST(StatisticalInefficiency, DoesNotDependOnOriginAndUnit) {
    std::mt19937_64 random(43);
    vector<double> series = autoregressive(0.7, 5000, 0, random);
    const double g = statisticalInefficiency(series);
    for (double& x : series)
        x = 1e4 - 1e-3 * x;
    EXPECT_NEAR(statisticalInefficiency(series), g, 1e-6);
}

TEST(AutocorrelationTime, AgreesWithAutoregressiveSeriesAndKnowsItsError) {
    std::mt19937_64 random(44);
    for (double rho : {0.0, 0.5, 0.9}) {
        const double exact = 0.5 * (1 + rho) / (1 - rho);
        const int repetitions = 200;
        double sum = 0, squares = 0;
        for (int i = 0; i < repetitions; i++) {
            const AutocorrelationTime found = autocorrelationTime(autoregressive(rho, 20000, 100.0, random));
            EXPECT_GT(found.window, 0);
            const double z = (found.tau - exact) / found.standardError;
            sum += z / repetitions;
            squares += z * z / repetitions;
        }
        EXPECT_LT(std::abs(sum), 0.5) << rho; // the window leaves out a tail of half a standard error
        EXPECT_NEAR(std::sqrt(squares - sum * sum), 1, 0.25) << rho;
    }
}

TEST(AutocorrelationTime, RefusesASeriesShorterThanItsCorrelation) {
    expectMessage([] { autocorrelationTime({1, 2, 3}); }, "number of values is 3");
    vector<double> ramp(40);
    for (std::size_t i = 0; i < ramp.size(); i++)
        ramp[i] = i < 20 ? 0.0 : 1.0;
    expectMessage([&] { autocorrelationTime(ramp); },
                  "number of values is 40, but must be at least that of 10 correlation times");
}

TEST(MeanWithError, IsCalibratedOnCorrelatedSeries) {
    std::mt19937_64 random(44);
    const int repetitions = 1000;
    double sum = 0, sumSquares = 0, sumError = 0;
    for (int i = 0; i < repetitions; i++) {
        const MeanResult result = meanWithError(autoregressive(0.8, 5000, -3.0, random));
        const double z = (result.mean + 3.0) / result.standardError;
        sum += z;
        sumSquares += z * z;
        sumError += result.standardError;
        EXPECT_EQ(result.numSamples, 5000);
    }
    EXPECT_LT(std::abs(sum / repetitions), 0.15);
    EXPECT_NEAR(std::sqrt(sumSquares / repetitions), 1.0, 0.15);
    EXPECT_NEAR(sumError / repetitions / exactError(0.8, 5000), 1.0, 0.1);
}

TEST(BlockAverage, IsTheScatterOfBlockMeans) {
    // The first value is left out; blocks (1, 3), (2, 2), (5, 5) have means 2, 2, 5.
    const MeanResult result = blockAverage({99, 1, 3, 2, 2, 5, 5}, 3);
    EXPECT_DOUBLE_EQ(result.mean, 3.0);
    EXPECT_DOUBLE_EQ(result.standardError, std::sqrt(6.0 / 2 / 3));
    EXPECT_DOUBLE_EQ(result.numEffective, 14.0 / 5);
    EXPECT_EQ(result.numSamples, 6);
}

TEST(BlockAverage, ErrorOfCorrelatedSeries) {
    std::mt19937_64 random(45);
    const int repetitions = 400, numBlocks = 25;
    double sumVariance = 0;
    for (int i = 0; i < repetitions; i++)
        sumVariance += std::pow(blockAverage(autoregressive(0.8, 20000, 1.0, random), numBlocks).standardError, 2);
    // A block of 800 keeps its own finite-length correlations: compare with the exact error of its mean.
    const double exact = exactError(0.8, 800) / std::sqrt(numBlocks);
    const double error = std::sqrt(2.0 / (numBlocks - 1) / repetitions); // relative, of a mean of scaled chi-squares
    EXPECT_NEAR(sumVariance / repetitions / (exact * exact), 1.0, 4 * error + 2 * 0.8 / 800 / (1 - 0.8 * 0.8));
}

TEST(TimeSeries, RefusesWhatHasNoError) {
    expectMessage([] { statisticalInefficiency({1.0}); },
                  "statisticalInefficiency: number of values is 1, but must be at least 2");
    expectMessage(
        [] {
            meanWithError({0.1, 0.1, 0.1});
        },
        "meanWithError: each of the values is 0.1, but must be different from some other");
    expectMessage(
        [] {
            statisticalInefficiency({1.0, NAN});
        },
        "statisticalInefficiency: a value is nan, but must be finite");
    expectMessage([] { blockAverage({1, 2, 3}, 4); }, "blockAverage: numBlocks is 4, but must be in [2, 3]");
    expectMessage(
        [] {
            blockAverage({1, 2, 1, 2}, 2);
        },
        "blockAverage: each of the values is 1.5, but must be different from some other");
}
