// SPDX-License-Identifier: MIT

#include "openmmflow/estimators/EffectiveSampleSize.h"
#include "LogMeanExp.h"
#include "openmmflow/latent/Check.h"
#include <functional>

using namespace OpenMMFlow;
using std::vector;

namespace {

void checkWeights(const vector<double>& logWeights, std::size_t minimum, const char* where) {
    require(logWeights.size() >= minimum, where, "number of log weights", logWeights.size(),
            "at least " + std::to_string(minimum));
    for (double logWeight : logWeights)
        require(!std::isnan(logWeight) && logWeight != INFINITY, where, "a log weight", logWeight, "finite or -inf");
    require(std::any_of(logWeights.begin(), logWeights.end(), [](double y) { return std::isfinite(y); }), where,
            "number of weights above zero", 0, "at least 1");
}

// Weights relative to the largest.
vector<double> relativeWeights(const vector<double>& logWeights) {
    const double largest = *std::max_element(logWeights.begin(), logWeights.end());
    vector<double> weights(logWeights.size());
    std::transform(logWeights.begin(), logWeights.end(), weights.begin(),
                   [largest](double y) { return std::exp(y - largest); });
    return weights;
}

EffectiveSampleSize kish(const vector<double>& logWeights) {
    double sum = 0, sumSquares = 0;
    for (double weight : relativeWeights(logWeights)) {
        sum += weight;
        sumSquares += weight * weight;
    }
    return {sum * sum / sumSquares, static_cast<std::int64_t>(logWeights.size()),
            std::count(logWeights.begin(), logWeights.end(), -INFINITY), 0};
}

} // namespace

EffectiveSampleSize OpenMMFlow::effectiveSampleSize(const vector<double>& logWeights) {
    checkWeights(logWeights, 1, "effectiveSampleSize");
    return kish(logWeights);
}

EffectiveSampleSize OpenMMFlow::clippedEffectiveSampleSize(const vector<double>& logWeights, double fraction) {
    checkWeights(logWeights, 2, "clippedEffectiveSampleSize");
    require(fraction > 0 && fraction < 1, "clippedEffectiveSampleSize", "fraction", fraction, "in (0, 1)");
    const auto wanted = static_cast<std::ptrdiff_t>(fraction * static_cast<double>(logWeights.size()));
    vector<double> sorted = logWeights;
    const auto smallestOfTop = sorted.begin() + std::max<std::ptrdiff_t>(2, wanted) - 1;
    std::nth_element(sorted.begin(), smallestOfTop, sorted.end(), std::greater<>());
    const double cut = *smallestOfTop;
    require(std::isfinite(cut), "clippedEffectiveSampleSize", "smallest of the clipped log weights", cut, "finite");

    vector<double> clipped(logWeights.size());
    std::transform(logWeights.begin(), logWeights.end(), clipped.begin(), [cut](double y) { return std::min(y, cut); });
    EffectiveSampleSize result = kish(clipped);
    result.numClipped = std::count_if(logWeights.begin(), logWeights.end(), [cut](double y) { return y > cut; });
    return result;
}

WeightStatistic OpenMMFlow::logMeanWeight(const vector<double>& logWeights) {
    checkWeights(logWeights, 2, "logMeanWeight");
    const LogMeanExp result = logMeanExp(logWeights);
    return {result.value, result.standardError};
}

// U = E[min(w, w')] and m = E[w] from weights in ascending order: w_i is the smaller in its pairs with all that follow.
// The variance of U/m is that of the mean of its influence function, 2 (h(w) - U)/m - (U/m)(w - m)/m with h(w) =
// E'[min(w, w')].
WeightStatistic OpenMMFlow::independenceAcceptance(const vector<double>& logWeights) {
    checkWeights(logWeights, 2, "independenceAcceptance");
    vector<double> weights = relativeWeights(logWeights);
    std::sort(weights.begin(), weights.end());
    const double count = static_cast<double>(weights.size());
    double sumBefore = 0, following = count - 1, pairs = 0;
    vector<double> meanMinimum;
    meanMinimum.reserve(weights.size());
    for (double weight : weights) {
        meanMinimum.push_back((sumBefore + following * weight) / (count - 1));
        pairs += meanMinimum.back();
        sumBefore += weight;
        following -= 1;
    }
    const double mean = sumBefore / count, acceptance = pairs / count / mean;
    double variance = 0;
    for (std::size_t i = 0; i < weights.size(); i++) {
        const double influence = 2 * (meanMinimum[i] / mean - acceptance) - acceptance * (weights[i] / mean - 1);
        variance += influence * influence / count;
    }
    return {acceptance, std::sqrt(variance / count)};
}

vector<double> OpenMMFlow::quantiles(const vector<double>& values, const vector<double>& probabilities) {
    require(!values.empty(), "quantiles", "number of values", values.size(), "at least 1");
    for (double value : values)
        require(!std::isnan(value), "quantiles", "a value", value, "a number");
    vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    vector<double> result;
    for (double probability : probabilities) {
        require(probability >= 0 && probability <= 1, "quantiles", "a probability", probability, "in [0, 1]");
        const double position = probability * static_cast<double>(sorted.size() - 1);
        const auto below = static_cast<std::size_t>(position);
        const double low = sorted[below], high = sorted[std::min(below + 1, sorted.size() - 1)];
        const double fraction = position - static_cast<double>(below);
        // An infinite neighbour is not interpolated with: inf - inf is not a number.
        if (fraction == 0 || low == high || std::isinf(low))
            result.push_back(low);
        else
            result.push_back(low + fraction * (high - low));
    }
    return result;
}
