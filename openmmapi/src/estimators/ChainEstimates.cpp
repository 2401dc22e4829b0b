// SPDX-License-Identifier: MIT

#include "openmmflow/estimators/ChainEstimates.h"
#include "openmmflow/estimators/TimeSeries.h"
#include "openmmflow/latent/Check.h"
#include <algorithm>
#include <cmath>
#include <string>

using namespace OpenMMFlow;
using std::vector;

WeightStatistic OpenMMFlow::chainEffectiveSize(const vector<double>& series) {
    const AutocorrelationTime time = autocorrelationTime(series);
    const double size = static_cast<double>(series.size()) / (2 * time.tau);
    return {size, size * time.standardError / time.tau};
}

WeightStatistic OpenMMFlow::rejectionAutocorrelationTime(const vector<int>& states) {
    require(states.size() >= 2, "rejectionAutocorrelationTime", "number of states", states.size(), "at least 2");
    vector<double> stays;
    for (std::size_t i = 0; i < states.size(); i++) {
        if (i == 0 || states[i] != states[i - 1])
            stays.push_back(0);
        stays.back()++;
    }
    const double count = static_cast<double>(states.size());
    double squares = 0, variance = 0;
    for (const double d : stays)
        squares += d * d;
    const double tau = squares / (2 * count);
    for (const double d : stays)
        variance += std::pow((d * d / 2 - tau * d) / count, 2);
    return {tau, std::sqrt(variance)};
}

// T = A/m with A = E[a], a = w^2/h(w), h(w) = E'[min(w, w')] and m = E[w], from weights in ascending order. The
// influence of w on A is a - A by its own term, and A - S by the h of all others, S = E'[min(w, w') w'^2/h(w')^2].
WeightStatistic OpenMMFlow::independenceAutocorrelationTime(const vector<double>& logWeights) {
    const char* where = "independenceAutocorrelationTime";
    (void)logMeanWeight(logWeights); // checks them
    vector<double> weights = logWeights;
    std::sort(weights.begin(), weights.end());
    const double largest = weights.back(), count = static_cast<double>(weights.size());
    for (double& w : weights)
        w = std::exp(w - largest);
    require(weights[weights.size() - 2] > 0, where, "number of weights above zero", 1, "at least 2");
    vector<double> a, b; // w^2/h and (w/h)^2; 0 where w is
    double before = 0, sumA = 0, sumB = 0;
    for (std::size_t i = 0; i < weights.size(); i++) {
        const double w = weights[i], following = count - 1 - static_cast<double>(i);
        const double inverse = w > 0 ? w * (count - 1) / (before + following * w) : 0; // w/h, 1/alpha
        a.push_back(w * inverse);
        b.push_back(inverse * inverse);
        before += w;
        sumA += a.back();
        sumB += b.back();
    }
    const double mean = before / count, value = sumA / before;
    double below = 0, variance = 0; // sum of w b up to here
    for (std::size_t i = 0; i < weights.size(); i++) {
        below += weights[i] * b[i];
        sumB -= b[i];
        const double s = (below + weights[i] * sumB) / count;
        variance += std::pow((a[i] - s - value * (weights[i] - mean)) / mean, 2) / count;
    }
    return {value - 0.5, std::sqrt(variance / count)};
}

EffectiveSupport OpenMMFlow::effectiveSupport(const vector<double>& logQFlow, const vector<double>& logQTarget,
                                              double tail) {
    const char* where = "effectiveSupport";
    require(tail > 0 && tail < 0.5, where, "tail", tail, "in (0, 1/2)");
    require(static_cast<double>(logQFlow.size()) * tail >= 10 - 1e-9, where, "number of samples of the flow",
            logQFlow.size(), "at least 10/tail, " + std::to_string(10 / tail));
    require(logQTarget.size() >= 2, where, "number of samples of the target", logQTarget.size(), "at least 2");
    for (const double y : logQTarget)
        require(!std::isnan(y), where, "a log q of the target", y, "a number");
    EffectiveSupport result;
    result.threshold = quantiles(logQFlow, {tail})[0];
    const double count = static_cast<double>(logQTarget.size());
    const auto inside = static_cast<double>(
        std::count_if(logQTarget.begin(), logQTarget.end(), [&](double y) { return y >= result.threshold; }));
    const double smoothed = (inside + 1) / (count + 2); // an error also where all are inside
    result.targetInside = {inside / count, std::sqrt(smoothed * (1 - smoothed) / count)};
    return result;
}
