// SPDX-License-Identifier: MIT

#include "openmmflow/training/Trainer.h"
#include "../samplers/StateTools.h"
#include "Checkpoint.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/ThreadGuard.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

std::vector<Tensor> listTensors(const NamedTensors& named) {
    std::vector<Tensor> list;
    for (const auto& [name, tensor] : named)
        list.push_back(tensor);
    return list;
}

} // namespace

Trainer::Trainer(std::shared_ptr<Flow> newFlow, const Options& newOptions)
    : flow(std::move(newFlow)), options(newOptions), random(newOptions.seed) {
    const char* where = "Trainer::Trainer";
    require(flow != nullptr, where, "flow", "null", "a Flow");
    require(!flow->getParameters().empty(), where, "number of parameters", 0, "at least 1");
    require(options.iterations >= 1, where, "iterations", options.iterations, "at least 1");
    require(options.learningRate > 0 && std::isfinite(options.learningRate), where, "learningRate",
            options.learningRate, "positive and finite");
    require(options.warmup >= 0, where, "warmup", options.warmup, "at least 0");
    require(options.gradientClip > 0, where, "gradientClip", options.gradientClip, "positive");
    require(options.numThreads >= 0, where, "numThreads", options.numThreads, "at least 0");
    optimizer = std::make_unique<Adam>(listTensors(flow->getParameters()));
    progress.iterations = options.iterations;
}

Trainer::~Trainer() = default;

void Trainer::addLoss(std::shared_ptr<Loss> loss, double weight) {
    require(loss != nullptr, "Trainer::addLoss", "loss", "null", "a Loss");
    require(weight > 0 && std::isfinite(weight), "Trainer::addLoss", "weight", weight, "positive and finite");
    losses.emplace_back(std::move(loss), weight);
    progress.losses.push_back(NAN);
}

// Linear warm-up, then half a cosine to 0 at the end of the schedule.
static double scheduledRate(const Trainer::Options& options, std::int64_t iteration) {
    const double rise = std::min(1.0, static_cast<double>(iteration + 1) / static_cast<double>(options.warmup + 1));
    const double phase = M_PI * static_cast<double>(iteration) / static_cast<double>(options.iterations);
    return options.learningRate * rise * 0.5 * (1 + std::cos(phase));
}

TrainingProgress Trainer::train(std::int64_t iterations) {
    require(!losses.empty(), "Trainer::train", "number of losses", losses.size(), "at least 1");
    const ThreadGuard threads(options.numThreads);
    const at::AutoGradMode grad(true);
    const std::int64_t end = std::min(options.iterations, progress.iteration + iterations);
    for (; progress.iteration < end; progress.iteration++) {
        Tensor total = at::zeros({}, at::kDouble);
        for (std::size_t i = 0; i < losses.size(); i++) {
            const Tensor value = losses[i].first->evaluate(*flow, random);
            progress.losses[i] = value.item<double>();
            total = total + losses[i].second * value;
        }
        progress.total = total.item<double>();
        auto gradients = gradientOf(total, optimizer->parameters);
        progress.gradientNorm = globalNorm(gradients);
        if (!std::isfinite(progress.total) || !std::isfinite(progress.gradientNorm)) {
            progress.skipped++;
            skippedInRow++;
            require(skippedInRow < 10, "Trainer::train", "number of steps in a row without a finite gradient",
                    skippedInRow, "below 10: lower the learning rate or check the data");
            continue;
        }
        skippedInRow = 0;
        if (progress.gradientNorm > options.gradientClip)
            at::_foreach_mul_(gradients, options.gradientClip / progress.gradientNorm);
        progress.learningRate = scheduledRate(options, progress.iteration);
        optimizer->step(gradients, progress.learningRate);
    }
    const at::NoGradGuard noGrad;
    if (!std::isfinite(globalNorm(optimizer->parameters))) // one pass, and only then which it is
        for (const auto& [name, tensor] : flow->getParameters())
            require(at::isfinite(tensor).all().item<bool>(), "Trainer::train", "parameter " + name, "not finite",
                    "finite");
    return progress;
}

TrainingProgress Trainer::getProgress() const {
    return progress;
}

std::vector<double> Trainer::validate() const {
    const ThreadGuard threads(options.numThreads);
    std::vector<double> values;
    for (const auto& [loss, weight] : losses)
        values.push_back(loss->validate(*flow));
    return values;
}

static std::string lossPrefix(std::size_t index) {
    return "loss" + std::to_string(index) + ".";
}

void Trainer::saveCheckpoint(const std::string& path) const {
    Checkpoint checkpoint;
    checkpoint.add("", flow->getParameters(), *optimizer);
    for (std::size_t i = 0; i < losses.size(); i++)
        checkpoint.add(lossPrefix(i), losses[i].first->getState());
    checkpoint.values = {
        {"iteration", progress.iteration}, {"iterations", options.iterations}, {"skipped", progress.skipped}};
    checkpoint.setRandom(random);
    checkpoint.write(path);
}

void Trainer::loadCheckpoint(const std::string& path) {
    const char* where = "Trainer::loadCheckpoint";
    Checkpoint checkpoint(where, path); // everything is checked before anything is changed
    checkpoint.expect("", flow->getParameters(), *optimizer);
    const std::int64_t iterations = checkpoint.getInteger("iterations");
    require(iterations == options.iterations, where, "iterations", iterations,
            "those of this training, " + std::to_string(options.iterations));
    TrainingProgress restored = progress;
    restored.iteration = checkpoint.getInteger("iteration");
    restored.skipped = checkpoint.getInteger("skipped");
    const Random::State state = checkpoint.getRandom();
    std::vector<std::shared_ptr<Loss>> stateful;
    std::vector<NamedTensors> states;
    for (std::size_t i = 0; i < losses.size(); i++) {
        stateful.push_back(losses[i].first);
        states.push_back(checkpoint.find(lossPrefix(i)));
    }
    setStates(stateful, states);
    checkpoint.restore();
    random.setState(state);
    progress = restored;
}
