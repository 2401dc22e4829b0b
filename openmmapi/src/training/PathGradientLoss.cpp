// SPDX-License-Identifier: MIT

#include "openmmflow/training/PathGradientLoss.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using at::Tensor;

PathGradientLoss::PathGradientLoss(std::shared_ptr<ReducedPotential> potential, const Options& options)
    : ReverseKLLoss(std::move(potential), options) {}

Tensor PathGradientLoss::evaluate(const Flow& flow, Random& random) {
    const Tensor sampled = flow.sample(options.batchSize, random).x;
    const Tensor x = sampled.index_select(0, at::isfinite(sampled).all(1).nonzero().squeeze(1));
    Tensor value, gradient;
    {
        const at::AutoGradMode grad(true);
        const Tensor point = x.detach().set_requires_grad(true);
        value = average((*potential)(point), flow.logQ(point));
        gradient = torch::autograd::grad({value}, {point})[0];
    }
    const Tensor path = (gradient * x).sum();
    return value.detach() + path - path.detach();
}
