#ifndef OPENMMFLOW_TRAINING_WORKLOSS_H_
#define OPENMMFLOW_TRAINING_WORKLOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"

namespace OpenMMFlow {

/**
 * The mean works of a map M from the samples of one state to those of another, both ways: learned Bennett acceptance
 * ratio,
 *
 *     L = mean_A(w_F) + mean_B(w_R)
 *     w_F = u_B(M x) - u_A(x) - log|det dM/dx|,         x sampled from A
 *     w_R = u_A(M^-1 y) - u_B(y) - log|det dM^-1/dy|,   y sampled from B
 *
 * Each mean work exceeds the free energy difference in its direction by a Kullback-Leibler divergence, so that L >= 0,
 * the dissipation both ways, in kT; it is 0 where M carries A's distribution to B's, and then every work is the free
 * energy difference: see FreeEnergy.h. M is the transform of the flow that is trained, forward from A to B; the flow's
 * prior is not used.
 *
 * In training only, energies above energyCut enter as cut + ln(u - cut + 1), and samples without an energy are left
 * out. The works of frames that were trained on are too small: take free energies from others. Blind to what neither
 * state's frames have.
 *
 * Sources: Jarzynski, Phys. Rev. E 65, 046122 (2002); Hahn and Then, Phys. Rev. E 79, 011113 (2009); Wirnsberger et
 * al., J. Chem. Phys. 153, 144112 (2020).
 */
class OPENMMFLOW_EXPORT WorkLoss : public Loss {
public:
    struct Options {
        /** Frames of each state in a batch. */
        int batchSize = 256;
        /** Reduced energy, above the largest of the frames of that state, above which it counts logarithmically. */
        double energyCut = 100.0;
        /** The part of the frames, picked at random, that is kept for validation. In [0, 1). */
        double validationFraction = 0.0;
        /** Seed of that choice. */
        std::uint64_t seed = 1;
    };
    /**
     * Frames without a finite energy of their own state are left out. Throws if none is left of a state.
     *
     * @param potentialA, potentialB  of the same size
     * @param framesA, framesB        samples of each, [any number, size]
     */
    WorkLoss(std::shared_ptr<ReducedPotential> potentialA, std::shared_ptr<ReducedPotential> potentialB,
             const at::Tensor& framesA, const at::Tensor& framesB, const Options& options);
    [[nodiscard]] std::string getName() const override { return "work both ways"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;
    [[nodiscard]] double validate(const Flow& flow) override;

private:
    /** Some samples of a state and their energies, on the processor. */
    struct Frames {
        at::Tensor x, u; // [frames, size], [frames]
        [[nodiscard]] Frames select(const at::Tensor& rows) const;
        [[nodiscard]] Frames draw(int count, Random& random) const;
        [[nodiscard]] Frames onDeviceOf(const Flow& flow) const;
    };
    struct State {
        std::shared_ptr<ReducedPotential> potential;
        Frames training, validation;
        double cut = 0; // an energy
    };
    [[nodiscard]] State makeState(std::shared_ptr<ReducedPotential> potential, const at::Tensor& frames,
                                  Random& random) const;
    [[nodiscard]] at::Tensor sumOfMeans(const Transform& map, const Frames& ofA, const Frames& ofB) const;
    Options options;
    State a, b;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_WORKLOSS_H_*/
