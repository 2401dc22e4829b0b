// SPDX-License-Identifier: MIT

#include "SmoothPoint.h"
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

using namespace OpenMMFlow;
using std::numbers::pi;

namespace {

constexpr double slopeMargin = SmoothSettings::slopeMargin, minWidth = SmoothSettings::minWidth,
                 maxRadius = SmoothSettings::maxRadius;

/** softplus(raw + c) with c such that 0 becomes `neutral`, and its derivative. */
struct SoftPlus {
    double value, slope;
    SoftPlus(double raw, double neutral) {
        const double argument = raw + std::log(std::expm1(neutral));
        value = argument > 40 ? argument : std::log1p(std::exp(argument));
        slope = argument > 40 ? 1 : 1 / (1 + std::exp(-argument));
    }
};

double spacingOf(const SmoothSettings& settings) {
    return 2 * settings.bound / static_cast<double>(settings.components);
}

double floorOf(const SmoothSettings& settings) {
    return slopeMargin / static_cast<double>(settings.components);
}

/** Softmax of the first raw numbers. */
std::vector<double> findWeights(const double* raw, std::int64_t count) {
    const double largest = *std::max_element(raw, raw + count);
    std::vector<double> weights(count);
    double total = 0;
    for (std::int64_t k = 0; k < count; k++)
        total += weights[k] = std::exp(raw[k] - largest);
    for (double& weight : weights)
        weight /= total;
    return weights;
}

/** w_k, and its derivatives by the two raw numbers that it comes from. */
struct Centre {
    double re, im, reByP, cross, imByQ; // cross: re by q and im by p
    Centre(const double* raw, std::int64_t k, std::int64_t count) {
        // Different gains: components that start equal would get equal gradients and stay equal.
        const double gain = static_cast<double>(k + 1) * (2.0 / (static_cast<double>(count) + 1.0));
        const double p = gain * raw[count + k], q = gain * raw[2 * count + k], square = 1 + p * p + q * q;
        const double scale = maxRadius / std::sqrt(square);
        re = scale * p;
        im = scale * q;
        reByP = gain * scale * (1 - p * p / square);
        cross = -gain * scale * p * q / square;
        imByQ = gain * scale * (1 - q * q / square);
    }
};

} // namespace

void OpenMMFlow::differentiateOpen(const double* raw, const SmoothSettings& settings, double x,
                                   SmoothDerivatives& result) {
    const auto count = settings.components;
    const double spacing = spacingOf(settings), floor = floorOf(settings);
    result.value = x + raw[3 * count];
    result.slope = 1;
    result.curvature = 0;
    result.onValue[3 * count] = 1;
    result.onSlope[3 * count] = 0;
    for (std::int64_t k = 0; k < count; k++) {
        const SoftPlus height(raw[k], floor), width(raw[2 * count + k], 1 - minWidth);
        const double h = height.value - floor, w = spacing * (minWidth + width.value);
        const double center = spacing * (raw[count + k] + static_cast<double>(k) + 0.5) - settings.bound;
        const double u = (x - center) / w, t = std::tanh(u), q = 1 - t * t;
        result.value += h * w * t;
        result.slope += h * q;
        result.curvature -= 2 * h * t * q / w;
        result.onValue[k] = w * t * height.slope;
        result.onSlope[k] = q * height.slope;
        result.onValue[count + k] = -h * q * spacing;
        result.onSlope[count + k] = 2 * h * t * q / w * spacing;
        result.onValue[2 * count + k] = h * (t - q * u) * spacing * width.slope;
        result.onSlope[2 * count + k] = 2 * h * t * q * u / w * spacing * width.slope;
    }
}

