// SPDX-License-Identifier: MIT

#include "openmmflow/energies/AugmentedPotential.h"
#include "FiniteRows.h"
#include "openmmflow/latent/Check.h"

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
    const EnergyResult part = physical->evaluate(takePhysical(given), gradient);
    Tensor whole;
    if (part.gradient.defined())
        whole = at::cat({part.gradient.reshape({y.size(0), -1}), given.slice(1, -numAugmented)}, 1);
    return finiteRows(part.u + augmentedPart(given), whole, part);
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
