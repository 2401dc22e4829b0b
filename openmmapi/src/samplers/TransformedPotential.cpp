// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/TransformedPotential.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using at::Tensor;

TransformedPotential::TransformedPotential(std::shared_ptr<ReducedPotential> newWhole,
                                           std::shared_ptr<Transform> newTransform,
                                           const std::vector<double>& newReference)
    : whole(std::move(newWhole)), transform(std::move(newTransform)) {
    const char* where = "TransformedPotential::TransformedPotential";
    require(whole != nullptr, where, "whole", "null", "a ReducedPotential");
    require(transform != nullptr, where, "transform", "null", "a Transform");
    require(transform->getOutputSize() == whole->getSize(), where, "the transform's number of columns of output",
            transform->getOutputSize(), "that of the potential, " + std::to_string(whole->getSize()));
    if (newReference.empty())
        return;
    require(static_cast<int>(newReference.size()) == whole->getSize(), where, "size of reference", newReference.size(),
            "that of the potential, " + std::to_string(whole->getSize()));
    reference = at::tensor(newReference, at::kDouble).unsqueeze(0);
}

EnergyResult TransformedPotential::evaluate(const Tensor& z, Gradient gradient) {
    require(z.dim() == 2 && z.size(1) == getSize(), "TransformedPotential::evaluate", "shape of z", z.sizes(),
            "[batch, " + std::to_string(getSize()) + "]");
    const at::AutoGradMode grad(gradient == Gradient::Compute);
    const Tensor point = z.detach().to(at::kDouble).set_requires_grad(gradient == Gradient::Compute);
    const TransformResult map = transform->forward(point);
    const Tensor x = reference.defined() ? transform->place(map.value, reference.to(point.device())) : map.value;
    EnergyResult result = whole->evaluate(x.detach(), gradient);
    const Tensor total = result.u - map.logDet.detach(), finite = at::isfinite(total);
    result.nonFinite += (at::isfinite(result.u) & finite.logical_not()).sum().item<std::int64_t>();
    result.u = at::where(finite, total, at::full_like(total, INFINITY));
    if (gradient == Gradient::Omit)
        return result;
    std::vector<Tensor> values = {x}, weights = {result.gradient.reshape(x.sizes())};
    if (map.logDet.requires_grad()) {
        values.push_back(map.logDet);
        weights.push_back(-finite.to(at::kDouble));
    }
    const Tensor onZ = torch::autograd::grad(values, {point}, weights)[0].detach();
    result.gradient = at::where(finite.unsqueeze(1), onZ, at::zeros_like(onZ));
    return result;
}
