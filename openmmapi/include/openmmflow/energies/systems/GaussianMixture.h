#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_GAUSSIANMIXTURE_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_GAUSSIANMIXTURE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/AnalyticSystem.h"
#include "openmmflow/latent/Random.h"

namespace OpenMMFlow {

/**
 * A particle in a mixture of round normal densities of x and y:
 *
 *     U(x, y) = -ln sum_k w_k N((x, y); (m_kx, m_ky), s_k^2 I),   sum_k w_k = 1,   ln Z = 0
 */
class OPENMMFLOW_EXPORT GaussianMixture : public AnalyticSystem {
public:
    /**
     * One number of each list per component, at least one component.
     *
     * @param weights  > 0; divided by their sum
     * @param meanX    nm   @param meanY  nm
     * @param sigma    standard deviation of either coordinate, nm, > 0
     */
    GaussianMixture(std::vector<double> weights, std::vector<double> meanX, std::vector<double> meanY,
                    std::vector<double> sigma);
    [[nodiscard]] int getNumComponents() const { return static_cast<int>(weights.size()); }
    /** w_k, normalised. */
    [[nodiscard]] const std::vector<double>& getWeights() const { return weights; }
    /** (<x>, <y>), and (var x, cov xy, var y). */
    [[nodiscard]] std::vector<double> getMean() const;
    [[nodiscard]] std::vector<double> getCovariance() const;
    /** U(x, y), kJ/mol. */
    [[nodiscard]] double energy(double x, double y) const;
    /** Independent samples of exp(-U). @return [count, 2] */
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const;
    [[nodiscard]] std::unique_ptr<OpenMM::System> createSystem() const override;
    /** The mean of the first component. */
    [[nodiscard]] std::vector<OpenMM::Vec3> getPositions() const override;
    [[nodiscard]] std::vector<int> getColumns() const override { return {0, 1}; }

private:
    std::vector<double> weights, meanX, meanY, sigma;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_GAUSSIANMIXTURE_H_*/
