// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioned.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <cmath>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

Conditioned::Conditioned(std::shared_ptr<Transform> newTransform, std::vector<int> newIndices,
                         std::vector<double> newValues)
    : transform(std::move(newTransform)), indices(std::move(newIndices)), values(std::move(newValues)) {
    const char* where = "Conditioned::Conditioned";
    require(transform != nullptr, where, "transform", "null", "a Transform");
    const int size = transform->getInputSize();
    require(transform->getOutputSize() == size, where, "output size of the transform", transform->getOutputSize(),
            "its input size, " + std::to_string(size));
    require(!indices.empty() && static_cast<int>(indices.size()) < size, where, "number of indices", indices.size(),
            "between 1 and the number of columns - 1");
    require(values.size() == indices.size(), where, "number of values", values.size(),
            "the number of indices, " + std::to_string(indices.size()));
    std::vector<int> place(size, -1); // of each column in cat(variables, conditions)
    const int numVariables = size - static_cast<int>(indices.size());
    for (std::size_t i = 0; i < indices.size(); i++) {
        require(indices[i] >= 0 && indices[i] < size && place[indices[i]] < 0, where,
                "indices[" + std::to_string(i) + "]", indices[i], "a column of the transform, each at most once");
        require(std::isfinite(values[i]), where, "values[" + std::to_string(i) + "]", values[i], "finite");
        place[indices[i]] = numVariables + static_cast<int>(i);
    }
    std::vector<int> variables;
    for (int i = 0; i < size; i++)
        if (place[i] < 0) {
            place[i] = static_cast<int>(variables.size());
            variables.push_back(i);
        }
    const auto indexTensor = [](const std::vector<int>& list) {
        return at::tensor(at::ArrayRef<int>(list), at::kLong);
    };
    variableIndex = indexTensor(variables);
    conditionIndex = indexTensor(indices);
    joinIndex = indexTensor(place);
    conditions = at::tensor(values, at::kDouble).unsqueeze(0);
}

std::shared_ptr<Conditioned> Conditioned::withValues(std::vector<double> newValues) const {
    return std::make_shared<Conditioned>(transform, indices, std::move(newValues));
}

int Conditioned::getInputSize() const {
    return transform->getInputSize() - static_cast<int>(indices.size());
}

Tensor Conditioned::join(const Tensor& y) const {
    return at::cat({y, conditions.expand({y.size(0), conditions.size(1)})}, 1).index_select(1, joinIndex);
}

TransformResult Conditioned::separate(const TransformResult& joint) const {
    const Tensor after = joint.value.index_select(1, conditionIndex);
    const Tensor outside = at::isfinite(joint.logDet).logical_not(); // of the domain: such rows hold nothing
    require(((after == conditions).all(1) | outside).all().item<bool>(), "Conditioned", "a condition",
            "changed by the transform", "passive in all its layers");
    return {joint.value.index_select(1, variableIndex), joint.logDet};
}

TransformResult Conditioned::forward(const Tensor& z) const {
    return separate(transform->forward(join(z)));
}

TransformResult Conditioned::inverse(const Tensor& x) const {
    return separate(transform->inverse(join(x)));
}

nlohmann::json Conditioned::getArchitecture() const {
    return {
        {"type", getTypeName()}, {"transform", transform->getArchitecture()}, {"indices", indices}, {"values", values}};
}
