#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_LINEDENSITY_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_LINEDENSITY_H_
// SPDX-License-Identifier: MIT

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace OpenMMFlow {

/**
 * Integrals of exp(-u(x)) over [low, high] by Simpson's rule, 10,000 intervals on each side of a boundary within, at
 * which they can be split without loss of accuracy.
 */
class LineDensity {
public:
    LineDensity(const std::function<double(double)>& u, double low, double boundary, double high) {
        addPanel(u, low, boundary);
        boundaryNode = x.size();
        addPanel(u, boundary, high);
        lowest = *std::min_element(energy.begin(), energy.end());
        for (std::size_t i = 0; i < x.size(); i++)
            weight[i] *= std::exp(lowest - energy[i]);
        for (const double w : weight)
            sum += w;
    }
    double logZ() const { return std::log(sum) - lowest; }
    double mean(const std::function<double(double)>& f) const {
        double total = 0;
        for (std::size_t i = 0; i < x.size(); i++)
            total += weight[i] * f(x[i]);
        return total / sum;
    }
    /** The probabilities on either side of the boundary, and the log of their ratio, left over right. */
    double probabilityLeft() const { return side(0, boundaryNode) / sum; }
    double logRatio() const { return std::log(side(0, boundaryNode) / side(boundaryNode, x.size())); }
    /**
     * The points below which there are the given fractions, in ascending order. The density is taken as linear between
     * the 20,000 nodes, a relative error of their distance squared.
     */
    std::vector<double> quantiles(const std::vector<double>& ascending) const {
        std::vector<double> cumulative(x.size(), 0.0), result;
        const auto density = [this](std::size_t i) { return std::exp(lowest - energy[i]); };
        for (std::size_t i = 1; i < x.size(); i++)
            cumulative[i] = cumulative[i - 1] + 0.5 * (density(i - 1) + density(i)) * (x[i] - x[i - 1]);
        std::size_t i = 1;
        for (const double fraction : ascending) {
            const double wanted = fraction * cumulative.back();
            while (i + 1 < x.size() && cumulative[i] < wanted)
                i++;
            // The area up to t of the interval h is (p t + (r - p) t^2/2) h, p and r the densities at its ends.
            const double h = x[i] - x[i - 1], p = density(i - 1), r = density(i);
            const double area = h > 0 ? (wanted - cumulative[i - 1]) / h : 0;
            const double root = std::sqrt(std::max(0.0, p * p + 2 * (r - p) * area));
            result.push_back(x[i - 1] + (p + root > 0 ? 2 * area / (p + root) : 0) * h);
        }
        return result;
    }

private:
    static constexpr int numIntervals = 10000;
    void addPanel(const std::function<double(double)>& u, double from, double to) {
        const double h = (to - from) / numIntervals;
        for (int i = 0; i <= numIntervals; i++) {
            x.push_back(from + i * h);
            energy.push_back(u(x.back()));
            weight.push_back(h / 3 * (i == 0 || i == numIntervals ? 1 : i % 2 == 1 ? 4 : 2));
        }
    }
    double side(std::size_t from, std::size_t to) const {
        double total = 0;
        for (std::size_t i = from; i < to; i++)
            total += weight[i];
        return total;
    }
    std::vector<double> x, energy, weight;
    std::size_t boundaryNode = 0;
    double lowest = 0, sum = 0;
};

/** Where, going from x in steps of the given size and sign, u first exceeds a level. */
inline double findLevel(const std::function<double(double)>& u, double x, double step, double level) {
    while (u(x) < level)
        x += step;
    return x;
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_LINEDENSITY_H_*/
