// SPDX-License-Identifier: MIT
// Compiled twice, with OPENMMFLOW_KERNEL_VARIANT = KernelBaseline and KernelAvx2.

#include "NetworkKernel.h"
#include "KernelMath.h"
#include <cmath>

namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT {
namespace {

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

// The sums of the lanes of as many vectors as a vector has lanes: pairs of vectors are interleaved and added.
inline FloatLanes reduceEach(const FloatLanes* sums) {
    const auto join = [](const FloatLanes& a, const FloatLanes& b) {
        return __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
               __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    };
    const auto joinPairs = [](const FloatLanes& a, const FloatLanes& b) {
        return __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    };
    const FloatLanes first = joinPairs(join(sums[0], sums[1]), join(sums[2], sums[3]));
    const FloatLanes second = joinPairs(join(sums[4], sums[5]), join(sums[6], sums[7]));
    return __builtin_shufflevector(first, second, 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(first, second, 4, 5, 6, 7, 12, 13, 14, 15);
}

inline DoubleLanes reduceEach(const DoubleLanes* sums) {
    const auto join = [](const DoubleLanes& a, const DoubleLanes& b) {
        return __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
    };
    const DoubleLanes first = join(sums[0], sums[1]), second = join(sums[2], sums[3]);
    return __builtin_shufflevector(first, second, 0, 1, 4, 5) + __builtin_shufflevector(first, second, 2, 3, 6, 7);
}

// R rows at once, whole vectors of results: as many independent sums as the latency of an addition needs. The rows
// after them are fetched meanwhile.
template <class T, int R>
inline void multiplyRows(const T* weight, const T* bias, int columns, const T* h, T* result) {
    using L = Lanes<T>;
    typename L::Vector sums[R] = {};
    int c = 0;
    for (; c + L::count <= columns; c += L::count)
        for (int r = 0; r < R; r++) {
            const T* place = weight + r * columns + c;
            __builtin_prefetch(place + R * columns);
            sums[r] += L::at(place) * L::at(h + c);
        }
    for (int r = 0; r < R; r += L::count)
        L::at(result + r) = L::at(bias + r) + reduceEach(sums + r);
    for (; c < columns; c++)
        for (int r = 0; r < R; r++)
            result[r] += weight[r * columns + c] * h[c];
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

// The activations, vector by vector: h becomes the value, and the derivative is returned.

// x s(x) with s = 1/(1 + exp(-x)), derivative s (1 + x (1 - s)).
struct SiLU {
    template <class V>
    static V apply(V& h) {
        const V x = h, s = 1 / (1 + boundedExp(-x));
        h = x * s;
        return s * (1 + x * (1 - s));
    }
};

struct ReLU {
    template <class V>
    static V apply(V& h) {
        const V x = h, zero{};
        h = x < 0 ? zero : x; // NaN stays
        return x > 0 ? zero + 1 : zero;
    }
};

struct Tanh {
    template <class V>
    static V apply(V& h) {
        for (std::size_t i = 0; i < sizeof(V) / sizeof(h[0]); i++)
            h[i] = std::tanh(h[i]);
        return 1 - h * h;
    }
};

template <class T, class Activation>
void activate(const T* bias, int units, std::int64_t points, const T* x, T* h, T* slope) {
    using L = Lanes<T>;
    for (int unit = 0; unit < units; unit++)
        for (std::int64_t i = unit * points; i < (unit + 1) * points; i += L::count) {
            typename L::Vector value = L::at(x + i) + bias[unit];
            const typename L::Vector derivative = Activation::apply(value);
            L::at(h + i) = value;
            if (slope != nullptr)
                L::at(slope + i) = derivative;
        }
}

template <class T>
void pullBackActivation(const T* slope, int units, std::int64_t points, T* onH, T* onBias) {
    using L = Lanes<T>;
    for (int unit = 0; unit < units; unit++) {
        typename L::Vector sums[1] = {};
        for (std::int64_t i = unit * points; i < (unit + 1) * points; i += L::count) {
            if (slope != nullptr)
                L::at(onH + i) *= L::at(slope + i);
            sums[0] += L::at(onH + i);
        }
        onBias[unit] += reduce<T, 1>(sums);
    }
}

template <class T>
NetworkKernels<T> get() {
    return {multiply<T>,       pullBack<T>,       pullBackTwo<T>,       activate<T, SiLU>,
            activate<T, ReLU>, activate<T, Tanh>, pullBackActivation<T>};
}

} // namespace

NetworkKernels<float> getFloatNetwork() {
    return get<float>();
}

NetworkKernels<double> getDoubleNetwork() {
    return get<double>();
}

} // namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT
