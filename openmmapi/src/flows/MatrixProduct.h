#ifndef OPENMMFLOW_FLOWS_MATRIXPRODUCT_H_
#define OPENMMFLOW_FLOWS_MATRIXPRODUCT_H_
// SPDX-License-Identifier: MIT

#include <ATen/ATen.h>

namespace OpenMMFlow {

/**
 * a b^T, without a graph, by the library that is fastest on this processor. Torch's own choice is MKL, which does not
 * use the 512-bit vectors of processors that are not Intel's; oneDNN does, and is twice as fast there.
 *
 * @param a  [m, k]; dense, or the transpose of a dense matrix
 * @param b  [n, k]; the same
 * @return   [m, n], dense
 */
at::Tensor multiplyByTransposed(const at::Tensor& a, const at::Tensor& b);

/** sum += a b^T. @param sum  0 where undefined */
void addProductWithTransposed(at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_MATRIXPRODUCT_H_*/
