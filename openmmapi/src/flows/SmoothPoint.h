#ifndef OPENMMFLOW_FLOWS_SMOOTHPOINT_H_
#define OPENMMFLOW_FLOWS_SMOOTHPOINT_H_
// SPDX-License-Identifier: MIT

#include <cstdint>
#include <utility>
#include <vector>

namespace OpenMMFlow {

struct SmoothSettings {
    std::int64_t components;
    double bound;
    [[nodiscard]] std::int64_t countParameters() const { return 3 * components + 1; }
    static constexpr double slopeMargin = 0.95, minWidth = 0.05, maxRadius = 0.99;
};

/**
 * The map of one variable of a SmoothCoupling at one point, in plain numbers: z - wrapping of SmoothCoupling.h, its
 * slope dz/dx, the slope's derivative by x, and what the raw numbers do to z and to the slope.
 */
struct SmoothDerivatives {
    double value, slope, curvature;
    double *onValue, *onSlope; // [3K + 1], filled
};

/** The open map, and the lift of the circular one. @param raw  [3K + 1] */
void differentiateOpen(const double* raw, const SmoothSettings& settings, double x, SmoothDerivatives& result);
void differentiateCircle(const double* raw, const SmoothSettings& settings, double x, SmoothDerivatives& result);

/** Either map of one variable, made ready for many points. */
class SmoothPoint {
public:
    SmoothPoint(const double* raw, const SmoothSettings& settings, bool open);
    /** @return value and slope */
    [[nodiscard]] std::pair<double, double> evaluate(double x) const;
    /** The x of a value, NaN if it is not finite, as SmoothCoupling.cpp finds those of tensors. @return x and its slope
     */
    [[nodiscard]] std::pair<double, double> solve(double z) const;

private:
    /** Open: height a_k/c_k, center, width. Circular: weight, and w_k. */
    struct Component {
        double a, b, c;
    };
    void prepareOpen(const double* raw, const SmoothSettings& settings);
    void prepareCircle(const double* raw, const SmoothSettings& settings);
    bool open;
    std::vector<Component> components;
    double offset, reach; // reach: how far z - x - offset can be from 0
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SMOOTHPOINT_H_*/
