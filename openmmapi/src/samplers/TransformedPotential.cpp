// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/TransformedPotential.h"
#include "../energies/FiniteRows.h"
#include "openmmflow/latent/Check.h"
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
    const EnergyResult part = whole->evaluate(x.detach(), gradient);
    const Tensor total = part.u - map.logDet.detach();
    if (gradient == Gradient::Omit)
        return finiteRows(total, {}, part);
    std::vector<Tensor> values = {x}, weights = {part.gradient.reshape(x.sizes())};
    if (map.logDet.requires_grad()) {
        values.push_back(map.logDet);
        weights.push_back(-at::isfinite(total).to(at::kDouble));
    }
    return finiteRows(total, torch::autograd::grad(values, {point}, weights)[0].detach(), part);
}
