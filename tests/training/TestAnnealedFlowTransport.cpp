// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "openmmflow/samplers/LambdaSpacing.h"
#include "openmmflow/training/AnnealedFlowTransport.h"
#include "samplers/AnnealedTargets.h"
#include <filesystem>
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

std::shared_ptr<HamiltonianKernel> makeKernel() {
    return std::make_shared<HamiltonianKernel>(HamiltonianKernel::Options{0.25, 3, 1, 0.0});
}

/** x' = exp(a) x + b, two trainable numbers for each variable. */
struct Affine : Transform {
    explicit Affine(int size)
        : size(size), a(at::zeros({size}, at::kDouble).requires_grad_()),
          b(at::zeros({size}, at::kDouble).requires_grad_()) {}
    [[nodiscard]] int getInputSize() const override { return size; }
    [[nodiscard]] TransformResult forward(const Tensor& z) const override {
        return {a.exp() * z + b, a.sum().repeat({z.size(0)})};
    }
    [[nodiscard]] TransformResult inverse(const Tensor& x) const override {
        return {(x - b) * (-a).exp(), -a.sum().repeat({x.size(0)})};
    }
    [[nodiscard]] std::string getTypeName() const override { return "Affine"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override { return {}; }
    [[nodiscard]] NamedTensors getParameters() const override { return {{"a", a}, {"b", b}}; }
    int size;
    Tensor a, b;
};

} // namespace

// Between Gaussians an affine layer is perfect: no weight varies, and each loss is -ln(Z_k/Z_{k-1}).
TEST(AnnealedFlowTransport, LearnsThePerfectLayersBetweenSprings) {
    const auto end = std::make_shared<Spring>(2, 9.0, 0.7);
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(2, 1.0), end);
    const auto sampler = std::make_shared<SequentialSampler>(path, makeKernel(), powerLambdas(2, 1),
                                                             SequentialSampler::Options{0.5, 10, 0.9, 100});
    const auto first = std::make_shared<Affine>(2), second = std::make_shared<Affine>(2);
    sampler->setLayers({first, second});
    AnnealedFlowTransport training(sampler, std::make_shared<GaussianPrior>(2), {500, 0.015, 100, 0, 3});
    const TransportProgress before = training.train(1);
    EXPECT_LT(before.cess[0], 0.8);
    const TransportProgress after = training.train(600);
    EXPECT_EQ(after.iteration, 601);
    EXPECT_EQ(after.skipped, 0);
    for (const double cess : after.cess)
        EXPECT_GT(cess, 0.995);
    EXPECT_NEAR(after.logZRatio, end->logNorm() - std::log(2 * M_PI), 4 * after.logZRatioError + 1e-3);
    // At lambda = 1/2 the spring is 5 about 9 (.7)/10; the second layer goes on from there.
    EXPECT_NEAR(first->b[0].item<double>(), 0.63, 0.02);
    EXPECT_NEAR(first->a.exp()[1].item<double>(), 1 / std::sqrt(5.0), 0.01);
    EXPECT_NEAR(second->a.exp()[0].item<double>(), std::sqrt(5.0 / 9), 0.02);
    // ln Z_1/2: that of the spring 5, less the energy that the two springs have left at their common minimum.
    const double logZHalf = std::log(2 * M_PI / 5) - 2 * (0.25 * 0.63 * 0.63 + 2.25 * 0.07 * 0.07);
    EXPECT_NEAR(after.losses[0], std::log(2 * M_PI) - logZHalf, 0.01);
}

TEST(AnnealedFlowTransport, GoesOnFromACheckpointAsIfItHadNotStopped) {
    const auto make = [](int size = 2, int numLayers = 2) {
        const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(size, 1.0),
                                                          std::make_shared<Spring>(size, 9.0, 0.7));
        // Of two kernels, the second of which adapts its step sizes.
        const auto kernel = std::make_shared<KernelSequence>(std::vector<std::shared_ptr<AnnealedKernel>>{
            makeKernel(), std::make_shared<RandomWalkKernel>(RandomWalkKernel::Options{})});
        const auto sampler = std::make_shared<SequentialSampler>(path, kernel, powerLambdas(numLayers, 1),
                                                                 SequentialSampler::Options{0.5, 5, 0.9, 100});
        std::vector<std::shared_ptr<Transform>> layers(numLayers);
        for (auto& layer : layers)
            layer = std::make_shared<Affine>(size);
        sampler->setLayers(layers);
        AnnealedFlowTransport::Options options{50, 0.015, 100, 0, 3};
        return std::pair{
            sampler, std::make_unique<AnnealedFlowTransport>(sampler, std::make_shared<GaussianPrior>(size), options)};
    };
    const std::string file = (std::filesystem::temp_directory_path() / "openmmflow-test-transport.ckpt").string();
    auto [sampler, whole] = make();
    (void)whole->train(5);
    whole->saveCheckpoint(file);
    const TransportProgress expected = whole->train(4);
    auto [another, rest] = make();
    rest->loadCheckpoint(file);
    const TransportProgress found = rest->train(4);
    EXPECT_EQ(found.iteration, 9);
    EXPECT_EQ(found.losses, expected.losses);
    EXPECT_EQ(found.logZRatio, expected.logZRatio);
    for (int k = 0; k < 2; k++)
        for (std::size_t i = 0; i < 2; i++)
            EXPECT_TRUE(at::equal(sampler->getLayers()[k]->getParameters()[i].second,
                                  another->getLayers()[k]->getParameters()[i].second));

    const auto larger = make(3), longer = make(2, 3);
    expectMessage([&] { larger.second->loadCheckpoint(file); }, "layer1.parameters.a is of another shape or dtype");
    expectMessage([&] { longer.second->loadCheckpoint(file); },
                  "number of layers is 2, but must be that of this training, 3");
    EXPECT_EQ(longer.first->getLayers()[0]->getParameters()[0].second.abs().sum().item<double>(), 0);
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
    EXPECT_THROW(rest->loadCheckpoint(file), OpenMM::OpenMMException);
    const auto scaling = std::make_shared<Scaling>(std::vector{0.0, 0.0}, std::vector{1.0, 1.0});
    Flow(std::make_shared<GaussianPrior>(2), scaling).save(file);
    expectMessage([&] { rest->loadCheckpoint(file); }, "is not a training checkpoint");
    std::filesystem::remove(file);
}

