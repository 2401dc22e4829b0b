#ifndef OPENMMFLOW_CUDA_LAUNCH_H_
#define OPENMMFLOW_CUDA_LAUNCH_H_
// SPDX-License-Identifier: MIT
// Kernel launches, between nvcc's sources and those that know torch. Each returns cudaSuccess or what the launch failed
// with; none waits for its kernel. Pointers are as DeviceKernels has them.

#include <cstdint>
#include <cuda_runtime_api.h>

namespace OpenMMFlow {

template <class T>
struct SplineBatch;
struct ChartView;

template <class T>
cudaError_t launchSpline(const SplineBatch<T>& batch, double* value, double* logDet, cudaStream_t stream);

template <class T>
cudaError_t launchSplinePullBack(const SplineBatch<T>& batch, const double* gradValue, const double* gradLogDet,
                                 double* gradX, T* gradRaw, cudaStream_t stream);

cudaError_t launchChart(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument, double* value,
                        double* logDet, cudaStream_t stream);

cudaError_t launchChartPullBack(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument,
                                const double* value, const double* logDet, double* onValue, const double* onLogDet,
                                double* onArgument, cudaStream_t stream);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_CUDA_LAUNCH_H_*/
