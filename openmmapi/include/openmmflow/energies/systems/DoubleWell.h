#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_DOUBLEWELL_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_DOUBLEWELL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/AnalyticSystem.h"
#include "openmmflow/latent/Random.h"

namespace OpenMMFlow {

/**
 * A particle in two wells along x, and a harmonic one along y (Noe et al. 2019):
 *
 *     U(x, y) = a x^4/4 - b x^2/2 + c x + d y^2/2
 *
 * With c = 0 and b = a the minima are at +-1 and the barrier is a/4.
 */
class OPENMMFLOW_EXPORT DoubleWell : public AnalyticSystem {
public:
    struct Options {
        /** a, b, d > 0, and 4 b^3 > 27 a c^2: there are two minima. */
        double a = 1, b = 6, c = 1, d = 1;
    };
    /** What is known, at kT = 1; by quadrature where it has no closed form. */
    struct Truth {
        /** ln Z of (x, y), and of x alone. */
        double logZ = 0, logZX = 0;
        /** Where dU/dx = 0, in ascending order. */
        double leftMinimum = 0, barrier = 0, rightMinimum = 0;
        double meanX = 0, varianceX = 0;
        /** P(x < barrier), and F_right - F_left = ln(P(left)/P(right)). */
        double probabilityLeft = 0, deltaF = 0;
    };
    explicit DoubleWell(const Options& options);
    DoubleWell();
    /** U(x, y), kJ/mol. */
    [[nodiscard]] double energy(double x, double y) const;
    [[nodiscard]] Truth getTruth() const { return truth; }
    /** Independent samples of exp(-U). @return [count, 2] */
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const;
    [[nodiscard]] std::unique_ptr<OpenMM::System> createSystem() const override;
    /** The left minimum. */
    [[nodiscard]] std::vector<OpenMM::Vec3> getPositions() const override;
    [[nodiscard]] std::vector<int> getColumns() const override { return {0, 1}; }

private:
    Options options;
    Truth truth;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_DOUBLEWELL_H_*/
