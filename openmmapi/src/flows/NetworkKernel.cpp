// SPDX-License-Identifier: MIT
// Compiled twice, with OPENMMFLOW_KERNEL_VARIANT = KernelBaseline and KernelAvx2.

#include "NetworkKernel.h"
#include "KernelMath.h"
#include <cmath>

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

// The sum of the lanes of the sum of some vectors.
template <class T, int N>
inline T reduce(typename Lanes<T>::Vector (&sums)[N]) {
    for (int width = N / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            sums[i] += sums[i + width];
    T total = 0;
    for (int lane = 0; lane < Lanes<T>::count; lane++)
        total += sums[0][lane];
    return total;
}

// R rows at once: as many independent sums as the latency of an addition needs.
template <class T, int R>
inline void multiplyRows(const T* weight, const T* bias, int columns, const T* h, T* result) {
    using L = Lanes<T>;
    typename L::Vector sums[R][1] = {};
    int c = 0;
    for (; c + L::count <= columns; c += L::count)
        for (int r = 0; r < R; r++)
            sums[r][0] += L::at(weight + r * columns + c) * L::at(h + c);
    for (int r = 0; r < R; r++) {
        T total = reduce<T, 1>(sums[r]);
        for (int i = c; i < columns; i++)
            total += weight[r * columns + i] * h[i];
        result[r] = bias[r] + total;
    }
}

template <class T>
inline void multiplyRow(const T* weight, const T* bias, int columns, const T* h, T* result) {
    using L = Lanes<T>;
    constexpr int chains = 4;
    typename L::Vector sums[chains] = {};
    int c = 0;
    for (; c + chains * L::count <= columns; c += chains * L::count)
        for (int k = 0; k < chains; k++)
            sums[k] += L::at(weight + c + k * L::count) * L::at(h + c + k * L::count);
    T total = reduce<T, chains>(sums);
    for (; c < columns; c++)
        total += weight[c] * h[c];
    *result = *bias + total;
}

template <class T>
void multiply(const T* weight, const T* bias, int rows, int columns, const T* h, T* result) {
    int r = 0;
    for (; r + 8 <= rows; r += 8)
        multiplyRows<T, 8>(weight + r * columns, bias + r, columns, h, result + r);
    for (; r < rows; r++)
        multiplyRow(weight + r * columns, bias + r, columns, h, result + r);
}

// N vectors of columns at once, all rows: the sums stay in registers. S sets of gradients share the weights.
template <class T, int N, int S>
inline void pullBackColumns(const T* weight, const T* const (&onResult)[S], int rows, int columns, T* const (&onH)[S],
                            int c) {
    using L = Lanes<T>;
    typename L::Vector sums[S][N] = {};
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < N; k++) {
            const typename L::Vector w = L::at(weight + r * columns + c + k * L::count);
            for (int s = 0; s < S; s++)
                sums[s][k] += w * onResult[s][r];
        }
    for (int s = 0; s < S; s++)
        for (int k = 0; k < N; k++)
            L::at(onH[s] + c + k * L::count) += sums[s][k];
}

template <class T, int N, int S>
inline void pullBackAny(const T* weight, const T* const (&onResult)[S], int rows, int columns, T* const (&onH)[S]) {
    constexpr int lanes = Lanes<T>::count;
    int c = 0;
    for (; c + N * lanes <= columns; c += N * lanes)
        pullBackColumns<T, N, S>(weight, onResult, rows, columns, onH, c);
    for (; c + lanes <= columns; c += lanes)
        pullBackColumns<T, 1, S>(weight, onResult, rows, columns, onH, c);
    for (; c < columns; c++)
        for (int s = 0; s < S; s++)
            for (int r = 0; r < rows; r++)
                onH[s][c] += weight[r * columns + c] * onResult[s][r];
}

template <class T>
void pullBack(const T* weight, const T* onResult, int rows, int columns, T* onH) {
    pullBackAny<T, 8, 1>(weight, {onResult}, rows, columns, {onH});
}

template <class T>
void pullBackTwo(const T* weight, const T* onResult0, const T* onResult1, int rows, int columns, T* onH0, T* onH1) {
    pullBackAny<T, 4, 2>(weight, {onResult0, onResult1}, rows, columns, {onH0, onH1});
}

// x s(x) with s = 1/(1 + exp(-x)), derivative s (1 + x (1 - s)).
template <class T>
void silu(T* h, T* slope, int n) {
    for (int i = 0; i < n; i++) {
        const T x = h[i], s = 1 / (1 + boundedExp(-x));
        h[i] = x * s;
        slope[i] = s * (1 + x * (1 - s));
    }
}

template <class T>
void relu(T* h, T* slope, int n) {
    for (int i = 0; i < n; i++) {
        slope[i] = h[i] > 0 ? 1 : 0;
        h[i] = h[i] < 0 ? 0 : h[i]; // NaN stays
    }
}

template <class T>
void hyperbolicTangent(T* h, T* slope, int n) {
    for (int i = 0; i < n; i++) {
        h[i] = std::tanh(h[i]);
        slope[i] = 1 - h[i] * h[i];
    }
}

template <class T>
NetworkKernels<T> get() {
    return {multiply<T>, pullBack<T>, pullBackTwo<T>, silu<T>, relu<T>, hyperbolicTangent<T>};
}

} // namespace

NetworkKernels<float> getFloatNetwork() {
    return get<float>();
}

NetworkKernels<double> getDoubleNetwork() {
    return get<double>();
}

} // namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT
