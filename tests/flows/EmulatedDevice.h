#ifndef OPENMMFLOW_TESTS_EMULATEDDEVICE_H_
#define OPENMMFLOW_TESTS_EMULATEDDEVICE_H_
// SPDX-License-Identifier: MIT

#include "flows/ChartMath.h"
#include "flows/DeviceKernels.h"
#include "flows/SplineElement.h"

namespace OpenMMFlow {

/**
 * While it lives, tensors of the processor are treated as those of a device with fused kernels: the arithmetic of these
 * in plain loops that stand for the launches of platforms/cuda.
 */
class EmulatedDevice {
public:
    EmulatedDevice() { setDeviceKernels(c10::DeviceType::CPU, &kernels); }
    ~EmulatedDevice() { setDeviceKernels(c10::DeviceType::CPU, nullptr); }
    EmulatedDevice(const EmulatedDevice&) = delete;
    EmulatedDevice& operator=(const EmulatedDevice&) = delete;
    /** How often a kernel ran. */
    static inline int launches = 0;

private:
    template <class T>
    static void applySpline(const SplineBatch<T>& batch, double* value, double* logDet, int device) {
        launches++;
        for (std::int64_t row = 0; row < batch.rows; row++) {
            logDet[row] = 0;
            for (std::int64_t index = row * batch.n; index < (row + 1) * batch.n; index++) {
                double logSlope = 0;
                value[index] = SplineElement<T>(batch, index).evaluate(logSlope);
                logDet[row] += logSlope;
            }
        }
    }
    template <class T>
    static void pullBackSpline(const SplineBatch<T>& batch, const double* gradValue, const double* gradLogDet,
                               double* gradX, T* gradRaw, int device) {
        launches++;
        for (std::int64_t index = 0; index < batch.rows * batch.n; index++)
            gradX[index] =
                SplineElement<T>(batch, index)
                    .pullBack(gradValue[index], gradLogDet[index / batch.n], gradRaw + index * (3 * batch.bins + 1));
    }
    static void evaluateChart(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument,
                              double* value, double* logDet, int device) {
        launches++;
        const int columns = chart.getNumColumns(), coordinates = 3 * chart.numAtoms;
        const int in = inverse ? coordinates : columns, out = inverse ? columns : coordinates;
        for (std::int64_t row = 0; row < rows; row++)
            logDet[row] = chart.evaluate(inverse, argument + row * in, value + row * out);
    }
    static void pullBackChart(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument,
                              const double* value, const double* logDet, double* onValue, const double* onLogDet,
                              double* onArgument, int device) {
        launches++;
        const int columns = chart.getNumColumns(), coordinates = 3 * chart.numAtoms;
        const int in = inverse ? coordinates : columns, out = inverse ? columns : coordinates;
        for (std::int64_t row = 0; row < rows; row++)
            chart.pullBack(inverse, argument + row * in, value + row * out, logDet[row], onValue + row * out,
                           onLogDet[row], onArgument + row * in);
    }
    static constexpr DeviceKernels kernels{{applySpline<float>, pullBackSpline<float>},
                                           {applySpline<double>, pullBackSpline<double>},
                                           evaluateChart,
                                           pullBackChart};
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_EMULATEDDEVICE_H_*/
