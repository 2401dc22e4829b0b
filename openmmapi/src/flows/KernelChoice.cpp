// SPDX-License-Identifier: MIT
// Which of the compiled kernels this processor runs.

#include "NetworkKernel.h"
#include "SplineKernel.h"

namespace OpenMMFlow {
namespace {

#ifdef OPENMMFLOW_HAVE_AVX2
namespace Fast = KernelAvx2;
bool isFast() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
namespace Fast = KernelBaseline;
bool isFast() {
    return false;
}
#endif

} // namespace

template <>
const SplineKernels<float>& getSplineKernels<float>() {
    static const SplineKernels<float> kernels = isFast() ? Fast::getFloatSpline() : KernelBaseline::getFloatSpline();
    return kernels;
}

template <>
const SplineKernels<double>& getSplineKernels<double>() {
    static const SplineKernels<double> kernels = isFast() ? Fast::getDoubleSpline() : KernelBaseline::getDoubleSpline();
    return kernels;
}

template <>
const NetworkKernels<float>& getNetworkKernels<float>() {
    static const NetworkKernels<float> kernels = isFast() ? Fast::getFloatNetwork() : KernelBaseline::getFloatNetwork();
    return kernels;
}

template <>
const NetworkKernels<double>& getNetworkKernels<double>() {
    static const NetworkKernels<double> kernels =
        isFast() ? Fast::getDoubleNetwork() : KernelBaseline::getDoubleNetwork();
    return kernels;
}

} // namespace OpenMMFlow
