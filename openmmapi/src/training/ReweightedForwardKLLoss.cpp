// SPDX-License-Identifier: MIT

#include "openmmflow/training/ReweightedForwardKLLoss.h"
#include "LossTools.h"

using namespace OpenMMFlow;
using at::Tensor;

ReweightedForwardKLLoss::ReweightedForwardKLLoss(std::shared_ptr<ReducedPotential> newPotential,
                                                 const Options& newOptions)
    : potential(std::move(newPotential)), options(newOptions) {
    const char* where = "ReweightedForwardKLLoss::ReweightedForwardKLLoss";
    require(potential != nullptr, where, "potential", "null", "a ReducedPotential");
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(options.clipFraction >= 0 && options.clipFraction < 1, where, "clipFraction", options.clipFraction,
            "in [0, 1)");
}

// The largest k of them are lowered to the smallest among these.
static Tensor clipLargest(const Tensor& logWeight, double fraction) {
    const auto k = static_cast<std::int64_t>(fraction * static_cast<double>(logWeight.size(0)));
    if (k < 2)
        return logWeight;
    return logWeight.minimum(std::get<0>(logWeight.topk(k)).min());
}

Tensor ReweightedForwardKLLoss::evaluate(const Flow& flow, Random& random) {
    Tensor x, logQOfSamples;
    {
        const at::NoGradGuard noGrad;
        const FlowSample sample = flow.sample(options.batchSize, random);
        const Tensor rows = sample.logQ.isfinite().nonzero().squeeze(1);
        x = sample.x.index_select(0, rows);
        logQOfSamples = sample.logQ.index_select(0, rows);
    }
    std::future<EnergyResult> energies = startEnergies(*potential, x);
    const Tensor logQ = flow.logQ(x), baseline = logQ.mean();
    const Tensor logWeight = -energies.get().u - logQOfSamples;
    require(logWeight.isfinite().any().item<bool>(), "ReweightedForwardKLLoss::evaluate",
            "number of samples with a finite energy", 0, "larger: train on data first");
    const Tensor weight = clipLargest(logWeight, options.clipFraction).softmax(0);
    return -(weight * logQ).sum() + baseline - baseline.detach();
}
