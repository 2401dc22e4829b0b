#ifndef OPENMMFLOW_FLOWS_SPLINEELEMENT_H_
#define OPENMMFLOW_FLOWS_SPLINEELEMENT_H_
// SPDX-License-Identifier: MIT

#include "../latent/Angle.h"
#include "SplineMath.h"
#include <cstdint>

namespace OpenMMFlow {

/** Rational-quadratic splines of a batch: what RationalQuadraticSpline::apply() takes. */
template <class T>
struct SplineBatch {
    const double* x;      // [rows, n]
    const T* raw;         // [rows, n, 3 bins + 1]
    const bool* circular; // [n]
    std::int64_t rows;
    int n, bins;
    double bound;
    bool inverse;
};

/** The spline of one variable of one sample, at its argument. */
template <class T>
class SplineElement {
public:
    /** @param index  row * n + variable */
    OPENMMFLOW_HOST_DEVICE SplineElement(const SplineBatch<T>& batch, std::int64_t index)
        : raw(batch.raw + index * (3 * batch.bins + 1)), bins(batch.bins), inverse(batch.inverse),
          circular(batch.circular[index % batch.n]), half(circular ? std::numbers::pi : batch.bound),
          rotation(circular ? static_cast<double>(raw[3 * bins]) : 0.0), argument(batch.x[index]) {
        if (circular)
            argument = wrap(inverse ? argument : argument + rotation);
        point = (argument + half) / (2 * half);
        inside = point >= 0 && point <= 1; // not so outside an open spline, or for NaN
    }

    /** The result. @param logSlope  set to log|d result/d argument| */
    OPENMMFLOW_HOST_DEVICE double evaluate(double& logSlope) const {
        logSlope = 0;
        if (!inside)
            return argument;
        const SplineFractions<T> width(raw, bins), height(raw + bins, bins);
        int bin = 0;
        const SplinePlace place = locate(width, height, bin);
        logSlope = inverse ? -place.logSlope() : place.logSlope();
        const double result = 2 * half * (inverse ? place.x() : place.y()) - half;
        return circular ? wrap(inverse ? result - rotation : result) : result;
    }

    /**
     * The gradient of gradValue * result + gradLogDet * logSlope by the argument, returned, and by the raw numbers.
     *
     * For the inverse, x(y) is implicit: dx = (dy - y_theta dtheta) / y_x, and its logSlope is -l.
     *
     * @param gradRaw  [3 bins + 1], filled
     */
    OPENMMFLOW_HOST_DEVICE double pullBack(double gradValue, double gradLogDet, T* gradRaw) const {
        for (int k = 2 * bins; k <= 3 * bins; k++)
            gradRaw[k] = 0;
        if (!inside) {
            for (int k = 0; k < 2 * bins; k++)
                gradRaw[k] = 0;
            return gradValue;
        }
        const SplineFractions<T> width(raw, bins), height(raw + bins, bins);
        int bin = 0;
        const SplinePlace place = locate(width, height, bin);
        const SplinePartials by(place);
        double gy = gradValue * 2 * half, gl = gradLogDet, gradX = 0;
        if (inverse) {
            gl = -gl;
            gy = -(gy + gl * by.lt / place.w) / (by.yt / place.w);
            gradX = -gy / (2 * half);
        }
        const double gt = gy * by.yt + gl * by.lt, gs = gy * by.ys + gl * by.ls;
        if (!inverse)
            gradX = gt / place.w / (2 * half);
        width.pullBack(bin, -gt / place.w, (-gt * place.t - gs * place.chord()) / place.w, gradRaw);
        height.pullBack(bin, gy, gs / place.w + gy * by.yh, gradRaw + bins);
        addSlopeGradient(bin, gy * by.yd0 + gl * by.ld0, gradRaw);
        addSlopeGradient(bin + 1, gy * by.yd1 + gl * by.ld1, gradRaw);
        if (circular)
            gradRaw[3 * bins] = static_cast<T>(inverse ? -gradValue : gradX);
        return gradX;
    }

private:
    /** The ends of an open spline have slope 1; those of a circle are one knot. */
    OPENMMFLOW_HOST_DEVICE bool isEnd(int knot) const { return !circular && (knot == 0 || knot == bins); }
    OPENMMFLOW_HOST_DEVICE double slopeAt(int knot) const {
        return isEnd(knot) ? 1.0 : static_cast<double>(SplineSlope<T>::value(raw[2 * bins + knot % bins]));
    }
    OPENMMFLOW_HOST_DEVICE void addSlopeGradient(int knot, double gradient, T* gradRaw) const {
        if (!isEnd(knot))
            gradRaw[2 * bins + knot % bins] +=
                static_cast<T>(gradient) * SplineSlope<T>::derivative(raw[2 * bins + knot % bins]);
    }
    OPENMMFLOW_HOST_DEVICE SplinePlace locate(const SplineFractions<T>& width, const SplineFractions<T>& height,
                                              int& bin) const {
        SplinePlace p{};
        if (inverse) {
            bin = height.find(point, p.y0);
            p.x0 = width.sumBefore(bin);
        } else {
            bin = width.find(point, p.x0);
            p.y0 = height.sumBefore(bin);
        }
        p.w = width.size(bin, p.x0);
        p.h = height.size(bin, p.y0);
        p.d0 = slopeAt(bin);
        p.d1 = slopeAt(bin + 1);
        if (inverse)
            p.solveY(point);
        else
            p.solveX(point);
        return p;
    }

    const T* raw;
    int bins;
    bool inverse, circular, inside;
    double half, rotation, argument, point;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SPLINEELEMENT_H_*/
