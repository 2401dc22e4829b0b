#ifndef OPENMMFLOW_TRAINING_SYMMETRICACCEPTANCELOSS_H_
#define OPENMMFLOW_TRAINING_SYMMETRICACCEPTANCELOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"

namespace OpenMMFlow {

/**
 * Acceptance of jumps both ways (Noe et al. 2019). With F(z) = u(x) + log q(x), x = f(z), and dF = F(z_2) - F(z_1),
 *
 *     L = -E log(p_12 p_21) = E log(2 + exp(dF) + exp(-dF)) = E[log(1 + exp(dF)) + log(1 + exp(-dF))]
 *
 * It is at least ln 4, reached where F is a constant: then q is proportional to exp(-u) wherever z_1 and z_2 fall. z_2
 * comes from the prior. z_1 is the latent point of a frame where data were added; else it comes from the prior too, and
 * the loss can't see what the flow does not reach.
 *
 * Energies of samples above energyCut enter as cut + ln(u - cut + 1), in training only; pairs without a finite F are
 * left out. Frames keep the energies that they have when they are added.
 */
class OPENMMFLOW_EXPORT SymmetricAcceptanceLoss : public Loss {
public:
    struct Options {
        /** Pairs in a batch. */
        int batchSize = 256;
        /** Reduced energy above which it counts logarithmically. */
        double energyCut = 1e3;
    };
    SymmetricAcceptanceLoss(std::shared_ptr<ReducedPotential> potential, const Options& options);
    /** Add frames; those without a finite energy are left out. Throws if that is all. @param x  [frames, size] */
    void addData(const at::Tensor& x);
    [[nodiscard]] std::int64_t getNumFrames() const;
    [[nodiscard]] std::string getName() const override { return "symmetric acceptance"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;

private:
    std::shared_ptr<ReducedPotential> potential;
    Options options;
    at::Tensor frames, energies; // float64 [frames, size], [frames]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_SYMMETRICACCEPTANCELOSS_H_*/
