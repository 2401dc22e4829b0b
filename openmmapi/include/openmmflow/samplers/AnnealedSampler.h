#ifndef OPENMMFLOW_SAMPLERS_ANNEALEDSAMPLER_H_
#define OPENMMFLOW_SAMPLERS_ANNEALEDSAMPLER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedPath.h"

namespace OpenMMFlow {

/** Walkers on a path: x [batch, size], and the path's ends there. */
struct AnnealedState {
    at::Tensor x;
    PathPoint point;
};

/** A move along an AnnealedPath. */
class OPENMMFLOW_EXPORT AnnealedKernel {
public:
    virtual ~AnnealedKernel() = default;
    /**
     * Move every walker by a transition that leaves pi_beta invariant. The state is replaced, never modified in place.
     *
     * @param stage  the number of the stage that beta belongs to, for kernels that treat stages differently
     * @return the accepted part of the moves
     */
    virtual double move(AnnealedPath& path, int stage, double beta, AnnealedState& state, Random& random) = 0;
};

/**
 * Hamiltonian Monte Carlo (Duane et al., Phys. Lett. B 195, 216, 1987) with unit masses: momenta are drawn anew,
 * numSteps leapfrog steps follow the gradient of log pi_beta, and the end point is decided by Metropolis' test, so that
 * pi_beta is invariant whatever the step size. A trajectory that leaves the domain, or whose energy is not finite, is
 * rejected.
 */
class OPENMMFLOW_EXPORT HamiltonianKernel : public AnnealedKernel {
public:
    struct Options {
        /** Length of a leapfrog step at first, in units of x, > 0. */
        double stepSize = 0.1;
        /** Leapfrog steps of a trajectory, each an evaluation of the path. */
        int numSteps = 5;
        /** Trajectories in each call of move(). */
        int numMoves = 1;
        /**
         * After each call the step size of its stage grows or shrinks by a tenth towards this acceptance, for later
         * calls. In (0, 1), or 0 to keep the step size.
         */
        double targetAcceptance = 0.65;
    };
    explicit HamiltonianKernel(const Options& options);
    double move(AnnealedPath& path, int stage, double beta, AnnealedState& state, Random& random) override;
    /** The step size that a stage will use. */
    [[nodiscard]] double getStepSize(int stage) const;
    /** The step sizes of the stages that have been moved so far, as adapted. */
    [[nodiscard]] const std::vector<double>& getStepSizes() const { return stepSizes; }
    void setStepSizes(std::vector<double> values);

private:
    Options options;
    std::vector<double> stepSizes; // by stage
};

/** What one run of an AnnealedSampler returns. */
struct AnnealedResult {
    /** End points [batch, size], and the path's ends there [batch]. */
    at::Tensor x, log0, log1;
    /** log w, float64 [batch]; -inf for walkers that pi_1 gives no weight. */
    at::Tensor logWeight;
    /** The accepted part of the moves at each stage that has moves. */
    std::vector<double> acceptance;
};

/**
 * Annealed importance sampling (Neal, Stat. Comput. 11, 125, 2001; F6). From x_0 ~ pi_0,
 *
 *     log w = sum_{k=1}^{K} [log pi_k(x_{k-1}) - log pi_{k-1}(x_{k-1})],   x_k = a move of x_{k-1} that keeps pi_k
 *
 * with pi_k = pi at beta_k, beta_0 = 0 and beta_K = 1. The last point, x_{K-1}, with weight w represents pi_1:
 * E[w] = Z_1/Z_0, E[w A(x_{K-1})] / E[w] = <A>_1, whatever the kernel does between. Each weight is taken at the point
 * that the stage before has left.
 */
class OPENMMFLOW_EXPORT AnnealedSampler {
public:
    /** @param betas  0 = beta_0 < beta_1 < ... < beta_K = 1 */
    AnnealedSampler(std::shared_ptr<AnnealedPath> path, std::shared_ptr<AnnealedKernel> kernel,
                    std::vector<double> betas);
    /** 0, 1/K, 2/K, ..., 1. @param numStages  K, at least 1; 1 is importance sampling without moves */
    [[nodiscard]] static std::vector<double> equalSteps(int numStages);
    /** @param start  independent samples of pi_0, [batch, size] */
    [[nodiscard]] AnnealedResult run(const at::Tensor& start, Random& random);

private:
    std::shared_ptr<AnnealedPath> path;
    std::shared_ptr<AnnealedKernel> kernel;
    std::vector<double> betas;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ANNEALEDSAMPLER_H_*/
