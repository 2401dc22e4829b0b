// SPDX-License-Identifier: MIT
// The fused kernels for CUDA tensors, as a library of their own: it needs torch and no more, so that flows work and are
// trained on a GPU without OpenMM's CUDA Platform. Platform::loadPluginLibrary() loads it.

#include "Launch.h"
#include "flows/ChartMath.h"
#include "flows/DeviceKernels.h"
#include "flows/SplineElement.h"
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

using namespace OpenMMFlow;

namespace {

/** Launch in torch's current stream of a device. What fails is a c10::Error, as from torch's own kernels. */
template <class Launch>
void launchOn(int device, const Launch& launch) {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    C10_CUDA_CHECK(launch(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream()));
}

template <class T>
void applySpline(const SplineBatch<T>& batch, double* value, double* logDet, int device) {
    launchOn(device, [&](cudaStream_t stream) { return launchSpline(batch, value, logDet, stream); });
}

template <class T>
void pullBackSpline(const SplineBatch<T>& batch, const double* gradValue, const double* gradLogDet, double* gradX,
                    T* gradRaw, int device) {
    launchOn(device, [&](cudaStream_t stream) {
        return launchSplinePullBack(batch, gradValue, gradLogDet, gradX, gradRaw, stream);
    });
}

void evaluateChart(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument, double* value,
                   double* logDet, int device) {
    launchOn(device,
             [&](cudaStream_t stream) { return launchChart(chart, inverse, rows, argument, value, logDet, stream); });
}

void pullBackChart(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument, const double* value,
                   const double* logDet, double* onValue, const double* onLogDet, double* onArgument, int device) {
    launchOn(device, [&](cudaStream_t stream) {
        return launchChartPullBack(chart, inverse, rows, argument, value, logDet, onValue, onLogDet, onArgument,
                                   stream);
    });
}

constexpr DeviceKernels kernels{{applySpline<float>, pullBackSpline<float>},
                                {applySpline<double>, pullBackSpline<double>},
                                evaluateChart,
                                pullBackChart};

} // namespace

extern "C" OPENMMFLOW_EXPORT void registerPlatforms() {}

extern "C" OPENMMFLOW_EXPORT void registerKernelFactories() {
    setDeviceKernels(c10::DeviceType::CUDA, &kernels);
}
