#ifndef OPENMMFLOW_SAMPLERS_SEQUENTIALSAMPLER_H_
#define OPENMMFLOW_SAMPLERS_SEQUENTIALSAMPLER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedSampler.h"
#include <functional>

namespace OpenMMFlow {

/**
 * Sequential Monte Carlo (Del Moral, Doucet and Jasra, J. R. Stat. Soc. B 68, 411, 2006). From x ~ pi_0, at each stage
 *
 *     weigh:     log w += log pi_k(x) - log pi_{k-1}(x)
 *     resample:  where the effective sample size has fallen below a fraction of the walkers: in proportion to w, with
 *                one random number for all (systematic); then w = the mean of w
 *     move:      a kernel that keeps pi_k
 *
 * E[w] = Z_1/Z_0 and E[w A(x)] / E[w] -> <A>_1 as in annealed importance sampling, which it becomes without resampling.
 *
 * The walkers form groups that resample among themselves and are independent of each other: each group's mean weight
 * is an unbiased estimate of Z_1/Z_0, and the error of ln(Z_1/Z_0) comes from the scatter of these, or from that of
 * their logarithms, taken as normal, where it is larger: groups that differ by orders of magnitude have an error to
 * match. Of fewer than some 20 groups it is too small, and it knows nothing of modes that all groups have lost.
 *
 * With layers, one transform T_k for each stage, walkers are transported before they are weighed (annealed flow
 * transport; Arbel, Matthews and Doucet, ICML 2021; Matthews et al., ICML 2022):
 *
 *     x' = T_k(x),   log w += log pi_k(x') + logDet_k(x) - log pi_{k-1}(x)
 *
 * which is exact for any layers that reach all of pi_k: with walls, or other places without density, T_k has to take
 * the support of pi_{k-1} to one that holds that of pi_k. AnnealedFlowTransport trains them.
 */
class OPENMMFLOW_EXPORT SequentialSampler {
public:
    struct Options {
        /** A group resamples when its effective part is below this: 0 never, 1 always. */
        double resampleBelow = 0.5;
        /** At least 1; with 1 the error is NaN. The number of walkers must be a multiple of it. */
        int numGroups = 20;
        /** Where lambdas are chosen at run time: the conditional effective part of each step, in (0, 1). */
        double targetCess = 0.9;
        /** Where lambdas are chosen at run time: more stages than this throw. */
        int maxStages = 1000;
    };
    /**
     * @param lambdas  0 = lambda_0 < ... < lambda_K = 1, or empty: each is then chosen at run time by nextLambda(),
     *                 which makes estimates consistent, no longer unbiased
     */
    SequentialSampler(std::shared_ptr<AnnealedPath> path, std::shared_ptr<AnnealedKernel> kernel,
                      std::vector<double> lambdas, const Options& options);
    /** Transport by T_1..T_K. Needs lambdas that are given. @param layers  one for each stage, or empty for none */
    void setLayers(std::vector<std::shared_ptr<Transform>> layers);
    [[nodiscard]] const std::vector<std::shared_ptr<Transform>>& getLayers() const { return layers; }
    [[nodiscard]] const std::shared_ptr<AnnealedPath>& getPath() const { return path; }
    [[nodiscard]] const std::shared_ptr<AnnealedKernel>& getKernel() const { return kernel; }
    [[nodiscard]] const std::vector<double>& getLambdas() const { return lambdas; }
    [[nodiscard]] int getNumGroups() const { return options.numGroups; }
    /** @param start  independent samples of pi_0, [batch, size] */
    [[nodiscard]] AnnealedResult run(const at::Tensor& start, Random& random);
    /**
     * Called at each stage with k, the walkers of stage k-1, and their log weights [batch], before they are
     * transported.
     */
    using Observer = std::function<void(int stage, const PathState& walkers, const at::Tensor& logWeight)>;
    [[nodiscard]] AnnealedResult runObserved(const at::Tensor& start, Random& random, const Observer& observer);

private:
    class Run;
    std::shared_ptr<AnnealedPath> path;
    std::shared_ptr<AnnealedKernel> kernel;
    std::vector<double> lambdas;
    Options options;
    std::vector<std::shared_ptr<Transform>> layers;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_SEQUENTIALSAMPLER_H_*/
