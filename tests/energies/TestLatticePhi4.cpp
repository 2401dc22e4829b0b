// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/energies/systems/LatticePhi4.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>
#include <cmath>
#include <functional>
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;
using std::vector;

namespace {

std::shared_ptr<ReducedPotential> onReference(const LatticePhi4& lattice) {
    ContextPotential::Options options;
    options.platform = "Reference";
    options.numContexts = 1;
    return lattice.createPotential(options);
}

/** The native energies, OpenMM's and energy() are the formula, and gradients its derivative. */
void checkEnergies(const LatticePhi4& lattice, const std::function<double(const vector<double>&)>& formula) {
    const auto native = lattice.createNativePotential(), openmm = onReference(lattice);
    ASSERT_EQ(native->getSize(), lattice.getNumSites());
    ASSERT_EQ(openmm->getSize(), lattice.getNumSites());
    const Tensor x = 1.3 * Random(1).normal(6, lattice.getNumSites()) + 0.2;
    const EnergyResult fast = native->evaluate(x, Gradient::Compute), slow = openmm->evaluate(x, Gradient::Compute);
    EXPECT_TRUE(at::allclose(fast.u, slow.u, 1e-12, 1e-12));
    EXPECT_TRUE(at::allclose(fast.gradient, slow.gradient, 1e-10, 1e-10));
    EXPECT_FALSE(native->evaluate(x).gradient.defined());
    const Tensor direction = Random(3).normal(x.size(0), x.size(1));
    const Tensor difference =
        (native->evaluate(x + 1e-5 * direction).u - native->evaluate(x - 1e-5 * direction).u) / 2e-5;
    EXPECT_TRUE(at::allclose((fast.gradient * direction).sum(1), difference, 1e-6, 1e-6));
    for (std::int64_t i = 0; i < x.size(0); i++) {
        const double* row = x[i].data_ptr<double>();
        const vector<double> phi(row, row + x.size(1));
        EXPECT_NEAR(fast.u[i].item<double>(), formula(phi), 1e-11);
        EXPECT_NEAR(lattice.energy(phi), formula(phi), 1e-11);
    }
}

/** ln of the sum of exp(-S) over the points of a grid, times the volume of its cells. */
double gridLogZ(const LatticePhi4& lattice, double reach, int nodes) {
    const Tensor axis = at::linspace(-reach, reach, nodes, at::kDouble);
    const Tensor points = at::cartesian_prod(vector<Tensor>(lattice.getNumSites(), axis));
    const Tensor u = lattice.createNativePotential()->evaluate(points).u;
    return at::logsumexp(-u, 0).item<double>() + lattice.getNumSites() * std::log(2 * reach / (nodes - 1));
}

} // namespace

TEST(LatticePhi4, EnergyIsTheFormulaInAnyDimension) {
    checkEnergies(LatticePhi4({{2, 3}, 0.25, 0.7, 0.05}), [](const vector<double>& phi) {
        double sum = 0;
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 3; j++) {
                const double here = phi[3 * i + j], down = phi[3 * (1 - i) + j], right = phi[3 * i + (j + 1) % 3];
                sum += -0.5 * here * (down + right) + 0.7 * here * here + 0.05 * std::pow(here, 4);
            }
        return sum;
    });
    checkEnergies(LatticePhi4({{3, 2, 4}, -0.1, 0.7, 0.05}), [](const vector<double>& phi) {
        const auto at = [&](int i, int j, int k) { return phi[8 * (i % 3) + 4 * (j % 2) + k % 4]; };
        double sum = 0;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 2; j++)
                for (int k = 0; k < 4; k++) {
                    const double here = at(i, j, k);
                    sum += 0.2 * here * (at(i + 1, j, k) + at(i, j + 1, k) + at(i, j, k + 1)) + 0.7 * here * here +
                           0.05 * std::pow(here, 4);
                }
        return sum;
    });
}

