#ifndef OPENMMFLOW_SAMPLERS_LATENTJUMP_H_
#define OPENMMFLOW_SAMPLERS_LATENTJUMP_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/AugmentedPotential.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/samplers/Acceptance.h"

namespace OpenMMFlow {

/** The part of the state that a jump's test needs. Per walker, float64 [batch]; z [batch, latent size]. */
struct JumpState {
    at::Tensor x, z, u, logQ, logDet;
};

/** What one jump did. [batch] each; logAlpha and uniform decide accepted. */
struct JumpInfo {
    at::Tensor logAlpha, uniform, accepted;
    std::int64_t numAccepted = 0, nonFinite = 0;
};

/** z' of a jump. @param z  [batch, latent size]; only its shape matters for Independence */
OPENMMFLOW_EXPORT at::Tensor proposeLatent(const Prior& prior, JumpKind kind, double stepSize, const at::Tensor& z,
                                           Random& random);

/**
 * Metropolised jumps through a flow's latent space for a batch of independent walkers. Leaves exp(-u) invariant.
 *
 * Where the potential is an AugmentedPotential, x is (x, a), and a is drawn anew from N(0, I) before each proposal.
 */
class OPENMMFLOW_EXPORT LatentJump {
public:
    struct Options {
        JumpKind kind = JumpKind::Independence;
        AcceptanceTest test = AcceptanceTest::Metropolis;
        /** PriorPreserving: in (0, 1]. RandomWalk: standard deviation of the step, > 0. */
        double stepSize = 0.1;
        /** 0 chooses. */
        std::uint64_t seed = 0;
    };
    LatentJump(std::shared_ptr<Flow> flow, std::shared_ptr<ReducedPotential> potential, const Options& options);
    /** Everything a jump needs to know of configurations x. @param x  [batch, size] */
    [[nodiscard]] JumpState start(const at::Tensor& x);
    /** One jump of every walker. @return what was done; state is replaced, never modified in place */
    JumpInfo step(JumpState& state);

private:
    [[nodiscard]] JumpState refresh(const JumpState& state);
    std::shared_ptr<Flow> flow;
    std::shared_ptr<ReducedPotential> potential;
    std::shared_ptr<AugmentedPotential> augmented; // the potential, or null
    Options options;
    Random random;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_LATENTJUMP_H_*/
