// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include <cmath>
#include <functional>
#include <limits>
#include <random>

using namespace OpenMMFlow;
using std::vector;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Works {
    vector<double> forward, reverse;
};

vector<double> draw(int count, const std::function<double()>& one) {
    vector<double> values(count);
    std::generate(values.begin(), values.end(), one);
    return values;
}

// Case C: u_A = K_A x^2/2, u_B = K_B (x - shift)^2/2, deltaF = (1/2) ln(K_B/K_A).
struct Harmonic {
    double kA, kB, shift;

    double deltaF() const { return 0.5 * std::log(kB / kA); }
    double work(double x) const { return 0.5 * kB * (x - shift) * (x - shift) - 0.5 * kA * x * x; }
    double densityA(double x) const { return std::sqrt(kA / (2 * M_PI)) * std::exp(-0.5 * kA * x * x); }
    double densityB(double x) const { return densityA(x) * std::exp(deltaF() - work(x)); }
    Works sample(int numForward, int numReverse, std::mt19937_64& random) const {
        std::normal_distribution<double> a(0, 1 / std::sqrt(kA)), b(shift, 1 / std::sqrt(kB));
        return {draw(numForward, [&] { return work(a(random)); }), draw(numReverse, [&] { return -work(b(random)); })};
    }
};

// Crooks: forward works N(deltaF + s^2/2, s^2), reverse works N(-deltaF + s^2/2, s^2).
Works gaussianWorks(double deltaF, double s, int numForward, int numReverse, std::mt19937_64& random) {
    std::normal_distribution<double> f(deltaF + s * s / 2, s), r(-deltaF + s * s / 2, s);
    return {draw(numForward, [&] { return f(random); }), draw(numReverse, [&] { return r(random); })};
}

vector<double> plus(vector<double> values, double constant) {
    for (double& value : values)
        value += constant;
    return values;
}

// The difference of the two sides of Bennett's equation, written plainly.
double bennett(const Works& works, double deltaF) {
    const double ratio = static_cast<double>(works.forward.size()) / static_cast<double>(works.reverse.size());
    double difference = 0;
    for (double w : works.forward)
        difference += 1 / (1 + ratio * std::exp(w - deltaF));
    for (double w : works.reverse)
        difference -= 1 / (1 + std::exp(w + deltaF) / ratio);
    return difference;
}

// Mean and standard deviation of (estimate - exact)/error over repetitions.
struct Calibration {
    double mean, deviation;
};
Calibration calibrate(int repetitions, const std::function<double()>& drawZ) {
    double sum = 0, sumSquares = 0;
    for (int i = 0; i < repetitions; i++) {
        const double z = drawZ();
        sum += z;
        sumSquares += z * z;
    }
    const double mean = sum / repetitions;
    return {mean, std::sqrt((sumSquares / repetitions - mean * mean) * repetitions / (repetitions - 1))};
}

// 2000 repetitions have a standard error of 0.022 in the mean of z and 0.016 in its deviation: the bounds are a fair
// test.
void expectCalibrated(const std::function<double()>& drawZ) {
    const auto [mean, deviation] = calibrate(2000, drawZ);
    EXPECT_LT(std::abs(mean), 0.15);
    EXPECT_GT(deviation, 0.85);
    EXPECT_LT(deviation, 1.15);
}

} // namespace

TEST(Zwanzig, IsTheClosedFormOfTwoWorks) {
    // exp(-w) is 1 and 1/3: mean 2/3, population variance 1/9.
    const FreeEnergyResult result = zwanzig({0, std::log(3.0)});
    EXPECT_NEAR(result.deltaF, std::log(1.5), 1e-15);
    EXPECT_NEAR(result.standardError, std::sqrt(1.0 / 9 / 2) / (2.0 / 3), 1e-15);
    EXPECT_EQ(result.numWorks, 2);
    EXPECT_EQ(result.numInfinite, 0);
}

