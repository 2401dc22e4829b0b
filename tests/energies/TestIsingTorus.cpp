// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/energies/systems/IsingTorus.h"
#include <ATen/ATen.h>
#include <cmath>
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** All states of the spins, [2^sites, sites]. */
Tensor allSpins(int sites) {
    const Tensor bits = at::arange(1 << sites).unsqueeze(1).bitwise_right_shift(at::arange(sites)).bitwise_and(1);
    return 2 * bits.to(at::kDouble) - 1;
}

/** The matrix with 1 for every bond between two sites. */
Tensor bonds(int rows, int columns) {
    Tensor matrix = at::zeros({rows * columns, rows * columns}, at::kDouble);
    auto a = matrix.accessor<double, 2>();
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (const int other : {(i + 1) % rows * columns + j, i * columns + (j + 1) % columns}) {
                a[i * columns + j][other] += 1;
                a[other][i * columns + j] += 1;
            }
    return matrix;
}

/** K sum over bonds of each state. */
Tensor logWeights(const Tensor& spins, const Tensor& bonds, double coupling) {
    return 0.5 * coupling * (spins.mm(bonds) * spins).sum(1);
}

} // namespace

TEST(IsingTorus, LogZIsKaufmansAndThatOfAllStates) {
    EXPECT_NEAR(IsingTorus({8, 8, 0.44}).getLogZ(), 60.07630753, 1e-8);
    EXPECT_NEAR(IsingTorus({16, 16, 0.44}).getLogZ(), 238.38724720, 1e-8);
    const Tensor spins = allSpins(12);
    for (const double coupling : {0.05, 0.3, 0.44, 0.4407, 0.6, 1.5}) { // on both sides of where a sign changes
        const double expected = at::logsumexp(logWeights(spins, bonds(3, 4), coupling), 0).item<double>();
        EXPECT_NEAR(IsingTorus({3, 4, coupling}).getLogZ(), expected, 1e-10);
        EXPECT_NEAR(IsingTorus({4, 3, coupling}).getLogZ(), expected, 1e-10);
    }
}

// exp(-u(psi)) is the sum over spins of exp(K sum s s') N(psi; s, B^-1), constants and all.
TEST(IsingTorus, DualIsTheMixtureOverSpins) {
    for (const double shift : {0.0, 2.0}) {
        const double coupling = 0.4, c = shift == 0 ? 2.0 : shift;
        const IsingTorus ising({3, 3, coupling, shift});
        const Tensor spins = allSpins(9), b = c * at::eye(9, at::kDouble) + coupling * bonds(3, 3);
        const Tensor psi = 1.5 * Random(1).normal(7, 9);
        const auto native = ising.createNativePotential();
        const EnergyResult result = native->evaluate(psi, Gradient::Compute);
        for (int i = 0; i < 7; i++) {
            const Tensor d = psi[i] - spins;
            const Tensor logs = logWeights(spins, bonds(3, 3), coupling) - 0.5 * (d.mm(b) * d).sum(1);
            const double normalisation = 0.5 * at::logdet(b).item<double>() - 4.5 * std::log(2 * M_PI);
            const double expected = -at::logsumexp(logs, 0).item<double>() - normalisation;
            EXPECT_NEAR(result.u[i].item<double>(), expected, 1e-11);
            const double* row = psi[i].data_ptr<double>();
            EXPECT_NEAR(ising.energy({row, row + 9}), expected, 1e-11);
        }
        const Tensor direction = Random(3).normal(7, 9);
        const Tensor difference =
            (native->evaluate(psi + 1e-5 * direction).u - native->evaluate(psi - 1e-5 * direction).u) / 2e-5;
        EXPECT_TRUE(at::allclose((result.gradient * direction).sum(1), difference, 1e-7, 1e-7));
    }
}

TEST(IsingTorus, SystemHasTheNativeEnergy) {
    const IsingTorus ising({3, 4, -0.3, 1.9});
    ContextPotential::Options options;
    options.platform = "Reference";
    options.numContexts = 1;
    const Tensor psi = 2 * Random(1).normal(6, 12);
    const EnergyResult slow = ising.createPotential(options)->evaluate(psi, Gradient::Compute),
                       fast = ising.createNativePotential()->evaluate(psi, Gradient::Compute);
    EXPECT_TRUE(at::allclose(fast.u, slow.u, 1e-12, 1e-12));
    EXPECT_TRUE(at::allclose(fast.gradient, slow.gradient, 1e-10, 1e-10));
    const Tensor far = at::full({1, 12}, 1e4, at::kDouble); // cosh would overflow
    EXPECT_TRUE(std::isfinite(ising.createNativePotential()->evaluate(far).u.item<double>()));
}

TEST(IsingTorus, FieldsGivenSpinsAreNormal) {
    const IsingTorus ising({3, 4, 0.3});
    const Tensor b = 1.5 * at::eye(12, at::kDouble) + 0.3 * bonds(3, 4), covariance = at::linalg_inv(b);
    const Tensor spins = allSpins(12).narrow(0, 1234, 1);
    constexpr int count = 100000;
    Random random(4);
    const Tensor d = ising.sampleGivenSpins(spins.expand({count, 12}), random) - spins;
    const Tensor diagonal = covariance.diagonal();
    EXPECT_LT((d.mean(0) / (diagonal / count).sqrt()).abs().max().item<double>(), 4);
    const Tensor spread = ((at::outer(diagonal, diagonal) + covariance.square()) / count).sqrt();
    EXPECT_LT(((d.t().mm(d) / count - covariance) / spread).abs().max().item<double>(), 4.5); // the largest of 144
}

TEST(IsingTorus, RefusesWhatHasNoDual) {
    expectMessage([] { IsingTorus({2, 4, 0.3}); }, "rows is 2, but must be at least 3");
    expectMessage([] { IsingTorus({4, 4, 0.3, 1.2}); }, "shift is 1.2, but must be more than 4 |coupling|");
    expectMessage([] { IsingTorus({4, 4, 0}); }, "shift is 0");
    expectMessage([] { (void)IsingTorus({4, 4, -0.3}).getLogZ(); }, "coupling is -0.3, but must be positive");
    expectMessage([] { (void)IsingTorus({4, 4, 0.3}).energy({1}); }, "number of sites is 1, but must be 16");
    Random random(1);
    expectMessage(
        [&] {
            (void)IsingTorus({4, 4, 0.3}).sampleGivenSpins(at::ones({2, 3}), random);
        },
        "shape of spins is [2, 3]");
}
