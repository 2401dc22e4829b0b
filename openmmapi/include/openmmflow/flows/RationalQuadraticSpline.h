#ifndef OPENMMFLOW_FLOWS_RATIONALQUADRATICSPLINE_H_
#define OPENMMFLOW_FLOWS_RATIONALQUADRATICSPLINE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/**
 * Monotonic rational-quadratic splines with K bins (Gregory and Delbourgo 1982; Durkan et al., NeurIPS 2019, eqs. 4-8).
 *
 * Between knots (x_k, y_k) and (x_k+1, y_k+1) with slopes d_k, d_k+1, with w = x_k+1 - x_k, h = y_k+1 - y_k,
 * s = h/w, t = (x - x_k)/w, r = t(1-t):
 *
 *     forward:  y = y_k + h (s t^2 + d_k r) / (s + (d_k+1 + d_k - 2s) r)
 *               dy/dx = s^2 (d_k+1 t^2 + 2 s r + d_k (1-t)^2) / (s + (d_k+1 + d_k - 2s) r)^2
 *     inverse:  t = 2c / (-b - sqrt(b^2 - 4ac)), with e = y - y_k, m = d_k+1 + d_k - 2s,
 *               a = h (s - d_k) + e m,  b = h d_k - e m,  c = -s e
 *
 * Raw parameters of one variable, 3K + 1 numbers: K widths and K heights, through softmax with a floor of 1e-3 of the
 * mean bin; K slopes of the knots 0..K-1, through softplus with a floor of 1e-3 and such that raw 0 is slope 1; and a
 * rotation (ignored unless circular). All zeros is the identity.
 *
 *     open:      on [-bound, bound], identity outside, slope 1 at both ends (the first raw slope is ignored)
 *     circular:  on [-pi, pi), y = spline(wrap(x + rotation)), the slope at pi is that at -pi
 */
struct OPENMMFLOW_EXPORT RationalQuadraticSpline {
    /** Raw numbers per variable. */
    static int countParameters(int bins) { return 3 * bins + 1; }
    /**
     * Apply the splines, or their inverses; differentiable in both arguments.
     *
     * @param x         float64 [batch, n]
     * @param raw       float32 or float64 [batch, n * (3K + 1)], variable by variable
     * @param circular  bool [n]
     * @param bound     half-width of the open splines
     * @param inverse   false: y = f(x); true: y = f^-1(x)
     * @return value [batch, n] and logDet [batch], the sum over the n variables of log dy/dx of the map applied
     */
    static TransformResult apply(const at::Tensor& x, const at::Tensor& raw, const at::Tensor& circular, int bins,
                                 double bound, bool inverse);
    /** The same by plain tensor operations: the specification that tests compare apply() with. */
    static TransformResult applyReference(const at::Tensor& x, const at::Tensor& raw, const at::Tensor& circular,
                                          int bins, double bound, bool inverse);
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_RATIONALQUADRATICSPLINE_H_*/
