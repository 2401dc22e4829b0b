#ifndef OPENMMFLOW_SAMPLERS_ANNEALEDTOOLS_H_
#define OPENMMFLOW_SAMPLERS_ANNEALEDTOOLS_H_
// SPDX-License-Identifier: MIT

#include "WeightTools.h"
#include "openmmflow/estimators/EffectiveSampleSize.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/samplers/AnnealedSampler.h"
#include <ATen/ATen.h>
#include <algorithm>
#include <cmath>

namespace OpenMMFlow {

inline void requireStart(const char* where, const at::Tensor& start, const AnnealedPath& path) {
    require(start.dim() == 2 && start.size(1) == path.getSize() && start.size(0) > 0, where, "shape of start",
            start.sizes(), "[batch, " + std::to_string(path.getSize()) + "]");
}

/** The evaluations of a path since it was made. */
class EvaluationCounter {
public:
    explicit EvaluationCounter(const AnnealedPath& path)
        : path(path), evaluations(path.getNumEvaluations()), gradients(path.getNumGradients()) {}
    void report(AnnealedResult& result) const {
        result.numEvaluations = path.getNumEvaluations() - evaluations;
        result.numGradients = path.getNumGradients() - gradients;
    }

private:
    const AnnealedPath& path;
    std::int64_t evaluations, gradients;
};

/** The diagnostics of a step whose increments are v. @param logWeight  before it, [batch] */
inline void addStage(AnnealedResult& result, const at::Tensor& logWeight, const at::Tensor& v) {
    result.cess.push_back(cessFraction(logWeight, v).item<double>());
    result.ess.push_back(essFraction(logWeight + v).item<double>());
    result.logZIncrements.push_back((logMeanExp(logWeight + v) - logMeanExp(logWeight)).item<double>());
}

/** ln(Z_1/Z_0) as the log mean of independent, equally good estimates. @param logEstimates  [any number] */
inline void estimateLogZ(AnnealedResult& result, const at::Tensor& logEstimates) {
    const bool any = logEstimates.isfinite().any().item<bool>();
    result.logZRatio = any ? logMeanExp(logEstimates).item<double>() : -INFINITY;
    result.logZRatioError = any && logEstimates.numel() > 1 ? logMeanWeight(toVector(logEstimates)).standardError : NAN;
}

/**
 * The same of groups of walkers. Where these scatter by more than their size, the few largest make the mean, and the
 * scatter of so few says little. Logarithms of the estimates, sums over the stages, are close to normal, with mean m
 * and variance s^2: then m + s^2/2 is the log mean as well, with an error of its own, and what it differs by is an
 * error of the log mean, too. The error is the larger of both.
 */
inline void estimateLogZOfGroups(AnnealedResult& result, const at::Tensor& logEstimates) {
    estimateLogZ(result, logEstimates);
    const at::Tensor finite = logEstimates.masked_select(logEstimates.isfinite());
    if (finite.numel() < 2)
        return;
    const auto count = static_cast<double>(finite.numel());
    const double left = count / static_cast<double>(logEstimates.numel()); // the others are zero
    const double variance = finite.var().item<double>();
    const double cumulants = std::log(left) + finite.mean().item<double>() + 0.5 * variance;
    const double error = std::sqrt((1 - left + variance) / count + 0.5 * variance * variance / (count - 1));
    result.logZRatioError = std::max(result.logZRatioError, std::hypot(error, cumulants - result.logZRatio));
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ANNEALEDTOOLS_H_*/
