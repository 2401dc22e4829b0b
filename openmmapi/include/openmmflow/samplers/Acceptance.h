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

/**
 * How a jump proposes.
 *     Independence:      z' ~ p(z), not knowing the current state
 *     PriorPreserving:   z' = a reversible move that leaves p(z) invariant (Prior::perturb)
 *     RandomWalk:        z' = z + s e, e ~ N(0, I) (wrapped on circles): does not leave the prior invariant
 * For the first two logAlpha = log w(x') - log w(x), log w = -u - log q (F2). For the third
 * logAlpha = -u(x') + u(x) + logDet(z') - logDet(z).
 */
enum class JumpKind { Independence, PriorPreserving, RandomWalk };

/**
 * logAlpha of a jump (F2), in plain numbers: u the reduced energy, logQ the flow's log density, logDet = log|det
 * df/dz|, of the current and of the proposed state.
 */
inline double jumpLogAlpha(JumpKind kind, double u, double uNew, double logQ, double logQNew, double logDet,
                           double logDetNew) {
    if (kind == JumpKind::RandomWalk)
        return u - uNew + logDetNew - logDet;
    return (-uNew - logQNew) - (-u - logQ);
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ACCEPTANCE_H_*/
