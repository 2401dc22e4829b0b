#ifndef OPENMMFLOW_LATENT_TENSORTOOLS_H_
#define OPENMMFLOW_LATENT_TENSORTOOLS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <cmath>
#include <vector>

namespace OpenMMFlow {

/** Into [-pi, pi). */
inline at::Tensor wrapAngle(const at::Tensor& angle) {
    return at::remainder(angle + M_PI, 2 * M_PI) - M_PI;
}

/** int64 [values] */
inline at::Tensor indexTensor(const std::vector<int>& values) {
    return at::tensor(at::ArrayRef<int>(values), at::kLong);
}

/** All numbers of a tensor, float64, wherever it is. */
inline std::vector<double> toVector(const at::Tensor& values) {
    const at::Tensor flat = values.detach().to(at::kCPU).contiguous();
    return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/** Append a list to another. */
inline void appendTo(std::vector<at::Tensor>& all, const std::vector<at::Tensor>& more) {
    all.insert(all.end(), more.begin(), more.end());
}

/** For the backward pass of a function whose gradients have no graph: the next derivative would leave out its part. */
inline void refuseSecondDerivatives(const char* who) {
    require(!at::GradMode::is_enabled(), who, "create_graph", "true", "false: second derivatives are not available");
}

/** The same number for each row, float64 [batch]. @param like  [batch, ...] */
inline at::Tensor repeatForRows(double value, const at::Tensor& like) {
    return at::full({like.size(0)}, value, like.options().dtype(at::kDouble).requires_grad(false));
}

/** The same number for each row, differentiable. @param value  float64 scalar */
inline at::Tensor repeatForRows(const at::Tensor& value, const at::Tensor& like) {
    return value.repeat({like.size(0)});
}

/** What the rows of `chosen` hold, and a number in the others. @param chosen  bool [batch]  @param values  [batch, ...]
 */
inline at::Tensor whereRows(const at::Tensor& chosen, const at::Tensor& values, double otherwise) {
    const at::Tensor rows = values.dim() == 2 ? chosen.unsqueeze(1) : chosen;
    return at::where(rows, values, at::full_like(values, otherwise).detach());
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_LATENT_TENSORTOOLS_H_*/
