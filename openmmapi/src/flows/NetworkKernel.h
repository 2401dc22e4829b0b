#ifndef OPENMMFLOW_FLOWS_NETWORKKERNEL_H_
#define OPENMMFLOW_FLOWS_NETWORKKERNEL_H_
// SPDX-License-Identifier: MIT

#include <cstdint>

namespace OpenMMFlow {

/**
 * The parts of a multilayer perceptron in plain loops. Products are those for one sample: at batch 1 the time is that
 * of reading the weights once, where tensor operations add microseconds each. Compiled once for any processor and once
 * for AVX2.
 *
 * Weights are [rows, columns], as torch's Linear has them. Any of these may be a range of the rows of a layer.
 */
template <class T>
struct NetworkKernels {
    /** result = weight h + bias. */
    void (*multiply)(const T* weight, const T* bias, int rows, int columns, const T* h, T* result);
    /** onH += weight^T onResult. */
    void (*pullBack)(const T* weight, const T* onResult, int rows, int columns, T* onH);
    /** onH0 += weight^T onResult0 and onH1 += weight^T onResult1, reading the weights once. */
    void (*pullBackTwo)(const T* weight, const T* onResult0, const T* onResult1, int rows, int columns, T* onH0,
                        T* onH1);
    /**
     * h <- activation(x + bias), slope <- its derivative there.
     *
     * @param bias      [units]
     * @param points    in whole vectors: a multiple of 8
     * @param x         [units, points]
     * @param h, slope  [units, points]; h may be x; no derivatives if slope is null
     */
    void (*silu)(const T* bias, int units, std::int64_t points, const T* x, T* h, T* slope);
    void (*relu)(const T* bias, int units, std::int64_t points, const T* x, T* h, T* slope);
    void (*tanh)(const T* bias, int units, std::int64_t points, const T* x, T* h, T* slope);
    /** onH <- onH slope, as it is if slope is null; onBias [units] gains the sums of onH over the points. */
    void (*pullBackActivation)(const T* slope, int units, std::int64_t points, T* onH, T* onBias);
};

/** Those for this processor. Defined for float and double. */
template <class T>
const NetworkKernels<T>& getNetworkKernels();
template <>
const NetworkKernels<float>& getNetworkKernels<float>();
template <>
const NetworkKernels<double>& getNetworkKernels<double>();

namespace KernelBaseline {
NetworkKernels<float> getFloatNetwork();
NetworkKernels<double> getDoubleNetwork();
} // namespace KernelBaseline

namespace KernelAvx2 {
NetworkKernels<float> getFloatNetwork();
NetworkKernels<double> getDoubleNetwork();
} // namespace KernelAvx2

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_NETWORKKERNEL_H_*/
