// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/energies/ConstraintMetric.h"
#include <ATen/ATen.h>
#include <cmath>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using OpenMM::System;

namespace {

at::Tensor normal(at::IntArrayRef size, std::uint64_t seed) {
    at::Generator generator = at::globalContext().defaultGenerator(at::kCPU).clone();
    generator.set_current_seed(seed);
    return at::randn(size, generator, at::kDouble);
}

/** Constraints as in CH3-CH2-OH with a water and a lone bond beside, in no particular order; particle 0 has no
 * constraint. */
struct Example {
    System system;
    std::vector<int> atoms;
    std::vector<std::pair<int, int>> constraints = {{2, 1}, {3, 1},   {1, 4},   {5, 6},   {7, 5},
                                                    {8, 9}, {10, 11}, {12, 10}, {11, 12}, {13, 14}};
    std::vector<double> masses = {5, 12, 1, 2, 3, 12.5, 1.5, 1.1, 16, 1, 15.5, 1.2, 1.3, 7, 9};
    Example() {
        for (double mass : masses)
            system.addParticle(mass);
        for (auto [a, b] : constraints)
            system.addConstraint(a, b, 0.1);
        for (int i = 14; i >= 0; i--)
            atoms.push_back(i);
    }
};

/** From the definition: dense, with the gradients of sigma by autograd. x in the order of particles, [3 n]. */
double denseHalfLogDet(const Example& example, const at::Tensor& x) {
    std::vector<at::Tensor> gradients;
    for (auto [a, b] : example.constraints) {
        at::Tensor leaf = x.clone().requires_grad_();
        at::Tensor sigma = (leaf.narrow(0, 3 * a, 3) - leaf.narrow(0, 3 * b, 3)).norm();
        gradients.push_back(torch::autograd::grad({sigma}, {leaf})[0]);
    }
    at::Tensor masses = at::tensor(example.masses, at::kDouble).repeat_interleave(3), g = at::stack(gradients);
    return 0.5 * at::logdet(at::matmul(g / masses, g.t())).item<double>();
}

} // namespace

TEST(ConstraintMetric, IsTheDenseDeterminant) {
    Example example;
    ConstraintMetric metric(example.system, example.atoms);
    EXPECT_EQ(metric.getNumConstraints(), 10);
    at::Tensor x = normal({5, 15, 3}, 1);
    at::Tensor result = metric.halfLogDet(x.flip(1).reshape({5, 45}));
    for (int i = 0; i < 5; i++)
        EXPECT_NEAR(result[i].item<double>(), denseHalfLogDet(example, x[i].reshape({45})), 1e-12);
}

TEST(ConstraintMetric, GradientMatchesFiniteDifferences) {
    Example example;
    ConstraintMetric metric(example.system, example.atoms);
    at::Tensor x = normal({3, 45}, 2), weights = at::tensor({0.7, -1.3, 2.1}, at::kDouble);
    at::Tensor leaf = x.clone().requires_grad_();
    at::Tensor gradient = torch::autograd::grad({(weights * metric.halfLogDet(leaf)).sum()}, {leaf})[0];
    const double h = 1e-6;
    for (int i = 0; i < 45; i++) {
        at::Tensor step = at::zeros_like(x);
        step.select(1, i).fill_(h);
        at::Tensor difference = weights * (metric.halfLogDet(x + step) - metric.halfLogDet(x - step)) / (2 * h);
        EXPECT_LE((gradient.select(1, i) - difference).abs().max().item<double>(), 1e-7) << i;
    }
}

TEST(ConstraintMetric, TrimerFollowsItsFormula) {
    System trimer;
    for (int i = 0; i < 3; i++)
        trimer.addParticle(20);
    trimer.addConstraint(0, 1, 0.1);
    trimer.addConstraint(1, 2, 0.1);
    ConstraintMetric metric(trimer, {0, 1, 2});
    for (double theta : {0.3, 1.1, 2.0, 3.0}) {
        at::Tensor x =
            at::tensor({0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1 * std::cos(theta), 0.1 * std::sin(theta), 0.0}, at::kDouble);
        double expected = 0.5 * std::log((1 - std::pow(std::cos(theta), 2) / 4) * std::pow(2 / 20.0, 2));
        EXPECT_NEAR(metric.halfLogDet(x.unsqueeze(0)).item<double>(), expected, 1e-14);
    }
}

