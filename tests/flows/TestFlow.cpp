// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/Sequence.h"
#include <cstdio>
#include <filesystem>
#include <thread>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// A flow over three variables, the last circular, with random parameters.
std::shared_ptr<Flow> makeFlow(std::vector<int> atoms = {}) {
    const auto spline = [](std::vector<int> active) {
        return std::make_shared<SplineCoupling>(3, std::move(active), std::vector<int>{2},
                                                SplineCoupling::Options{8, 4.0, {{6}, Activation::Tanh, 3}});
    };
    const auto sequence = std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
        spline({0, 2}), spline({1}),
        std::make_shared<Scaling>(std::vector<double>{1, 2, 0}, std::vector<double>{0.5, 2, 1})});
    randomiseParameters(*sequence, 0.3);
    const auto prior = std::make_shared<ProductPrior>(std::vector<std::shared_ptr<Prior>>{
        std::make_shared<GaussianPrior>(2), std::make_shared<UniformTorusPrior>(1)});
    return std::make_shared<Flow>(prior, sequence, atoms);
}

} // namespace

TEST(Flow, SamplesCarryTheDensityThatLogQGives) {
    const auto flow = makeFlow();
    Random random(1);
    const FlowSample sample = flow->sample(50, random);
    EXPECT_TRUE(at::allclose(flow->logQ(sample.x), sample.logQ, 0, 1e-9));
    EXPECT_TRUE(at::allclose(flow->toLatent(sample.x).z, sample.z, 0, 1e-9));
    EXPECT_TRUE(at::allclose(flow->toLatent(sample.x).logDet, sample.logDet, 0, 1e-9));
    EXPECT_TRUE(at::allclose(flow->getPrior()->logDensity(sample.z) - sample.logDet, sample.logQ, 0, 1e-12));
}

// The integral of q over a grid is 1 (F1): a density, not just a score.
TEST(Flow, DensityIsNormalised) {
    const auto flow = makeFlow();
    constexpr int n = 90;
    const auto axis = [](double low, double high) {
        return low + (at::arange(n, at::kDouble) + 0.5) * (high - low) / n;
    };
    const auto grid = at::meshgrid({axis(-3, 5), axis(-14, 18), axis(-M_PI, M_PI)}, "ij");
    const Tensor x = at::stack({grid[0].flatten(), grid[1].flatten(), grid[2].flatten()}, 1);
    const double cell = 8.0 / n * 32.0 / n * 2 * M_PI / n;
    EXPECT_NEAR(flow->logQ(x).exp().sum().item<double>() * cell, 1.0, 2e-3);
}

// F9: where q is exp(-U/kT), the scaled flow's is exp(-U/kT').
TEST(Flow, OfConstantLogDetScalesWithTemperature) {
    const auto scaling = std::make_shared<Scaling>(std::vector<double>{1, -2}, std::vector<double>{0.5, 2});
    Flow flow(std::make_shared<GaussianPrior>(2, 0.7), scaling);
    EXPECT_FALSE(flow.canScaleTemperature());
    expectMessage([&] { (void)flow.atTemperature(300); }, "the flow's temperature is 0, but must be set");
    flow.setTemperature(300);
    const auto hot = flow.atTemperature(450);
    EXPECT_EQ(hot->getTemperature(), 450);
    Random random(5);
    const Tensor x = flow.sample(6, random).x;
    const auto reducedEnergy = [&](const Flow& of) {
        const Tensor logQ = of.logQ(x);
        return logQ[0] - logQ;
    };
    EXPECT_TRUE(at::allclose(reducedEnergy(*hot), reducedEnergy(flow) * (300.0 / 450.0), 0, 1e-12));

    const auto spline = makeFlow();
    spline->setTemperature(300);
    EXPECT_FALSE(spline->canScaleTemperature());
    expectMessage([&] { (void)spline->atTemperature(310); },
                  "log-determinant of the transform is not constant, but must be constant");
}

TEST(Flow, SamplingMakesNoGraphUnlessAsked) {
    const auto flow = makeFlow();
    Random random(1);
    for (const auto& [name, tensor] : flow->getParameters())
        tensor.set_requires_grad(true);
    EXPECT_TRUE(flow->sample(2, random).logQ.requires_grad());
    const at::NoGradGuard noGrad;
    EXPECT_FALSE(flow->sample(2, random).logQ.requires_grad());
}

TEST(Flow, IsTheSameAfterSaveAndLoad) {
    const auto flow = makeFlow({4});
    flow->setTemperature(310.5);
    flow->setMetadata("recipe", "a \"quoted\" text, with \n and \u00e9");
    const std::string path = (std::filesystem::temp_directory_path() / "openmmflow-test-flow.omf").string();
    flow->save(path);
    const auto copy = Flow::load(path);
    std::remove(path.c_str());
    Random first(8), second(8);
    const FlowSample a = flow->sample(20, first), b = copy->sample(20, second);
    EXPECT_TRUE(at::equal(a.x, b.x));
    EXPECT_TRUE(at::equal(a.logQ, b.logQ));
    EXPECT_EQ(copy->getAtoms(), std::vector<int>{4});
    EXPECT_EQ(copy->getTemperature(), 310.5);
    EXPECT_EQ(copy->getMetadata(), flow->getMetadata());
    EXPECT_EQ(copy->serialize(), flow->serialize());
}

