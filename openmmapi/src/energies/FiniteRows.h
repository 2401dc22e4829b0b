#ifndef OPENMMFLOW_ENERGIES_FINITEROWS_H_
#define OPENMMFLOW_ENERGIES_FINITEROWS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include <ATen/ATen.h>

namespace OpenMMFlow {

/**
 * What ReducedPotential promises of rows that are not finite.
 *
 * @param gradient  may be undefined
 * @param part      of what u was made, if it was: rows that are not finite there are counted there already
 */
inline EnergyResult finiteRows(const at::Tensor& u, const at::Tensor& gradient, const EnergyResult& part = {}) {
    const at::Tensor finite = at::isfinite(u), lost = finite.logical_not();
    EnergyResult result{u, gradient, part.nonFinite, part.failed};
    if (!lost.any().item<bool>())
        return result;
    result.nonFinite += (part.u.defined() ? lost & at::isfinite(part.u) : lost).sum().item<std::int64_t>();
    result.u = at::where(finite, u, at::full_like(u, INFINITY));
    if (gradient.defined())
        result.gradient = at::where(finite.unsqueeze(1), gradient, at::zeros_like(gradient));
    return result;
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_FINITEROWS_H_*/
