// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/energies/SelectedColumns.h"
#include "openmmflow/energies/systems/DimerInBath.h"
#include "openmmflow/energies/systems/DoubleWell.h"
#include "openmmflow/energies/systems/GaussianMixture.h"
#include "openmmflow/energies/systems/LennardJonesCluster.h"
#include "openmmflow/energies/systems/ManyWell.h"
#include <ATen/ATen.h>
#include <cmath>
#include <gtest/gtest.h>
#include <openmm/LocalEnergyMinimizer.h>
#include <openmm/Platform.h>
#include <openmm/VerletIntegrator.h>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

namespace {

ContextPotential::Options onReference() {
    ContextPotential::Options options;
    options.platform = "Reference";
    options.numContexts = 1;
    return options;
}

/** Energies of a System and the gradient against finite differences of them, at random x around a point. */
void checkPotential(const AnalyticSystem& system, const Tensor& x,
                    const std::function<double(const std::vector<double>&)>& formula) {
    const auto potential = system.createPotential(onReference());
    ASSERT_EQ(potential->getSize(), static_cast<int>(system.getColumns().size()));
    ASSERT_EQ(x.size(1), potential->getSize());
    const EnergyResult result = potential->evaluate(x, Gradient::Compute);
    const Tensor direction = Random(3).normal(x.size(0), x.size(1));
    const Tensor difference =
        (potential->evaluate(x + 1e-5 * direction).u - potential->evaluate(x - 1e-5 * direction).u) / 2e-5;
    const Tensor slope = (result.gradient * direction).sum(1);
    for (std::int64_t i = 0; i < x.size(0); i++) {
        const Tensor row = x[i].contiguous();
        const double expected = formula({row.data_ptr<double>(), row.data_ptr<double>() + row.numel()});
        EXPECT_NEAR(result.u[i].item<double>(), expected, 1e-12 * (1 + std::abs(expected)));
        const double scale = 1 + std::abs(slope[i].item<double>());
        EXPECT_NEAR(difference[i].item<double>(), slope[i].item<double>(), 1e-6 * scale);
    }
}

std::vector<Vec3> toPositions(const std::vector<double>& values, int dimensions) {
    std::vector<Vec3> positions;
    for (std::size_t i = 0; i < values.size(); i += dimensions)
        positions.emplace_back(values[i], values[i + 1], dimensions == 3 ? values[i + 2] : 0.0);
    return positions;
}

Tensor toRow(const std::vector<Vec3>& positions, int dimensions) {
    std::vector<double> values;
    for (const Vec3& r : positions)
        for (int axis = 0; axis < dimensions; axis++)
            values.push_back(r[axis]);
    return at::tensor(values, at::kDouble).unsqueeze(0);
}

/** Integral of f over [low, high] by the midpoint rule. */
double integrate(double low, double high, int n, const std::function<double(double)>& f) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += f(low + (high - low) * (i + 0.5) / n);
    return sum * (high - low) / n;
}

} // namespace

TEST(DoubleWell, EnergyIsTheFormula) {
    const DoubleWell well({1.5, 5, 0.7, 2});
    checkPotential(well, 2 * Random(1).normal(10, 2), [](const std::vector<double>& x) {
        return 1.5 * std::pow(x[0], 4) / 4 - 5 * x[0] * x[0] / 2 + 0.7 * x[0] + x[1] * x[1];
    });
    EXPECT_DOUBLE_EQ(well.energy(1.2, 0.5), 1.5 * std::pow(1.2, 4) / 4 - 5 * 1.2 * 1.2 / 2 + 0.7 * 1.2 + 0.25);
}

