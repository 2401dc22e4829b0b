// SPDX-License-Identifier: MIT

#include "openmmflow/training/AnnealedFlowTransport.h"
#include "Checkpoint.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/ThreadGuard.h"

using namespace OpenMMFlow;
using at::Tensor;

AnnealedFlowTransport::AnnealedFlowTransport(std::shared_ptr<SequentialSampler> newSampler,
                                             std::shared_ptr<const Prior> newStart, const Options& newOptions)
    : sampler(std::move(newSampler)), start(std::move(newStart)), options(newOptions), random(newOptions.seed) {
    const char* where = "AnnealedFlowTransport::AnnealedFlowTransport";
    require(sampler != nullptr, where, "sampler", "null", "a SequentialSampler");
    require(start != nullptr, where, "start", "null", "a Prior");
    require(start->getSize() == sampler->getPath()->getSize(), where, "size of start", start->getSize(),
            "that of the path, " + std::to_string(sampler->getPath()->getSize()));
    const int numGroups = sampler->getNumGroups();
    require(options.batchSize >= 1 && options.batchSize % numGroups == 0, where, "batchSize", options.batchSize,
            "a multiple of the sampler's numGroups, " + std::to_string(numGroups));
    require(options.learningRate > 0 && std::isfinite(options.learningRate), where, "learningRate",
            options.learningRate, "positive and finite");
    require(options.gradientClip > 0, where, "gradientClip", options.gradientClip, "positive");
    require(options.numThreads >= 0, where, "numThreads", options.numThreads, "at least 0");
    std::size_t numParameters = 0;
    layers = sampler->getLayers();
    for (const auto& layer : layers) {
        std::vector<Tensor> parameters;
        for (const auto& [name, tensor] : layer->getParameters())
            parameters.push_back(tensor);
        numParameters += parameters.size();
        optimizers.push_back(parameters.empty() ? nullptr : std::make_unique<Adam>(parameters));
    }
    require(numParameters > 0, where, "number of parameters of the sampler's layers", 0, "at least 1");
    gradients.resize(optimizers.size());
    progress.losses.assign(optimizers.size(), NAN);
}

AnnealedFlowTransport::~AnnealedFlowTransport() = default;

// The gradient of L_k; walkers without weight, or taken to where pi_k has no density, teach nothing.
void AnnealedFlowTransport::learn(int stage, const PathState& walkers, const Tensor& logWeight) {
    const auto& optimizer = optimizers[stage - 1];
    gradients[stage - 1].clear();
    if (optimizer == nullptr)
        return;
    const at::AutoGradMode track(true);
    const TransformResult map = layers[stage - 1]->forward(walkers.x);
    const PathState moved =
        sampler->getPath()->evaluate(map.value.detach(), sampler->getLambdas()[stage], Gradient::Compute);
    const Tensor rows = (moved.logDensity.isfinite() & map.logDet.isfinite() & logWeight.isfinite()).nonzero();
    if (rows.size(0) == 0) {
        progress.skipped++;
        return;
    }
    const auto of = [&rows](const Tensor& all) { return all.index_select(0, rows.squeeze(1)); };
    const Tensor weight = of(logWeight).softmax(0), constant = of(walkers.logDensity) - of(moved.logDensity);
    // log pi_k(T(x)) has the value of the one and the gradient of the other.
    const Tensor path = (of(moved.gradient) * of(map.value)).sum(1);
    const Tensor loss = (weight * (constant - (path - path.detach()) - of(map.logDet))).sum();
    auto gradient = gradientOf(loss, optimizer->parameters);
    const double norm = globalNorm(gradient);
    progress.losses[stage - 1] = loss.item<double>();
    if (!std::isfinite(norm) || !std::isfinite(progress.losses[stage - 1])) {
        progress.skipped++;
        return;
    }
    if (norm > options.gradientClip)
        at::_foreach_mul_(gradient, options.gradientClip / norm);
    gradients[stage - 1] = std::move(gradient);
}

TransportProgress AnnealedFlowTransport::train(std::int64_t iterations) {
    require(iterations >= 1, "AnnealedFlowTransport::train", "iterations", iterations, "at least 1");
    require(sampler->getLayers() == layers, "AnnealedFlowTransport::train", "layers of the sampler", "others",
            "those that it had when this was made");
    const ThreadGuard threads(options.numThreads);
    const auto trained = std::find_if(optimizers.begin(), optimizers.end(), [](const auto& o) { return o != nullptr; });
    const at::Device device = (*trained)->parameters[0].device();
    for (std::int64_t i = 0; i < iterations; i++, progress.iteration++) {
        const AnnealedResult pass = sampler->runObserved(
            start->sample(options.batchSize, random).to(device), random,
            [this](int stage, const PathState& walkers, const Tensor& weight) { learn(stage, walkers, weight); });
        progress.logZRatio = pass.logZRatio;
        progress.logZRatioError = pass.logZRatioError;
        progress.cess = pass.cess;
        for (std::size_t k = 0; k < optimizers.size(); k++)
            if (!gradients[k].empty())
                optimizers[k]->step(gradients[k], options.learningRate);
    }
    return progress;
}

static const char* const kernelPrefix = "kernel.";

static std::string layerPrefix(std::size_t index) {
    return "layer" + std::to_string(index + 1) + ".";
}

void AnnealedFlowTransport::saveCheckpoint(const std::string& path) const {
    Checkpoint checkpoint;
    for (std::size_t k = 0; k < layers.size(); k++)
        if (optimizers[k] != nullptr)
            checkpoint.add(layerPrefix(k), layers[k]->getParameters(), *optimizers[k]);
    checkpoint.add(kernelPrefix, sampler->getKernel()->getState());
    checkpoint.values = {{"iteration", progress.iteration}, {"layers", layers.size()}, {"skipped", progress.skipped}};
    checkpoint.setRandom(random);
    checkpoint.write(path);
}

void AnnealedFlowTransport::loadCheckpoint(const std::string& path) {
    const char* where = "AnnealedFlowTransport::loadCheckpoint";
    Checkpoint checkpoint(where, path); // everything is checked before anything is changed
    const std::int64_t numLayers = checkpoint.getInteger("layers");
    require(numLayers == static_cast<std::int64_t>(layers.size()), where, "number of layers", numLayers,
            "that of this training, " + std::to_string(layers.size()));
    for (std::size_t k = 0; k < layers.size(); k++)
        if (optimizers[k] != nullptr)
            checkpoint.expect(layerPrefix(k), layers[k]->getParameters(), *optimizers[k]);
    TransportProgress restored = progress;
    restored.iteration = checkpoint.getInteger("iteration");
    restored.skipped = checkpoint.getInteger("skipped");
    const Random::State state = checkpoint.getRandom();
    sampler->getKernel()->setState(checkpoint.find(kernelPrefix));
    checkpoint.restore();
    random.setState(state);
    progress = restored;
}
