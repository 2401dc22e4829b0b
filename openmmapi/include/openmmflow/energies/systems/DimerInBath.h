#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_DIMERINBATH_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_DIMERINBATH_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/AnalyticSystem.h"

namespace OpenMMFlow {

/**
 * A dimer with a short and a long state in a crowd of repulsive particles, in two dimensions (Noe et al. 2019):
 *
 *     U = slope s - quadratic s^2 + quartic s^4,   s = 2 (d - middle),   d the length of the dimer (particles 0 and 1)
 *       + tether [(x_0 + x_1)^2 + y_0^2 + y_1^2]
 *       + sum over pairs other than the dimer of epsilon (sigma / r)^12
 *       + wall sum over particles of max(0, |x| - halfWidth)^2 + max(0, |y| - halfWidth)^2
 *
 * Formula and defaults are those of the authors' program (deep_boltzmann, ParticleDimer), whose wall, (sign + 1) 100
 * d^2, is 200 d^2. The first line has minima near d = 0.94 and 2.06 and a barrier of 15 to 17 kT at 1.5. Distances are
 * those of x and y alone, so that the third coordinates are independent.
 */
class OPENMMFLOW_EXPORT DimerInBath : public AnalyticSystem {
public:
    struct Options {
        /** Particles beside the dimer's two, >= 0. */
        int numSolvent = 36;
        /** Lengths in nm, energies in kJ/mol. quartic, middle, tether, epsilon, sigma, halfWidth, wall > 0. */
        double slope = -0.5, quadratic = 25, quartic = 10, middle = 1.5, tether = 20;
        double epsilon = 1, sigma = 1.1, halfWidth = 3, wall = 200;
    };
    /**
     * What is known of the dimer without solvent and without walls: by quadrature of
     * p(d) ~ d exp(-U_dimer(d)) exp(-kappa) I_0(kappa), kappa = tether d^2/4.
     */
    struct BareTruth {
        /** ln Z of x_0, y_0, x_1, y_1. */
        double logZ = 0;
        /** P(d < middle), and F_long - F_short. */
        double probabilityShort = 0, deltaF = 0;
    };
    explicit DimerInBath(const Options& options);
    DimerInBath();
    [[nodiscard]] int getNumParticles() const { return options.numSolvent + 2; }
    /** U, kJ/mol. @param positions  nm; the third coordinates do not matter */
    [[nodiscard]] double energy(const std::vector<OpenMM::Vec3>& positions) const;
    [[nodiscard]] BareTruth getBareTruth() const { return truth; }
    [[nodiscard]] std::unique_ptr<OpenMM::System> createSystem() const override;
    /** The dimer halfway, the solvent on a square lattice. The energy is high: minimise it first. */
    [[nodiscard]] std::vector<OpenMM::Vec3> getPositions() const override;
    /** x and y of each particle. */
    [[nodiscard]] std::vector<int> getColumns() const override;

private:
    [[nodiscard]] double dimerEnergy(double distance) const;
    Options options;
    BareTruth truth;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_DIMERINBATH_H_*/
