#ifndef OPENMMFLOW_ESTIMATORS_LOGMEANEXP_H_
#define OPENMMFLOW_ESTIMATORS_LOGMEANEXP_H_
// SPDX-License-Identifier: MIT

#include <algorithm>
#include <cmath>
#include <vector>

namespace OpenMMFlow {

/** ln mean(exp(y)), and the standard error that the scatter of exp(y) gives it by the delta method. */
struct LogMeanExp {
    double value, standardError;
};

/** @param y  not empty; -inf allowed. value is -inf, and the error +inf, when every y is. */
inline LogMeanExp logMeanExp(const std::vector<double>& y) {
    const double largest = *std::max_element(y.begin(), y.end());
    if (std::isinf(largest))
        return {largest, INFINITY};
    const double count = static_cast<double>(y.size());
    double mean = 0;
    for (double yi : y)
        mean += std::exp(yi - largest) / count;
    // Deviations are squared, rather than squares subtracted: nearly equal numbers keep their small error.
    double variance = 0;
    for (double yi : y)
        variance += std::pow(std::exp(yi - largest) / mean - 1, 2) / count;
    return {largest + std::log(mean), std::sqrt(variance / count)};
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ESTIMATORS_LOGMEANEXP_H_*/
