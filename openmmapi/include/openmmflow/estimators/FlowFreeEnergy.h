#ifndef OPENMMFLOW_ESTIMATORS_FLOWFREEENERGY_H_
#define OPENMMFLOW_ESTIMATORS_FLOWFREEENERGY_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/estimators/EffectiveSampleSize.h"

namespace OpenMMFlow {

/**
 * F = -ln Z of a target exp(-u) from a flow, as the lattice literature estimates it, and what tells whether the flow
 * has dropped modes of the target. From log w = -u - log q of samples x ~ q and y ~ p = exp(-u)/Z:
 *
 *     q-estimator    F_q = -ln mean_x(w)            bias  +variance/2: too high, as far as q covers p
 *     p-estimator    F_p = ln mean_y(1/w)           bias  -variance/2: too low, as far as p covers q
 *     bounds         mean_y(-log w) <= F <= mean_x(-log w)     (less and plus the two KL divergences)
 *     covered        c = mean_x(w) mean_y(1/w) = exp(F_p - F_q): the part of p where q has density
 *     ESS/N reverse  mean_x(w)^2 / mean_x(w^2);   forward  1 / (mean_y(w) mean_y(1/w))
 *
 * Variances are those of the delta method, for independent samples: thin correlated ones first.
 * That of F_q is finite only where p^2/q has an integral, that of F_p where q^2/p has: a normal flow that covers phi^4
 * has F_q's, but not F_p's. Where it is infinite, the error is too small and nothing in the samples tells.
 *
 * Where q lacks modes that y has, mean_x(w) is Z c while mean_y(1/w) is still 1/Z: F_p is right, F_q is too high by
 * -ln c, and c < 1 tells. The reverse ESS does not see it: a flow of one mode alone can have 1.
 *
 * Blind to modes that neither sample has; and to modes that the y have in wrong proportions, as chains do that do not
 * cross: c is then the wrong proportion.
 *
 * Sources: Nicoli, Nakajima, Strodthoff, Samek, Mueller and Kessel, Phys. Rev. E 101, 023304 (2020); Nicoli, Anders,
 * Funcke, Hartung, Jansen, Kessel, Nakajima and Stornati, PRL 126, 032001 (2021); Nicoli, Anders, Hartung, Jansen,
 * Kessel and Nakajima, Phys. Rev. D 108, 114501 (2023).
 */
struct FlowFreeEnergy {
    /** F_q and F_p, not corrected for their biases; the biases, by the delta method; all in kT. */
    WeightStatistic fromFlow, fromTarget;
    double fromFlowBias = 0, fromTargetBias = 0;
    /** mean_x(-log w) and mean_y(-log w); infinite where a weight is zero. */
    WeightStatistic upperBound, lowerBound;
    /** c and its error; 1 less the part of the target that the flow has dropped. */
    WeightStatistic covered;
    double reverseFraction = 0, forwardFraction = 0;
    std::int64_t numFlow = 0, numTarget = 0;
};

/**
 * @param logWeightsFlow    log w of independent samples of the flow, at least 2; -inf allowed, not for all
 * @param logWeightsTarget  log w of independent samples of the target, at least 2, finite: the flow's density is not 0
 * there
 */
OPENMMFLOW_EXPORT FlowFreeEnergy flowFreeEnergy(const std::vector<double>& logWeightsFlow,
                                                const std::vector<double>& logWeightsTarget);

/** A Metropolis chain of independent proposals (NMCMC) that was made of a flow's samples. */
struct IndependenceChain {
    /** For each step the sample that the chain is at. */
    std::vector<int> states;
    /** Accepted part of the proposals, and the longest run of rejections. */
    double acceptance = 0;
    std::int64_t longestRun = 0;
};

/**
 * Independent samples of a flow as a Markov chain that samples the target: each in turn is proposed, and accepted with
 * min(1, w'/w) (F2). The chain starts at the first sample with a weight. Averages over `states` need no weights; their
 * errors need the autocorrelation (see autocorrelationTime()).
 *
 * Blind like the flow: a mode without samples is not visited. A chain that has met a sample of a mode that the flow all
 * but lacks stays there, which shows in longestRun.
 *
 * @param logWeights  at least 2; -inf allowed, not for all
 * @param seed        of the decisions; 0 chooses
 */
OPENMMFLOW_EXPORT IndependenceChain independenceChain(const std::vector<double>& logWeights, std::uint64_t seed = 0);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ESTIMATORS_FLOWFREEENERGY_H_*/
