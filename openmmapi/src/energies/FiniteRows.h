#ifndef OPENMMFLOW_ENERGIES_FINITEROWS_H_
#define OPENMMFLOW_ENERGIES_FINITEROWS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include <ATen/ATen.h>

namespace OpenMMFlow {

/** What ReducedPotential promises of rows that are not finite. @param gradient  may be undefined */
inline EnergyResult finiteRows(const at::Tensor& u, const at::Tensor& gradient) {
    const at::Tensor finite = at::isfinite(u);
    EnergyResult result{u, gradient, finite.logical_not().sum().item<std::int64_t>(), 0};
    if (result.nonFinite == 0)
        return result;
    result.u = at::where(finite, u, at::full_like(u, INFINITY));
    if (gradient.defined())
        result.gradient = at::where(finite.unsqueeze(1), gradient, at::zeros_like(gradient));
    return result;
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_FINITEROWS_H_*/