TEST(ConstraintMetric, IsConstantForSeparateBonds) {
    System system;
    for (double mass : {12.0, 1.0, 16.0, 2.0, 3.0})
        system.addParticle(mass);
    system.addConstraint(0, 1, 0.1);
    system.addConstraint(3, 2, 0.1);
    double expected = 0.5 * std::log(1 / 12.0 + 1) + 0.5 * std::log(1 / 16.0 + 1 / 2.0);
    at::Tensor x = normal({4, 15}, 3).requires_grad_();
    at::Tensor result = ConstraintMetric(system, {0, 1, 2, 3, 4}).halfLogDet(x);
    EXPECT_LE((result - expected).abs().max().item<double>(), 1e-15);
    EXPECT_EQ(torch::autograd::grad({result.sum()}, {x})[0].abs().max().item<double>(), 0.0);
    // only the constraints of moved particles count; none at all is a factor of 1
    EXPECT_NEAR(ConstraintMetric(system, {4, 2, 3}).halfLogDet(normal({1, 9}, 3)).item<double>(),
                0.5 * std::log(1 / 16.0 + 0.5), 1e-15);
    EXPECT_EQ(ConstraintMetric(system, {4}).getNumConstraints(), 0);
    EXPECT_EQ(ConstraintMetric(system, {4}).halfLogDet(normal({1, 3}, 3)).item<double>(), 0.0);
}

TEST(ConstraintMetric, InvalidRowsStayAlone) {
    Example example;
    ConstraintMetric metric(example.system, example.atoms);
    at::Tensor good = normal({2, 45}, 4), x = at::cat({good, good, good.narrow(0, 0, 1)});
    x[2][3 * 4] = std::nan("");                               // particle 10
    x[3].narrow(0, 3 * 4, 3).copy_(x[3].narrow(0, 3 * 3, 3)); // onto 11
    x[4].narrow(0, 3 * 2, 3)
        .copy_(2 * x[4].narrow(0, 3 * 3, 3) - x[4].narrow(0, 3 * 4, 3)); // 10, 11 and 12 on one line
    at::Tensor leaf = x.clone().requires_grad_(), result = metric.halfLogDet(leaf);
    EXPECT_TRUE(at::equal(result.narrow(0, 0, 2), metric.halfLogDet(good)));
    EXPECT_FALSE(std::isfinite(result[2].item<double>()));
    EXPECT_FALSE(std::isfinite(result[3].item<double>()));
    EXPECT_LT(result[4].item<double>(), result[0].item<double>() - 10);
    at::Tensor gradient =
        torch::autograd::grad({at::where(at::isfinite(result), result, 0.0).narrow(0, 0, 4).sum()}, {leaf})[0];
    at::Tensor alone = good.clone().requires_grad_();
    EXPECT_TRUE(
        at::equal(gradient.narrow(0, 0, 2), torch::autograd::grad({metric.halfLogDet(alone).sum()}, {alone})[0]));
    EXPECT_EQ(gradient.narrow(0, 2, 2).abs().max().item<double>(), 0.0);
}

TEST(ConstraintMetric, GraphOutlivesTheMetric) {
    Example example;
    auto metric = std::make_unique<ConstraintMetric>(example.system, example.atoms);
    at::Tensor x = normal({1, 45}, 5).requires_grad_();
    at::Tensor expected = torch::autograd::grad({metric->halfLogDet(x).sum()}, {x})[0], result = metric->halfLogDet(x);
    metric.reset();
    EXPECT_TRUE(at::equal(torch::autograd::grad({result.sum()}, {x})[0], expected));
}

TEST(ConstraintMetric, Refuses) {
    Example example;
    const std::string who = "ConstraintMetric: ";
    expectMessage(
        [&] {
            ConstraintMetric(example.system, {1, 2, 3});
        },
        who + "the constraint of particles 1 and 4 is between a moved and another particle, but must be among moved "
              "particles, or among others");
    expectMessage(
        [&] {
            ConstraintMetric(example.system, {0, 15});
        },
        who + "an atom is 15, but must be a particle of the System");
    expectMessage([&] { ConstraintMetric(example.system, {0, 0}); }, who + "an atom is 0, but must be listed once");
    ConstraintMetric metric(example.system, example.atoms);
    expectMessage(
        [&] {
            (void)metric.halfLogDet(at::zeros({2, 42}, at::kDouble));
        },
        "ConstraintMetric::halfLogDet: the shape of x is [2, 42], but must be [batch, 45]");
    at::Tensor x = normal({1, 45}, 6).requires_grad_();
    expectMessage(
        [&] { (void)torch::autograd::grad({metric.halfLogDet(x).sum()}, {x}, {}, true, true); },
        "ConstraintMetric::halfLogDet: create_graph is true, but must be false: second derivatives are not available");
    Example massless;
    massless.system.setParticleMass(8, 0.0);
    expectMessage([&] { ConstraintMetric(massless.system, massless.atoms); },
                  who + "the constraint of particles 8 and 9 is on a massless particle, but must be between particles "
                        "that have mass");
    Example twice;
    twice.system.addConstraint(1, 2, 0.1);
    expectMessage(
        [&] { ConstraintMetric(twice.system, twice.atoms); },
        who + "the constraint of particles 1 and 2 is given twice, but must be given once: det Z is 0 otherwise");
}