TEST(DoubleWell, TruthIsThatOfTheReferences) {
    const DoubleWell well;
    const DoubleWell::Truth truth = well.getTruth();
    EXPECT_NEAR(truth.logZ, 12.06492900, 1e-8);
    EXPECT_NEAR(truth.logZX, 11.14599047, 1e-8);
    EXPECT_NEAR(truth.leftMinimum, -2.528918, 1e-6);
    EXPECT_NEAR(truth.barrier, .167449, 1e-6);
    EXPECT_NEAR(truth.rightMinimum, 2.361469, 1e-6);
    EXPECT_NEAR(well.energy(truth.leftMinimum, 0), -11.489828, 1e-6);
    EXPECT_NEAR(well.energy(truth.rightMinimum, 0), -6.593701, 1e-6);
    EXPECT_NEAR(well.energy(truth.barrier, 0), .083528, 1e-6);
    EXPECT_NEAR(truth.meanX, -2.44109667, 1e-8);
    EXPECT_NEAR(truth.varianceX, .27244516, 1e-8);
    EXPECT_NEAR(truth.probabilityLeft, .99165366, 1e-8);
    EXPECT_NEAR(truth.deltaF, 4.77755032, 1e-7);
}

TEST(DoubleWell, TruthIsThatOfAnIndependentQuadrature) {
    const DoubleWell well({2, 7, -1.3, 0.5});
    const auto density = [](double x) { return std::exp(-(x * x * x * x / 2 - 3.5 * x * x - 1.3 * x)); };
    const DoubleWell::Truth truth = well.getTruth();
    const double z = integrate(-8, 8, 400000, density);
    const double left = integrate(-8, truth.barrier, 400000, density);
    EXPECT_NEAR(truth.logZX, std::log(z), 1e-9);
    EXPECT_NEAR(truth.logZ, std::log(z) + 0.5 * std::log(2 * M_PI / 0.5), 1e-9);
    EXPECT_NEAR(truth.probabilityLeft, left / z, 1e-9);
    EXPECT_NEAR(truth.deltaF, std::log(left / (z - left)), 1e-8);
    EXPECT_NEAR(truth.meanX, integrate(-8, 8, 400000, [&](double x) { return x * density(x); }) / z, 1e-9);
}

TEST(DoubleWell, SamplesAreOfTheDensity) {
    const DoubleWell well({2, 5, -0.3, 0.5});
    const DoubleWell::Truth truth = well.getTruth();
    Random random(5);
    constexpr int count = 100000;
    const Tensor x = well.sample(count, random).select(1, 0), y = well.sample(count, random).select(1, 1);
    const double left = (x < truth.barrier).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(left, truth.probabilityLeft, 4 * std::sqrt(left * (1 - left) / count));
    EXPECT_NEAR(x.mean().item<double>(), truth.meanX, 4 * std::sqrt(truth.varianceX / count));
    EXPECT_NEAR(x.var().item<double>(), truth.varianceX, 4 * truth.varianceX * std::sqrt(2.0 / count));
    EXPECT_NEAR(y.var().item<double>(), 2, 4 * 2 * std::sqrt(2.0 / count));
    // Neighbours in the list are independent.
    const Tensor centred = x - x.mean();
    const double correlation =
        (centred.narrow(0, 1, count - 1) * centred.narrow(0, 0, count - 1)).mean().item<double>() / truth.varianceX;
    EXPECT_NEAR(correlation, 0, 4 / std::sqrt(count));
}

TEST(DoubleWell, RefusesASingleWell) {
    expectMessage([] { DoubleWell({1, 1, 1, 1}); }, "c is 1, but must be small enough for two minima");
    expectMessage([] { DoubleWell({-1, 6, 1, 1}); }, "DoubleWell::DoubleWell: a is -1");
}

TEST(ManyWell, IsSixteenPairs) {
    const ManyWell wells;
    EXPECT_NEAR(wells.getLogZ(), 164.695675, 1e-6);
    EXPECT_NEAR(wells.getWell().getTruth().probabilityLeft, .15568939, 1e-8);
    const auto formula = [](const std::vector<double>& x) {
        double sum = 0;
        for (int i = 0; i < 16; i++) {
            const double a = x[2 * i], b = x[2 * i + 1];
            sum += std::pow(a, 4) - 6 * a * a - 0.5 * a + 0.5 * b * b;
        }
        return sum;
    };
    const Tensor x = 1.5 * Random(1).normal(5, 32);
    checkPotential(wells, x, formula);
    Random random(2);
    const Tensor sample = wells.sample(20000, random);
    const Tensor left = (sample.reshape({-1, 16, 2}).select(2, 0) < wells.getWell().getTruth().barrier).to(at::kDouble);
    EXPECT_NEAR(left.mean().item<double>(), .15568939, 4 * std::sqrt(.1557 * .8443 / 320000));
    expectMessage([] { ManyWell(ManyWell::Options{0, {}}); }, "numPairs is 0");
}

