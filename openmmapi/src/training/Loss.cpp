// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"
#include "LossTools.h"
#include "openmmflow/flows/ContinuousFlow.h"

using namespace OpenMMFlow;
using at::Tensor;

double Loss::validate(const Flow& flow) {
    return NAN;
}

void Loss::setState(const NamedTensors& state) {
    require(state.empty(), "Loss::setState", "number of tensors", state.size(), "0 for the loss \"" + getName() + "\"");
}

MaximumLikelihoodLoss::MaximumLikelihoodLoss(const std::shared_ptr<Flow>& flow, const Options& newOptions)
    : options(newOptions), frames(flow, options.validationFraction, options.seed, "MaximumLikelihoodLoss") {
    const char* where = "MaximumLikelihoodLoss::MaximumLikelihoodLoss";
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(options.divergenceProbes >= 0, where, "divergenceProbes", options.divergenceProbes, "at least 0");
    const auto transforms = TrainingFrames::listTransforms(*flow);
    const bool continuous = std::any_of(transforms.begin(), transforms.end(), [](const auto& transform) {
        return dynamic_cast<const ContinuousFlow*>(transform.get()) != nullptr;
    });
    require(options.divergenceProbes == 0 || continuous, where, "divergenceProbes", options.divergenceProbes,
            "0 for a flow without a ContinuousFlow");
}

Tensor
MaximumLikelihoodLoss::logQ(const Flow& flow, const TrainingFrames::Batch& batch,
                            const std::function<TransformResult(const Transform&, const Tensor&)>& invert) const {
    const auto transforms = TrainingFrames::listTransforms(flow);
    TransformResult map{batch.y, batch.logDet};
    for (std::size_t i = frames.getNumTrained(); i-- > 0;) {
        const TransformResult step = invert(*transforms[i], map.value);
        map = {step.value, map.logDet + step.logDet};
    }
    return flow.getPrior()->logDensity(map.value) + map.logDet;
}

Tensor MaximumLikelihoodLoss::evaluate(const Flow& flow, Random& random) {
    const TrainingFrames::Batch batch = frames.draw(options.batchSize, random);
    const auto invert = [&](const Transform& transform, const Tensor& y) {
        const auto* continuous = dynamic_cast<const ContinuousFlow*>(&transform);
        return continuous != nullptr && options.divergenceProbes > 0
                   ? continuous->estimateInverse(y, options.divergenceProbes, random)
                   : transform.inverse(y);
    };
    return -logQ(flow, batch, invert).mean();
}

double MaximumLikelihoodLoss::validate(const Flow& flow) {
    const auto invert = [](const Transform& transform, const Tensor& y) { return transform.inverse(y); };
    return frames.averageHeldOut([&](const TrainingFrames::Batch& batch) { return -logQ(flow, batch, invert); });
}

ReverseKLLoss::ReverseKLLoss(std::shared_ptr<ReducedPotential> newPotential, const Options& newOptions)
    : potential(std::move(newPotential)), options(newOptions) {
    const char* where = "ReverseKLLoss::ReverseKLLoss";
    require(potential != nullptr, where, "potential", "null", "a ReducedPotential");
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(std::isfinite(options.energyCut), where, "energyCut", options.energyCut, "finite");
    require(options.dropFraction >= 0 && options.dropFraction < 1, where, "dropFraction", options.dropFraction,
            "in [0, 1)");
}

Tensor ReverseKLLoss::evaluate(const Flow& flow, Random& random) {
    const FlowSample sample = flow.sample(options.batchSize, random);
    return average((*potential)(sample.x), sample.logQ);
}

Tensor ReverseKLLoss::average(const Tensor& u, const Tensor& logQ) const {
    const Tensor loss = softenEnergy(u, options.energyCut) + logQ;
    const Tensor finite = (at::isfinite(u) & at::isfinite(logQ)).nonzero().squeeze(1);
    const auto kept = std::max<std::int64_t>(
        0, finite.size(0) - static_cast<std::int64_t>(options.dropFraction * static_cast<double>(options.batchSize)));
    require(kept > 0, "ReverseKLLoss::evaluate", "number of samples with a finite energy", finite.size(0),
            "larger: train on data first");
    const Tensor candidates = loss.index_select(0, finite);
    return std::get<0>(candidates.topk(kept, 0, false, false)).mean();
}
