// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using at::Tensor;

std::vector<Tensor> Transform::getConstants() const {
    require(false, "Flow::to", "device of " + getTypeName(), "another than cpu",
            "cpu: this transform works on processors only");
    return {};
}

PulledResult Transform::inverseWithPullBack(const Tensor& x) const {
    const at::AutoGradMode grad(true);
    const Tensor argument = x.detach().set_requires_grad(true);
    const TransformResult map = inverse(argument);
    const auto pullBack = [argument, map](const Tensor& onValue) {
        std::vector<Tensor> results, weights;
        if (map.value.requires_grad()) {
            results.push_back(map.value);
            weights.push_back(onValue);
        }
        if (map.logDet.requires_grad()) {
            results.push_back(map.logDet);
            weights.push_back(at::ones_like(map.logDet.detach()));
        }
        Tensor gradient;
        if (!results.empty())
            gradient = torch::autograd::grad(results, {argument}, weights, std::nullopt, false, true)[0];
        return gradient.defined() ? gradient.detach() : at::zeros_like(argument.detach());
    };
    return {{map.value.detach(), map.logDet.detach()}, pullBack};
}
