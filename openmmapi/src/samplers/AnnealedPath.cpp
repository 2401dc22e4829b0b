// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedPath.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// NaN may come with a density that is not defined; a product with 0 would keep it.
Tensor zeroUnlessFinite(const Tensor& gradient, const Tensor& value) {
    const Tensor fine = value.isfinite() & gradient.isfinite().all(1);
    return at::where(fine.unsqueeze(1), gradient, at::zeros_like(gradient));
}

} // namespace

PotentialPath::PotentialPath(std::shared_ptr<ReducedPotential> newStart, std::shared_ptr<ReducedPotential> newEnd)
    : start(std::move(newStart)), end(std::move(newEnd)) {
    require(start != nullptr, "PotentialPath::PotentialPath", "start", "null", "a ReducedPotential");
    require(end != nullptr, "PotentialPath::PotentialPath", "end", "null", "a ReducedPotential");
    require(start->getSize() == end->getSize(), "PotentialPath::PotentialPath", "size of end", end->getSize(),
            "that of start, " + std::to_string(start->getSize()));
}

PathPoint PotentialPath::evaluate(const Tensor& x) {
    const EnergyResult from = start->evaluate(x, Gradient::Compute), to = end->evaluate(x, Gradient::Compute);
    numEvaluations += 2 * x.size(0);
    return {-from.u, -to.u, -from.gradient, -to.gradient};
}

FlowPath::FlowPath(std::shared_ptr<const Flow> newFlow, std::shared_ptr<ReducedPotential> newPotential, double alpha)
    : flow(std::move(newFlow)), potential(std::move(newPotential)), alpha(alpha) {
    require(flow != nullptr, "FlowPath::FlowPath", "flow", "null", "a Flow");
    require(potential != nullptr, "FlowPath::FlowPath", "potential", "null", "a ReducedPotential");
    require(flow->getSize() == potential->getSize(), "FlowPath::FlowPath", "size of the flow", flow->getSize(),
            "that of the potential, " + std::to_string(potential->getSize()));
    require(alpha > 0 && std::isfinite(alpha), "FlowPath::FlowPath", "alpha", alpha, "positive and finite");
}

PathPoint FlowPath::evaluate(const Tensor& x) {
    const EnergyResult energy = potential->evaluate(x, Gradient::Compute);
    numEvaluations += x.size(0);
    Tensor logQ, gradient;
    {
        const at::AutoGradMode track(true);
        const Tensor y = x.detach().clone().set_requires_grad(true);
        logQ = flow->logQ(y);
        gradient = torch::autograd::grad({logQ.sum()}, {y})[0];
        logQ = logQ.detach();
    }
    gradient = zeroUnlessFinite(gradient, logQ);
    const Tensor log1 = (1 - alpha) * logQ - alpha * energy.u;
    return {logQ, log1, gradient, zeroUnlessFinite((1 - alpha) * gradient - alpha * energy.gradient, log1)};
}
