// SPDX-License-Identifier: MIT

#include "Launch.h"
#include "flows/SplineElement.h"

namespace OpenMMFlow {
namespace {

constexpr int warpSize32 = 32, rowsPerBlock = 4;

// A warp for each row, so that its log-det is summed without memory and always in the same order.
template <class T>
__global__ void __launch_bounds__(warpSize32* rowsPerBlock)
    applySpline(SplineBatch<T> batch, double* __restrict__ value, double* __restrict__ logDet) {
    const int lane = threadIdx.x % warpSize32;
    const std::int64_t row = std::int64_t{blockIdx.x} * rowsPerBlock + threadIdx.x / warpSize32;
    if (row >= batch.rows) // all lanes of a warp have the same row
        return;
    double sum = 0;
    for (int i = lane; i < batch.n; i += warpSize32) {
        const std::int64_t index = row * batch.n + i;
        double logSlope = 0;
        value[index] = SplineElement<T>(batch, index).evaluate(logSlope);
        sum += logSlope;
    }
    for (int offset = warpSize32 / 2; offset > 0; offset /= 2)
        sum += __shfl_down_sync(0xffffffffU, sum, offset);
    if (lane == 0)
        logDet[row] = sum;
}

// A thread for each variable of each row.
constexpr int pullBackThreads = 128;

template <class T>
__global__ void __launch_bounds__(pullBackThreads)
    pullBackSpline(SplineBatch<T> batch, const double* __restrict__ gradValue, const double* __restrict__ gradLogDet,
                   double* __restrict__ gradX, T* __restrict__ gradRaw) {
    const std::int64_t index = std::int64_t{blockIdx.x} * pullBackThreads + threadIdx.x;
    if (index >= batch.rows * batch.n)
        return;
    gradX[index] = SplineElement<T>(batch, index)
                       .pullBack(gradValue[index], gradLogDet[index / batch.n], gradRaw + index * (3 * batch.bins + 1));
}

unsigned int countBlocks(std::int64_t work, int perBlock) {
    return static_cast<unsigned int>((work + perBlock - 1) / perBlock);
}

} // namespace

template <class T>
cudaError_t launchSpline(const SplineBatch<T>& batch, double* value, double* logDet, cudaStream_t stream) {
    if (batch.rows == 0) // a grid of no blocks is an error
        return cudaSuccess;
    applySpline<T>
        <<<countBlocks(batch.rows, rowsPerBlock), warpSize32 * rowsPerBlock, 0, stream>>>(batch, value, logDet);
    return cudaGetLastError();
}

template <class T>
cudaError_t launchSplinePullBack(const SplineBatch<T>& batch, const double* gradValue, const double* gradLogDet,
                                 double* gradX, T* gradRaw, cudaStream_t stream) {
    if (batch.rows * batch.n == 0)
        return cudaSuccess;
    pullBackSpline<T><<<countBlocks(batch.rows * batch.n, pullBackThreads), pullBackThreads, 0, stream>>>(
        batch, gradValue, gradLogDet, gradX, gradRaw);
    return cudaGetLastError();
}

template cudaError_t launchSpline<float>(const SplineBatch<float>&, double*, double*, cudaStream_t);
template cudaError_t launchSpline<double>(const SplineBatch<double>&, double*, double*, cudaStream_t);
template cudaError_t launchSplinePullBack<float>(const SplineBatch<float>&, const double*, const double*, double*,
                                                 float*, cudaStream_t);
template cudaError_t launchSplinePullBack<double>(const SplineBatch<double>&, const double*, const double*, double*,
                                                  double*, cudaStream_t);

} // namespace OpenMMFlow
