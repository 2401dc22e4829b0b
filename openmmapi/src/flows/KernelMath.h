#ifndef OPENMMFLOW_FLOWS_KERNELMATH_H_
#define OPENMMFLOW_FLOWS_KERNELMATH_H_
// SPDX-License-Identifier: MIT
// Included by the kernels that are compiled twice, into a namespace of each variant: no function of one may stand in
// for that of the other.

#include <bit>
#include <cstdint>

namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT {
namespace {

// Vectors of 32 bytes at any address of a T; where registers are shorter the compiler takes several.
template <class T>
struct Lanes {
    static constexpr int count = 32 / sizeof(T);
    typedef T Vector __attribute__((vector_size(32)));
    typedef T Unaligned __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
    static const Unaligned& at(const T* data) { return *reinterpret_cast<const Unaligned*>(data); }
    static Unaligned& at(T* data) { return *reinterpret_cast<Unaligned*>(data); }
};

using FloatLanes = Lanes<float>::Vector;
using DoubleLanes = Lanes<double>::Vector;
typedef std::uint32_t FloatBits __attribute__((vector_size(32)));
typedef std::uint64_t DoubleBits __attribute__((vector_size(32)));

// exp of arguments within +-87, which others are moved to: x = n ln 2 + r with a two-part ln 2, and Cephes' polynomial
// for exp(r), 1e-7 relative. Adding `rounding` leaves n in the lowest bits, from where it goes to the exponent.
[[maybe_unused]] inline FloatLanes boundedExp(FloatLanes x) {
    constexpr float rounding = 0x1.8p23f;
    const FloatLanes least = FloatLanes{} - 87.0f, most = FloatLanes{} + 87.0f;
    x = least > x ? least : x; // in this order NaN stays
    x = most < x ? most : x;
    const FloatLanes shifted = x * 1.44269504f + rounding, n = shifted - rounding;
    const FloatLanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    FloatLanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * std::bit_cast<FloatLanes>((std::bit_cast<FloatBits>(shifted) << 23) + 0x3f800000u);
}

// The same within +-708, with Taylor's polynomial: the first term that is left out is below 5e-18.
[[maybe_unused]] inline DoubleLanes boundedExp(DoubleLanes x) {
    constexpr double rounding = 0x1.8p52;
    const DoubleLanes least = DoubleLanes{} - 708.0, most = DoubleLanes{} + 708.0;
    x = least > x ? least : x; // in this order NaN stays
    x = most < x ? most : x;
    const DoubleLanes shifted = x * 1.4426950408889634 + rounding, n = shifted - rounding;
    const DoubleLanes r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
    DoubleLanes p = r * (1.0 / 6227020800) + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    return p * std::bit_cast<DoubleLanes>((std::bit_cast<DoubleBits>(shifted) << 52) + 0x3ff0000000000000u);
}

// log of positive normal numbers, NaN of NaN: x = 2^k m with m within a factor sqrt(2) of 1, and Cephes' polynomial of
// m - 1, 1e-7.
[[maybe_unused]] inline FloatLanes logOf(FloatLanes x) {
    constexpr std::uint32_t one = 0x3f800000, rootOfHalf = 0x3f3504f3;
    const FloatBits bits = std::bit_cast<FloatBits>(x), exponent = (bits + (one - rootOfHalf)) >> 23; // k + 127
    const FloatLanes m = std::bit_cast<FloatLanes>(bits - (exponent << 23) + one);
    const FloatLanes k = std::bit_cast<FloatLanes>(exponent + 0x4b000000) - (0x1p23f + 127.0f);
    const FloatLanes y = m - 1.0f, z = y * y;
    FloatLanes p = y * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * y + 1.1676998740e-1f;
    p = p * y - 1.2420140846e-1f;
    p = p * y + 1.4249322787e-1f;
    p = p * y - 1.6668057665e-1f;
    p = p * y + 2.0000714765e-1f;
    p = p * y - 2.4999993993e-1f;
    p = p * y + 3.3333331174e-1f;
    const FloatLanes log = (p * y * z - k * 2.12194440e-4f - 0.5f * z) + y + k * 0.693359375f;
    return x == x ? log : x;
}

// The same by the series of fdlibm in s = (m - 1)/(m + 1), 1e-16.
[[maybe_unused]] inline DoubleLanes logOf(DoubleLanes x) {
    constexpr std::uint64_t one = 0x3ff0000000000000, rootOfHalf = 0x3fe6a09e667f3bcd;
    const DoubleBits bits = std::bit_cast<DoubleBits>(x), exponent = (bits + (one - rootOfHalf)) >> 52; // k + 1023
    const DoubleLanes m = std::bit_cast<DoubleLanes>(bits - (exponent << 52) + one);
    const DoubleLanes k = std::bit_cast<DoubleLanes>(exponent + 0x4330000000000000) - (0x1p52 + 1023.0);
    const DoubleLanes y = m - 1.0, s = y / (y + 2.0), z = s * s, half = 0.5 * y * y;
    DoubleLanes p = z * 1.479819860511658591e-1 + 1.531383769920937332e-1;
    p = p * z + 1.818357216161805012e-1;
    p = p * z + 2.222219843214978396e-1;
    p = p * z + 2.857142874366239149e-1;
    p = p * z + 3.999999999940941908e-1;
    p = p * z + 6.666666666666735130e-1;
    const DoubleLanes log =
        k * 6.93147180369123816490e-1 - ((half - (s * (half + p * z) + k * 1.90821492927058770002e-10)) - y);
    return x == x ? log : x;
}

} // namespace
} // namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT

#endif /*OPENMMFLOW_FLOWS_KERNELMATH_H_*/
