#ifndef OPENMMFLOW_TESTS_JUMPTARGETS_H_
#define OPENMMFLOW_TESTS_JUMPTARGETS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include "openmmflow/flows/Flow.h"
#include <ATen/ATen.h>
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

namespace OpenMMFlow {

/** A density exp(-u(x)) of one variable on [low, high], tabulated finely: its integrals, and samples by inverse CDF. */
class GridDensity {
public:
    GridDensity(double low, double high, std::function<double(double)> energy)
        : u(std::move(energy)), low(low), high(high), cumulative(numCells + 1, 0.0) {
        for (int i = 0; i < numCells; i++)
            cumulative[i + 1] = cumulative[i] + std::exp(-u(center(i))) * width();
        norm = cumulative.back();
        for (double& value : cumulative)
            value /= norm;
    }
    /** u(x), or what was chosen for points outside. */
    double energy(double x) const { return x >= low && x <= high ? u(x) : outside; }
    double logNorm() const { return std::log(norm); }
    double expectation(const std::function<double(double)>& f) const {
        double sum = 0;
        for (int i = 0; i < numCells; i++)
            sum += (cumulative[i + 1] - cumulative[i]) * f(center(i));
        return sum;
    }
    double cdf(double x) const {
        const double cell = std::clamp((x - low) / width(), 0.0, static_cast<double>(numCells) * (1 - 1e-15));
        const int i = static_cast<int>(cell);
        return cumulative[i] + (cell - i) * (cumulative[i + 1] - cumulative[i]);
    }
    double quantile(double p) const {
        const auto above = std::upper_bound(cumulative.begin() + 1, cumulative.end() - 1, p);
        const auto i = above - cumulative.begin() - 1;
        return low + width() * (static_cast<double>(i) + (p - cumulative[i]) / (*above - cumulative[i]));
    }

    double outside = std::numeric_limits<double>::infinity();

private:
    static constexpr int numCells = 100000;
    double width() const { return (high - low) / numCells; }
    double center(int i) const { return low + (i + 0.5) * width(); }
    std::function<double(double)> u;
    double low, high, norm;
    std::vector<double> cumulative;
};

/**
 * A target of two variables that can be sampled exactly: one has a GridDensity, the other is normal around a function
 * of it.
 */
class ExactTarget : public ReducedPotential {
public:
    ExactTarget(GridDensity density, int column, std::function<double(double)> middle, double boundary)
        : density(std::move(density)), column(column), middle(std::move(middle)), boundary(boundary) {}

    int getSize() const override { return 2; }
    EnergyResult evaluate(const at::Tensor& x, Gradient) override {
        const auto rows = x.accessor<double, 2>();
        EnergyResult result{at::empty({x.size(0)}, at::kDouble), {}};
        auto u = result.u.accessor<double, 1>();
        for (std::int64_t i = 0; i < x.size(0); i++) {
            const double main = rows[i][column], other = rows[i][1 - column] - middle(main);
            u[i] = density.energy(main) + 0.5 * other * other;
        }
        return result;
    }
    at::Tensor sample(std::int64_t count, Random& random) const {
        at::Tensor x = at::empty({count, 2}, at::kDouble);
        auto rows = x.accessor<double, 2>();
        for (std::int64_t i = 0; i < count; i++) {
            rows[i][column] = density.quantile(random.uniform());
            rows[i][1 - column] = middle(rows[i][column]) + random.normal();
        }
        return x;
    }
    /** ln Z of exp(-u). */
    double logNorm() const { return density.logNorm() + 0.5 * std::log(2 * M_PI); }

