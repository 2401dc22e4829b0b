// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedKernel.h"
#include "StateTools.h"
#include "WeightTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

StepSizes::StepSizes(const char* owner, double first, double targetAcceptance, double largest)
    : owner(owner), first(first), targetAcceptance(targetAcceptance), largest(largest) {
    const std::string where = std::string(owner) + "::" + owner;
    require(first > 0 && std::isfinite(first), where, "stepSize", first, "positive and finite");
    require(first <= largest, where, "stepSize", first, "at most " + std::to_string(largest));
    require(targetAcceptance >= 0 && targetAcceptance < 1, where, "targetAcceptance", targetAcceptance, "in [0, 1)");
}

double StepSizes::get(int stage) const {
    require(stage >= 0, std::string(owner) + "::getStepSize", "stage", stage, "at least 0");
    if (values.empty())
        return first;
    return stage < static_cast<int>(values.size()) ? values[stage] : values.back();
}

void StepSizes::adapt(int stage, double acceptance) {
    if (!adaptive || suspended || targetAcceptance == 0)
        return;
    if (stage >= static_cast<int>(values.size()))
        values.resize(stage + 1, get(stage));
    values[stage] = std::min(largest, values[stage] * (acceptance > targetAcceptance ? 1.1 : 1 / 1.1));
}

void StepSizes::setAll(std::vector<double> newValues) {
    for (const double value : newValues)
        require(value > 0 && std::isfinite(value) && value <= largest, std::string(owner) + "::setStepSizes",
                "a step size", value,
                std::isinf(largest) ? "positive and finite" : "positive and at most " + std::to_string(largest));
    values = std::move(newValues);
}

void AnnealedKernel::setState(const NamedTensors& state) {
    require(state.empty(), "AnnealedKernel::setState", "number of tensors", state.size(), "0 for this kernel");
}

NamedTensors SteppedKernel::getState() const {
    return {{"stepSizes", at::tensor(steps.getAll(), at::kDouble)}};
}

void SteppedKernel::setState(const NamedTensors& state) {
    const bool known = state.size() == 1 && state[0].first == "stepSizes" && state[0].second.dim() == 1 &&
                       state[0].second.scalar_type() == at::kDouble;
    require(known, "SteppedKernel::setState", "state", "another", "step sizes");
    steps.setAll(toVector(state[0].second));
}

double SteppedKernel::finish(int stage, std::int64_t numAccepted, std::int64_t numProposed) {
    const double acceptance = static_cast<double>(numAccepted) / static_cast<double>(numProposed);
    steps.adapt(stage, acceptance);
    return acceptance;
}

KernelSequence::KernelSequence(std::vector<std::shared_ptr<AnnealedKernel>> list) : kernels(std::move(list)) {
    const char* where = "KernelSequence::KernelSequence";
    require(!kernels.empty(), where, "number of kernels", kernels.size(), "at least 1");
    for (const auto& kernel : kernels)
        require(kernel != nullptr, where, "a kernel", "null", "an AnnealedKernel");
}

double KernelSequence::move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) {
    acceptances.clear();
    double mean = 0;
    for (const auto& kernel : kernels) {
        acceptances.push_back(kernel->move(path, stage, lambda, state, random));
        mean += acceptances.back() / static_cast<double>(kernels.size());
    }
    return mean;
}

// What the first one needs: the state that it gets is the one that comes from outside.
Gradient KernelSequence::getGradient() const {
    return kernels.front()->getGradient();
}

void KernelSequence::setAdaptive(bool adaptive) {
    for (const auto& kernel : kernels)
        kernel->setAdaptive(adaptive);
}

void KernelSequence::suspendAdaptation(bool suspended) {
    for (const auto& kernel : kernels)
        kernel->suspendAdaptation(suspended);
}

static std::string kernelPrefix(std::size_t index) {
    return std::to_string(index) + ".";
}

NamedTensors KernelSequence::getState() const {
    NamedTensors all;
    for (std::size_t i = 0; i < kernels.size(); i++)
        for (const auto& [name, tensor] : kernels[i]->getState())
            all.emplace_back(kernelPrefix(i) + name, tensor);
    return all;
}

void KernelSequence::setState(const NamedTensors& state) {
    std::vector<NamedTensors> parts;
    std::size_t used = 0;
    for (std::size_t i = 0; i < kernels.size(); i++) {
        parts.push_back(withoutPrefix(state, kernelPrefix(i)));
        used += parts.back().size();
    }
    require(used == state.size(), "KernelSequence::setState", "number of kernels", "larger",
            std::to_string(kernels.size()));
    setStates(kernels, parts);
}

RandomWalkKernel::RandomWalkKernel(const Options& newOptions)
    : SteppedKernel({"RandomWalkKernel", newOptions.stepSize, newOptions.targetAcceptance}), options(newOptions) {
    require(options.numMoves >= 1, "RandomWalkKernel::RandomWalkKernel", "numMoves", options.numMoves, "at least 1");
}

double RandomWalkKernel::move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) {
    const at::NoGradGuard noGrad;
    state = path.atLambda(state, lambda);
    const double s = steps.get(stage);
    const std::int64_t batch = state.x.size(0);
    std::int64_t numAccepted = 0;
    for (int i = 0; i < options.numMoves; i++) {
        PathState proposed = path.evaluate(state.x + s * normalLike(state.x, random), lambda);
        proposed.momentum = state.momentum;
        const Tensor accepted = metropolis(proposed.logDensity - state.logDensity, random);
        numAccepted += accepted.sum().item<std::int64_t>();
        state = choose(accepted, proposed, state);
    }
    return finish(stage, numAccepted, batch * options.numMoves);
}

LangevinKernel::LangevinKernel(const Options& newOptions)
    : SteppedKernel({"LangevinKernel", newOptions.stepSize, newOptions.targetAcceptance}), options(newOptions) {
    require(options.numMoves >= 1, "LangevinKernel::LangevinKernel", "numMoves", options.numMoves, "at least 1");
}

double LangevinKernel::move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) {
    const at::NoGradGuard noGrad;
    state = path.atLambda(state, lambda, Gradient::Compute);
    const double s = steps.get(stage);
    const std::int64_t batch = state.x.size(0);
    const auto logProposal = [s](const PathState& from, const Tensor& to) {
        return -(to - from.x - 0.5 * s * s * from.gradient).square().sum(1) / (2 * s * s);
    };
    std::int64_t numAccepted = 0;
    for (int i = 0; i < options.numMoves; i++) {
        const Tensor x = state.x + 0.5 * s * s * state.gradient + s * normalLike(state.x, random);
        PathState proposed = path.evaluate(x, lambda, Gradient::Compute);
        proposed.momentum = state.momentum;
        const Tensor logAlpha =
            proposed.logDensity - state.logDensity + logProposal(proposed, state.x) - logProposal(state, proposed.x);
        const Tensor accepted = metropolis(logAlpha, random);
        numAccepted += accepted.sum().item<std::int64_t>();
        state = choose(accepted, proposed, state);
    }
    return finish(stage, numAccepted, batch * options.numMoves);
}
