// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioned.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <cmath>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** Conditions are its active part, in their order. */
Split splitOff(const Transform* transform, const std::vector<int>& indices) {
    const char* where = "Conditioned::Conditioned";
    require(transform != nullptr, where, "transform", "null", "a Transform");
    const int size = transform->getInputSize();
    require(transform->getOutputSize() == size, where, "output size of the transform", transform->getOutputSize(),
            "its input size, " + std::to_string(size));
    require(!indices.empty() && static_cast<int>(indices.size()) < size, where, "number of indices", indices.size(),
            "between 1 and the number of columns - 1");
    for (auto index = indices.begin(); index != indices.end(); ++index)
        require(*index >= 0 && *index < size && std::find(indices.begin(), index, *index) == index, where,
                "indices[" + std::to_string(index - indices.begin()) + "]", *index,
                "a column of the transform, each at most once");
    return {size, indices};
}

} // namespace

Conditioned::Conditioned(std::shared_ptr<Transform> newTransform, const std::vector<int>& indices,
                         std::vector<double> newValues)
    : transform(std::move(newTransform)), values(std::move(newValues)), split(splitOff(transform.get(), indices)) {
    const char* where = "Conditioned::Conditioned";
    require(values.size() == indices.size(), where, "number of values", values.size(),
            "the number of indices, " + std::to_string(indices.size()));
    for (std::size_t i = 0; i < values.size(); i++)
        require(std::isfinite(values[i]), where, "values[" + std::to_string(i) + "]", values[i], "finite");
    conditions = at::tensor(values, at::kDouble).unsqueeze(0);
}

std::shared_ptr<Conditioned> Conditioned::withValues(std::vector<double> newValues) const {
    return std::make_shared<Conditioned>(transform, split.getActive(), std::move(newValues));
}

int Conditioned::getInputSize() const {
    return static_cast<int>(split.getPassive().size());
}

Tensor Conditioned::join(const Tensor& y) const {
    return split.join(conditions.expand({y.size(0), conditions.size(1)}), y);
}

TransformResult Conditioned::separate(const TransformResult& joint) const {
    const Tensor after = split.takeActive(joint.value);
    const Tensor outside = at::isfinite(joint.logDet).logical_not(); // of the domain: such rows hold nothing
    require(((after == conditions).all(1) | outside).all().item<bool>(), "Conditioned", "a condition",
            "changed by the transform", "passive in all its layers");
    return {split.takePassive(joint.value), joint.logDet};
}

TransformResult Conditioned::forward(const Tensor& z) const {
    return separate(transform->forward(join(z)));
}

TransformResult Conditioned::inverse(const Tensor& x) const {
    return separate(transform->inverse(join(x)));
}

PulledResult Conditioned::inverseWithPullBack(const Tensor& x) const {
    const at::NoGradGuard noGrad;
    PulledResult joint = transform->inverseWithPullBack(join(x));
    return {separate(joint.result), [split = split, inner = std::move(joint.pullBack)](const Tensor& onValue) {
                const auto numConditions = static_cast<std::int64_t>(split.getActive().size());
                const Tensor none = at::zeros({onValue.size(0), numConditions}, onValue.options());
                return split.takePassive(inner(split.join(none, onValue)));
            }};
}

std::vector<Tensor> Conditioned::getConstants() const {
    std::vector<Tensor> all = split.getConstants();
    appendTo(all, transform->getConstants());
    all.push_back(conditions);
    return all;
}

nlohmann::json Conditioned::getArchitecture() const {
    return {{"type", getTypeName()},
            {"transform", transform->getArchitecture()},
            {"indices", split.getActive()},
            {"values", values}};
}