void OpenMMFlow::differentiateCircle(const double* raw, const SmoothSettings& settings, double x,
                                     SmoothDerivatives& result) {
    const auto count = settings.components;
    const double cosine = std::cos(x), sine = std::sin(x);
    const std::vector<double> weights = findWeights(raw, count);
    double turn = 0;
    result.slope = result.curvature = 0;
    result.onValue[3 * count] = 1;
    result.onSlope[3 * count] = 0;
    for (std::int64_t k = 0; k < count; k++) {
        const Centre w(raw, k, count);
        const double norm = w.re * w.re + w.im * w.im, weight = weights[k];
        const double along = w.re * cosine + w.im * sine, across = w.re * sine - w.im * cosine;
        const double distance = 1 - 2 * along + norm, s = (1 - norm) / distance, turned = std::atan2(across, 1 - along);
        turn += 2 * weight * turned;
        result.slope += weight * s;
        result.curvature -= 2 * weight * s * across / distance;
        result.onValue[k] = 2 * weight * turned; // to be completed below: softmax needs the sums
        result.onSlope[k] = weight * s;
        const double valueByRe = 2 * weight * ((1 - along) * sine + across * cosine) / distance;
        const double valueByIm = 2 * weight * (across * sine - (1 - along) * cosine) / distance;
        const double slopeByRe = -2 * weight * (w.re + s * (w.re - cosine)) / distance;
        const double slopeByIm = -2 * weight * (w.im + s * (w.im - sine)) / distance;
        result.onValue[count + k] = valueByRe * w.reByP + valueByIm * w.cross;
        result.onSlope[count + k] = slopeByRe * w.reByP + slopeByIm * w.cross;
        result.onValue[2 * count + k] = valueByRe * w.cross + valueByIm * w.imByQ;
        result.onSlope[2 * count + k] = slopeByRe * w.cross + slopeByIm * w.imByQ;
    }
    for (std::int64_t k = 0; k < count; k++) {
        result.onValue[k] -= weights[k] * turn;
        result.onSlope[k] -= weights[k] * result.slope;
    }
    result.value = x + raw[3 * count] + turn;
}

SmoothPoint::SmoothPoint(const double* raw, const SmoothSettings& settings, bool open)
    : open(open), components(settings.components), offset(raw[3 * settings.components]), reach(open ? 0 : pi) {
    if (open)
        prepareOpen(raw, settings);
    else
        prepareCircle(raw, settings);
}

void SmoothPoint::prepareOpen(const double* raw, const SmoothSettings& settings) {
    const auto count = settings.components;
    for (std::int64_t k = 0; k < count; k++) {
        const double height = SoftPlus(raw[k], floorOf(settings)).value - floorOf(settings);
        const double center = spacingOf(settings) * (raw[count + k] + static_cast<double>(k) + 0.5) - settings.bound;
        const double width = spacingOf(settings) * (minWidth + SoftPlus(raw[2 * count + k], 1 - minWidth).value);
        components[k] = {height, center, width};
        reach += std::abs(height * width);
    }
}

void SmoothPoint::prepareCircle(const double* raw, const SmoothSettings& settings) {
    const std::vector<double> weights = findWeights(raw, settings.components);
    for (std::int64_t k = 0; k < settings.components; k++) {
        const Centre w(raw, k, settings.components);
        components[k] = {weights[k], w.re, w.im};
    }
}

std::pair<double, double> SmoothPoint::evaluate(double x) const {
    double value = x + offset, slope = open ? 1 : 0;
    const double cosine = open ? 0 : std::cos(x), sine = open ? 0 : std::sin(x);
    for (const auto& [a, b, c] : components)
        if (open) {
            const double t = std::tanh((x - b) / c);
            value += a * c * t;
            slope += a * (1 - t * t);
        } else {
            const double along = b * cosine + c * sine, across = b * sine - c * cosine, norm = b * b + c * c;
            value += 2 * a * std::atan2(across, 1 - along);
            slope += a * (1 - norm) / (1 - 2 * along + norm);
        }
    return {value, slope};
}

std::pair<double, double> SmoothPoint::solve(double z) const {
    const double invalid = std::numeric_limits<double>::quiet_NaN();
    const double tolerance = 4 * std::numeric_limits<double>::epsilon() * (1 + std::abs(z) + std::abs(offset) + reach);
    double x = z - offset, low = x - reach, high = x + reach, before = std::numeric_limits<double>::infinity();
    for (int iteration = 0; iteration < 200 && std::isfinite(z); iteration++) {
        const auto [value, slope] = evaluate(x);
        const double residual = value - z, size = std::abs(residual), newton = x - residual / slope;
        (residual > 0 ? high : low) = x;
        const bool close = size <= tolerance * std::max(slope, 1.0) || high - low <= tolerance;
        const bool good = newton >= low && newton <= high && 2 * size <= before;
        x = close || good ? newton : (low + high) / 2;
        if (close)
            return {x, evaluate(x).second};
        before = size;
    }
    return {invalid, invalid};
}
