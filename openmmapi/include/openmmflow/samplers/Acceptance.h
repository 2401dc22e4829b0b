#ifndef OPENMMFLOW_SAMPLERS_ACCEPTANCE_H_
#define OPENMMFLOW_SAMPLERS_ACCEPTANCE_H_
// SPDX-License-Identifier: MIT

#include <cmath>

namespace OpenMMFlow {

/** The test that decides a proposal (F3). Both satisfy detailed balance; Metropolis accepts more often. */
enum class AcceptanceTest { Metropolis, Barker };

/** The log of the probability to accept: min(0, logAlpha), or -log(1 + exp(-logAlpha)). -inf when logAlpha is NaN. */
inline double logAcceptanceProbability(AcceptanceTest test, double logAlpha) {
    if (std::isnan(logAlpha))
        return -INFINITY;
    if (test == AcceptanceTest::Metropolis)
        return logAlpha < 0 ? logAlpha : 0.0;
    return logAlpha > 0 ? -std::log1p(std::exp(-logAlpha)) : logAlpha - std::log1p(std::exp(logAlpha));
}

/**
 * Decide a proposal. Anything that is not finite is rejected, +inf and NaN included.
 *
 * @param logAlpha  log of the ratio of target times reverse proposal density over target times proposal density
 * @param uniform   a random number in (0, 1)
 */
inline bool accept(AcceptanceTest test, double logAlpha, double uniform) {
    return std::isfinite(logAlpha) && std::log(uniform) < logAcceptanceProbability(test, logAlpha);
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ACCEPTANCE_H_*/
