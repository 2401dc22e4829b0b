#ifndef OPENMMFLOW_FLOWS_SPLINELAYER_H_
#define OPENMMFLOW_FLOWS_SPLINELAYER_H_
// SPDX-License-Identifier: MIT

#include "SplineBlock.h"
#include "openmmflow/flows/Conditioner.h"

namespace OpenMMFlow {

/**
 * A spline coupling of many rows, network and splines, as one function that autograd knows: blocks of rows whose
 * numbers stay in the cache, on as many threads as torch has. The same as
 *
 *     raw = conditioner(passive),  value = RationalQuadraticSpline::apply(active, raw)
 *
 * but for rounding. suitsNetworkPass() says where it is possible.
 *
 * @param passive  columns of y that are the conditioner's inputs
 * @param y        float64 [batch, size]
 */
TransformResult applySplineLayer(const Conditioner& conditioner, const std::vector<int>& passive,
                                 const SplineSettings& settings, const at::Tensor& y);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SPLINELAYER_H_*/
