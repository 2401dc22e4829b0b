#ifndef OPENMMFLOW_ENERGIES_REDUCEDPOTENTIAL_H_
#define OPENMMFLOW_ENERGIES_REDUCEDPOTENTIAL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <ATen/core/Tensor.h>

namespace OpenMMFlow {

enum class Gradient { Omit, Compute };

/** What an evaluation returns. */
struct EnergyResult {
    /** u(x), float64 [batch]; +inf where the energy is not finite or could not be evaluated. */
    at::Tensor u;
    /** du/dx, float64 [batch, size]; zero in rows whose u is +inf; undefined unless asked for. */
    at::Tensor gradient;
    /** Samples with a non-finite coordinate or energy, and samples whose evaluation threw. */
    std::int64_t nonFinite = 0, failed = 0;
};

/**
 * A reduced potential u(x) = U(x)/kT, evaluated in batches: the target exp(-u).
 *
 * x is [batch, size], or [batch, atoms, 3] with 3 atoms = size; results are on its device.
 */
class OPENMMFLOW_EXPORT ReducedPotential {
public:
    virtual ~ReducedPotential() = default;
    /** Columns of x. */
    [[nodiscard]] virtual int getSize() const = 0;
    /** Evaluate a batch. Makes no autograd graph. */
    [[nodiscard]] virtual EnergyResult evaluate(const at::Tensor& x, Gradient gradient = Gradient::Omit) = 0;
    /**
     * u(x) as a differentiable function: autograd passes through it. The gradient is computed together with the energy
     * when x requires it; rows whose u is +inf pass none on. Differentiating a second time throws. @return float64
     * [batch]
     */
    [[nodiscard]] at::Tensor operator()(const at::Tensor& x);
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_REDUCEDPOTENTIAL_H_*/
