#ifndef OPENMMFLOW_ESTIMATORS_EFFECTIVESAMPLESIZE_H_
#define OPENMMFLOW_ESTIMATORS_EFFECTIVESAMPLESIZE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <cstdint>
#include <vector>

namespace OpenMMFlow {

/**
 * What log weights log w_i = -u(x_i) - log q(x_i) of independent samples of a flow say about it (F1).
 *
 * A weight may be zero (log w = -inf): its sample counts. NaN and +inf are refused, and so are weights that are all
 * zero. Adding a constant to all log weights changes only logMeanWeight().
 */
struct EffectiveSampleSize {
    /** The number of unweighted samples that are worth as much as these, between 1 and numSamples. */
    double size = 0;
    /** How many weights there are, how many of them are zero, and how many were lowered to the cut. */
    std::int64_t numSamples = 0, numZero = 0, numClipped = 0;
    /** size / numSamples */
    double getFraction() const { return size / static_cast<double>(numSamples); }
};

/**
 * Kish's effective sample size, (sum w)^2 / sum w^2.
 *
 * It is an upper bound in practice: regions that the flow misses do not show in it.
 *
 * @param logWeights  at least 1
 */
OPENMMFLOW_EXPORT EffectiveSampleSize effectiveSampleSize(const std::vector<double>& logWeights);

/**
 * The same after the largest k = max(2, floor(fraction N)) weights are lowered to the smallest among them, as Midgley
 * et al. do (ICLR 2023, "FAB", fraction 1e-4). Biased upward: quote it only next to the unclipped one.
 *
 * @param logWeights  at least 2  @param fraction  of the weights to clip, in (0, 1)
 */
OPENMMFLOW_EXPORT EffectiveSampleSize clippedEffectiveSampleSize(const std::vector<double>& logWeights,
                                                                 double fraction);

/** A number with its standard error. */
struct WeightStatistic {
    double value = 0, standardError = 0;
};

/**
 * The log of the mean weight, ln((1/N) sum w): an estimate of ln Z of exp(-u), with the delta method's error.
 *
 * @param logWeights  at least 2
 */
OPENMMFLOW_EXPORT WeightStatistic logMeanWeight(const std::vector<double>& logWeights);

/**
 * The mean acceptance that independence jumps with the Metropolis test will have in equilibrium,
 *
 *     E[min(1, w'/w)] = E[min(w, w')] / E[w],   x ~ target, x' ~ flow on the left; both ~ flow on the right
 *
 * from all pairs of different samples, in one pass over the sorted weights. The error is that of the U-statistic.
 *
 * @param logWeights  at least 2
 */
OPENMMFLOW_EXPORT WeightStatistic independenceAcceptance(const std::vector<double>& logWeights);

/**
 * Quantiles of numbers such as log weights, with linear interpolation between order statistics.
 *
 * @param values         at least 1; infinities allowed  @param probabilities  each in [0, 1]
 * @return one quantile for each probability
 */
OPENMMFLOW_EXPORT std::vector<double> quantiles(const std::vector<double>& values,
                                                const std::vector<double>& probabilities);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ESTIMATORS_EFFECTIVESAMPLESIZE_H_*/