TEST(LatticePhi4, FactoriesAreTheirFormulas) {
    const auto at = [](const vector<double>& phi, int i, int j) { return phi[4 * (i % 3) + j % 4]; };
    checkEnergies(LatticePhi4::fromKappa({3, 4}, 0.3, 0.022), [&](const vector<double>& phi) {
        double sum = 0;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 4; j++)
                sum += -0.6 * at(phi, i, j) * (at(phi, i + 1, j) + at(phi, i, j + 1)) +
                       0.956 * std::pow(at(phi, i, j), 2) + 0.022 * std::pow(at(phi, i, j), 4);
        return sum;
    });
    checkEnergies(LatticePhi4::fromMass({3, 4}, -4, 5.276), [&](const vector<double>& phi) {
        double sum = 0;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 4; j++)
                sum += std::pow(at(phi, i + 1, j) - at(phi, i, j), 2) + std::pow(at(phi, i, j + 1) - at(phi, i, j), 2) -
                       4 * std::pow(at(phi, i, j), 2) + 5.276 * std::pow(at(phi, i, j), 4);
        return sum;
    });
    checkEnergies(LatticePhi4::quantumPath(5, 0.4, 2.75, -1, 1.5), [](const vector<double>& x) {
        double sum = 0;
        for (int t = 0; t < 5; t++)
            sum += 0.4 * (2.75 / 2 * std::pow((x[(t + 1) % 5] - x[t]) / 0.4, 2) - 2.75 / 2 * x[t] * x[t] +
                          1.5 / 4 * std::pow(x[t], 4));
        return sum;
    });
    checkEnergies(LatticePhi4::ringPolymer(5, 3, 1.2, 0.8), [](const vector<double>& x) {
        double sum = 0;
        for (int t = 0; t < 5; t++)
            sum += 1.2 * 5 / (2 * 3.0) * std::pow(x[(t + 1) % 5] - x[t], 2) + 3.0 / 5 * 0.5 * 1.2 * 0.64 * x[t] * x[t];
        return sum;
    });
}

TEST(LatticePhi4, LargeBatchesAreTheirRows) {
    const auto potential = LatticePhi4::fromKappa({64, 8}, 0.3, .022).createNativePotential();
    const Tensor x = Random(1).normal(150, 512);
    const EnergyResult all = potential->evaluate(x, Gradient::Compute);
    for (const int row : {0, 63, 64, 149}) {
        const EnergyResult one = potential->evaluate(x.narrow(0, row, 1), Gradient::Compute);
        EXPECT_NEAR(all.u[row].item<double>(), one.u.item<double>(), 1e-10);
        EXPECT_TRUE(at::allclose(all.gradient[row], one.gradient[0], 1e-12, 1e-12));
    }
    EXPECT_EQ(potential->evaluate(x.narrow(0, 0, 0)).u.numel(), 0);
}

// K is a modified Bessel function; 64 x 8 sites, 2 x 2 and 2 x 8 are known to nine digits from elsewhere.
TEST(LatticePhi4, LogZIsThatOfTheReferences) {
    const double t = std::pow(1 - 2 * .022, 2) / (8 * .022);
    const double site = std::log(std::sqrt((1 - 2 * .022) / (4 * .022)) * std::exp(t) * std::cyl_bessel_k(0.25, t));
    EXPECT_NEAR(site, .578277976857, 1e-12);
    EXPECT_NEAR(LatticePhi4::fromKappa({64, 8}, 0, .022).getLogZ(), 512 * site, 1e-9);
    EXPECT_NEAR(LatticePhi4::fromKappa({64, 8}, 0, .022).getLogZ(), 296.07832415, 1e-8);
    EXPECT_NEAR(LatticePhi4::fromKappa({2, 2}, 0.2, .022).getLogZ(), 2.76634555, 1e-8);
    EXPECT_NEAR(LatticePhi4::fromKappa({2, 2}, 0.3, .022).getLogZ(), 5.21383555, 1e-8);
    EXPECT_NEAR(LatticePhi4::fromKappa({2, 8}, 0.3, .022).getLogZ(), 18.00726685, 1e-8);
    EXPECT_NEAR(LatticePhi4::fromKappa({8, 2}, 0.3, .022).getLogZ(), 18.00726685, 1e-8);
    EXPECT_NEAR(LatticePhi4::fromKappa({64, 8}, 0.2, 0).getLogZ(), 319.02814031, 1e-8);
}

TEST(LatticePhi4, LogZIsThatOfAGrid) {
    const LatticePhi4 square({{2, 2}, 0.35, -0.4, 0.6}), chain({{3}, 0.45, -0.4, 0.6}), odd({{3}, -0.45, -0.4, 0.6});
    for (const auto& lattice : {square, chain, odd})
        EXPECT_NEAR(lattice.getLogZ(), gridLogZ(lattice, 3.2, 33), 1e-9);
    const LatticePhi4 path = LatticePhi4::quantumPath(4, 0.7, 3, -1, 1);
    EXPECT_NEAR(path.getLogZ(), gridLogZ(path, 4.2, 41), 1e-9);
}