TEST(GaussianMixture, EnergyAndMoments) {
    const GaussianMixture mixture({1, 3, 0.5}, {-3, 1, 2}, {0.5, -2, 4}, {0.4, 1.1, 0.8});
    const auto density = [&](double x, double y) {
        const double w[] = {1 / 4.5, 3 / 4.5, 0.5 / 4.5}, mx[] = {-3, 1, 2}, my[] = {0.5, -2, 4}, s[] = {0.4, 1.1, 0.8};
        double sum = 0;
        for (int k = 0; k < 3; k++)
            sum += w[k] / (2 * M_PI * s[k] * s[k]) *
                   std::exp(-0.5 * (std::pow((x - mx[k]) / s[k], 2) + std::pow((y - my[k]) / s[k], 2)));
        return sum;
    };
    checkPotential(mixture, 3 * Random(1).normal(10, 2),
                   [&](const std::vector<double>& x) { return -std::log(density(x[0], x[1])); });
    EXPECT_NEAR(mixture.energy(0.3, -0.2), -std::log(density(0.3, -0.2)), 1e-12);
    // Moments by quadrature: the trapezoidal rule, which is exact for decaying smooth functions at this spacing.
    double moments[6] = {};
    for (double x = -12; x < 12; x += 0.1)
        for (double y = -12; y < 12; y += 0.1) {
            const double p = 0.01 * density(x, y), values[] = {1, x, y, x * x, x * y, y * y};
            for (int i = 0; i < 6; i++)
                moments[i] += p * values[i];
        }
    EXPECT_NEAR(moments[0], 1, 1e-9); // ln Z = 0
    const std::vector<double> mean = mixture.getMean(), covariance = mixture.getCovariance();
    EXPECT_NEAR(mean[0], moments[1], 1e-9);
    EXPECT_NEAR(mean[1], moments[2], 1e-9);
    EXPECT_NEAR(covariance[0], moments[3] - mean[0] * mean[0], 1e-8);
    EXPECT_NEAR(covariance[1], moments[4] - mean[0] * mean[1], 1e-8);
    EXPECT_NEAR(covariance[2], moments[5] - mean[1] * mean[1], 1e-8);
    Random random(4);
    const Tensor sample = mixture.sample(50000, random);
    EXPECT_NEAR(sample.select(1, 0).mean().item<double>(), mean[0], 4 * std::sqrt(covariance[0] / 50000));
    EXPECT_NEAR(sample.select(1, 1).mean().item<double>(), mean[1], 4 * std::sqrt(covariance[2] / 50000));
    EXPECT_NEAR(at::cov(sample.t())[0][1].item<double>(), covariance[1],
                4 * std::sqrt(2 * covariance[0] * covariance[2] / 50000));
    // Far from everything the energy is still finite.
    const Tensor far = at::full({1, 2}, 200.0, at::kDouble);
    EXPECT_NEAR(mixture.createPotential(onReference())->evaluate(far).u.item<double>(), mixture.energy(200, 200), 1e-8);
    expectMessage([] { GaussianMixture({1, 2}, {0, 0}, {0, 0}, {1}); }, "size of sigma is 1");
    expectMessage([] { GaussianMixture({1}, {0}, {0}, {0}); }, "a sigma is 0");
}