TEST(AnnealedFlowTransport, ImprovesTheWeightsOfTheSameStages) {
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(2, 1.0), makeA1());
    const auto lambdas = powerLambdas(4, 1);
    const SequentialSampler::Options neverResample{0.0, 20, 0.9, 100};
    const auto sampler = std::make_shared<SequentialSampler>(path, makeKernel(), lambdas, neverResample);
    std::vector<std::shared_ptr<Transform>> layers;
    for (int k = 0; k < 4; k++)
        layers.push_back(std::make_shared<Affine>(2));
    sampler->setLayers(layers);
    AnnealedFlowTransport training(sampler, std::make_shared<GaussianPrior>(2), {400, 0.02, 100, 0, 4});
    (void)training.train(300);
    Random random(5);
    const Tensor start = random.normal(20000, 2);
    const AnnealedResult with = sampler->run(start, random);
    SequentialSampler plain(path, makeKernel(), lambdas, neverResample);
    const AnnealedResult without = plain.run(start, random);
    EXPECT_GT(with.ess.back(), 1.5 * without.ess.back());
    RecordProperty("ess with", std::to_string(with.ess.back()));
    RecordProperty("ess without", std::to_string(without.ess.back()));
    EXPECT_NEAR(with.logZRatio, logZA1 - std::log(2 * M_PI), 4 * with.logZRatioError);
}

TEST(AnnealedFlowTransport, LeavesLayersWithoutParametersAsTheyAre) {
    const auto path =
        std::make_shared<PotentialPath>(std::make_shared<Spring>(2, 1.0), std::make_shared<Spring>(2, 9.0));
    const auto sampler = std::make_shared<SequentialSampler>(path, makeKernel(), powerLambdas(2, 1),
                                                             SequentialSampler::Options{0.5, 10, 0.9, 100});
    sampler->setLayers({std::make_shared<Scaling>(std::vector<double>{0, 0}, std::vector<double>{0.8, 0.8}),
                        std::make_shared<Affine>(2)});
    AnnealedFlowTransport training(sampler, std::make_shared<GaussianPrior>(2), {50, 0.015, 100, 0, 3});
    const TransportProgress progress = training.train(3);
    EXPECT_EQ(progress.skipped, 0);
    EXPECT_TRUE(std::isfinite(progress.losses[1]));
}

TEST(AnnealedFlowTransport, RefusesBadArguments) {
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Spring>(2, 1.0), makeA1());
    const auto sampler =
        std::make_shared<SequentialSampler>(path, makeKernel(), powerLambdas(1, 1), SequentialSampler::Options{});
    const auto prior = std::make_shared<GaussianPrior>(2);
    expectMessage([&] { AnnealedFlowTransport(nullptr, prior, {}); }, "sampler is null");
    expectMessage([&] { AnnealedFlowTransport(sampler, nullptr, {}); }, "start is null");
    expectMessage([&] { AnnealedFlowTransport(sampler, prior, {}); },
                  "number of parameters of the sampler's layers is 0");
    sampler->setLayers({std::make_shared<Affine>(2)});
    expectMessage([&] { AnnealedFlowTransport(sampler, std::make_shared<GaussianPrior>(3), {}); },
                  "size of start is 3");
    expectMessage([&] { AnnealedFlowTransport(sampler, prior, {0}); }, "batchSize is 0");
    expectMessage([&] { AnnealedFlowTransport(sampler, prior, {100, 0}); }, "learningRate is 0");
    expectMessage([&] { AnnealedFlowTransport(sampler, prior, {100, 0.1, 0}); }, "gradientClip is 0");
    expectMessage([&] { AnnealedFlowTransport(sampler, prior, {100, 0.1, 1, -1}); }, "numThreads is -1");
    AnnealedFlowTransport training(sampler, prior, {100, 0.1, 1, 0, 1});
    expectMessage([&] { (void)training.train(0); }, "iterations is 0");
}