TEST(Flow, CloneSharesNothing) {
    const auto flow = makeFlow(), copy = flow->clone();
    const Tensor x = at::tensor({1.1, 2.2, 0.3}, at::kDouble).unsqueeze(0);
    const double before = flow->logQ(x).item<double>();
    randomiseParameters(*copy->getTransform(), 1.0, 99);
    EXPECT_EQ(flow->logQ(x).item<double>(), before);
    EXPECT_NE(copy->logQ(x).item<double>(), before);
}

TEST(Flow, KeepsLogDetsInDoubleWithFloatNetworks) {
    const auto flow = makeFlow();
    flow->setParameterType(at::kFloat);
    Random random(1);
    const FlowSample sample = flow->sample(50, random);
    EXPECT_EQ(sample.x.scalar_type(), at::kDouble);
    EXPECT_EQ(sample.logQ.scalar_type(), at::kDouble);
    EXPECT_TRUE(at::allclose(flow->logQ(sample.x), sample.logQ, 0, 1e-5));
}

// F1 differentiated; by autograd at 70 rows, without it at fewer.
TEST(Flow, LogQWithGradientIsThatOfLogQ) {
    const auto flow = makeFlow();
    Random random(4);
    for (const auto dtype : {at::kDouble, at::kFloat})
        for (const std::int64_t batch : {1, 5, 70}) {
            flow->setParameterType(dtype);
            const Tensor x = flow->sample(batch, random).x.detach();
            const auto [logQ, gradient] = flow->logQWithGradient(x);
            const Tensor leaf = x.clone().set_requires_grad(true), expected = flow->logQ(leaf);
            const double tolerance = dtype == at::kDouble ? 1e-12 : 1e-5;
            EXPECT_LE(relativeDifference(logQ, expected.detach()), tolerance);
            EXPECT_LE(relativeDifference(gradient, torch::autograd::grad({expected.sum()}, {leaf})[0]), tolerance);
            EXPECT_FALSE(logQ.requires_grad() || gradient.requires_grad());
        }
}

// In place, as an optimiser does it: nothing of a parameter is kept from call to call.
TEST(Flow, LogQWithGradientSeesParametersChange) {
    const auto flow = makeFlow();
    const Tensor x = at::tensor({1.1, 2.2, 0.3}, at::kDouble).unsqueeze(0);
    const LogQGradient before = flow->logQWithGradient(x);
    {
        const at::NoGradGuard noGrad;
        for (const auto& [name, tensor] : flow->getParameters())
            tensor.mul_(1.5);
    }
    const LogQGradient after = flow->logQWithGradient(x);
    EXPECT_NE(before.logQ.item<double>(), after.logQ.item<double>());
    EXPECT_LE(relativeDifference(after.gradient, flow->clone()->logQWithGradient(x).gradient), 1e-15);
    EXPECT_GT(relativeDifference(after.gradient, before.gradient), 1e-3);
}

TEST(Flow, IsSharedByThreads) {
    const auto flow = makeFlow();
    const Tensor x = at::tensor({1.1, 2.2, 0.3, -0.7, 5.0, -2.0}, at::kDouble).reshape({2, 3});
    const LogQGradient expected = flow->logQWithGradient(x);
    std::vector<int> differences(4);
    std::vector<std::thread> threads;
    for (int& count : differences)
        threads.emplace_back([&] {
            for (int i = 0; i < 200; i++) {
                const LogQGradient result = flow->logQWithGradient(x);
                count += !at::equal(result.logQ, expected.logQ) || !at::equal(result.gradient, expected.gradient);
            }
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(differences, std::vector<int>(4, 0));
}

TEST(Flow, RefusesBadArguments) {
    const auto prior = std::make_shared<GaussianPrior>(2);
    const auto scaling = std::make_shared<Scaling>(std::vector<double>(3), std::vector<double>(3, 1.0));
    expectMessage([&] { Flow(prior, scaling); },
                  "Flow::Flow: size of the prior is 2, but must be the input size of the transform, 3");
    expectMessage([&] { Flow(nullptr, scaling); }, "prior is null");
    expectMessage([&] { makeFlow({1, 2}); }, "number of atoms is 2");
    expectMessage([&] { makeFlow({-1}); }, "an atom is -1");
    expectMessage([&] { makeFlow()->setTemperature(-1); }, "kelvin is -1");
    expectMessage(
        [&] {
            (void)makeFlow()->logQ(at::zeros({2, 4}, at::kDouble));
        },
        "Flow::toLatent: shape of x is [2, 4], but must be [batch, 3]");
    expectMessage(
        [&] {
            (void)makeFlow()->logQWithGradient(at::zeros({2, 4}, at::kDouble));
        },
        "Flow::logQWithGradient: shape of x is [2, 4], but must be [batch, 3]");
    expectMessage([&] { makeFlow()->setParameterType(at::kHalf); }, "dtype is Half");
    expectMessage([&] { Flow::load("/nonexistent/flow"); }, "Flow::load: /nonexistent/flow");
}
