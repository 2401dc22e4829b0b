// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Elementary.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <functional>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** A map whose log-det is constant. @param pullBack  onValue times the Jacobian of the inverse */
PulledResult pull(const Transform& transform, const Tensor& x, std::function<Tensor(const Tensor& onValue)> pullBack) {
    const at::NoGradGuard noGrad;
    return {transform.inverse(x.detach()), std::move(pullBack)};
}

} // namespace

Permutation::Permutation(std::vector<int> newOrder) : order(std::move(newOrder)) {
    const int size = static_cast<int>(order.size());
    std::vector<int> inverseOrder(size, -1);
    for (int i = 0; i < size; i++) {
        require(order[i] >= 0 && order[i] < size && inverseOrder[order[i]] < 0, "Permutation::Permutation",
                "order[" + std::to_string(i) + "]", order[i], "one of 0..n-1, each once");
        inverseOrder[order[i]] = i;
    }
    require(size > 0, "Permutation::Permutation", "size of order", size, "at least 1");
    forwardIndex = indexTensor(order);
    inverseIndex = indexTensor(inverseOrder);
}

TransformResult Permutation::forward(const Tensor& z) const {
    return {z.index_select(1, forwardIndex), repeatForRows(0.0, z)};
}

TransformResult Permutation::inverse(const Tensor& x) const {
    return {x.index_select(1, inverseIndex), repeatForRows(0.0, x)};
}

PulledResult Permutation::inverseWithPullBack(const Tensor& x) const {
    return pull(*this, x, [order = forwardIndex](const Tensor& onValue) { return onValue.index_select(1, order); });
}

nlohmann::json Permutation::getArchitecture() const {
    return {{"type", getTypeName()}, {"order", order}};
}

Scaling::Scaling(std::vector<double> newShift, std::vector<double> newScale) {
    require(!newShift.empty(), "Scaling::Scaling", "size of shift", newShift.size(), "at least 1");
    require(newShift.size() == newScale.size(), "Scaling::Scaling", "size of scale", newScale.size(),
            "the size of shift, " + std::to_string(newShift.size()));
    for (std::size_t i = 0; i < newShift.size(); i++) {
        require(std::isfinite(newShift[i]), "Scaling::Scaling", "shift[" + std::to_string(i) + "]", newShift[i],
                "finite");
        require(std::isfinite(newScale[i]) && newScale[i] != 0, "Scaling::Scaling", "scale[" + std::to_string(i) + "]",
                newScale[i], "finite and not zero");
    }
    shift = at::tensor(newShift, at::kDouble);
    scale = at::tensor(newScale, at::kDouble);
    logDet = scale.abs().log().sum().item<double>();
}

TransformResult Scaling::forward(const Tensor& z) const {
    return {shift + scale * z, repeatForRows(logDet, z)};
}

TransformResult Scaling::inverse(const Tensor& x) const {
    return {(x - shift) / scale, repeatForRows(-logDet, x)};
}

PulledResult Scaling::inverseWithPullBack(const Tensor& x) const {
    return pull(*this, x, [scale = scale](const Tensor& onValue) { return onValue / scale; });
}

nlohmann::json Scaling::getArchitecture() const {
    return {{"type", getTypeName()}, {"shift", toVector(shift)}, {"scale", toVector(scale)}};
}

LearnedScaling::LearnedScaling(int size) {
    require(size >= 1, "LearnedScaling::LearnedScaling", "size", size, "at least 1");
    scale = at::ones({size}, at::kFloat).set_requires_grad(true);
}

TransformResult LearnedScaling::forward(const Tensor& z) const {
    const Tensor s = scale.to(at::kDouble);
    return {s * z, repeatForRows(s.abs().log().sum(), z)};
}

TransformResult LearnedScaling::inverse(const Tensor& x) const {
    const Tensor s = scale.to(at::kDouble);
    return {x / s, repeatForRows(-s.abs().log().sum(), x)};
}

PulledResult LearnedScaling::inverseWithPullBack(const Tensor& x) const {
    return pull(*this, x, [s = scale.detach()](const Tensor& onValue) { return onValue / s.to(at::kDouble); });
}

nlohmann::json LearnedScaling::getArchitecture() const {
    return {{"type", getTypeName()}, {"size", getInputSize()}};
}

ExpScaling::ExpScaling(int size) {
    require(size >= 1, "ExpScaling::ExpScaling", "size", size, "at least 1");
    logScale = at::zeros({size}, at::kFloat).set_requires_grad(true);
}

TransformResult ExpScaling::forward(const Tensor& z) const {
    const Tensor k = logScale.to(at::kDouble);
    return {k.exp() * z, repeatForRows(k.sum(), z)};
}

TransformResult ExpScaling::inverse(const Tensor& x) const {
    const Tensor k = logScale.to(at::kDouble);
    return {(-k).exp() * x, repeatForRows(-k.sum(), x)};
}

PulledResult ExpScaling::inverseWithPullBack(const Tensor& x) const {
    return pull(*this, x,
                [k = logScale.detach()](const Tensor& onValue) { return (-k.to(at::kDouble)).exp() * onValue; });
}

nlohmann::json ExpScaling::getArchitecture() const {
    return {{"type", getTypeName()}, {"size", getInputSize()}};
}

CircularShift::CircularShift(int size, std::vector<int> newIndices, std::vector<double> newShift)
    : size(size), indices(std::move(newIndices)), shift(std::move(newShift)) {
    require(size >= 1, "CircularShift::CircularShift", "size", size, "at least 1");
    require(indices.size() == shift.size(), "CircularShift::CircularShift", "size of shift", shift.size(),
            "the size of indices, " + std::to_string(indices.size()));
    offset = at::zeros({size}, at::kDouble);
    circular = at::zeros({size}, at::kBool);
    for (std::size_t i = 0; i < indices.size(); i++) {
        require(indices[i] >= 0 && indices[i] < size && !circular[indices[i]].item<bool>(),
                "CircularShift::CircularShift", "indices[" + std::to_string(i) + "]", indices[i],
                "one of 0..size-1, each at most once");
        require(std::isfinite(shift[i]), "CircularShift::CircularShift", "shift[" + std::to_string(i) + "]", shift[i],
                "finite");
        offset[indices[i]] = shift[i];
        circular[indices[i]] = true;
    }
}

TransformResult CircularShift::forward(const Tensor& z) const {
    return {at::where(circular, wrapAngle(z + offset), z), repeatForRows(0.0, z)};
}

TransformResult CircularShift::inverse(const Tensor& x) const {
    return {at::where(circular, wrapAngle(x - offset), x), repeatForRows(0.0, x)};
}

PulledResult CircularShift::inverseWithPullBack(const Tensor& x) const {
    return pull(*this, x, [](const Tensor& onValue) { return onValue; });
}

nlohmann::json CircularShift::getArchitecture() const {
    return {{"type", getTypeName()}, {"size", size}, {"indices", indices}, {"shift", shift}};
}
