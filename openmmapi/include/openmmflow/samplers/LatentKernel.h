#ifndef OPENMMFLOW_SAMPLERS_LATENTKERNEL_H_
#define OPENMMFLOW_SAMPLERS_LATENTKERNEL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/Acceptance.h"
#include "openmmflow/samplers/AnnealedKernel.h"

namespace OpenMMFlow {

/**
 * Moves through a flow's latent space, x' = f(z'), for pi_lambda (F2, with log pi_lambda in the place of -u):
 *
 *     Independence, PriorPreserving:  logAlpha = log pi(x') - log q(x') - log pi(x) + log q(x)
 *     RandomWalk:                     logAlpha = log pi(x') + logDet(z') - log pi(x) - logDet(z)
 *
 * On a FlowPath of the same flow, independent proposals are all accepted at lambda = 0: a fresh sample of the flow for
 * every walker. No gradients. Walkers outside the flow's domain stay where they are.
 *
 * A flow that ends in a chart without rigid motions puts x' onto the frame of x (Transform::place), which is right as
 * long as pi_lambda does not change with rigid motion.
 */
class OPENMMFLOW_EXPORT LatentKernel : public SteppedKernel {
public:
    struct Options {
        JumpKind kind = JumpKind::PriorPreserving;
        /** PriorPreserving: in (0, 1]. RandomWalk: standard deviation of the step, > 0. Independence has none. */
        double stepSize = 0.3;
        /** Proposals in each call of move(). */
        int numMoves = 1;
        /** In (0, 1), or 0 to keep the step size. */
        double targetAcceptance = 0.3;
    };
    LatentKernel(std::shared_ptr<const Flow> flow, const Options& options);
    double move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) override;

private:
    std::shared_ptr<const Flow> flow;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_LATENTKERNEL_H_*/
