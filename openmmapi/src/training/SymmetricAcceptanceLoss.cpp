// SPDX-License-Identifier: MIT

#include "openmmflow/training/SymmetricAcceptanceLoss.h"
#include "LossTools.h"

using namespace OpenMMFlow;
using at::Tensor;

SymmetricAcceptanceLoss::SymmetricAcceptanceLoss(std::shared_ptr<ReducedPotential> newPotential,
                                                 const Options& newOptions)
    : potential(std::move(newPotential)), options(newOptions) {
    const char* where = "SymmetricAcceptanceLoss::SymmetricAcceptanceLoss";
    require(potential != nullptr, where, "potential", "null", "a ReducedPotential");
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(std::isfinite(options.energyCut), where, "energyCut", options.energyCut, "finite");
}

void SymmetricAcceptanceLoss::addData(const Tensor& x) {
    addFrames(*potential, x, "SymmetricAcceptanceLoss::addData", frames, energies);
}

std::int64_t SymmetricAcceptanceLoss::getNumFrames() const {
    return frames.defined() ? frames.size(0) : 0;
}

Tensor SymmetricAcceptanceLoss::evaluate(const Flow& flow, Random& random) {
    const auto fOfSamples = [&] {
        const FlowSample sample = flow.sample(options.batchSize, random);
        return softenEnergy((*potential)(sample.x), options.energyCut) + sample.logQ;
    };
    const auto fOfFrames = [&] {
        const Tensor rows = drawRows(options.batchSize, getNumFrames(), random);
        return softenEnergy(takeRows(energies, rows, flow), options.energyCut) +
               flow.logQ(takeRows(frames, rows, flow));
    };
    const Tensor f1 = getNumFrames() > 0 ? fOfFrames() : fOfSamples();
    const Tensor dF = fOfSamples() - f1, zero = at::zeros_like(dF);
    return meanOfFinite(at::logaddexp(zero, dF) + at::logaddexp(zero, -dF), "SymmetricAcceptanceLoss::evaluate");
}