// The matrix of the quadratic form comes from the gradient: 2 A phi.
TEST(LatticePhi4, LogZOfTheFreeFieldIsADeterminant) {
    for (const auto& extents : {vector<int>{5}, vector<int>{2, 3}, vector<int>{3, 2, 4}}) {
        const LatticePhi4 lattice({extents, 0.11, 0.9, 0});
        const Tensor unit = at::eye(lattice.getNumSites(), at::kDouble);
        const Tensor matrix = lattice.createNativePotential()->evaluate(unit, Gradient::Compute).gradient / 2;
        const double expected = 0.5 * (lattice.getNumSites() * std::log(M_PI) - at::logdet(matrix).item<double>());
        EXPECT_NEAR(lattice.getLogZ(), expected, 1e-10);
    }
    // The transfer matrix has no part in this: where there is one, it agrees in the limit.
    for (const auto& extents : {vector<int>{7}, vector<int>{2, 6}}) {
        const LatticePhi4 free({extents, 0.11, 0.9, 0}), nearly({extents, 0.11, 0.9, 1e-11});
        EXPECT_NEAR(free.getLogZ(), nearly.getLogZ(), 1e-9);
    }
}

// Z of n beads is 1/(2 sinh(n asinh(beta omega/(2 n)))) after each slice's kinetic normalisation sqrt(m n/(2 pi beta)).
TEST(LatticePhi4, LogZOfTheRingPolymerIsThatOfTheOscillator) {
    const double beta = 3, mass = 1.2, omega = 0.8;
    for (const int n : {2, 5, 64}) {
        const double normalised =
            LatticePhi4::ringPolymer(n, beta, mass, omega).getLogZ() + 0.5 * n * std::log(mass * n / (2 * M_PI * beta));
        EXPECT_NEAR(normalised, -std::log(2 * std::sinh(n * std::asinh(beta * omega / (2 * n)))), 1e-10);
    }
}

// Against the inverse of the matrix of the quadratic form.
TEST(LatticePhi4, FreeFieldsHaveTheirCovariance) {
    const LatticePhi4 lattice({{3, 2, 4}, 0.11, 0.9, 0});
    const Tensor unit = at::eye(24, at::kDouble);
    const Tensor covariance =
        at::linalg_inv(lattice.createNativePotential()->evaluate(unit, Gradient::Compute).gradient);
    constexpr int count = 100000;
    Random random(4);
    const Tensor x = lattice.sampleFree(count, random), diagonal = covariance.diagonal();
    EXPECT_LT((x.mean(0) / (diagonal / count).sqrt()).abs().max().item<double>(), 4);
    const Tensor spread = ((at::outer(diagonal, diagonal) + covariance.square()) / count).sqrt();
    EXPECT_LT(((x.t().mm(x) / count - covariance) / spread).abs().max().item<double>(), 4.5); // the largest of 300
    expectMessage(
        [&] {
            (void)LatticePhi4({{4}, 0.1, 1, 0.1}).sampleFree(1, random);
        },
        "quartic is 0.1, but must be 0");
}

TEST(LatticePhi4, NonFiniteFieldsHaveNoEnergy) {
    const auto potential = LatticePhi4::fromKappa({2, 2}, 0.3, .022).createNativePotential();
    Tensor x = Random(1).normal(3, 4);
    x[1][2] = std::nan("");
    x[2][0] = 1e200;
    const EnergyResult result = potential->evaluate(x, Gradient::Compute);
    EXPECT_EQ(result.nonFinite, 2);
    EXPECT_TRUE(std::isfinite(result.u[0].item<double>()));
    for (const int row : {1, 2}) {
        EXPECT_EQ(result.u[row].item<double>(), INFINITY);
        EXPECT_EQ(result.gradient[row].abs().max().item<double>(), 0);
    }
}

TEST(LatticePhi4, RefusesWhatHasNoIntegral) {
    expectMessage([] { LatticePhi4({{}, 0.2, 1, 0.1}); }, "number of extents is 0");
    expectMessage([] { LatticePhi4({{4, 1}, 0.2, 1, 0.1}); }, "an extent is 1, but must be at least 2");
    expectMessage([] { LatticePhi4({{4}, 0.2, 1, -0.1}); }, "quartic is -0.1");
    expectMessage([] { LatticePhi4({{4, 4}, -0.3, 1.1, 0}); }, "quadratic is 1.1, but must be more than 1.2");
    expectMessage([] { LatticePhi4({{4}, NAN, 1.1, 0}); }, "hopping is nan");
    expectMessage([] { (void)LatticePhi4::fromKappa({4, 4}, 0.2, 0.022).getLogZ(); }, "shape of the lattice is [4, 4]");
    expectMessage([] { (void)LatticePhi4({{2, 2}, 0.2, 1, 0}).energy({1, 2}); }, "number of sites is 2");
    expectMessage(
        [] {
            (void)LatticePhi4({{2, 2}, 0.2, 1, 0}).createNativePotential()->evaluate(at::zeros({4}));
        },
        "shape of x is [4], but must be [batch, 4]");
    expectMessage([] { (void)LatticePhi4::quantumPath(4, 0, 1, 1, 1); }, "spacing is 0");
    expectMessage([] { (void)LatticePhi4::ringPolymer(1, 1, 1, 1); }, "numBeads is 1");
}
