#ifndef OPENMMFLOW_TRAINING_LATENTACCEPTANCELOSS_H_
#define OPENMMFLOW_TRAINING_LATENTACCEPTANCELOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"

namespace OpenMMFlow {

/**
 * Far jumps that are accepted: training for latent Monte Carlo with independent proposals (Noe et al. 2019). With
 * F(z) = u(x) + log q(x), x = f(z), which is minus the log weight of F1,
 *
 *     L = -E[log p + c log|x_1 - x_2|^2],   p = 1/(1 + exp(F(z_2) - F(z_1))),   z_1 = f^-1(x_1)
 *
 * where x_1 is a frame of the data, z_2 comes from the prior, and p is the Barker acceptance of the jump from z_1 to
 * z_2 (F3). Where the flow leaves rigid motions out, x_2 is placed on the frame of x_1 first, as LatentJump does.
 *
 * Energies of samples above energyCut enter as cut + ln(u - cut + 1), in training only; pairs without a finite F are
 * left out. Frames keep the energies that they have when they are added.
 */
class OPENMMFLOW_EXPORT LatentAcceptanceLoss : public Loss {
public:
    struct Options {
        /** Pairs in a batch. */
        int batchSize = 256;
        /** c, the weight of the displacement, >= 0. */
        double displacementWeight = 1.0;
        /** Reduced energy above which it counts logarithmically. */
        double energyCut = 1e3;
    };
    LatentAcceptanceLoss(std::shared_ptr<ReducedPotential> potential, const Options& options);
    /** Add frames; those without a finite energy are left out. Throws if that is all. @param x  [frames, size] */
    void addData(const at::Tensor& x);
    [[nodiscard]] std::int64_t getNumFrames() const;
    [[nodiscard]] std::string getName() const override { return "latent acceptance"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;

private:
    std::shared_ptr<ReducedPotential> potential;
    Options options;
    at::Tensor frames, energies; // float64 [frames, size], [frames]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_LATENTACCEPTANCELOSS_H_*/
