#ifndef OPENMMFLOW_FLOWS_KERNELMATH_H_
#define OPENMMFLOW_FLOWS_KERNELMATH_H_
// SPDX-License-Identifier: MIT
// Included by the kernels that are compiled twice, into a namespace of each variant: no function of one may stand in
// for that of the other.

#include <bit>
#include <cmath>
#include <cstdint>

namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT {
namespace {

// exp of arguments within +-87, which others are moved to: Cody-Waite reduction and Cephes' polynomial, 1e-7 relative.
// Plain arithmetic without branches, so that loops over it vectorise.
[[maybe_unused]] inline float boundedExp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    const float n = std::floor(x * 1.44269504f + 0.5f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

[[maybe_unused]] inline double boundedExp(double x) {
    return std::exp(x);
}

} // namespace
} // namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT

#endif /*OPENMMFLOW_FLOWS_KERNELMATH_H_*/
