#ifndef OPENMMFLOW_ENERGIES_CONSTRAINTMETRIC_H_
#define OPENMMFLOW_ENERGIES_CONSTRAINTMETRIC_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <ATen/core/Tensor.h>
#include <memory>
#include <openmm/System.h>
#include <vector>

namespace OpenMMFlow {

/**
 * The mass-metric factor of constrained dynamics (F5): constrained Langevin dynamics samples
 *
 *     exp(-u) sqrt(det Z) |det dx/dxi| dxi,   Z_ij = sum_k (1/m_k) grad_k sigma_i . grad_k sigma_j,
 *
 * over the unconstrained coordinates xi, with sigma_i = |r_a - r_b| the constrained distances. With e_i the unit vector
 * along r_a - r_b and s_i(k) = +1 at k = a, -1 at k = b,
 *
 *     Z_ii = 1/m_a + 1/m_b,   Z_ij = s_i(k) s_j(k) e_i . e_j / m_k  where i and j share particle k,   else 0:
 *
 * constraints fall into blocks that share no particle, and log det Z is the sum over the blocks. Masses are in Da, so
 * that its constant part depends on the unit; it cancels in every ratio. Source: Fixman, PNAS 71, 3050 (1974); den
 * Otter and Briels, Mol. Phys. 98, 773 (2000). Only constraints among the given particles are counted: the others' part
 * is constant while those stay.
 */
class OPENMMFLOW_EXPORT ConstraintMetric {
public:
    /**
     * @param atoms  the moved particles, in the order of x's columns
     * Throws if a constraint joins a moved and another particle, if two join the same particles, or if a constrained
     * particle is massless.
     */
    ConstraintMetric(const OpenMM::System& system, const std::vector<int>& atoms);
    /** The number of constraints between moved particles. */
    [[nodiscard]] int getNumConstraints() const;
    /**
     * (1/2) log det Z(x). Differentiable once. Where Z is singular or not finite the result is -inf or NaN, and the
     * gradient 0.
     *
     * @param x  float64 [batch, 3 atoms], nm
     * @return   float64 [batch]
     */
    [[nodiscard]] at::Tensor halfLogDet(const at::Tensor& x) const;

    /** The constraints by blocks; never changes. Autograd graphs share it: they may outlive this object. */
    struct Blocks;

private:
    std::shared_ptr<const Blocks> blocks;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_CONSTRAINTMETRIC_H_*/
