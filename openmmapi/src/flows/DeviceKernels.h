#ifndef OPENMMFLOW_FLOWS_DEVICEKERNELS_H_
#define OPENMMFLOW_FLOWS_DEVICEKERNELS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <c10/core/DeviceType.h>
#include <cstdint>

namespace OpenMMFlow {

template <class T>
struct SplineBatch;
struct ChartView;

/**
 * Fused kernels of a kind of device. This library links none: the library of a device's platform brings them when it is
 * loaded. Pointers are to the device's memory, everything contiguous; a kernel joins the queue in which torch works on
 * that device.
 */
struct DeviceKernels {
    /** SplineElement of every variable of every row. */
    template <class T>
    struct Spline {
        /** @param value  [rows, n], filled  @param logDet  [rows], filled */
        void (*apply)(const SplineBatch<T>& batch, double* value, double* logDet, int device);
        /** @param gradX  [rows, n], filled  @param gradRaw  [rows, n, 3 bins + 1], filled */
        void (*pullBack)(const SplineBatch<T>& batch, const double* gradValue, const double* gradLogDet, double* gradX,
                         T* gradRaw, int device);
    };
    Spline<float> singleSpline;
    Spline<double> doubleSpline;
    /** ChartView::evaluate() of every row. */
    void (*evaluateChart)(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument,
                          double* value, double* logDet, int device);
    /** ChartView::pullBack() of every row. @param onValue  overwritten  @param onArgument  filled */
    void (*pullBackChart)(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument,
                          const double* value, const double* logDet, double* onValue, const double* onLogDet,
                          double* onArgument, int device);

    template <class T>
    [[nodiscard]] const Spline<T>& spline() const {
        if constexpr (sizeof(T) == sizeof(float))
            return singleSpline;
        else
            return doubleSpline;
    }
};

/** @param kernels  of static lifetime, or null for none */
OPENMMFLOW_EXPORT void setDeviceKernels(c10::DeviceType type, const DeviceKernels* kernels);

/** Those of a kind of device, or null. */
OPENMMFLOW_EXPORT const DeviceKernels* findDeviceKernels(c10::DeviceType type);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_DEVICEKERNELS_H_*/
