// SPDX-License-Identifier: MIT

#include "Launch.h"
#include "flows/ChartMath.h"

namespace OpenMMFlow {
namespace {

// A thread for each configuration, since an atom is placed by those before it; few to a block, so that batches of some
// hundred spread over the whole device.
constexpr int threads = 32;

__global__ void __launch_bounds__(threads)
    evaluateChart(ChartView chart, bool inverse, std::int64_t rows, const double* __restrict__ argument,
                  double* __restrict__ value, double* __restrict__ logDet) {
    const std::int64_t row = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    if (row >= rows)
        return;
    const int columns = chart.getNumColumns(), coordinates = 3 * chart.numAtoms;
    logDet[row] = chart.evaluate(inverse, argument + row * (inverse ? coordinates : columns),
                                 value + row * (inverse ? columns : coordinates));
}

__global__ void __launch_bounds__(threads)
    pullBackChart(ChartView chart, bool inverse, std::int64_t rows, const double* __restrict__ argument,
                  const double* __restrict__ value, const double* __restrict__ logDet, double* __restrict__ onValue,
                  const double* __restrict__ onLogDet, double* __restrict__ onArgument) {
    const std::int64_t row = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    if (row >= rows)
        return;
    const int columns = chart.getNumColumns(), coordinates = 3 * chart.numAtoms;
    const int in = inverse ? coordinates : columns, out = inverse ? columns : coordinates;
    chart.pullBack(inverse, argument + row * in, value + row * out, logDet[row], onValue + row * out, onLogDet[row],
                   onArgument + row * in);
}

unsigned int countBlocks(std::int64_t rows) {
    return static_cast<unsigned int>((rows + threads - 1) / threads);
}

} // namespace

cudaError_t launchChart(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument, double* value,
                        double* logDet, cudaStream_t stream) {
    if (rows == 0) // a grid of no blocks is an error
        return cudaSuccess;
    evaluateChart<<<countBlocks(rows), threads, 0, stream>>>(chart, inverse, rows, argument, value, logDet);
    return cudaGetLastError();
}

cudaError_t launchChartPullBack(const ChartView& chart, bool inverse, std::int64_t rows, const double* argument,
                                const double* value, const double* logDet, double* onValue, const double* onLogDet,
                                double* onArgument, cudaStream_t stream) {
    if (rows == 0)
        return cudaSuccess;
    pullBackChart<<<countBlocks(rows), threads, 0, stream>>>(chart, inverse, rows, argument, value, logDet, onValue,
                                                             onLogDet, onArgument);
    return cudaGetLastError();
}

} // namespace OpenMMFlow
