#ifndef OPENMMFLOW_SAMPLERS_REPLICAEXCHANGE_H_
#define OPENMMFLOW_SAMPLERS_REPLICAEXCHANGE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedSampler.h"

namespace OpenMMFlow {

/** What replica exchange returns; samples have no weights, so that ess is empty and logWeight the same for all. */
struct ReplicaExchangeResult : AnnealedResult {
    /** The accepted part of the swaps between stages k-1 and k, k = 1..K, and BAR's overlap of the two. */
    std::vector<double> swapAcceptance, overlap;
    /** Walkers that came from stage 0 to stage K, per ladder and sweep. */
    double tripsPerSweep = 0;
};

/**
 * Replica exchange along a path (Swendsen and Wang, PRL 57, 2607, 1986; Sugita and Okamoto, Chem. Phys. Lett. 314, 141,
 * 1999). A ladder holds one walker at each stage; in each sweep all move by the kernel, and then neighbours (k, k+1)
 * with k even, in the next sweep odd, exchange places with min(1, exp(logAlpha)),
 *
 *     logAlpha = log pi_k(x_{k+1}) + log pi_{k+1}(x_k) - log pi_k(x_k) - log pi_{k+1}(x_{k+1})
 *
 * which leaves the product of all pi_k invariant. A batch of independent ladders runs side by side.
 *
 * ln(Z_k/Z_{k-1}) comes from BAR over the works between neighbours, before their swaps. Works are correlated in time
 * and between neighbouring pairs, so that the error of the sum comes from the scatter of blocks' contributions to it,
 *
 *     variance = B/(B-1) sum_b [sum_k g_kb/S_k]^2,  g_kb = sum_{F in b} f(w - dF_k) - sum_{R in b} f(w + dF_k)
 *
 * with f and S of BAR (FreeEnergy.h) and the ladders as blocks where there are at least 20, else 20 consecutive parts
 * of the run, which have to be much longer than its correlation time. It knows nothing of modes that no walker has
 * seen, nor of ladders that are not yet in equilibrium, all away from it in the same direction: equilibrate for several
 * trips of a walker from end to end. Throws "no overlap" where BAR does.
 *
 * Stage 0 moves by the kernel too. On a FlowPath, a LatentKernel with independent proposals brings fresh samples of the
 * flow at lambda = 0.
 */
class OPENMMFLOW_EXPORT ReplicaExchange {
public:
    struct Options {
        /** Sweeps before anything is recorded; the kernel's step sizes adapt only there. */
        int numEquilibration = 100;
        /** Sweeps that are recorded: at least 2, and 40 for fewer than 20 ladders. */
        int numSweeps = 1000;
        /** Sweeps between samples of the last stage, at least 1. */
        int sampleInterval = 1;
    };
    /** @param lambdas  0 = lambda_0 < ... < lambda_K = 1 */
    ReplicaExchange(std::shared_ptr<AnnealedPath> path, std::shared_ptr<AnnealedKernel> kernel,
                    std::vector<double> lambdas, const Options& options);
    /**
     * @param start  [ladders, size]: where all stages of each ladder start. Or [(K+1) ladders, size]: the stages one
     *               after the other
     * @param numLadders  at least 1
     * @return the samples of the last stage, [samples ladders, size] by time
     */
    [[nodiscard]] ReplicaExchangeResult run(const at::Tensor& start, int numLadders, Random& random);

private:
    class Run;
    std::shared_ptr<AnnealedPath> path;
    std::shared_ptr<AnnealedKernel> kernel;
    std::vector<double> lambdas;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_REPLICAEXCHANGE_H_*/