TEST(Zwanzig, ShiftsWithItsWorksOverTheWholeRange) {
    const vector<double> works = {0.3, 1.7, -0.4, 2.5};
    const FreeEnergyResult result = zwanzig(works);
    for (double shift : {-1e5, -800.0, 800.0, 1e5}) {
        const FreeEnergyResult shifted = zwanzig(plus(works, shift));
        EXPECT_NEAR(shifted.deltaF, result.deltaF + shift, 1e-10);
        EXPECT_NEAR(shifted.standardError, result.standardError, 1e-10);
    }
}

TEST(Zwanzig, CountsInfiniteWorksAsSamplesWithoutWeight) {
    const FreeEnergyResult result = zwanzig({0, infinity, infinity, infinity});
    EXPECT_NEAR(result.deltaF, std::log(4.0), 1e-15);
    EXPECT_NEAR(result.standardError, std::sqrt(3.0 / 4), 1e-15); // binomial: sqrt((1 - p)/(N p)), p = 1/4
    EXPECT_EQ(result.numInfinite, 3);
}

TEST(Zwanzig, RefusesWhatHasNoFreeEnergy) {
    expectMessage([] { zwanzig({1.0}); }, "zwanzig: number of works is 1, but must be at least 2");
    expectMessage([] { zwanzig({1.0, NAN}); }, "zwanzig: one of the works is nan, but must be finite or +inf");
    expectMessage([] { zwanzig({1.0, -infinity}); }, "zwanzig: one of the works is -inf, but must be finite or +inf");
    expectMessage(
        [] {
            zwanzig({infinity, infinity});
        },
        "zwanzig: number of finite works is 0, but must be at least 1: no overlap");
}

TEST(Zwanzig, GivesBothDirectionsOfAHarmonicChange) {
    const Harmonic system{1.0, 2.0, 0.3};
    std::mt19937_64 random(11);
    const Works works = system.sample(200000, 200000, random);
    const FreeEnergyResult forward = zwanzig(works.forward), reverse = zwanzig(works.reverse);
    EXPECT_NEAR(forward.deltaF, system.deltaF(), 4 * forward.standardError);
    EXPECT_NEAR(reverse.deltaF, -system.deltaF(), 4 * reverse.standardError);
}

TEST(Zwanzig, ErrorIsCalibrated) {
    const Harmonic system{1.0, 1.6, 0.2};
    std::mt19937_64 random(12);
    expectCalibrated([&] {
        const FreeEnergyResult result = zwanzig(system.sample(1000, 2, random).forward);
        return (result.deltaF - system.deltaF()) / result.standardError;
    });
}

TEST(Bar, SolvesBennettsEquation) {
    std::mt19937_64 random(21);
    for (double deltaF : {-7.0, -0.1, 0.0, 0.1, 7.0})
        for (auto [numForward, numReverse] : {std::pair{50, 50}, {1000, 10}, {7, 900}}) {
            const Works works = gaussianWorks(deltaF, 1.5, numForward, numReverse, random);
            const double solution = bar(works.forward, works.reverse).deltaF;
            EXPECT_LT(bennett(works, solution - 1e-11), 0);
            EXPECT_GT(bennett(works, solution + 1e-11), 0);
        }
}

TEST(Bar, IsTheClosedFormOfConstantWorks) {
    // Equal numbers: f(a - dF) = f(b + dF). A map without dissipation has no error.
    const BarResult result = bar(vector<double>(5, 3.0), vector<double>(5, 1.0));
    EXPECT_NEAR(result.deltaF, 1.0, 1e-14);
    EXPECT_NEAR(result.standardError, 0.0, 1e-14);
    const double f = 1 / (1 + std::exp(2.0));
    EXPECT_NEAR(result.overlap, 4 * f * (1 - f), 1e-14);
    EXPECT_NEAR(result.forwardDeltaF, 3.0, 1e-14);
    EXPECT_NEAR(result.reverseDeltaF, -1.0, 1e-14);
}

TEST(Bar, OverlapIsOneForEqualEnsembles) {
    const BarResult result = bar(vector<double>(30, -2.0), vector<double>(70, 2.0));
    EXPECT_NEAR(result.deltaF, -2.0, 1e-14);
    EXPECT_NEAR(result.overlap, 1.0, 1e-14);
}

