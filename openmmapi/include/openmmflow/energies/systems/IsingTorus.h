#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_ISINGTORUS_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_ISINGTORUS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/AnalyticSystem.h"
#include "openmmflow/latent/Random.h"

namespace OpenMMFlow {

/**
 * The Ising model on a torus, Z = sum_s exp(K sum_<xy> s_x s_y), s = +-1, by its continuous dual: a real field psi with
 *
 *     u(psi) = psi^T B psi/2 - sum_x ln(2 cosh (B psi)_x) + c N/2 + (N/2) ln 2 pi - (1/2) ln det B
 *     (B psi)_x = c psi_x + K sum of the four neighbours of psi_x,   du/dpsi = B (psi - tanh(B psi))
 *
 * The integral of exp(-u) over psi is Z itself: with c s^2 = c, s^T B s/2 = c N/2 + K sum_<xy> s_x s_y, and exp(s^T B
 * s/2) is the integral of exp(-psi^T B psi/2 + s^T B psi) over psi times sqrt(det B/(2 pi)^N) (Hubbard-Stratonovich).
 * The shift c makes B positive definite, whose eigenvalues are c + 2 K (cos k_1 + cos k_2). Given spins, psi is N(s,
 * B^-1); given psi, spins are independent with <s> = tanh(B psi).
 *
 * Sites are numbered row by row. Sources: Hubbard, PRL 3, 77 (1959); Zhang, Sutton, Storkey and Ghahramani, NeurIPS
 * 2012; Li and Wang, PRL 121, 260601 (2018); ln Z: Kaufman, Phys. Rev. 76, 1232 (1949).
 */
class OPENMMFLOW_EXPORT IsingTorus : public AnalyticSystem {
public:
    struct Options {
        /** Each at least 3. */
        int rows = 16, columns = 16;
        /** K = J/kT. The infinite lattice orders above ln(1 + sqrt(2))/2 = .4407. */
        double coupling = 0.44;
        /** c > 4 |K|; 0 takes 5 |K|. The smaller, the closer psi is to spins, and the wider its softest modes. */
        double shift = 0;
    };
    explicit IsingTorus(const Options& options);
    [[nodiscard]] Options getOptions() const { return options; }
    [[nodiscard]] int getNumSites() const { return options.rows * options.columns; }
    /** ln Z, exact for any K > 0. */
    [[nodiscard]] double getLogZ() const;
    /** u of psi, one number for each site. */
    [[nodiscard]] double energy(const std::vector<double>& psi) const;
    /** u by closed formulas on tensors, of fields on any device. */
    [[nodiscard]] std::shared_ptr<ReducedPotential> createNativePotential() const;
    /** Fields psi ~ N(s, B^-1). @param spins  [batch, sites]  @return float64 [batch, sites] */
    [[nodiscard]] at::Tensor sampleGivenSpins(const at::Tensor& spins, Random& random) const;
    /** One particle for each site, whose first coordinate is psi. */
    [[nodiscard]] std::unique_ptr<OpenMM::System> createSystem() const override;
    /** psi = 0 everywhere. */
    [[nodiscard]] std::vector<OpenMM::Vec3> getPositions() const override;
    [[nodiscard]] std::vector<int> getColumns() const override;

private:
    [[nodiscard]] std::vector<int> getNeighbours(int site) const;
    [[nodiscard]] double getConstant() const;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_ISINGTORUS_H_*/
