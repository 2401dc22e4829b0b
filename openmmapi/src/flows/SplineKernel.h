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

constexpr int maxSplineBins = 64;

/** One bin, in units where the spline maps [0, 1] to [0, 1]. */
struct SplineBin {
    double x0, y0, w, h, d0, d1;
};

/** One spline at one point within it, of which only the raw numbers that count are looked at: all sizes, two slopes. */
template <class T>
struct SplinePoint {
    int bins;
    bool inverse;
    double half, point; // half the interval; the argument, moved to [0, 1]
    // Filled by locate().
    int bin; // its slopes are those of the knots bin and bin + 1
    SplineBin b;
    T widthShare[maxSplineBins], heightShare[maxSplineBins];
    // Filled by finish(): the result before any rotation, and derivatives.
    double value, logDet, valueByX, logDetByX;
};

/** Find the bin. @param raw  the K widths and the K heights */
template <class T>
using SplineLocate = void (*)(SplinePoint<T>&, const T* raw);

/**
 * Evaluate.
 *
 * @param firstSlope, secondSlope  raw slopes of the bin's knots, null where the slope is 1
 * @param byValue, byLogDet        filled with the derivatives of value and of logDet by the raw numbers: [2K + 2],
 * widths, heights, the two slopes; both null if neither these nor those by the argument are wanted
 */
template <class T>
using SplineFinish = void (*)(SplinePoint<T>&, const T* firstSlope, const T* secondSlope, T* byValue, T* byLogDet);

/** The versions for one kind of processor. */
template <class T>
struct SplineKernels {
    SplineApply<T> apply;
    SplineBackward<T> backward;
    SplineLocate<T> locate;
    SplineFinish<T> finish;
};

/** Those for this processor. Defined for float and double. */
template <class T>
const SplineKernels<T>& getSplineKernels();
template <>
const SplineKernels<float>& getSplineKernels<float>();
template <>
const SplineKernels<double>& getSplineKernels<double>();

namespace KernelBaseline {
SplineKernels<float> getFloatSpline();
SplineKernels<double> getDoubleSpline();
} // namespace KernelBaseline

namespace KernelAvx2 {
SplineKernels<float> getFloatSpline();
SplineKernels<double> getDoubleSpline();
} // namespace KernelAvx2

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SPLINEKERNEL_H_*/
