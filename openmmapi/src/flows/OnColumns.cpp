// SPDX-License-Identifier: MIT

#include "openmmflow/flows/OnColumns.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

OnColumns::OnColumns(std::shared_ptr<Transform> newTransform, int size, const std::vector<int>& columns)
    : transform(std::move(newTransform)), split(size, columns) {
    const char* where = "OnColumns::OnColumns";
    require(transform != nullptr, where, "transform", "null", "a Transform");
    const int inner = static_cast<int>(columns.size());
    require(transform->getInputSize() == inner && transform->getOutputSize() == inner, where,
            "input and output size of the transform",
            std::to_string(transform->getInputSize()) + " and " + std::to_string(transform->getOutputSize()),
            "the number of columns, " + std::to_string(inner));
}

TransformResult OnColumns::join(const TransformResult& part, const Tensor& whole) const {
    return {split.join(part.value, split.takePassive(whole)), part.logDet};
}

TransformResult OnColumns::forward(const Tensor& z) const {
    return join(transform->forward(split.takeActive(z)), z);
}

TransformResult OnColumns::inverse(const Tensor& x) const {
    return join(transform->inverse(split.takeActive(x)), x);
}

PulledResult OnColumns::inverseWithPullBack(const Tensor& x) const {
    const at::NoGradGuard noGrad;
    PulledResult part = transform->inverseWithPullBack(split.takeActive(x));
    return {join(part.result, x.detach()), [split = split, inner = std::move(part.pullBack)](const Tensor& onValue) {
                return split.join(inner(split.takeActive(onValue)), split.takePassive(onValue));
            }};
}

std::vector<Tensor> OnColumns::getConstants() const {
    std::vector<Tensor> all = split.getConstants();
    appendTo(all, transform->getConstants());
    return all;
}

nlohmann::json OnColumns::getArchitecture() const {
    return {{"type", getTypeName()},
            {"transform", transform->getArchitecture()},
            {"size", split.getSize()},
            {"columns", split.getActive()}};
}
