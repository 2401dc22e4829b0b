#ifndef OPENMMFLOW_ESTIMATORS_CHAINESTIMATES_H_
#define OPENMMFLOW_ESTIMATORS_CHAINESTIMATES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/estimators/EffectiveSampleSize.h"

namespace OpenMMFlow {

/**
 * How many independent samples a chain is worth, N/(2 tau), with tau of the Gamma method (see autocorrelationTime())
 * for one observable, and the error that tau's gives it. Other observables may have other sizes.
 *
 * Blind to changes slower than the chain is long. Throws where autocorrelationTime() does.
 *
 * @param series  the observable at each step
 */
OPENMMFLOW_EXPORT WeightStatistic chainEffectiveSize(const std::vector<double>& series);

/**
 * The autocorrelation time of a Metropolis chain of independent proposals from its rejections alone, whatever the
 * observable. Until the first acceptance the chain is where it was, and after it all but independent of that: C(t) is
 * the probability of t rejections in a row, and
 *
 *     tau = 1/2 + sum_{t>=1} C(t) = sum_j d_j^2 / (2 N),   d_j the steps that the chain stays at its j-th state
 *
 * with the error of a ratio of sums over independent stays. Source: Albergo, Kanwar and Shanahan, PRD 100, 034515
 * (2019).
 *
 * Blind to a stay that has not begun: one sample of a mode that the flow all but lacks will keep the chain for long.
 * The last stay, which the chain's end cuts, counts as if it had ended: tau is too small when that is a large part of
 * the whole.
 *
 * @param states  as of IndependenceChain, at least 2
 */
OPENMMFLOW_EXPORT WeightStatistic rejectionAutocorrelationTime(const std::vector<int>& states);

/**
 * The same tau as an infinite chain would have it, from log weights of independent samples x of the flow:
 *
 *     tau = E_p[1/alpha(x)] - 1/2,   alpha(x) = E_x'[min(1, w(x')/w(x))], the acceptance at x
 *
 * as sum_t (1 - alpha)^t = 1/alpha - 1 is what a stay at x adds. N/(2 tau) is the chain's effective size, at most N.
 * The error is that of the statistic's influence function. Blind like all that is computed from the flow's samples.
 *
 * @param logWeights  at least 2; -inf allowed, not for all but one
 */
OPENMMFLOW_EXPORT WeightStatistic independenceAutocorrelationTime(const std::vector<double>& logWeights);

/** How much of a target lies where a flow has its samples. */
struct EffectiveSupport {
    /** t, the level of log q above which the flow has all of its samples but a part `tail`. */
    double threshold = 0;
    /** The part of the target's samples with log q >= t, and its binomial error. */
    WeightStatistic targetInside;
};

/**
 * The effective support of a flow is {x: log q(x) >= t}, outside of which it all but never samples. Target samples that
 * lie outside show dropped modes and missing tails even where log q is finite everywhere, as it is for flows. A perfect
 * flow has targetInside = 1 - tail. Source, with a fixed level: Nicoli, Anders, Hartung, Jansen, Kessel and Nakajima,
 * Phys. Rev. D 108, 114501 (2023).
 *
 * Blind to modes that neither sample has, and to wrong proportions inside the support. The error is that of the
 * target's samples alone, which have to be independent.
 *
 * @param logQFlow    log q of independent samples of the flow, at least 10/tail, no NaN
 * @param logQTarget  log q of samples of the target, at least 2, no NaN
 * @param tail        in (0, 1/2)
 */
OPENMMFLOW_EXPORT EffectiveSupport effectiveSupport(const std::vector<double>& logQFlow,
                                                    const std::vector<double>& logQTarget, double tail = 1e-3);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ESTIMATORS_CHAINESTIMATES_H_*/
