// SPDX-License-Identifier: MIT
// Compiled twice, with OPENMMFLOW_KERNEL_VARIANT = KernelBaseline and KernelAvx2: see the formulas in
// RationalQuadraticSpline.h.

#include "SplineKernel.h"
#include "KernelMath.h"
#include <cmath>

namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT {
namespace {

constexpr double minBin = 1e-3; // of the mean bin
constexpr double minSlope = 1e-3;

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
        share[k] = boundedExp(raw[k] - largest);
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

// The bin that holds a point of the x axis, or of the y axis; its slopes are left open.
template <class T, int K>
inline SplineBin findBounds(const T* width, const T* height, int bins, double point, bool onY, int& bin) {
    SplineBin b;
    if (onY) {
        bin = findBin<T, K>(height, bins, point, b.y0);
        b.x0 = sumBefore(width, bin);
    } else {
        bin = findBin<T, K>(width, bins, point, b.x0);
        b.y0 = sumBefore(height, bin);
    }
    b.w = binWidth(width, bins, bin, b.x0);
    b.h = binWidth(height, bins, bin, b.y0);
    return b;
}

// Parameters of one variable of one sample, and the bin in which a point falls.
template <class T, int K>
struct Spline {
    T widthShare[maxSplineBins], heightShare[maxSplineBins], width[maxSplineBins], height[maxSplineBins];
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
    [[nodiscard]] SplineBin locate(double point, bool onY) {
        SplineBin b = findBounds<T, K>(width, height, bins, point, onY, bin);
        b.d0 = slopeAt(bin);
        b.d1 = slopeAt(bin + 1);
        return b;
    }
};

inline double slopeOfChord(const SplineBin& b) {
    return b.h / b.w;
}

// Position t within the bin of a point on the y axis.
inline double solve(const SplineBin& b, double y) {
    const double s = slopeOfChord(b), e = y - b.y0, m = b.d1 + b.d0 - 2 * s;
    const double qa = b.h * (s - b.d0) + e * m, qb = b.h * b.d0 - e * m, qc = -s * e;
    const double discriminant = qb * qb - 4 * qa * qc;
    return 2 * qc / (-qb - std::sqrt(discriminant > 0 ? discriminant : 0));
}

inline double wrap(double angle) {
    return angle - 2 * M_PI * std::floor((angle + M_PI) / (2 * M_PI));
}

inline double slopeOf(const SplineBin& b, double t) {
    const double s = slopeOfChord(b), r = t * (1 - t), denominator = s + (b.d1 + b.d0 - 2 * s) * r;
    return s * s * (b.d1 * t * t + 2 * s * r + b.d0 * (1 - t) * (1 - t)) / (denominator * denominator);
}

// The point on the other axis.
inline double mapPoint(const SplineBin& b, double t, bool inverse) {
    if (inverse)
        return b.x0 + b.w * t;
    const double s = slopeOfChord(b), r = t * (1 - t);
    return b.y0 + b.h * (s * t * t + b.d0 * r) / (s + (b.d1 + b.d0 - 2 * s) * r);
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
            const SplineBin b = spline.locate(point, kernel.inverse);
            const double t = kernel.inverse ? solve(b, point) : (point - b.x0) / b.w;
            double result = 2 * half * mapPoint(b, t, kernel.inverse) - half;
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

// y = y0 + h N/D and l = log dy/dx = 2 log s + log g - 2 log D at one point, with derivatives by t, s, d0, d1.
struct Partials {
    double t, s, w, half;
    bool inverse;
    double yt, ys, yd0, yd1, yh, lt, ls, ld0, ld1;

    Partials(const SplineBin& b, double t, double half, bool inverse)
        : t(t), s(slopeOfChord(b)), w(b.w), half(half), inverse(inverse) {
        const double r = t * (1 - t), u = 1 - 2 * t, m = b.d1 + b.d0 - 2 * s;
        const double N = s * t * t + b.d0 * r, D = s + m * r, g = b.d1 * t * t + 2 * s * r + b.d0 * (1 - t) * (1 - t);
        yt = b.h * ((2 * s * t + b.d0 * u) * D - N * m * u) / (D * D);
        ys = b.h * (t * t * D - N * (1 - 2 * r)) / (D * D);
        yd0 = b.h * r * (D - N) / (D * D);
        yd1 = -b.h * N * r / (D * D);
        yh = N / D;
        lt = 2 * (b.d1 * t + s * u - b.d0 * (1 - t)) / g - 2 * m * u / D;
        ls = 2 / s + 2 * r / g - 2 * (1 - 2 * r) / D;
        ld0 = (1 - t) * (1 - t) / g - 2 * r / D;
        ld1 = t * t / g - 2 * r / D;
    }

    // The gradient of gradValue * value + gradLogDet * logDet by the argument (returned), by the raw widths and heights
    // and by the slopes.
    template <class T, int K>
    double pullBack(const T* widthShare, const T* heightShare, int bins, int bin, double gradValue, double gradLogDet,
                    T* gradWidths, T* gradHeights, double* gradSlopes) const {
        // Gradients by y and l at fixed x, in units of the interval. For the inverse, x(y) is implicit:
        // dx = (dy - y_theta dtheta) / y_x, and its logDet is -l.
        double gy = gradValue * 2 * half, gl = gradLogDet, gradX = 0;
        if (inverse) {
            gl = -gl;
            gy = -(gy + gl * lt / w) / (yt / w);
            gradX = -gy / (2 * half);
        }
        const double gt = gy * yt + gl * lt, gs = gy * ys + gl * ls;
        if (!inverse)
            gradX = gt / w / (2 * half);
        backwardFractions<T, K>(widthShare, bins, bin, -gt / w, (-gt * t - gs * s) / w, gradWidths);
        backwardFractions<T, K>(heightShare, bins, bin, gy, gs / w + gy * yh, gradHeights);
        gradSlopes[0] = gy * yd0 + gl * ld0;
        gradSlopes[1] = gy * yd1 + gl * ld1;
        return gradX;
    }
};

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
            const SplineBin b = spline.locate(point, kernel.inverse);
            const double t = kernel.inverse ? solve(b, point) : (point - b.x0) / b.w;

            double gd[2];
            gradX[index] = Partials(b, t, half, kernel.inverse)
                               .pullBack<T, K>(spline.widthShare, spline.heightShare, bins, spline.bin,
                                               gradValue[index], gradLogDet[row], gradient, gradient + bins, gd);
            if (circular)
                gradient[stride - 1] = static_cast<T>(kernel.inverse ? -gradValue[index] : gradX[index]);
            for (int side = 0; side < 2; side++) {
                const int knot = spline.bin + side;
                if (!spline.isBoundarySlope(knot))
                    gradient[2 * bins + knot % bins] +=
                        static_cast<T>(gd[side]) * slopeDerivative(spline.rawSlope(knot));
            }
        }
}

template <class T, int K>
void locate(SplinePoint<T>& p, const T* raw) {
    T width[maxSplineBins], height[maxSplineBins];
    fractions<T, K>(raw, p.bins, p.widthShare, width);
    fractions<T, K>(raw + p.bins, p.bins, p.heightShare, height);
    p.b = findBounds<T, K>(width, height, p.bins, p.point, p.inverse, p.bin);
}

template <class T, int K>
void finish(SplinePoint<T>& p, const T* firstSlope, const T* secondSlope, T* byValue, T* byLogDet) {
    p.b.d0 = firstSlope == nullptr ? 1.0 : slope(*firstSlope);
    p.b.d1 = secondSlope == nullptr ? 1.0 : slope(*secondSlope);
    const double t = p.inverse ? solve(p.b, p.point) : (p.point - p.b.x0) / p.b.w;
    p.value = 2 * p.half * mapPoint(p.b, t, p.inverse) - p.half;
    const double logSlope = std::log(slopeOf(p.b, t));
    p.logDet = p.inverse ? -logSlope : logSlope;
    if (byValue == nullptr)
        return;
    const Partials partials(p.b, t, p.half, p.inverse);
    const T d0 = firstSlope == nullptr ? 0 : slopeDerivative(*firstSlope);
    const T d1 = secondSlope == nullptr ? 0 : slopeDerivative(*secondSlope);
    const auto pull = [&](double onValue, double onLogDet, T* gradient) {
        double gd[2];
        const double byX = partials.pullBack<T, K>(p.widthShare, p.heightShare, p.bins, p.bin, onValue, onLogDet,
                                                   gradient, gradient + p.bins, gd);
        gradient[2 * p.bins] = static_cast<T>(gd[0]) * d0;
        gradient[2 * p.bins + 1] = static_cast<T>(gd[1]) * d1;
        return byX;
    };
    p.valueByX = pull(1, 0, byValue);
    p.logDetByX = pull(0, 1, byLogDet);
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

template <class T>
void locateAny(SplinePoint<T>& point, const T* raw) {
    if (point.bins == 8)
        locate<T, 8>(point, raw);
    else
        locate<T, 0>(point, raw);
}

template <class T>
void finishAny(SplinePoint<T>& point, const T* firstSlope, const T* secondSlope, T* byValue, T* byLogDet) {
    if (point.bins == 8)
        finish<T, 8>(point, firstSlope, secondSlope, byValue, byLogDet);
    else
        finish<T, 0>(point, firstSlope, secondSlope, byValue, byLogDet);
}

template <class T>
SplineKernels<T> get() {
    return {applyAny<T>, backwardAny<T>, locateAny<T>, finishAny<T>};
}

} // namespace

SplineKernels<float> getFloatSpline() {
    return get<float>();
}

SplineKernels<double> getDoubleSpline() {
    return get<double>();
}

} // namespace OpenMMFlow::OPENMMFLOW_KERNEL_VARIANT