TEST(LennardJonesCluster, EnergyAndPair) {
    const LennardJonesCluster::Options options{13, 1.5, 0.9, 0.6};
    const LennardJonesCluster cluster(options);
    const auto formula = [](const std::vector<double>& x) {
        double sum = 0;
        for (std::size_t i = 0; i < x.size(); i += 3) {
            sum += 0.3 * (x[i] * x[i] + x[i + 1] * x[i + 1] + x[i + 2] * x[i + 2]);
            for (std::size_t j = 0; j < i; j += 3) {
                const double r = std::hypot(x[i] - x[j], x[i + 1] - x[j + 1], x[i + 2] - x[j + 2]);
                sum += 6 * (std::pow(0.9 / r, 12) - std::pow(0.9 / r, 6));
            }
        }
        return sum;
    };
    const Tensor x = toRow(cluster.getPositions(), 3) + 0.05 * Random(1).normal(5, 39);
    checkPotential(cluster, x, formula);
    EXPECT_NEAR(cluster.energy(toPositions({x[0].data_ptr<double>(), x[0].data_ptr<double>() + 39}, 3)),
                formula({x[0].data_ptr<double>(), x[0].data_ptr<double>() + 39}), 1e-11);

    const LennardJonesCluster pair({2, 1.5, 0.9, 0.6});
    const double z = integrate(0.3, 25, 2000000, [](double r) {
        return 4 * M_PI * r * r * std::exp(-6 * (std::pow(0.9 / r, 12) - std::pow(0.9 / r, 6)) - 0.15 * r * r);
    });
    EXPECT_NEAR(pair.getLogZ(), std::log(z) + 1.5 * std::log(2 * M_PI / 1.2), 1e-8);
    EXPECT_NEAR(pair.getLogZOfCentre(), 1.5 * std::log(2 * M_PI / 1.2), 1e-12);
    expectMessage([&] { (void)cluster.getLogZ(); }, "numParticles is 13, but must be 2");
    // In the start positions every neighbour is in the minimum of the pair potential: 12 around one.
    const auto positions = cluster.getPositions();
    for (int i = 1; i < 13; i++)
        EXPECT_NEAR(std::sqrt(positions[i].dot(positions[i])), std::pow(2, 1.0 / 6) * 0.9, 1e-12);
}

TEST(DimerInBath, EnergyIsTheFormula) {
    const DimerInBath dimer;
    const auto formula = [](const std::vector<double>& x) {
        const double s = 2 * (std::hypot(x[0] - x[2], x[1] - x[3]) - 1.5);
        double sum =
            -0.5 * s - 25 * s * s + 10 * std::pow(s, 4) + 20 * (std::pow(x[0] + x[2], 2) + x[1] * x[1] + x[3] * x[3]);
        for (std::size_t i = 0; i < x.size(); i += 2) {
            for (std::size_t j = 0; j < i; j += 2)
                if (!(i == 2 && j == 0))
                    sum += std::pow(1.1 / std::hypot(x[i] - x[j], x[i + 1] - x[j + 1]), 12);
            for (const double c : {x[i], x[i + 1]})
                sum += std::abs(c) > 3 ? 200 * std::pow(std::abs(c) - 3, 2) : 0.0;
        }
        return sum;
    };
    // Spread out, so that some particles are beyond the walls.
    const Tensor x = 1.3 * toRow(dimer.getPositions(), 2) + 0.05 * Random(1).normal(4, 76);
    EXPECT_GT(x.abs().max().item<double>(), 3.1);
    checkPotential(dimer, x, formula);
    EXPECT_NEAR(dimer.energy(toPositions({x[0].data_ptr<double>(), x[0].data_ptr<double>() + 76}, 2)),
                formula({x[0].data_ptr<double>(), x[0].data_ptr<double>() + 76}), 1e-9);
}

// p(d) of the dimer alone, by a grid over its vector instead of the Bessel function.
TEST(DimerInBath, BareTruthIsThatOfAnIndependentQuadrature) {
    DimerInBath::Options options;
    options.slope = 0.6; // less symmetric
    const DimerInBath dimer(options);
    double z = 0, shorter = 0;
    constexpr double h = 0.004;
    for (double dx = 0.5 * h; dx < 3.5; dx += h)
        for (double dy = 0.5 * h; dy < 3; dy += h) {
            const double d = std::hypot(dx, dy), s = 2 * (d - 1.5);
            const double p = 4 * h * h * std::exp(-0.6 * s + 25 * s * s - 10 * std::pow(s, 4) - 10 * dy * dy);
            z += p;
            shorter += d < 1.5 ? p : 0;
        }
    const DimerInBath::BareTruth truth = dimer.getBareTruth();
    EXPECT_NEAR(truth.logZ, std::log(z * std::sqrt(M_PI / 20) * std::sqrt(2 * M_PI / 20) / 4), 1e-6);
    EXPECT_NEAR(truth.probabilityShort, shorter / z, 1e-6);
    EXPECT_NEAR(truth.deltaF, std::log(shorter / (z - shorter)), 1e-6);
}