TEST(Bar, IsAntisymmetricAndShiftsWithItsWorks) {
    std::mt19937_64 random(22);
    const Works works = gaussianWorks(0.4, 2.0, 300, 120, random);
    const BarResult result = bar(works.forward, works.reverse), swapped = bar(works.reverse, works.forward);
    EXPECT_NEAR(swapped.deltaF, -result.deltaF, 1e-13);
    EXPECT_NEAR(swapped.standardError, result.standardError, 1e-13);
    EXPECT_NEAR(swapped.overlap, result.overlap, 1e-13);
    EXPECT_NEAR(swapped.forwardDeltaF, -result.reverseDeltaF, 1e-13);
    for (double shift : {-1e5, -700.0, -result.deltaF, 700.0, 1e5}) {
        const BarResult shifted = bar(plus(works.forward, shift), plus(works.reverse, -shift));
        EXPECT_NEAR(shifted.deltaF, result.deltaF + shift, 1e-10);
        EXPECT_NEAR(shifted.standardError, result.standardError, 1e-9);
    }
}

TEST(Bar, ErrorAndOverlapAreTheIntegralsOfTheEnsembles) {
    // With many samples: S = int N_A p_A N_B p_B / (N_A p_A + N_B p_B), variance 1/S - 1/N_A - 1/N_B (Bennett 1976, eq.
    // 10).
    const Harmonic system{1.0, 3.0, 1.2};
    const int numA = 300000, numB = 100000;
    double shared = 0;
    const double dx = 1e-3;
    for (double x = -10; x < 10; x += dx) {
        const double a = numA * system.densityA(x), b = numB * system.densityB(x);
        shared += a + b > 0 ? dx * a * b / (a + b) : 0;
    }
    std::mt19937_64 random(23);
    const Works works = system.sample(numA, numB, random);
    const BarResult result = bar(works.forward, works.reverse);
    const double error = std::sqrt(1 / shared - 1.0 / numA - 1.0 / numB);
    EXPECT_NEAR(result.standardError / error, 1.0, 0.01);
    EXPECT_NEAR(result.overlap / (shared * (1.0 / numA + 1.0 / numB)), 1.0, 0.01);
    EXPECT_NEAR(result.deltaF, system.deltaF(), 4 * result.standardError);
    EXPECT_NEAR(result.forwardDeltaF, system.deltaF(), 4 * result.forwardStandardError);
    EXPECT_LT(result.standardError, result.forwardStandardError);
    EXPECT_LT(result.standardError, result.reverseStandardError);
}

TEST(Bar, ConvergenceIsZeroOnceTheRareWorksWereSeenAndNearOneBefore) {
    std::mt19937_64 random(28);
    for (double s : {0.5, 2.0, 3.0}) {
        const Works works = gaussianWorks(-3.0, s, 4000, 2000, random);
        EXPECT_NEAR(bar(works.forward, works.reverse).convergence, 0.0, 0.1);
    }
    // The overlap lies three standard deviations away on both sides: twenty works each have not seen it.
    const Works few = gaussianWorks(0, 6.0, 20, 20, random);
    EXPECT_GT(bar(few.forward, few.reverse).convergence, 0.5);
    // f = 1/(1 + e^2) for all works.
    EXPECT_NEAR(bar(vector<double>(5, 3.0), vector<double>(5, 1.0)).convergence, 1 - 2 / (1 + std::exp(2.0)), 1e-14);
}

TEST(Bar, OverlappingBoxesHaveAClosedForm) {
    // u = 0 on [0, 2] against [1, 4]: deltaF = -ln(3/2). Works are 0 in both boxes and +inf elsewhere; with n of N
    // finite Bennett's equation gives exp(deltaF) = (n_R/N_R) / (n_F/N_F).
    std::mt19937_64 random(24);
    std::uniform_real_distribution<double> a(0, 2), b(1, 4);
    const Works works{draw(40000, [&] { return a(random) > 1 ? 0.0 : infinity; }),
                      draw(20000, [&] { return b(random) < 2 ? 0.0 : infinity; })};
    const BarResult result = bar(works.forward, works.reverse);
    const double finiteForward = 1 - static_cast<double>(result.numForwardInfinite) / 40000;
    const double finiteReverse = 1 - static_cast<double>(result.numReverseInfinite) / 20000;
    EXPECT_NEAR(result.deltaF, std::log(finiteReverse / finiteForward), 1e-13);
    EXPECT_NEAR(result.convergence, 0.0, 0.05);
    EXPECT_NEAR(result.deltaF, -0.405465, 4 * result.standardError);
    EXPECT_LT(result.standardError, 0.02);
    EXPECT_NEAR(finiteForward, 0.5, 0.02);
    EXPECT_NEAR(finiteReverse, 1.0 / 3, 0.02);
}

