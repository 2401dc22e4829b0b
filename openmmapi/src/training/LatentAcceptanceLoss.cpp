// SPDX-License-Identifier: MIT

#include "openmmflow/training/LatentAcceptanceLoss.h"
#include "LossTools.h"

using namespace OpenMMFlow;
using at::Tensor;

LatentAcceptanceLoss::LatentAcceptanceLoss(std::shared_ptr<ReducedPotential> newPotential, const Options& newOptions)
    : potential(std::move(newPotential)), options(newOptions) {
    const char* where = "LatentAcceptanceLoss::LatentAcceptanceLoss";
    require(potential != nullptr, where, "potential", "null", "a ReducedPotential");
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(options.displacementWeight >= 0 && std::isfinite(options.displacementWeight), where, "displacementWeight",
            options.displacementWeight, "at least 0 and finite");
    require(std::isfinite(options.energyCut), where, "energyCut", options.energyCut, "finite");
}

void LatentAcceptanceLoss::addData(const Tensor& x) {
    addFrames(*potential, x, "LatentAcceptanceLoss::addData", frames, energies);
}

std::int64_t LatentAcceptanceLoss::getNumFrames() const {
    return frames.defined() ? frames.size(0) : 0;
}

Tensor LatentAcceptanceLoss::evaluate(const Flow& flow, Random& random) {
    const char* where = "LatentAcceptanceLoss::evaluate";
    require(getNumFrames() > 0, where, "number of frames", 0, "at least 1: call addData");
    const Tensor rows = drawRows(options.batchSize, getNumFrames(), random);
    const Tensor x1 = takeRows(frames, rows, flow), u1 = takeRows(energies, rows, flow);
    const FlowSample second = flow.sample(options.batchSize, random);
    const Tensor x2 = flow.place(second.x, x1), u2 = (*potential)(x2);

    const Tensor f1 = softenEnergy(u1, options.energyCut) + flow.logQ(x1);
    const Tensor f2 = softenEnergy(u2, options.energyCut) + second.logQ;
    const Tensor logP = -at::logaddexp(at::zeros_like(f1), f2 - f1);
    const Tensor displacement = (x1 - x2).square().sum(1).log();
    return meanOfFinite(-logP - options.displacementWeight * displacement, where);
}