TEST(DimerInBath, StartPositionsRelax) {
    const DimerInBath dimer;
    const auto system = dimer.createSystem();
    VerletIntegrator integrator(0.001);
    Context context(*system, integrator, Platform::getPlatform("Reference"));
    context.setPositions(dimer.getPositions());
    LocalEnergyMinimizer::minimize(context, 10);
    const State state = context.getState(State::Energy | State::Positions);
    EXPECT_LT(state.getPotentialEnergy(), 250);
    EXPECT_NEAR(state.getPotentialEnergy(), dimer.energy(state.getPositions()), 1e-6); // all third coordinates are 0
}

// The confined coordinates add a term of their own to the whole System, whatever the others are.
TEST(AnalyticSystem, UnusedCoordinatesAreIndependent) {
    const DoubleWell well;
    const GaussianMixture mixture({1, 2}, {0, 1}, {0, 1}, {1, 0.5});
    const DimerInBath dimer;
    for (const AnalyticSystem* system : std::initializer_list<const AnalyticSystem*>{&well, &mixture, &dimer}) {
        ContextPotential whole(*system->createSystem(), unitTemperature, onReference());
        const Tensor used = toRow(system->getPositions(), 3);
        const Tensor third = at::zeros_like(used);
        third.slice(1, 2, std::nullopt, 3).copy_(Random(1).normal(1, used.size(1) / 3));
        const double expected = whole.evaluate(used).u.item<double>() + 0.5 * third.square().sum().item<double>();
        EXPECT_NEAR(whole.evaluate(used + third).u.item<double>(), expected, 1e-9 * std::abs(expected));
    }
}

TEST(SelectedColumns, PicksAndFixes) {
    /** u = x0 + 10 x1^2 + 100 x2 x3 */
    struct Polynomial : ReducedPotential {
        [[nodiscard]] int getSize() const override { return 4; }
        [[nodiscard]] EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
            const auto c = [&](int i) { return x.select(1, i); };
            EnergyResult result{c(0) + 10 * c(1).square() + 100 * c(2) * c(3), {}, 0, 0};
            if (gradient == Gradient::Compute)
                result.gradient = at::stack({at::ones_like(c(0)), 20 * c(1), 100 * c(3), 100 * c(2)}, 1);
            return result;
        }
    };
    const auto whole = std::make_shared<Polynomial>();
    SelectedColumns part(whole, {3, 1}, {5, 6, 7, 8});
    EXPECT_EQ(part.getSize(), 2);
    const Tensor y = at::tensor({1.0, 2.0, -3.0, 4.0}, at::kDouble).reshape({2, 2});
    EXPECT_TRUE(
        at::equal(part.expand(y), at::tensor({5.0, 2.0, 7.0, 1.0, 5.0, 4.0, 7.0, -3.0}, at::kDouble).view({2, 4})));
    const EnergyResult result = part.evaluate(y, Gradient::Compute);
    EXPECT_TRUE(at::equal(result.u, at::tensor({5.0 + 40 + 700, 5.0 + 160 - 2100}, at::kDouble)));
    EXPECT_TRUE(at::equal(result.gradient, at::tensor({700.0, 40.0, 700.0, 80.0}, at::kDouble).view({2, 2})));
    EXPECT_FALSE(part.evaluate(y).gradient.defined());
    expectMessage([&] { SelectedColumns(whole, {1, 1}, {0, 0, 0, 0}); }, "a column is 1");
    expectMessage([&] { SelectedColumns(whole, {4}, {0, 0, 0, 0}); }, "a column is 4");
    expectMessage([&] { SelectedColumns(whole, {0}, {0, 0, 0}); }, "size of reference is 3");
    expectMessage([&] { SelectedColumns(nullptr, {0}, {0}); }, "whole is null");
    expectMessage([&] { (void)part.expand(at::zeros({2, 3})); }, "shape of y is [2, 3]");
}
