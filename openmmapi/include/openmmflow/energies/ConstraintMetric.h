#ifndef OPENMMFLOW_ENERGIES_CONSTRAINTMETRIC_H_
#define OPENMMFLOW_ENERGIES_CONSTRAINTMETRIC_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <ATen/core/Tensor.h>
#include <openmm/System.h>
#include <vector>

namespace OpenMMFlow {

/**
 * The mass-metric factor of constrained dynamics (F5): constrained Langevin dynamics samples
 *
 *     exp(-u) sqrt(det Z) |det dx/dxi| dxi,   Z_ij = sum_k (1/m_k) grad_k sigma_i . grad_k sigma_j,
 *
 * over the unconstrained coordinates xi, with sigma_i = |r_a - r_b| the constrained distances. Source: Fixman, PNAS 71,
 * 3050 (1974); den Otter and Briels, Mol. Phys. 98, 773 (2000). Only constraints whose particles both move are counted:
 * the others' part does not change.
 */
class OPENMMFLOW_EXPORT ConstraintMetric {
public:
    /** @param atoms  the moved particles, in the order of x's columns. Throws if a constraint joins a moved and another particle. */
    ConstraintMetric(const OpenMM::System& system, const std::vector<int>& atoms);
    /** The number of constraints between moved particles. */
    [[nodiscard]] int getNumConstraints() const { return static_cast<int>(first.size()); }
    /** (1/2) log det Z(x); differentiable. @param x  float64 [batch, 3 atoms]  @return float64 [batch] */
    [[nodiscard]] at::Tensor halfLogDet(const at::Tensor& x) const;

private:
    std::vector<std::int64_t> first, second; // positions in the list of atoms
    std::vector<double> inverseMass;         // [atoms]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_CONSTRAINTMETRIC_H_*/
