#ifndef OPENMMFLOW_SAMPLERS_STOCHASTICFLOW_H_
#define OPENMMFLOW_SAMPLERS_STOCHASTICFLOW_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedSampler.h"
#include <variant>

namespace OpenMMFlow {

/**
 * A stochastic normalizing flow (Wu, Koehler and Noe, NeurIPS 2020): blocks in any order, each either an invertible
 * transform or moves that keep a stage of a path. From x_0 ~ pi_0 to x ~ the last block,
 *
 *     log w = log pi_1(x) - log pi_0(x_0) + sum over blocks of
 *                 logDet(before)                              transforms
 *                 log pi_k(before) - log pi_k(after)          moves that keep pi_k
 *
 * Since a move that keeps pi_k has forward and reverse densities in the ratio pi_k(after)/pi_k(before), the weight is
 * that of the whole path: E[w] = Z_1/Z_0 and E[w A(x)] / E[w] = <A>_1, whatever the transforms do, as long as some path
 * leads to all of pi_1. Transforms alone are a flow; moves alone, at increasing lambda, are annealed importance
 * sampling.
 */
class OPENMMFLOW_EXPORT StochasticFlow {
public:
    explicit StochasticFlow(std::shared_ptr<AnnealedPath> path);
    /** @param transform  of as many variables as the path, in and out */
    void addTransform(std::shared_ptr<Transform> transform);
    /** @param lambda  the stage that the kernel keeps, in [0, 1]  @param numMoves  calls of the kernel, at least 1 */
    void addMoves(std::shared_ptr<AnnealedKernel> kernel, double lambda, int numMoves = 1);
    [[nodiscard]] int getNumBlocks() const { return static_cast<int>(blocks.size()); }
    /**
     * Kernels' stages are numbered by their blocks, from 0. The result's lambdas, increments and effective parts are
     * those of the whole: {0, 1} and one of each.
     *
     * @param start  independent samples of pi_0, [batch, size]
     */
    [[nodiscard]] AnnealedResult run(const at::Tensor& start, Random& random);

private:
    struct Moves {
        std::shared_ptr<AnnealedKernel> kernel;
        double lambda;
        int numMoves;
    };
    std::shared_ptr<AnnealedPath> path;
    std::vector<std::variant<std::shared_ptr<Transform>, Moves>> blocks;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_STOCHASTICFLOW_H_*/
