// SPDX-License-Identifier: MIT

#include "openmmflow/estimators/FreeEnergy.h"
#include "LogMeanExp.h"
#include "openmmflow/latent/Check.h"
#include <iterator>
#include <limits>
#include <string>

using namespace OpenMMFlow;
using std::vector;

namespace {

// Fewer samples in common than this leave deltaF uncertain by more than 30 kT.
constexpr double minimumShared = 1e-3;

// The number of works that are +inf.
std::int64_t checkWorks(const vector<double>& works, const char* where, const std::string& name) {
    require(works.size() >= 2, where, "number of " + name, works.size(), "at least 2");
    for (double w : works)
        require(!std::isnan(w) && w != -INFINITY, where, "one of the " + name, w, "finite or +inf");
    const auto numInfinite = std::count(works.begin(), works.end(), INFINITY);
    require(numInfinite < std::ssize(works), where, "number of finite " + name, 0, "at least 1: no overlap");
    return numInfinite;
}

LogMeanExp exponentialAverage(const vector<double>& works) {
    vector<double> y(works.size());
    std::transform(works.begin(), works.end(), y.begin(), [](double w) { return -w; });
    return logMeanExp(y);
}

// ln f(y) = -ln(1 + exp(y)), without overflow.
double logFermi(double y) {
    return y > 0 ? -y - std::log1p(std::exp(-y)) : -std::log1p(std::exp(y));
}

// ln f(w + shift) of each work.
vector<double> logFermi(const vector<double>& works, double shift) {
    vector<double> result(works.size());
    std::transform(works.begin(), works.end(), result.begin(), [shift](double w) { return logFermi(w + shift); });
    return result;
}

// Bennett's equation in logarithms, h(deltaF) = ln sum_F f - ln sum_R f = 0. Its slope lies between 0 and 2, and tends
// to 1 on both sides.
class BennettEquation {
public:
    BennettEquation(const vector<double>& forward, const vector<double>& reverse)
        : forward(forward), reverse(reverse),
          logRatio(std::log(static_cast<double>(forward.size()) / static_cast<double>(reverse.size()))) {}

    vector<double> forwardTerms(double deltaF) const { return logFermi(forward, logRatio - deltaF); }
    vector<double> reverseTerms(double deltaF) const { return logFermi(reverse, deltaF - logRatio); }

    struct Point {
        double value, slope;
    };
    Point evaluate(double deltaF) const {
        const Side left = sum(forwardTerms(deltaF)), right = sum(reverseTerms(deltaF));
        return {left.logSum - right.logSum, left.complement + right.complement};
    }

    // Bracket the root by doubling steps; then Newton steps while they halve and stay inside the bracket, else
    // bisection. What counts as converged does not depend on the sign of the solution, or on its being near 0.
    double solve(double start) const {
        double low = start, high = start;
        for (double step = 1; evaluate(low).value > 0; step *= 2)
            low -= step;
        for (double step = 1; evaluate(high).value < 0; step *= 2)
            high += step;
        double x = start, step = high - low;
        while (true) {
            const auto [value, slope] = evaluate(x);
            (value < 0 ? low : high) = x;
            const double newton = -value / slope;
            const double resolution = 2 * std::numeric_limits<double>::epsilon() * std::max(1.0, std::abs(x));
            if (value == 0 || std::abs(newton) < resolution)
                return x;
            const bool converges = std::abs(newton) < 0.5 * std::abs(step) && low < x + newton && x + newton < high;
            step = converges ? newton : low + 0.5 * (high - low) - x;
            if (!(std::abs(step) > resolution))
                return x + step;
            x += step;
        }
    }

private:
    struct Side {
        double logSum, complement; // complement: the mean of 1 - f weighted with f
    };
    static Side sum(const vector<double>& terms) {
        const double largest = *std::max_element(terms.begin(), terms.end());
        double total = 0, complement = 0;
        for (double term : terms) {
            const double weight = std::exp(term - largest);
            total += weight;
            complement -= weight * std::expm1(term);
        }
        return {largest + std::log(total), complement / total};
    }

    const vector<double>&forward, &reverse;
    double logRatio;
};

// sum of f^power
double sumPower(const vector<double>& logTerms, double power) {
    double sum = 0;
    for (double term : logTerms)
        sum += std::exp(power * term);
    return sum;
}

// The number of samples that the states share: sum of f (1 - f).
double sumShared(const vector<double>& logTerms) {
    double sum = 0;
    for (double term : logTerms)
        sum -= std::exp(term) * std::expm1(term);
    return sum;
}

} // namespace

FreeEnergyResult OpenMMFlow::zwanzig(const vector<double>& works) {
    const auto numInfinite = checkWorks(works, "zwanzig", "works");
    const LogMeanExp average = exponentialAverage(works);
    return {-average.value, average.standardError, std::ssize(works), numInfinite};
}

BarResult OpenMMFlow::bar(const vector<double>& forwardWorks, const vector<double>& reverseWorks) {
    BarResult result;
    result.numForward = std::ssize(forwardWorks);
    result.numReverse = std::ssize(reverseWorks);
    result.numForwardInfinite = checkWorks(forwardWorks, "bar", "forward works");
    result.numReverseInfinite = checkWorks(reverseWorks, "bar", "reverse works");

    const LogMeanExp forward = exponentialAverage(forwardWorks), reverse = exponentialAverage(reverseWorks);
    result.forwardDeltaF = -forward.value;
    result.forwardStandardError = forward.standardError;
    result.reverseDeltaF = reverse.value;
    result.reverseStandardError = reverse.standardError;

    const BennettEquation equation(forwardWorks, reverseWorks);
    result.deltaF = equation.solve(0.5 * result.forwardDeltaF + 0.5 * result.reverseDeltaF);
    const auto forwardTerms = equation.forwardTerms(result.deltaF), reverseTerms = equation.reverseTerms(result.deltaF);
    // The relative variance of each side's mean of f is the squared delta-method error of the log of that mean.
    result.standardError = std::hypot(logMeanExp(forwardTerms).standardError, logMeanExp(reverseTerms).standardError);
    const double shared = sumShared(forwardTerms) + sumShared(reverseTerms);
    require(shared >= minimumShared, "bar", "number of samples that the states share", shared,
            "at least 0.001: no overlap");
    result.overlap =
        shared * (1.0 / static_cast<double>(result.numForward) + 1.0 / static_cast<double>(result.numReverse));
    result.convergence = 1 - (sumPower(forwardTerms, 2) + sumPower(reverseTerms, 2)) / sumPower(forwardTerms, 1);
    return result;
}
