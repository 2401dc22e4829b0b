// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Sequence.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

Sequence::Sequence(std::vector<std::shared_ptr<Transform>> list) : transforms(std::move(list)) {
    require(!transforms.empty(), "Sequence::Sequence", "number of transforms", transforms.size(), "at least 1");
    for (std::size_t i = 0; i < transforms.size(); i++) {
        require(transforms[i] != nullptr, "Sequence::Sequence", "a transform", "null", "a Transform");
        if (i > 0)
            require(transforms[i]->getInputSize() == transforms[i - 1]->getOutputSize(), "Sequence::Sequence",
                    "input size of transform " + std::to_string(i), transforms[i]->getInputSize(),
                    "the output size of the one before, " + std::to_string(transforms[i - 1]->getOutputSize()));
    }
}

int Sequence::getInputSize() const {
    return transforms.front()->getInputSize();
}

int Sequence::getOutputSize() const {
    return transforms.back()->getOutputSize();
}

TransformResult Sequence::forward(const Tensor& z) const {
    TransformResult result{z, at::zeros({z.size(0)}, z.options().dtype(at::kDouble))};
    for (const auto& transform : transforms) {
        const TransformResult step = transform->forward(result.value);
        result = {step.value, result.logDet + step.logDet};
    }
    return result;
}

TransformResult Sequence::inverse(const Tensor& x) const {
    TransformResult result{x, at::zeros({x.size(0)}, x.options().dtype(at::kDouble))};
    for (auto transform = transforms.rbegin(); transform != transforms.rend(); ++transform) {
        const TransformResult step = (*transform)->inverse(result.value);
        result = {step.value, result.logDet + step.logDet};
    }
    return result;
}

PulledResult Sequence::inverseWithPullBack(const Tensor& x) const {
    const at::NoGradGuard noGrad;
    TransformResult result{x.detach(), at::zeros({x.size(0)}, x.options().dtype(at::kDouble).requires_grad(false))};
    std::vector<decltype(PulledResult::pullBack)> pullBacks;
    for (auto transform = transforms.rbegin(); transform != transforms.rend(); ++transform) {
        PulledResult step = (*transform)->inverseWithPullBack(result.value);
        result.value = step.result.value;
        result.logDet += step.result.logDet;
        pullBacks.push_back(std::move(step.pullBack));
    }
    return {result, [pullBacks = std::move(pullBacks)](Tensor on) {
                for (auto pullBack = pullBacks.rbegin(); pullBack != pullBacks.rend(); ++pullBack)
                    on = (*pullBack)(on);
                return on;
            }};
}

bool Sequence::isConstantLogDet() const {
    return std::all_of(transforms.begin(), transforms.end(), [](const auto& t) { return t->isConstantLogDet(); });
}

nlohmann::json Sequence::getArchitecture() const {
    auto list = nlohmann::json::array();
    for (const auto& transform : transforms)
        list.push_back(transform->getArchitecture());
    return {{"type", getTypeName()}, {"transforms", list}};
}

static void append(NamedTensors& all, const NamedTensors& part, std::size_t index) {
    for (const auto& [name, tensor] : part)
        all.emplace_back(std::to_string(index) + "." + name, tensor);
}

NamedTensors Sequence::getParameters() const {
    NamedTensors all;
    for (std::size_t i = 0; i < transforms.size(); i++)
        append(all, transforms[i]->getParameters(), i);
    return all;
}

NamedTensors Sequence::getBuffers() const {
    NamedTensors all;
    for (std::size_t i = 0; i < transforms.size(); i++)
        append(all, transforms[i]->getBuffers(), i);
    return all;
}

std::vector<Tensor> Sequence::getConstants() const {
    std::vector<Tensor> all;
    for (const auto& transform : transforms)
        appendTo(all, transform->getConstants());
    return all;
}

Tensor Sequence::place(const Tensor& x, const Tensor& reference) const {
    return transforms.back()->place(x, reference);
}

Inverse::Inverse(std::shared_ptr<Transform> other) : transform(std::move(other)) {
    require(transform != nullptr, "Inverse::Inverse", "transform", "null", "a Transform");
    require(transform->getInputSize() == transform->getOutputSize(), "Inverse::Inverse", "output size",
            transform->getOutputSize(), "the input size, " + std::to_string(transform->getInputSize()));
}

nlohmann::json Inverse::getArchitecture() const {
    return {{"type", getTypeName()}, {"transform", transform->getArchitecture()}};
}
