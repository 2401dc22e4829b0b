#ifndef OPENMMFLOW_FLOWS_DEVICESPLINE_H_
#define OPENMMFLOW_FLOWS_DEVICESPLINE_H_
// SPDX-License-Identifier: MIT

#include "DeviceKernels.h"
#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/** RationalQuadraticSpline::apply() by the fused kernels of the tensors' device, with a pull-back for autograd. */
TransformResult applyDeviceSpline(const at::Tensor& x, const at::Tensor& raw, const at::Tensor& circular, int bins,
                                  double bound, bool inverse);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_DEVICESPLINE_H_*/
