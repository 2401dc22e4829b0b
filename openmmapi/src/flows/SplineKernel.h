#ifndef OPENMMFLOW_FLOWS_SPLINEKERNEL_H_
#define OPENMMFLOW_FLOWS_SPLINEKERNEL_H_
// SPDX-License-Identifier: MIT

#include <cstdint>

namespace OpenMMFlow {

constexpr int maxSplineBins = 64;

/** The number of points of a column is a multiple of this. */
constexpr int splineLanes = 8;

/**
 * Rational-quadratic splines of one kind at many points, one spline each: the fast path of RationalQuadraticSpline.h.
 * Points are columns of the arrays, so that a vector holds the same number of several points. Knots and slopes are
 * computed in T, points within them in double. Compiled once for any processor and once for AVX2.
 */
struct SplineColumns {
    int bins;
    bool circular, inverse;
    double half;         // of the interval: bound or pi
    std::int64_t points; // a multiple of splineLanes
    std::int64_t stride; // of arrays of T, from one row to the next
    bool dense = false;  // whether the raw numbers that open splines ignore are left out: slope of knot 0, rotation
};

/** Raw numbers of a spline, 3K + 1 but for those left out. */
constexpr int countSplineNumbers(int bins, bool circular, bool dense) {
    return 3 * bins + (dense && !circular ? -1 : 1);
}

/** What pullBack() needs of a point: shares of the K widths and the K heights (softmax), and 8 numbers. */
constexpr int countSplineRecords(int bins) {
    return 2 * bins + 8;
}

/** The versions for one kind of processor. */
template <class T>
struct SplineKernels {
    /**
     * @param x       [points]
     * @param raw     [numbers, stride], to which bias is added
     * @param bias    [numbers]
     * @param value   [points], filled
     * @param logDet  [points], to which log|dvalue/dx| is added
     * @param record  [2K + 8, stride], filled; null if there will be no pullBack()
     */
    void (*apply)(const SplineColumns&, const double* x, const T* raw, const T* bias, double* value, double* logDet,
                  T* record);
    /** The bins of the points, as apply() finds them from the widths and heights. @param bin  [points], filled */
    void (*findBins)(const SplineColumns&, const double* x, const T* raw, const T* bias, int* bin);
    /**
     * The vector-Jacobian product of apply().
     *
     * @param onValue, onLogDet  [points]
     * @param onX                [points], filled
     * @param onRaw              [numbers, stride], filled
     */
    void (*pullBack)(const SplineColumns&, const T* record, const double* onValue, const double* onLogDet, double* onX,
                     T* onRaw);
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
