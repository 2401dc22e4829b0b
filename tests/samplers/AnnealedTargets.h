#ifndef OPENMMFLOW_TESTS_ANNEALEDTARGETS_H_
#define OPENMMFLOW_TESTS_ANNEALEDTARGETS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedPath.h"
#include "samplers/JumpTargets.h"

namespace OpenMMFlow {

/** u = (k/2) |x - middle|^2 */
struct Spring : ReducedPotential {
    Spring(int size, double k, double middle = 0) : size(size), k(k), middle(middle) {}
    [[nodiscard]] int getSize() const override { return size; }
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& x, Gradient gradient) override {
        EnergyResult result{0.5 * k * (x - middle).square().sum(1), {}, 0, 0};
        if (gradient == Gradient::Compute)
            result.gradient = k * (x - middle);
        return result;
    }
    /** ln Z of exp(-u). */
    [[nodiscard]] double logNorm() const { return 0.5 * size * std::log(2 * M_PI / k); }
    /** Independent samples. */
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const {
        return middle + random.normal(count, size) / std::sqrt(k);
    }
    int size;
    double k, middle;
};

/** A spring in two dimensions, k = 1, of which half has no density. @param beyond  u where x_1 < 0 */
struct Wall : Spring {
    explicit Wall(double beyond = INFINITY) : Spring(2, 1.0), beyond(beyond) {}
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& x, Gradient gradient) override {
        EnergyResult result = Spring::evaluate(x, gradient);
        result.u = result.u.masked_fill(x.select(1, 0) < 0, beyond);
        return result;
    }
    double beyond;
};

/** Copies of a double well, u = sum_i a x_i^4 / 4 - b x_i^2 / 2 + c x_i + y_i^2 / 2, of x_1, y_1, x_2, y_2, ... */
struct Wells : ReducedPotential {
    Wells(int copies, double a, double b, double c) : copies(copies), a(a), b(b), c(c) {}
    [[nodiscard]] int getSize() const override { return 2 * copies; }
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& x, Gradient gradient) override {
        const at::Tensor pairs = x.view({x.size(0), copies, 2}), v = pairs.select(2, 0), y = pairs.select(2, 1);
        const at::Tensor v2 = v.square();
        EnergyResult result{(v2 * (0.25 * a * v2 - 0.5 * b) + c * v + 0.5 * y.square()).sum(1), {}, 0, 0};
        if (gradient == Gradient::Compute)
            result.gradient = at::stack({v * (a * v2 - b) + c, y}, 2).view_as(x);
        numGradients += gradient == Gradient::Compute ? x.size(0) : 0;
        return result;
    }
    int copies;
    double a, b, c;
    std::int64_t numGradients = 0;
};

/** A1 of one pair, ln Z 12.06492900: the samples and statistics of makeDoubleWell() belong to it. */
inline std::shared_ptr<Wells> makeA1() {
    return std::make_shared<Wells>(1, 1.0, 6.0, 1.0);
}
constexpr double logZA1 = 12.06492900;
/** A3, x^4 - 6 x^2 - x/2 + y^2/2 for each pair: ln Z is 164.695675 for 16 of them. */
inline std::shared_ptr<Wells> makeManyWell(int copies) {
    return std::make_shared<Wells>(copies, 4.0, 12.0, -0.5);
}
constexpr double logZPair = 164.695675 / 16;
/** The distribution of x of a pair of A3. */
inline std::shared_ptr<ExactTarget> makePair() {
    const auto u = [](double x) { return x * x * x * x - 6 * x * x - 0.5 * x; };
    return std::make_shared<ExactTarget>(
        GridDensity(-4, 4, u), 0, [](double) { return 0.0; }, 0.0);
}

/**
 * The phi^4 action on a torus of rows x columns sites, extents of 2 counting both bonds,
 *     S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + (1 - 2 lambda) phi_x^2 + lambda phi_x^4]
 */
struct Lattice : ReducedPotential {
    Lattice(int rows, int columns, double kappa, double lambda)
        : rows(rows), columns(columns), kappa(kappa), lambda(lambda) {}
    [[nodiscard]] int getSize() const override { return rows * columns; }
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& x, Gradient gradient) override {
        const at::Tensor phi = x.view({x.size(0), rows, columns});
        const at::Tensor next = phi.roll(-1, 1) + phi.roll(-1, 2), square = phi.square();
        EnergyResult result{
            (-2 * kappa * phi * next + square * (1 - 2 * lambda + lambda * square)).flatten(1).sum(1), {}, 0, 0};
        if (gradient == Gradient::Compute) {
            const at::Tensor around = next + phi.roll(1, 1) + phi.roll(1, 2);
            result.gradient = (-2 * kappa * around + phi * (2 * (1 - 2 * lambda) + 4 * lambda * square)).view_as(x);
        }
        return result;
    }
    /** Independent samples at kappa = 0, where sites are. ln Z per site is .578277976857 at lambda = .022. */
    [[nodiscard]] at::Tensor sampleSites(std::int64_t count, Random& random) const {
        const GridDensity site(-8, 8, [this](double phi) { return phi * phi * (1 - 2 * lambda + lambda * phi * phi); });
        at::Tensor x = random.uniform(count, getSize());
        double* values = x.mutable_data_ptr<double>();
        for (std::int64_t i = 0; i < x.numel(); i++)
            values[i] = site.quantile(values[i]);
        return x;
    }
    int rows, columns;
    double kappa, lambda;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_ANNEALEDTARGETS_H_*/
