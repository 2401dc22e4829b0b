// SPDX-License-Identifier: MIT

#include "openmmflow/energies/AugmentedPotential.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

AugmentedPotential::AugmentedPotential(std::shared_ptr<ReducedPotential> newPhysical, int numAugmented)
    : physical(std::move(newPhysical)), numAugmented(numAugmented) {
    const char* where = "AugmentedPotential::AugmentedPotential";
    require(physical != nullptr, where, "physical", "null", "a ReducedPotential");
    require(numAugmented >= 1, where, "numAugmented", numAugmented, "at least 1");
}

EnergyResult AugmentedPotential::evaluate(const Tensor& y, Gradient gradient) {
    const Tensor given = y.detach().to(at::kDouble);
    EnergyResult result = physical->evaluate(takePhysical(given), gradient);
    const Tensor total = result.u + augmentedPart(given), finite = at::isfinite(total);
    result.nonFinite += (at::isfinite(result.u) & finite.logical_not()).sum().item<std::int64_t>();
    result.u = at::where(finite, total, at::full_like(total, INFINITY));
    if (result.gradient.defined()) {
        const Tensor whole = at::cat({result.gradient.reshape({y.size(0), -1}), given.slice(1, -numAugmented)}, 1);
        result.gradient = at::where(finite.unsqueeze(1), whole, at::zeros_like(whole));
    }
    return result;
}

Tensor AugmentedPotential::augment(const Tensor& x, Random& random) const {
    require(x.dim() == 2 && x.size(1) == physical->getSize(), "AugmentedPotential::augment", "shape of x", x.sizes(),
            "[batch, " + std::to_string(physical->getSize()) + "]");
    return at::cat({x.to(at::kDouble), random.normal(x.size(0), numAugmented).to(x.device())}, 1);
}

Tensor AugmentedPotential::takePhysical(const Tensor& y) const {
    require(y.dim() == 2 && y.size(1) == getSize(), "AugmentedPotential", "shape of (x, a)", y.sizes(),
            "[batch, " + std::to_string(getSize()) + "]");
    return y.slice(1, 0, physical->getSize());
}

Tensor AugmentedPotential::augmentedPart(const Tensor& y) const {
    return 0.5 * y.slice(1, -numAugmented).square().sum(1) + 0.5 * numAugmented * std::log(2 * M_PI);
}
