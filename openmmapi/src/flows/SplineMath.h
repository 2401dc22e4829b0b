#ifndef OPENMMFLOW_FLOWS_SPLINEMATH_H_
#define OPENMMFLOW_FLOWS_SPLINEMATH_H_
// SPDX-License-Identifier: MIT
// RationalQuadraticSpline.h, one variable of one sample at a time and without memory of its own, as a GPU's threads
// work. Raw numbers are float or double (T); positions within the spline and what comes out are double.

#include "../latent/HostDevice.h"
#include <cmath>

namespace OpenMMFlow {

/** Fractions of the interval that the bins take: softmax of K raw numbers, with a floor. */
template <class T>
class SplineFractions {
public:
    OPENMMFLOW_HOST_DEVICE SplineFractions(const T* raw, int bins) : raw(raw), bins(bins), largest(raw[0]) {
        for (int k = 1; k < bins; k++)
            largest = raw[k] > largest ? raw[k] : largest;
        T sum = 0;
        for (int k = 0; k < bins; k++)
            sum += std::exp(raw[k] - largest);
        scale = 1 / sum;
        smallest = static_cast<T>(minBin) / static_cast<T>(bins);
    }
    /** The softmax itself. */
    OPENMMFLOW_HOST_DEVICE T share(int k) const { return std::exp(raw[k] - largest) * scale; }
    OPENMMFLOW_HOST_DEVICE T fraction(int k) const { return smallest + static_cast<T>(1 - minBin) * share(k); }
    /** The bin that holds a point of [0, 1), and where the bin starts. */
    OPENMMFLOW_HOST_DEVICE int find(double point, double& start) const {
        int bin = 0;
        double edge = 0;
        start = 0;
        for (int k = 0; k + 1 < bins; k++) {
            edge += fraction(k);
            if (point >= edge) {
                bin = k + 1;
                start = edge;
            }
        }
        return bin;
    }
    OPENMMFLOW_HOST_DEVICE double sumBefore(int bin) const {
        double sum = 0;
        for (int k = 0; k < bin; k++)
            sum += fraction(k);
        return sum;
    }
    /** The last bin ends at 1 exactly, whatever the rounding of the others. */
    OPENMMFLOW_HOST_DEVICE double size(int bin, double start) const {
        return bin == bins - 1 ? 1.0 - start : static_cast<double>(fraction(bin));
    }
    /**
     * Gradients by the raw numbers, through start = sum of the fractions before the bin and size = that of the bin (of
     * the last one too: as all fractions make 1, so do their derivatives 0). @param gradRaw  [bins], filled
     */
    OPENMMFLOW_HOST_DEVICE void pullBack(int bin, double gradStart, double gradSize, T* gradRaw) const {
        const T before = static_cast<T>(gradStart), within = static_cast<T>(gradSize);
        T mean = 0;
        for (int k = 0; k <= bin; k++)
            mean += (k < bin ? before : within) * share(k);
        for (int k = 0; k < bins; k++) {
            const T onFraction = k < bin ? before : (k == bin ? within : T(0));
            gradRaw[k] = static_cast<T>(1 - minBin) * share(k) * (onFraction - mean);
        }
    }

private:
    static constexpr double minBin = 1e-3; // of the mean bin
    const T* raw;
    int bins;
    T largest, scale, smallest;
};

/** softplus(raw + c) + minSlope, with c such that raw = 0 gives 1. */
template <class T>
struct SplineSlope {
    static constexpr double minSlope = 1e-3;
    static constexpr double shift = 0.5397424172369521; // ln(exp(1 - minSlope) - 1)
    OPENMMFLOW_HOST_DEVICE static T value(T raw) {
        const T shifted = raw + static_cast<T>(shift);
        return static_cast<T>(minSlope) + (shifted > 20 ? shifted : std::log1p(std::exp(shifted)));
    }
    OPENMMFLOW_HOST_DEVICE static T derivative(T raw) { return 1 / (1 + std::exp(-(raw + static_cast<T>(shift)))); }
};

/** One bin, in units where the spline maps [0, 1] to [0, 1], and a place t in [0, 1] within it. */
struct SplinePlace {
    double x0, y0, w, h, d0, d1, t;

    OPENMMFLOW_HOST_DEVICE double chord() const { return h / w; }
    /** Find t for a point on the x axis, or on the y axis. */
    OPENMMFLOW_HOST_DEVICE void solveX(double x) { t = (x - x0) / w; }
    OPENMMFLOW_HOST_DEVICE void solveY(double y) {
        const double s = chord(), e = y - y0, m = d1 + d0 - 2 * s;
        const double a = h * (s - d0) + e * m, b = h * d0 - e * m, c = -s * e, discriminant = b * b - 4 * a * c;
        t = 2 * c / (-b - std::sqrt(discriminant > 0 ? discriminant : 0));
    }
    OPENMMFLOW_HOST_DEVICE double x() const { return x0 + w * t; }
    OPENMMFLOW_HOST_DEVICE double y() const {
        const double s = chord(), r = t * (1 - t);
        return y0 + h * (s * t * t + d0 * r) / (s + (d1 + d0 - 2 * s) * r);
    }
    OPENMMFLOW_HOST_DEVICE double logSlope() const {
        const double s = chord(), r = t * (1 - t), D = s + (d1 + d0 - 2 * s) * r;
        return std::log(s * s * (d1 * t * t + 2 * s * r + d0 * (1 - t) * (1 - t)) / (D * D));
    }
};

/** Derivatives of y = y0 + h N/D and l = log dy/dx = 2 log s + log g - 2 log D by t, s = h/w, d0, d1 and h. */
struct SplinePartials {
    double yt, ys, yd0, yd1, yh, lt, ls, ld0, ld1;

    OPENMMFLOW_HOST_DEVICE explicit SplinePartials(const SplinePlace& p) {
        const double s = p.chord(), t = p.t, d0 = p.d0, d1 = p.d1, r = t * (1 - t), u = 1 - 2 * t, m = d1 + d0 - 2 * s;
        const double N = s * t * t + d0 * r, D = s + m * r, g = d1 * t * t + 2 * s * r + d0 * (1 - t) * (1 - t);
        yt = p.h * ((2 * s * t + d0 * u) * D - N * m * u) / (D * D);
        ys = p.h * (t * t * D - N * (1 - 2 * r)) / (D * D);
        yd0 = p.h * r * (D - N) / (D * D);
        yd1 = -p.h * N * r / (D * D);
        yh = N / D;
        lt = 2 * (d1 * t + s * u - d0 * (1 - t)) / g - 2 * m * u / D;
        ls = 2 / s + 2 * r / g - 2 * (1 - 2 * r) / D;
        ld0 = (1 - t) * (1 - t) / g - 2 * r / D;
        ld1 = t * t / g - 2 * r / D;
    }
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SPLINEMATH_H_*/