    GridDensity density;
    int column;
    std::function<double(double)> middle;
    /** What divides left from right. */
    double boundary;
};

/** A1: a double well in x with its barrier off the middle, harmonic in y. */
inline double doubleWell(double x) {
    return 0.25 * x * x * x * x - 3 * x * x + x;
}
inline std::shared_ptr<ExactTarget> makeDoubleWell(double low = -6, double high = 6) {
    return std::make_shared<ExactTarget>(
        GridDensity(low, high, doubleWell), 0, [](double) { return 0.0; }, .167449);
}

/** A torsion with three unequal wells, and a length that depends on it; the torsion is the second variable. */
inline std::shared_ptr<ExactTarget> makeTorsion() {
    const auto u = [](double p) { return 2 * std::cos(p) + 1.5 * std::cos(3 * p) + 0.8 * std::sin(p); };
    return std::make_shared<ExactTarget>(
        GridDensity(-M_PI, M_PI, u), 1, [](double p) { return 0.5 * std::sin(p); }, 0.3);
}

/**
 * The largest deviation, in standard errors, of samples from a target: mean, variance and P(left) of the tabulated
 * variable, a chi-square of 64 equally probable bins, mean and variance of the normal one, and the covariance of the
 * two.
 */
inline double largestDeviation(const ExactTarget& target, const at::Tensor& x) {
    constexpr int numBins = 64;
    const auto& density = target.density;
    const double mean = density.expectation([](double v) { return v; });
    const auto moment = [&](int k) { return density.expectation([&](double v) { return std::pow(v - mean, k); }); };
    const double variance = moment(2), left = density.cdf(target.boundary);
    const double n = static_cast<double>(x.size(0));
    double sum = 0, squares = 0, numLeft = 0, otherSum = 0, otherSquares = 0, product = 0;
    std::vector<double> bins(numBins, 0.0);
    const auto rows = x.accessor<double, 2>();
    for (std::int64_t i = 0; i < x.size(0); i++) {
        const double main = rows[i][target.column], other = rows[i][1 - target.column] - target.middle(main);
        sum += main - mean;
        squares += std::pow(main - mean, 2);
        numLeft += main < target.boundary;
        bins[std::min(numBins - 1, static_cast<int>(numBins * density.cdf(main)))]++;
        otherSum += other;
        otherSquares += other * other;
        product += other * (main - mean);
    }
    double chiSquare = 0;
    for (double count : bins)
        chiSquare += std::pow(count - n / numBins, 2) / (n / numBins);
    const std::vector<double> deviations = {sum / std::sqrt(n * variance),
                                            (squares - n * variance) / std::sqrt(n * (moment(4) - variance * variance)),
                                            left < 1 ? (numLeft - n * left) / std::sqrt(n * left * (1 - left)) : 0.0,
                                            (chiSquare - (numBins - 1)) / std::sqrt(2.0 * (numBins - 1)),
                                            otherSum / std::sqrt(n),
                                            (otherSquares - n) / std::sqrt(2 * n),
                                            product / std::sqrt(n * variance)};
    double largest = 0;
    for (double deviation : deviations)
        largest = std::isfinite(deviation) ? std::max(largest, std::abs(deviation)) : INFINITY;
    return largest;
}

/** A Transform for tests, not to be saved. */
class LocalTransform : public Transform {
public:
    int getInputSize() const override { return 2; }
    std::string getTypeName() const override { return "Local"; }
    nlohmann::json getArchitecture() const override { return {}; }
};

inline at::Tensor columns(const at::Tensor& a, const at::Tensor& b) {
    return at::stack({a, b}, 1);
}

/** x0 = asinh(6 z0), x1 = 1.2 exp(0.15 z0) z1 + 0.3 z0: reaches both wells of A1 more than the barrier between them. */
class TwoWellMap : public LocalTransform {
public:
    TransformResult forward(const at::Tensor& z) const override {
        const at::Tensor z0 = z.select(1, 0), z1 = z.select(1, 1);
        return {columns((6 * z0).asinh(), 1.2 * (0.15 * z0).exp() * z1 + 0.3 * z0), logDet(z0)};
    }
    TransformResult inverse(const at::Tensor& x) const override {
        const at::Tensor z0 = x.select(1, 0).sinh() / 6;
        return {columns(z0, (x.select(1, 1) - 0.3 * z0) * (-0.15 * z0).exp() / 1.2), -logDet(z0)};
    }

private:
    static at::Tensor logDet(const at::Tensor& z0) {
        return std::log(6 * 1.2) - 0.5 * (36 * z0.square()).log1p() + 0.15 * z0;
    }
};

/** x0 = 1.4 z0 + 0.3 sin z1, x1 = z1 + 0.6 sin z1, a map of the circle onto itself. */
class CircleMap : public LocalTransform {
public:
    TransformResult forward(const at::Tensor& z) const override {
        const at::Tensor z0 = z.select(1, 0), z1 = z.select(1, 1);
        return {columns(1.4 * z0 + 0.3 * z1.sin(), z1 + 0.6 * z1.sin()), logDet(z1)};
    }
    TransformResult inverse(const at::Tensor& x) const override {
        at::Tensor z1 = x.select(1, 1);
        for (int i = 0; i < 80; i++) // contracts by 0.6
            z1 = x.select(1, 1) - 0.6 * z1.sin();
        return {columns((x.select(1, 0) - 0.3 * z1.sin()) / 1.4, z1), -logDet(z1)};
    }

private:
    static at::Tensor logDet(const at::Tensor& z1) { return (1.4 * (1 + 0.6 * z1.cos())).log(); }
};

/** A transform that reports its log-det times a factor: 0 drops it, -1 has the wrong sign. */
class WrongLogDet : public LocalTransform {
public:
    WrongLogDet(std::shared_ptr<Transform> right, double factor) : right(std::move(right)), factor(factor) {}
    TransformResult forward(const at::Tensor& z) const override { return wrong(right->forward(z)); }
    TransformResult inverse(const at::Tensor& x) const override { return wrong(right->inverse(x)); }

private:
    TransformResult wrong(const TransformResult& result) const { return {result.value, factor * result.logDet}; }
    std::shared_ptr<Transform> right;
    double factor;
};

/** A Gaussian prior that draws with another standard deviation than it tells. */
class WrongSigma : public GaussianPrior {
public:
    WrongSigma(int size, double sigma, double factor) : GaussianPrior(size, sigma), factor(factor) {}
    at::Tensor sample(std::int64_t count, Random& random) const override {
        return factor * GaussianPrior::sample(count, random);
    }
    at::Tensor perturb(const at::Tensor& z, double stepSize, Random& random) const override {
        return factor * GaussianPrior::perturb(z / factor, stepSize, random);
    }

private:
    double factor;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_JUMPTARGETS_H_*/
