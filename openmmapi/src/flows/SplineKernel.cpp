// SPDX-License-Identifier: MIT
// Compiled twice, with OPENMMFLOW_KERNEL_VARIANT = KernelBaseline and KernelAvx2: see the formulas in
// RationalQuadraticSpline.h.

#include "SplineKernel.h"
#include "../latent/Angle.h"
#include "KernelMath.h"
#include <cmath>
#include <initializer_list>

namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT {
namespace {

constexpr double minBin = 1e-3; // of the mean bin
constexpr double minSlope = 1e-3;

using Reals = DoubleLanes; // of four points
typedef std::int64_t Mask __attribute__((vector_size(32)));

// Fours of points in a vector of T.
template <class T>
constexpr int fours = Lanes<T>::count / 4;

template <class T>
inline Reals widen(const typename Lanes<T>::Vector& vector, int four) {
    typedef T Four __attribute__((vector_size(4 * sizeof(T)), may_alias));
    return __builtin_convertvector(reinterpret_cast<const Four*>(&vector)[four], Reals);
}

template <class T>
inline void narrow(const Reals& reals, int four, typename Lanes<T>::Vector& vector) {
    typedef T Four __attribute__((vector_size(4 * sizeof(T)), may_alias));
    reinterpret_cast<Four*>(&vector)[four] = __builtin_convertvector(reals, Four);
}

// Fractions of the interval that the bins take: softmax with a floor. share, where it is not null, keeps the softmax
// itself, for the gradient.
template <class T, int K>
inline void fractions(const T* raw, std::int64_t stride, const T* bias, int bins, T* share,
                      typename Lanes<T>::Vector* fraction) {
    using L = Lanes<T>;
    const int count = K > 0 ? K : bins;
    typename L::Vector largest = L::at(raw) + bias[0];
    fraction[0] = largest;
    for (int k = 1; k < count; k++) {
        fraction[k] = L::at(raw + k * stride) + bias[k];
        largest = fraction[k] > largest ? fraction[k] : largest;
    }
    typename L::Vector sum{};
    for (int k = 0; k < count; k++) {
        fraction[k] = boundedExp(fraction[k] - largest);
        sum += fraction[k];
    }
    const typename L::Vector scale = 1 / sum;
    for (int k = 0; k < count; k++) {
        const typename L::Vector part = fraction[k] * scale;
        if (share != nullptr)
            L::at(share + k * stride) = part;
        fraction[k] = static_cast<T>(minBin / count) + static_cast<T>(1 - minBin) * part;
    }
}

// The point on the side of the argument, within the interval moved to [0, 1]; whether it was within; and the bin that
// holds it: where it starts, its size, and the slopes at its ends.
struct Bin {
    Reals argument, point, index, x0, y0, w, h, d0, d1;
    Mask inside;
};

// On one axis, the bins before one that moves on, and that one.
template <class T>
struct Axis {
    Reals edge{}, start{}, size;
    explicit Axis(const Reals& first) : size(first) {}
    void add(const Reals& fraction) { edge += fraction; }
    void moveOn(const Mask& beyond, const Reals& fraction) {
        start = beyond ? edge : start;
        size = beyond ? fraction : size;
    }
};

// The argument's bin, without the slopes. The last bin ends at 1 exactly, whatever the rounding of the others.
template <class T, int K>
inline Bin locate(const SplineColumns& columns, const Reals& x, const Reals& rotation,
                  const typename Lanes<T>::Vector* width, const typename Lanes<T>::Vector* height, int four) {
    const int count = K > 0 ? K : columns.bins;
    Bin b;
    b.argument = columns.circular ? wrap<Reals>(columns.inverse ? x : x + rotation) : x;
    const Reals unit = (b.argument + columns.half) / (2 * columns.half);
    b.inside = (unit >= 0.0) & (unit <= 1.0); // not outside an open spline, and not NaN
    b.point = b.inside ? unit : Reals{} + 0.5;
    Axis<T> onX(widen<T>(width[0], four)), onY(widen<T>(height[0], four));
    const Reals& edge = columns.inverse ? onY.edge : onX.edge;
    b.index = Reals{};
    for (int k = 0; k + 1 < count; k++) {
        onX.add(widen<T>(width[k], four));
        onY.add(widen<T>(height[k], four));
        const Mask beyond = b.point >= edge;
        onX.moveOn(beyond, widen<T>(width[k + 1], four));
        onY.moveOn(beyond, widen<T>(height[k + 1], four));
        b.index = beyond ? Reals{} + (k + 1.0) : b.index;
    }
    const Mask last = b.index == count - 1.0;
    b.x0 = onX.start;
    b.y0 = onY.start;
    b.w = last ? 1.0 - onX.start : onX.size;
    b.h = last ? 1.0 - onY.start : onY.size;
    return b;
}

inline Reals root(const Reals& x) {
    Reals result;
    for (int i = 0; i < 4; i++)
        result[i] = std::sqrt(x[i]);
    return result;
}

// Position t within the bin of a point on the y axis.
inline Reals solve(const Bin& b) {
    const Reals s = b.h / b.w, e = b.point - b.y0, m = b.d1 + b.d0 - 2.0 * s;
    const Reals qa = b.h * (s - b.d0) + e * m, qb = b.h * b.d0 - e * m, qc = -s * e;
    const Reals discriminant = qb * qb - 4.0 * qa * qc;
    return 2.0 * qc / (-qb - root(discriminant > 0.0 ? discriminant : Reals{}));
}

// Where the slope of knot 0 is, or would be, among the raw numbers.
inline int findSlopes(const SplineColumns& columns, int bins) {
    return 2 * bins - (columns.dense && !columns.circular ? 1 : 0);
}

// Slopes of the knots at both ends of a bin, softplus(raw + c) + minSlope with c such that raw = 0 gives 1, and their
// derivatives. The ends of open splines have slope 1.
template <class T, int K>
struct Slopes {
    using L = Lanes<T>;
    using V = typename L::Vector;
    V d0, d1, onRaw0, onRaw1;

    Slopes(const SplineColumns& columns, const T* raw, const T* bias, const V& bin) {
        const int count = K > 0 ? K : columns.bins;
        V raw0{}, raw1{};
        for (int k = columns.circular ? 0 : 1; k < count; k++) {
            const V knot = L::at(raw + k * columns.stride) + bias[k];
            raw0 = bin == static_cast<T>(k) ? knot : raw0;
            raw1 = bin == static_cast<T>(k > 0 ? k - 1 : count - 1) ? knot : raw1;
        }
        set(raw0, d0, onRaw0);
        set(raw1, d1, onRaw1);
        if (columns.circular)
            return;
        const V one = V{} + 1;
        const auto first = bin == 0, last = bin == static_cast<T>(count - 1);
        d0 = first ? one : d0;
        onRaw0 = first ? V{} : onRaw0;
        d1 = last ? one : d1;
        onRaw1 = last ? V{} : onRaw1;
    }
    static void set(const V& raw, V& slope, V& derivative) {
        static const T shift = static_cast<T>(std::log(std::expm1(1.0 - minSlope)));
        const V shifted = raw + shift, e = boundedExp(shifted);
        slope = static_cast<T>(minSlope) + (shifted > 20 ? shifted : logOf(1 + e));
        derivative = e / (1 + e);
    }
};

// y = y0 + h N/D and dy/dx = s^2 g/D^2.
struct Fraction {
    Reals s, r, m, N, D, g;
    Fraction(const Reals& w, const Reals& h, const Reals& d0, const Reals& d1, const Reals& t)
        : s(h / w), r(t * (1.0 - t)), m(d1 + d0 - 2.0 * s), N(s * t * t + d0 * r), D(s + m * r),
          g(d1 * t * t + 2.0 * s * r + d0 * (1.0 - t) * (1.0 - t)) {}
};

// Rows of a record after the shares.
enum Row { Index, Position, Width, Height, Slope0, Slope1, OnRaw0, OnRaw1 };

template <class T>
inline Reals load(const T* data) {
    typedef T Four __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
    return __builtin_convertvector(*reinterpret_cast<const Four*>(data), Reals);
}

template <class T>
inline void store(const Reals& reals, T* data) {
    typedef T Four __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
    *reinterpret_cast<Four*>(data) = __builtin_convertvector(reals, Four);
}

// Begin to load what is read for the vector of points after the next one: rows are more streams than a processor
// follows by itself.
template <class T>
inline void prefetch(const T* rows, int count, std::int64_t stride) {
    for (int k = 0; k < count; k++)
        __builtin_prefetch(rows + k * stride + 2 * Lanes<T>::count);
}

// The first vector of points of the arrays.
template <class T, int K>
inline void applyVector(const SplineColumns& columns, const double* x, const T* raw, const T* bias, double* value,
                        double* logDet, T* record) {
    using L = Lanes<T>;
    const std::int64_t stride = columns.stride;
    const int bins = K > 0 ? K : columns.bins;
    typename L::Vector width[K > 0 ? K : maxSplineBins], height[K > 0 ? K : maxSplineBins], index;
    prefetch(raw, 3 * bins, stride);
    fractions<T, K>(raw, stride, bias, bins, record, width);
    fractions<T, K>(raw + bins * stride, stride, bias + bins, bins,
                    record == nullptr ? nullptr : record + bins * stride, height);
    Bin bin[fours<T>];
    Reals rotation[fours<T>] = {};
    for (int four = 0; four < fours<T>; four++) {
        if (columns.circular)
            rotation[four] = load(raw + 3 * bins * stride + 4 * four) + static_cast<double>(bias[3 * bins]);
        bin[four] = locate<T, K>(columns, load(x + 4 * four), rotation[four], width, height, four);
        narrow<T>(bin[four].index, four, index);
    }
    const Slopes<T, K> slopes(columns, raw + findSlopes(columns, bins) * stride, bias + findSlopes(columns, bins),
                              index);
    T* rows = record == nullptr ? nullptr : record + 2 * bins * stride;
    for (int four = 0; four < fours<T>; four++) {
        Bin& b = bin[four];
        b.d0 = widen<T>(slopes.d0, four);
        b.d1 = widen<T>(slopes.d1, four);
        const Reals t = columns.inverse ? solve(b) : (b.point - b.x0) / b.w;
        const Fraction f(b.w, b.h, b.d0, b.d1, t);
        const Reals other = columns.inverse ? b.x0 + b.w * t : b.y0 + b.h * f.N / f.D;
        Reals result = 2 * columns.half * other - columns.half;
        if (columns.circular)
            result = wrap<Reals>(columns.inverse ? result - rotation[four] : result);
        const Reals slope = f.s * f.s * f.g / (f.D * f.D), logSlope = logOf(b.inside ? slope : Reals{} + 1.0);
        store(b.inside ? result : b.argument, value + 4 * four);
        store(load(logDet + 4 * four) + (columns.inverse ? -logSlope : logSlope), logDet + 4 * four);
        if (rows == nullptr)
            continue;
        store(b.inside ? b.index : Reals{} - 1.0, rows + Index * stride + 4 * four);
        store(t, rows + Position * stride + 4 * four);
        store(b.w, rows + Width * stride + 4 * four);
        store(b.h, rows + Height * stride + 4 * four);
    }
    if (rows == nullptr)
        return;
    L::at(rows + Slope0 * stride) = slopes.d0;
    L::at(rows + Slope1 * stride) = slopes.d1;
    L::at(rows + OnRaw0 * stride) = slopes.onRaw0;
    L::at(rows + OnRaw1 * stride) = slopes.onRaw1;
}

// Gradients of the loss with respect to the raw sizes of bins, through start = sum of those before the bin. The last
// bin's size is 1 - start, so that its own fraction does not appear.
template <class T, int K>
inline void pullBackFractions(const T* share, std::int64_t stride, int bins, const typename Lanes<T>::Vector& bin,
                              typename Lanes<T>::Vector onStart, typename Lanes<T>::Vector onSize, T* onRaw) {
    using L = Lanes<T>;
    using V = typename L::Vector;
    const int count = K > 0 ? K : bins;
    const auto last = bin == static_cast<T>(count - 1);
    onStart = last ? onStart - onSize : onStart;
    onSize = last ? V{} : onSize;
    V onFraction[K > 0 ? K : maxSplineBins], mean{};
    for (int k = 0; k < count; k++) {
        const V position = V{} + static_cast<T>(k);
        onFraction[k] = position < bin ? onStart : (position == bin ? onSize : V{});
        mean += onFraction[k] * L::at(share + k * stride);
    }
    for (int k = 0; k < count; k++)
        L::at(onRaw + k * stride) = static_cast<T>(1 - minBin) * L::at(share + k * stride) * (onFraction[k] - mean);
}

// Gradients of the loss by a bin: where it starts, its size, and the slopes at its ends.
template <class T>
struct OnBin {
    typename Lanes<T>::Vector x0, y0, w, h, d0, d1;
};

// The derivatives of y = y0 + h N/D and of l = log dy/dx = 2 log s + log g - 2 log D by t, s, d0, d1, h, and through
// t = (x - x0)/w by the rest, in units of the interval. For the inverse, x(y) is implicit,
// dx = (dy - y_theta dtheta)/y_x, and its logDet is -l.
template <class T>
inline Reals pullBackBin(const SplineColumns& columns, const T* rows, const Reals& onValue, const Reals& onLogDet,
                         int four, OnBin<T>& on) {
    const auto row = [&](Row index) { return load(rows + index * columns.stride + 4 * four); };
    const Reals t = row(Position), w = row(Width), h = row(Height), d0 = row(Slope0), d1 = row(Slope1);
    const auto [s, r, m, N, D, g] = Fraction(w, h, d0, d1, t);
    const Reals u = 1.0 - 2.0 * t, overD = 1.0 / D, overG = 1.0 / g, overW = 1.0 / w, hOverD2 = h * overD * overD;
    const Reals yt = hOverD2 * ((2.0 * s * t + d0 * u) * D - N * m * u);
    const Reals ys = hOverD2 * (t * t * D - N * (1.0 - 2.0 * r));
    const Reals lt = 2.0 * (d1 * t + s * u - d0 * (1.0 - t)) * overG - 2.0 * m * u * overD;
    const Reals ls = 2.0 / s + 2.0 * r * overG - 2.0 * (1.0 - 2.0 * r) * overD;
    const Reals rOverD = 2.0 * r * overD;

    Reals gy = onValue * (2 * columns.half), gl = onLogDet, onX{};
    if (columns.inverse) {
        gl = -gl;
        gy = -(gy + gl * lt * overW) * w / yt;
        onX = -gy / (2 * columns.half);
    }
    const Reals gt = gy * yt + gl * lt, gs = gy * ys + gl * ls;
    if (!columns.inverse)
        onX = gt * overW / (2 * columns.half);
    narrow<T>(-gt * overW, four, on.x0);
    narrow<T>((-gt * t - gs * s) * overW, four, on.w);
    narrow<T>(gy, four, on.y0);
    narrow<T>(gs * overW + gy * N * overD, four, on.h);
    narrow<T>(gy * hOverD2 * r * (D - N) + gl * ((1.0 - t) * (1.0 - t) * overG - rOverD), four, on.d0);
    narrow<T>(gl * (t * t * overG - rOverD) - gy * hOverD2 * N * r, four, on.d1);
    return onX;
}

// The first vector of points of the arrays.
template <class T, int K>
inline void pullBackVector(const SplineColumns& columns, const T* record, const double* onValue, const double* onLogDet,
                           double* onX, T* onRaw) {
    using L = Lanes<T>;
    using V = typename L::Vector;
    const std::int64_t stride = columns.stride;
    const int bins = K > 0 ? K : columns.bins;
    const T* rows = record + 2 * bins * stride;
    prefetch(record, countSplineRecords(bins), stride);
    OnBin<T> on;
    V onRotation;
    for (int four = 0; four < fours<T>; four++) {
        const Reals given = load(onValue + 4 * four);
        const Reals found = pullBackBin(columns, rows, given, load(onLogDet + 4 * four), four, on);
        const Mask inside = load(rows + Index * stride + 4 * four) >= 0.0;
        store(inside ? found : given, onX + 4 * four);
        narrow<T>(columns.inverse ? -given : found, four, onRotation);
    }
    const V bin = L::at(rows + Index * stride);
    const auto inside = bin >= 0;
    for (V* part : {&on.x0, &on.y0, &on.w, &on.h, &on.d0, &on.d1, &onRotation})
        *part = inside ? *part : V{};
    pullBackFractions<T, K>(record, stride, bins, bin, on.x0, on.w, onRaw);
    pullBackFractions<T, K>(record + bins * stride, stride, bins, bin, on.y0, on.h, onRaw + bins * stride);
    const V onRaw0 = on.d0 * L::at(rows + OnRaw0 * stride), onRaw1 = on.d1 * L::at(rows + OnRaw1 * stride);
    T* onSlopes = onRaw + findSlopes(columns, bins) * stride;
    for (int k = columns.circular ? 0 : 1; k < bins; k++)
        L::at(onSlopes + k * stride) = (bin == static_cast<T>(k) ? onRaw0 : V{}) +
                                       (bin == static_cast<T>(k > 0 ? k - 1 : bins - 1) ? onRaw1 : V{});
    if (columns.circular)
        L::at(onRaw + 3 * bins * stride) = onRotation;
    else if (!columns.dense)
        L::at(onRaw + 2 * bins * stride) = L::at(onRaw + 3 * bins * stride) = V{};
}

// Eight bins, the common choice, get loops of known length.
template <class T>
void apply(const SplineColumns& columns, const double* x, const T* raw, const T* bias, double* value, double* logDet,
           T* record) {
    const auto one = columns.bins == 8 ? applyVector<T, 8> : applyVector<T, 0>;
    for (std::int64_t i = 0; i < columns.points; i += Lanes<T>::count)
        one(columns, x + i, raw + i, bias, value + i, logDet + i, record == nullptr ? nullptr : record + i);
}

template <class T>
void pullBack(const SplineColumns& columns, const T* record, const double* onValue, const double* onLogDet, double* onX,
              T* onRaw) {
    const auto one = columns.bins == 8 ? pullBackVector<T, 8> : pullBackVector<T, 0>;
    for (std::int64_t i = 0; i < columns.points; i += Lanes<T>::count)
        one(columns, record + i, onValue + i, onLogDet + i, onX + i, onRaw + i);
}

template <class T, int K>
inline void findBinsOfVector(const SplineColumns& columns, const double* x, const T* raw, const T* bias, int* bin) {
    const int bins = K > 0 ? K : columns.bins;
    typename Lanes<T>::Vector width[K > 0 ? K : maxSplineBins], height[K > 0 ? K : maxSplineBins];
    const std::int64_t stride = columns.stride;
    fractions<T, K>(raw, stride, bias, bins, nullptr, width);
    fractions<T, K>(raw + bins * stride, stride, bias + bins, bins, nullptr, height);
    for (int four = 0; four < fours<T>; four++) {
        Reals rotation{};
        if (columns.circular)
            rotation = load(raw + 3 * bins * stride + 4 * four) + static_cast<double>(bias[3 * bins]);
        const Bin b = locate<T, K>(columns, load(x + 4 * four), rotation, width, height, four);
        for (int i = 0; i < 4; i++)
            bin[4 * four + i] = static_cast<int>(b.index[i]);
    }
}

template <class T>
void findBins(const SplineColumns& columns, const double* x, const T* raw, const T* bias, int* bin) {
    const auto one = columns.bins == 8 ? findBinsOfVector<T, 8> : findBinsOfVector<T, 0>;
    for (std::int64_t i = 0; i < columns.points; i += Lanes<T>::count)
        one(columns, x + i, raw + i, bias, bin + i);
}

template <class T>
SplineKernels<T> get() {
    return {apply<T>, findBins<T>, pullBack<T>};
}

} // namespace

SplineKernels<float> getFloatSpline() {
    return get<float>();
}

SplineKernels<double> getDoubleSpline() {
    return get<double>();
}

} // namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT
