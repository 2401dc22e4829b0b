#ifndef OPENMMFLOW_SAMPLERS_ANNEALEDSAMPLER_H_
#define OPENMMFLOW_SAMPLERS_ANNEALEDSAMPLER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedKernel.h"

namespace OpenMMFlow {

/** What a run along a path returns, by whatever engine. */
struct AnnealedResult {
    /** The samples of pi_1, [samples, size]. */
    at::Tensor x;
    /** log w, float64 [samples]: E[w A(x)] / E[w] = <A>_1, mean w = Z_1/Z_0; -inf for samples without weight. */
    at::Tensor logWeight;
    /** ln(Z_1/Z_0), and its standard error; -inf and NaN where no sample has weight. */
    double logZRatio = 0, logZRatioError = 0;
    /** The stages, lambda_0 = 0 to lambda_K = 1. */
    std::vector<double> lambdas;
    /** ln(Z_k/Z_{k-1}), k = 1..K. */
    std::vector<double> logZIncrements;
    /**
     * Between stages k-1 and k: the conditional effective part of the samples of k-1, (<v>^2/<v^2>)_{k-1} with v =
     * pi_k/pi_{k-1}; and the effective part of the weights at k, before resampling.
     */
    std::vector<double> cess, ess;
    /** The accepted part of the moves at each stage that has moves. */
    std::vector<double> acceptance;
    /** Energy evaluations of this run, and how many came with a gradient. */
    std::int64_t numEvaluations = 0, numGradients = 0;
    /** The walkers as the run leaves them, at lambda = 1. */
    PathState state;
};

/**
 * Annealed importance sampling (Neal, Stat. Comput. 11, 125, 2001; F6). From x_0 ~ pi_0,
 *
 *     log w = sum_{k=1}^{K} [log pi_k(x_{k-1}) - log pi_{k-1}(x_{k-1})],   x_k = a move of x_{k-1} that keeps pi_k
 *
 * with pi_k = pi at lambda_k, lambda_0 = 0 and lambda_K = 1. The last point, x_{K-1}, with weight w represents pi_1:
 * E[w] = Z_1/Z_0, E[w A(x_{K-1})] / E[w] = <A>_1, whatever the kernel does between. Each weight is taken at the point
 * that the stage before has left. The error of ln(Z_1/Z_0) is the delta method's for independent walkers; too small
 * when few weights dominate: look at ess.
 */
class OPENMMFLOW_EXPORT AnnealedSampler {
public:
    /** @param lambdas  0 = lambda_0 < lambda_1 < ... < lambda_K = 1: see LambdaSpacing.h */
    AnnealedSampler(std::shared_ptr<AnnealedPath> path, std::shared_ptr<AnnealedKernel> kernel,
                    std::vector<double> lambdas);
    /** 0, 1/K, 2/K, ..., 1. @param numStages  K, at least 1; 1 is importance sampling without moves */
    [[nodiscard]] static std::vector<double> equalSteps(int numStages);
    /** @param start  independent samples of pi_0, [batch, size] */
    [[nodiscard]] AnnealedResult run(const at::Tensor& start, Random& random);

private:
    std::shared_ptr<AnnealedPath> path;
    std::shared_ptr<AnnealedKernel> kernel;
    std::vector<double> lambdas;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ANNEALEDSAMPLER_H_*/
