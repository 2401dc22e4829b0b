#ifndef OPENMMFLOW_FLOWS_SPLINEKERNEL_H_
#define OPENMMFLOW_FLOWS_SPLINEKERNEL_H_
// SPDX-License-Identifier: MIT

#include <cstdint>

namespace OpenMMFlow {

/**
 * One pass over rational-quadratic splines in plain loops: the fast path of RationalQuadraticSpline. Rows are samples;
 * each row has n variables of 3K + 1 raw numbers. Compiled once for any x86-64 and once for AVX2 (SplineKernel.cpp).
 */
template <class T>
struct SplineKernel {
    const double* x;      // [rows, n]: argument of the map
    const T* raw;         // [rows, n, 3K + 1]
    const bool* circular; // [n]
    int n, bins;
    double bound;
    bool inverse;
};

/** Fill value [rows, n] and logDet [rows] for some of the rows. */
template <class T>
using SplineApply = void (*)(const SplineKernel<T>&, double* value, double* logDet, std::int64_t firstRow,
                             std::int64_t endRow);

/**
 * The vector-Jacobian product of SplineApply.
 *
 * @param gradValue   [rows, n]
 * @param gradLogDet  [rows]
 * @param gradX       [rows, n], filled
 * @param gradRaw     [rows, n, 3K + 1], filled
 */
template <class T>
using SplineBackward = void (*)(const SplineKernel<T>&, const double* gradValue, const double* gradLogDet,
                                double* gradX, T* gradRaw, std::int64_t firstRow, std::int64_t endRow);

/** The versions for this processor. */
template <class T>
struct SplineKernels {
    SplineApply<T> apply;
    SplineBackward<T> backward;
};

namespace SplineBaseline {
SplineKernels<float> getFloat();
SplineKernels<double> getDouble();
} // namespace SplineBaseline

namespace SplineAvx2 {
SplineKernels<float> getFloat();
SplineKernels<double> getDouble();
} // namespace SplineAvx2

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SPLINEKERNEL_H_*/
