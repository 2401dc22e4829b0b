#ifndef OPENMMFLOW_ESTIMATORS_TIMESERIES_H_
#define OPENMMFLOW_ESTIMATORS_TIMESERIES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <cstdint>
#include <vector>

namespace OpenMMFlow {

/**
 * The statistical inefficiency of a stationary series: how many of its values are worth one independent value,
 *
 *     g = 1 + 2 sum_{t=1}^{T} (1 - t/N) C(t),   C(t) the normalised autocorrelation,
 *
 * summed until C first falls to 0 beyond t = 3, and at least 1. An AR(1) series x' = rho x + e has g = (1 + rho)/(1 -
 * rho). Source: Chodera, Swope, Pitera, Seok and Dill, J. Chem. Theory Comput. 3, 26 (2007).
 *
 * Too small when the series is shorter than its slowest change: it can't see what did not happen. Throws if the series
 * is constant or holds a number that is not finite. Cost: N times the correlation time.
 *
 * @param series  at least 2 values, equally spaced in time
 */
OPENMMFLOW_EXPORT double statisticalInefficiency(const std::vector<double>& series);

/** An integrated autocorrelation time with its standard error, and the lag at which the sum ended. */
struct AutocorrelationTime {
    double tau = 0, standardError = 0;
    std::int64_t window = 0;
};

/**
 * The integrated autocorrelation time of a stationary series by the Gamma method,
 *
 *     tau = 1/2 + sum_{t=1}^{W} C(t),   W the first lag with  exp(-W/s) < s / sqrt(W N),  s = S / ln((2 tau + 1)/(2 tau
 * - 1))
 *
 * where the errors of truncation and of noise balance (S = 1.5), corrected for the bias of the mean by the factor
 * 1 + (2 W + 1)/N. Its error is tau sqrt(4 max(W + 1/2 - tau, 1/2)/N). An AR(1) series has tau = (1 + rho)/(1 - rho)/2:
 * half its statistical inefficiency. A chain of N steps is worth N/(2 tau) independent samples. Source: Wolff, Comput.
 * Phys. Commun. 156, 143 (2004).
 *
 * Blind like statisticalInefficiency(). Throws if the series is constant, not finite, or worth fewer than 10
 * independent values, of which no error can be told.
 *
 * @param series  at least 4 values, equally spaced in time
 */
OPENMMFLOW_EXPORT AutocorrelationTime autocorrelationTime(const std::vector<double>& series);

/** A mean with its standard error. */
struct MeanResult {
    double mean = 0, standardError = 0;
    /** The number of independent values that the error corresponds to: variance of one value / standardError^2. */
    double numEffective = 0;
    std::int64_t numSamples = 0;
};

/**
 * The mean of a correlated series, with standardError = sqrt(g variance / N), g of statisticalInefficiency().
 *
 * @param series  as above
 */
OPENMMFLOW_EXPORT MeanResult meanWithError(const std::vector<double>& series);

/**
 * The mean of a correlated series, with the error from the scatter of the means of equal consecutive blocks: right when
 * blocks are much longer than the correlation time, and uncertain by a fraction 1/sqrt(2 (numBlocks - 1)) itself. The
 * first N mod numBlocks values are left out.
 *
 * @param series     as above, at least numBlocks values
 * @param numBlocks  at least 2
 */
OPENMMFLOW_EXPORT MeanResult blockAverage(const std::vector<double>& series, int numBlocks);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ESTIMATORS_TIMESERIES_H_*/