TEST(Bar, RefusesWhatHasNoFreeEnergy) {
    const vector<double> works = {1.0, 2.0};
    expectMessage([&] { bar(works, {1.0}); }, "bar: number of reverse works is 1, but must be at least 2");
    expectMessage([&] { bar({1.0, NAN}, works); }, "bar: one of the forward works is nan, but must be finite or +inf");
    expectMessage(
        [&] {
            bar(works, {1.0, -infinity});
        },
        "bar: one of the reverse works is -inf, but must be finite or +inf");
    expectMessage(
        [&] {
            bar({infinity, infinity}, works);
        },
        "bar: number of finite forward works is 0, but must be at least 1: no overlap");
    expectMessage(
        [&] {
            bar(works, {infinity, infinity});
        },
        "bar: number of finite reverse works is 0, but must be at least 1: no overlap");
    for (double dissipation : {20.0, 400.0, 1e6, -400.0}) {
        const vector<double> far(10, dissipation);
        expectMessage([&] { bar(far, far); }, "no overlap");
    }
    const vector<double> veryFar(10, 1e6);
    expectMessage([&] { bar(veryFar, veryFar); }, "the states share is 0, but must be at least 0.001: no overlap");
}

TEST(Bar, SurvivesOneFiniteWorkAmongInfiniteOnes) {
    vector<double> forward(1000, infinity);
    forward[17] = 5.0;
    const BarResult result = bar(forward, vector<double>(1000, -5.0 + std::log(1000.0)));
    EXPECT_NEAR(bennett({forward, vector<double>(1000, -5.0 + std::log(1000.0))}, result.deltaF), 0, 1e-12);
    EXPECT_TRUE(std::isfinite(result.standardError));
    EXPECT_GT(result.standardError, 0.5);
}

TEST(Bar, ErrorIsCalibratedForHarmonicChange) {
    const Harmonic system{1.0, 2.5, 0.8};
    std::mt19937_64 random(25);
    expectCalibrated([&] {
        const Works works = system.sample(400, 250, random);
        const BarResult result = bar(works.forward, works.reverse);
        return (result.deltaF - system.deltaF()) / result.standardError;
    });
}

TEST(Bar, ErrorIsCalibratedForGaussianWorks) {
    std::mt19937_64 random(26);
    expectCalibrated([&] {
        const Works works = gaussianWorks(-12.064929, 2.0, 300, 600, random);
        const BarResult result = bar(works.forward, works.reverse);
        return (result.deltaF + 12.064929) / result.standardError;
    });
}

TEST(Bar, ErrorIsCalibratedForARestrictedState) {
    // F8: from the latent state N(0, 1) to the state x > 1.6 of u = 1.3 (x - 0.1)^2/2, where one proposal in twenty
    // falls.
    const Harmonic inside{1.0, 1.3, 0.1};
    const double edge = 1.6;
    const double inState = 0.5 * std::erfc((edge - inside.shift) * std::sqrt(inside.kB / 2));
    const double exact = inside.deltaF() - std::log(inState);
    std::mt19937_64 random(27);
    std::normal_distribution<double> normal;
    expectCalibrated([&] {
        const auto forward = draw(3000, [&] {
            const double x = normal(random);
            return x > edge ? inside.work(x) : infinity;
        });
        const auto reverse = draw(300, [&] {
            double x = 0;
            while (x <= edge)
                x = inside.shift + normal(random) / std::sqrt(inside.kB);
            return -inside.work(x);
        });
        const BarResult result = bar(forward, reverse);
        return (result.deltaF - exact) / result.standardError;
    });
}
