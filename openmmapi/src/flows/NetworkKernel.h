#ifndef OPENMMFLOW_FLOWS_NETWORKKERNEL_H_
#define OPENMMFLOW_FLOWS_NETWORKKERNEL_H_
// SPDX-License-Identifier: MIT

namespace OpenMMFlow {

/**
 * The parts of a multilayer perceptron for one sample, in plain loops: at batch 1 the time is that of reading the
 * weights once, where tensor operations add microseconds each. Compiled once for any processor and once for AVX2.
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
    /** h <- activation(h), slope <- its derivative there. @param h, slope  [n] */
    void (*silu)(T* h, T* slope, int n);
    void (*relu)(T* h, T* slope, int n);
    void (*tanh)(T* h, T* slope, int n);
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
