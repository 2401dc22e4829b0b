// SPDX-License-Identifier: MIT
// Compiled twice, with OPENMMFLOW_SPLINE_VARIANT = SplineBaseline and SplineAvx2: see the formulas in
// RationalQuadraticSpline.h.

#include "SplineKernel.h"
#include <bit>
#include <cmath>

namespace OpenMMFlow::OPENMMFLOW_SPLINE_VARIANT {
namespace {

constexpr int maxBins = 64;
constexpr double minBin = 1e-3; // of the mean bin
constexpr double minSlope = 1e-3;

// exp for the softmax, where arguments are <= 0: Cody-Waite reduction and Cephes' polynomial, 1e-7 relative. Plain
// arithmetic without branches, so that loops over it vectorise.
inline float expNegative(float x) {
    x = x < -87.0f ? -87.0f : x;
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

inline double expNegative(double x) {
    return std::exp(x);
}

// log(1 + e). The float version is several times faster than log1p and off by 1e-7 at most, far below minSlope.
inline double log1pOf(double e) {
    return std::log1p(e);
}

inline float log1pOf(float e) {
    return std::log(1 + e);
}

// softplus(raw + c) + minSlope, with c such that raw = 0 gives 1.
template <class T>
inline T slope(T raw) {
    const T shifted = raw + static_cast<T>(std::log(std::expm1(1.0 - minSlope)));
    return static_cast<T>(minSlope) + (shifted > 20 ? shifted : log1pOf(std::exp(shifted)));
}

template <class T>
inline T slopeDerivative(T raw) {
    return 1 / (1 + std::exp(-(raw + static_cast<T>(std::log(std::expm1(1.0 - minSlope))))));
}

// Fractions of the interval that the bins take: softmax with a floor. share keeps the softmax itself, for the gradient.
template <class T, int K>
inline void fractions(const T* raw, int bins, T* share, T* fraction) {
    const int count = K > 0 ? K : bins;
    T largest = raw[0];
    for (int k = 1; k < count; k++)
        largest = raw[k] > largest ? raw[k] : largest;
    for (int k = 0; k < count; k++)
        share[k] = expNegative(raw[k] - largest);
    T sum = 0;
    for (int k = 0; k < count; k++)
        sum += share[k];
    const T scale = 1 / sum;
    for (int k = 0; k < count; k++) {
        share[k] *= scale;
        fraction[k] = static_cast<T>(minBin / count) + static_cast<T>(1 - minBin) * share[k];
    }
}

// The bin that holds a point of [0, 1), and where the bin starts.
template <class T, int K>
inline int findBin(const T* fraction, int bins, double point, double& start) {
    const int count = K > 0 ? K : bins;
    int bin = 0;
    double edge = 0;
    start = 0;
    for (int k = 0; k + 1 < count; k++) {
        edge += fraction[k];
        if (point >= edge) {
            bin = k + 1;
            start = edge;
        }
    }
    return bin;
}

template <class T>
inline double sumBefore(const T* fraction, int bin) {
    double sum = 0;
    for (int k = 0; k < bin; k++)
        sum += fraction[k];
    return sum;
}

// The last bin ends at 1 exactly, whatever the rounding of the others.
template <class T>
inline double binWidth(const T* fraction, int bins, int bin, double start) {
    return bin == bins - 1 ? 1.0 - start : static_cast<double>(fraction[bin]);
}

// One bin, in units where the spline maps [0, 1] to [0, 1].
struct Bin {
    double x0, y0, w, h, d0, d1;
    [[nodiscard]] double s() const { return h / w; }
};

// Parameters of one variable of one sample, and the bin in which a point falls.
template <class T, int K>
struct Spline {
    T widthShare[maxBins], heightShare[maxBins], width[maxBins], height[maxBins];
    const T* raw;
    int bins, bin = 0;
    bool circular;

    Spline(const T* raw, int bins, bool circular) : raw(raw), bins(bins), circular(circular) {
        fractions<T, K>(raw, bins, widthShare, width);
        fractions<T, K>(raw + bins, bins, heightShare, height);
    }
    [[nodiscard]] bool isBoundarySlope(int knot) const { return !circular && (knot == 0 || knot == bins); }
    [[nodiscard]] const T& rawSlope(int knot) const { return raw[2 * bins + knot % bins]; }
    [[nodiscard]] double slopeAt(int knot) const { return isBoundarySlope(knot) ? 1.0 : slope(rawSlope(knot)); }
    // The bin that holds a point of the x axis, or of the y axis.
    [[nodiscard]] Bin locate(double point, bool onY) {
        Bin b;
        if (onY) {
            bin = findBin<T, K>(height, bins, point, b.y0);
            b.x0 = sumBefore(width, bin);
        } else {
            bin = findBin<T, K>(width, bins, point, b.x0);
            b.y0 = sumBefore(height, bin);
        }
        b.w = binWidth(width, bins, bin, b.x0);
        b.h = binWidth(height, bins, bin, b.y0);
        b.d0 = slopeAt(bin);
        b.d1 = slopeAt(bin + 1);
        return b;
    }
};

// Position t within the bin of a point on the y axis.
inline double solve(const Bin& b, double y) {
    const double s = b.s(), e = y - b.y0, m = b.d1 + b.d0 - 2 * s;
    const double qa = b.h * (s - b.d0) + e * m, qb = b.h * b.d0 - e * m, qc = -s * e;
    const double discriminant = qb * qb - 4 * qa * qc;
    return 2 * qc / (-qb - std::sqrt(discriminant > 0 ? discriminant : 0));
}

inline double wrap(double angle) {
    return angle - 2 * M_PI * std::floor((angle + M_PI) / (2 * M_PI));
}

inline double slopeOf(const Bin& b, double t) {
    const double s = b.s(), r = t * (1 - t), denominator = s + (b.d1 + b.d0 - 2 * s) * r;
    return s * s * (b.d1 * t * t + 2 * s * r + b.d0 * (1 - t) * (1 - t)) / (denominator * denominator);
}

template <class T, int K>
void applyRows(const SplineKernel<T>& kernel, double* value, double* logDet, std::int64_t firstRow,
               std::int64_t endRow) {
    const int stride = 3 * kernel.bins + 1;
    for (std::int64_t row = firstRow; row < endRow; row++) {
        double sum = 0;
        for (int i = 0; i < kernel.n; i++) {
            const std::int64_t index = row * kernel.n + i;
            const T* raw = kernel.raw + index * stride;
            const bool circular = kernel.circular[i];
            const double half = circular ? M_PI : kernel.bound;
            const double rotation = circular ? static_cast<double>(raw[stride - 1]) : 0.0;
            double argument = kernel.x[index];
            if (circular)
                argument = wrap(kernel.inverse ? argument : argument + rotation);
            const double point = (argument + half) / (2 * half);
            if (!(point >= 0 && point <= 1)) { // outside an open spline, or NaN
                value[index] = argument;
                continue;
            }
            Spline<T, K> spline(raw, kernel.bins, circular);
            const Bin b = spline.locate(point, kernel.inverse);
            double t, result;
            if (kernel.inverse) {
                t = solve(b, point);
                result = b.x0 + b.w * t;
            } else {
                t = (point - b.x0) / b.w;
                const double s = b.s(), r = t * (1 - t);
                result = b.y0 + b.h * (s * t * t + b.d0 * r) / (s + (b.d1 + b.d0 - 2 * s) * r);
            }
            result = 2 * half * result - half;
            if (circular)
                result = wrap(kernel.inverse ? result - rotation : result);
            value[index] = result;
            const double logSlope = std::log(slopeOf(b, t));
            sum += kernel.inverse ? -logSlope : logSlope;
        }
        logDet[row] = sum;
    }
}

// Gradients of the loss with respect to the fractions of the bins, through start = sum of those before the bin. The
// last bin's size is 1 - start, so that its own fraction does not appear.
template <class T, int K>
inline void backwardFractions(const T* share, int bins, int bin, double gradStart, double gradSize, T* gradRaw) {
    const int count = K > 0 ? K : bins;
    if (bin == count - 1) {
        gradStart -= gradSize;
        gradSize = 0;
    }
    T mean = 0;
    for (int k = 0; k < count; k++) {
        gradRaw[k] = static_cast<T>(k < bin ? gradStart : (k == bin ? gradSize : 0.0));
        mean += gradRaw[k] * share[k];
    }
    for (int k = 0; k < count; k++)
        gradRaw[k] = static_cast<T>(1 - minBin) * share[k] * (gradRaw[k] - mean);
}

template <class T, int K>
void backwardRows(const SplineKernel<T>& kernel, const double* gradValue, const double* gradLogDet, double* gradX,
                  T* gradRaw, std::int64_t firstRow, std::int64_t endRow) {
    const int bins = kernel.bins, stride = 3 * bins + 1;
    for (std::int64_t row = firstRow; row < endRow; row++)
        for (int i = 0; i < kernel.n; i++) {
            const std::int64_t index = row * kernel.n + i;
            const T* raw = kernel.raw + index * stride;
            T* gradient = gradRaw + index * stride;
            const bool circular = kernel.circular[i];
            const double half = circular ? M_PI : kernel.bound;
            const double rotation = circular ? static_cast<double>(raw[stride - 1]) : 0.0;
            for (int k = 0; k < stride; k++)
                gradient[k] = 0;
            // The point on the side of the argument, and on the x side of the spline.
            double argument = kernel.x[index];
            if (circular)
                argument = wrap(kernel.inverse ? argument : argument + rotation);
            const double point = (argument + half) / (2 * half);
            if (!(point >= 0 && point <= 1)) {
                gradX[index] = gradValue[index];
                continue;
            }
            Spline<T, K> spline(raw, bins, circular);
            const Bin b = spline.locate(point, kernel.inverse);
            const double t = kernel.inverse ? solve(b, point) : (point - b.x0) / b.w;

            // y = y0 + h N/D and l = log dy/dx = 2 log s + log g - 2 log D, with derivatives by t, s, d0, d1.
            const double s = b.s(), r = t * (1 - t), u = 1 - 2 * t, m = b.d1 + b.d0 - 2 * s;
            const double N = s * t * t + b.d0 * r, D = s + m * r,
                         g = b.d1 * t * t + 2 * s * r + b.d0 * (1 - t) * (1 - t);
            const double yt = b.h * ((2 * s * t + b.d0 * u) * D - N * m * u) / (D * D);
            const double ys = b.h * (t * t * D - N * (1 - 2 * r)) / (D * D);
            const double yd0 = b.h * r * (D - N) / (D * D), yd1 = -b.h * N * r / (D * D);
            const double lt = 2 * (b.d1 * t + s * u - b.d0 * (1 - t)) / g - 2 * m * u / D;
            const double ls = 2 / s + 2 * r / g - 2 * (1 - 2 * r) / D;
            const double ld0 = (1 - t) * (1 - t) / g - 2 * r / D, ld1 = t * t / g - 2 * r / D;

            // Gradients by y and l at fixed x, in units of the interval. For the inverse, x(y) is implicit:
            // dx = (dy - y_theta dtheta) / y_x, and its logDet is -l.
            double gy = gradValue[index] * 2 * half, gl = gradLogDet[row];
            if (kernel.inverse) {
                gl = -gl;
                gy = -(gy + gl * lt / b.w) / (yt / b.w);
                gradX[index] = -gy / (2 * half);
            }
            const double gt = gy * yt + gl * lt, gs = gy * ys + gl * ls;
            if (!kernel.inverse)
                gradX[index] = gt / b.w / (2 * half);
            if (circular)
                gradient[stride - 1] = static_cast<T>(kernel.inverse ? -gradValue[index] : gradX[index]);
            backwardFractions<T, K>(spline.widthShare, bins, spline.bin, -gt / b.w, (-gt * t - gs * s) / b.w, gradient);
            backwardFractions<T, K>(spline.heightShare, bins, spline.bin, gy, gs / b.w + gy * N / D, gradient + bins);
            const double gd[2] = {gy * yd0 + gl * ld0, gy * yd1 + gl * ld1};
            for (int side = 0; side < 2; side++) {
                const int knot = spline.bin + side;
                if (!spline.isBoundarySlope(knot))
                    gradient[2 * bins + knot % bins] +=
                        static_cast<T>(gd[side]) * slopeDerivative(spline.rawSlope(knot));
            }
        }
}

// Eight bins, the common choice, get loops of known length.
template <class T>
void applyAny(const SplineKernel<T>& kernel, double* value, double* logDet, std::int64_t firstRow,
              std::int64_t endRow) {
    if (kernel.bins == 8)
        applyRows<T, 8>(kernel, value, logDet, firstRow, endRow);
    else
        applyRows<T, 0>(kernel, value, logDet, firstRow, endRow);
}

template <class T>
void backwardAny(const SplineKernel<T>& kernel, const double* gradValue, const double* gradLogDet, double* gradX,
                 T* gradRaw, std::int64_t firstRow, std::int64_t endRow) {
    if (kernel.bins == 8)
        backwardRows<T, 8>(kernel, gradValue, gradLogDet, gradX, gradRaw, firstRow, endRow);
    else
        backwardRows<T, 0>(kernel, gradValue, gradLogDet, gradX, gradRaw, firstRow, endRow);
}

} // namespace

SplineKernels<float> getFloat() {
    return {applyAny<float>, backwardAny<float>};
}

SplineKernels<double> getDouble() {
    return {applyAny<double>, backwardAny<double>};
}

} // namespace OpenMMFlow::OPENMMFLOW_SPLINE_VARIANT
