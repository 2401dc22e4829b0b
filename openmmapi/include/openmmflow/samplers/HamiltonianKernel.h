#ifndef OPENMMFLOW_SAMPLERS_HAMILTONIANKERNEL_H_
#define OPENMMFLOW_SAMPLERS_HAMILTONIANKERNEL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedKernel.h"

namespace OpenMMFlow {

/**
 * Hamiltonian Monte Carlo (Duane et al., Phys. Lett. B 195, 216, 1987) with unit masses: momenta are drawn anew,
 * numSteps leapfrog steps follow the gradient of log pi_lambda, and the end point is decided by Metropolis' test, so
 * that pi_lambda is invariant whatever the step size. A trajectory whose end is outside the domain, or has no finite
 * energy, is rejected; where it leaves the domain on the way there is no force.
 */
class OPENMMFLOW_EXPORT HamiltonianKernel : public SteppedKernel {
public:
    struct Options {
        /** Length of a leapfrog step at first, in units of x, > 0. */
        double stepSize = 0.1;
        /** Leapfrog steps of a trajectory, each an evaluation of the path. */
        int numSteps = 5;
        /** Trajectories in each call of move(). */
        int numMoves = 1;
        /** In (0, 1), or 0 to keep the step size. */
        double targetAcceptance = 0.65;
    };
    explicit HamiltonianKernel(const Options& options);
    double move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) override;
    [[nodiscard]] Gradient getGradient() const override { return Gradient::Compute; }

private:
    Options options;
};

/**
 * Generalised Hamiltonian Monte Carlo, Metropolised Langevin dynamics (Horowitz, Phys. Lett. B 268, 247, 1991): the
 * walkers keep their momenta p from move to move, at all stages N(0, I).
 *
 *     refresh:  p = sqrt(1 - r^2) p + r e,   e ~ N(0, I)
 *     propose:  (x', p') = numSteps leapfrog steps from (x, p)
 *     accept with min(1, exp(H(x, p) - H(x', p'))), H = -log pi_lambda + |p|^2/2;  otherwise (x, -p)
 *
 * Without the flip on rejection neither x nor p would keep its distribution. A flip undoes progress, which calls for a
 * high acceptance; r = 1 is HamiltonianKernel, r = sqrt(1 - exp(-2 gamma h)) one step h of Langevin dynamics with
 * friction gamma.
 */
class OPENMMFLOW_EXPORT GeneralizedHamiltonianKernel : public SteppedKernel {
public:
    struct Options {
        /** Length of a leapfrog step at first, in units of x, > 0. */
        double stepSize = 0.1;
        /** Leapfrog steps of a proposal, each an evaluation of the path. */
        int numSteps = 1;
        /** Proposals in each call of move(). */
        int numMoves = 5;
        /** r, the part of the momenta that is drawn anew before each proposal, in (0, 1]. */
        double refreshment = 0.3;
        /** In (0, 1), or 0 to keep the step size. */
        double targetAcceptance = 0.9;
    };
    explicit GeneralizedHamiltonianKernel(const Options& options);
    double move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) override;
    [[nodiscard]] Gradient getGradient() const override { return Gradient::Compute; }

private:
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_HAMILTONIANKERNEL_H_*/
