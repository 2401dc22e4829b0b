#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_LATTICEPHI4_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_LATTICEPHI4_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/AnalyticSystem.h"
#include "openmmflow/latent/Random.h"

namespace OpenMMFlow {

/**
 * A real field on a periodic lattice of any dimension, with a quartic self-interaction. u is the action
 *
 *     S = sum_x [ -2 hopping sum_mu phi_x phi_{x+mu} + quadratic phi_x^2 + quartic phi_x^4 ]
 *
 * which is invariant under phi -> -phi and under translations. Where an extent is 2, its two bonds join the same sites,
 * and both count. Sites are numbered in row-major order, the last extent fastest, one column of x each: a batch
 * [batch, sites] reshaped to [batch, extents...] is the fields.
 *
 * Members of the family, by their usual parameters:
 *
 *     fromKappa      quadratic = 1 - 2 lambda, hopping = kappa, quartic = lambda
 *     fromMass       S = sum_x [sum_mu (phi_{x+mu} - phi_x)^2 + massSquared phi_x^2 + lambda phi_x^4]
 *     quantumPath    S = a sum_t [(m0/2) ((x_{t+1} - x_t)/a)^2 + (m0 muSquared/2) x_t^2 + (lambda/4) x_t^4], one
 *                    dimension: the Euclidean path of a particle of mass m0, a double well where muSquared < 0
 *     ringPolymer    the path of a harmonic oscillator of frequency omega at inverse temperature beta in numBeads
 *                    slices, hbar = 1: quantumPath with a = beta/numBeads, muSquared = omega^2, lambda = 0
 *
 * Sources: Nicoli, Anders, Funcke, Hartung, Jansen, Kessel, Nakajima and Stornati, PRL 126, 032001 (2021), fromKappa;
 * Albergo, Kanwar and Shanahan, PRD 100, 034515 (2019), and Gerdes, de Haan, Rainone, Bondesan and Cheng, SciPost Phys.
 * 15, 238 (2023), fromMass with massSquared = -4; Nicoli, Anders, Hartung, Jansen, Kessel and Nakajima, PRD 108, 114501
 * (2023), quantumPath.
 */
class OPENMMFLOW_EXPORT LatticePhi4 : public AnalyticSystem {
public:
    struct Options {
        /** Sites along each axis, each at least 2. */
        std::vector<int> extents{8, 8};
        double hopping = 0.2, quadratic = 0.956;
        /** >= 0. If 0, quadratic > 2 |hopping| times the number of extents: else exp(-S) has no integral. */
        double quartic = 0.022;
    };
    explicit LatticePhi4(const Options& options);
    [[nodiscard]] static LatticePhi4 fromKappa(const std::vector<int>& extents, double kappa, double lambda);
    [[nodiscard]] static LatticePhi4 fromMass(const std::vector<int>& extents, double massSquared, double lambda);
    /** @param numSlices  times t  @param spacing  a, > 0  @param mass  m0, > 0 */
    [[nodiscard]] static LatticePhi4 quantumPath(int numSlices, double spacing, double mass, double muSquared,
                                                 double lambda);
    /** @param beta, mass, omega  > 0 */
    [[nodiscard]] static LatticePhi4 ringPolymer(int numBeads, double beta, double mass, double omega);
    [[nodiscard]] Options getOptions() const { return options; }
    [[nodiscard]] int getNumSites() const;
    /** S of a field, one number for each site. */
    [[nodiscard]] double energy(const std::vector<double>& phi) const;
    /**
     * ln of the integral of exp(-S) over all sites, where it is known:
     *
     *     quartic = 0   (sites/2) ln pi - (1/2) sum_k ln(quadratic - 2 hopping sum_mu cos k_mu), k_mu = 2 pi n/extent
     *     hopping = 0   sites times ln of the integral over one of them
     *     one dimension, and two where an extent is 2: ln tr T^L, T the transfer matrix between neighbouring sites or
     *                   pairs, on 256 nodes for each, of which eigenvectors of T's factors are kept down to 1e-14
     *
     * Throws otherwise.
     */
    [[nodiscard]] double getLogZ() const;
    /** Independent samples of exp(-S) where quartic is 0, as a start for annealing. @return float64 [count, sites] */
    [[nodiscard]] at::Tensor sampleFree(std::int64_t count, Random& random) const;
    /** S by closed formulas on tensors, of fields on any device: faster than the OpenMM System of createPotential(). */
    [[nodiscard]] std::shared_ptr<ReducedPotential> createNativePotential() const;
    /** One particle for each site, whose first coordinate is phi. */
    [[nodiscard]] std::unique_ptr<OpenMM::System> createSystem() const override;
    /** phi = 0 everywhere. */
    [[nodiscard]] std::vector<OpenMM::Vec3> getPositions() const override;
    [[nodiscard]] std::vector<int> getColumns() const override;

private:
    [[nodiscard]] std::vector<std::pair<int, int>> getBonds() const;
    [[nodiscard]] double freeLogZ() const;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_LATTICEPHI4_H_*/
