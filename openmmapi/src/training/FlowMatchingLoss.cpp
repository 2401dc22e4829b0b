// SPDX-License-Identifier: MIT

#include "openmmflow/training/FlowMatchingLoss.h"
#include "../flows/Assignment.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <set>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

const VelocityField& getField(const Flow& flow) {
    const auto first = TrainingFrames::listTransforms(flow).front();
    const auto* continuous = dynamic_cast<const ContinuousFlow*>(first.get());
    require(continuous != nullptr, "FlowMatchingLoss", "the first transform", first->getTypeName(), "a ContinuousFlow");
    return continuous->getField(); // the flow owns it
}

/** y - z, the shorter way round for circular variables. */
Tensor findDisplacement(const Tensor& z, const Tensor& y, const std::vector<int>& circular) {
    const Tensor difference = y - z;
    for (const int i : circular)
        difference.select(1, i).copy_(wrapAngle(difference.select(1, i)));
    return difference;
}

} // namespace

FlowMatchingLoss::FlowMatchingLoss(const std::shared_ptr<Flow>& flow, const Options& newOptions)
    : options(newOptions), frames(flow, options.validationFraction, options.seed, "FlowMatchingLoss") {
    const char* where = "FlowMatchingLoss::FlowMatchingLoss";
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    const VelocityField& field = getField(*flow);
    require(frames.getNumTrained() == 1, where, "number of transforms up to the last one with parameters",
            frames.getNumTrained(), "1: a ContinuousFlow, then transforms without parameters");
    const std::vector<int>& circular = field.getCircular();
    const std::vector<int> ofPrior = flow->getPrior()->getCircularIndices();
    require(std::set(circular.begin(), circular.end()) == std::set(ofPrior.begin(), ofPrior.end()), where,
            "number of circular variables of the ContinuousFlow", circular.size(),
            "those of the prior, of which there are " + std::to_string(ofPrior.size()));
}

Tensor FlowMatchingLoss::findOptimalTransport(const Tensor& z, const Tensor& y, const std::vector<int>& circular) {
    require(z.dim() == 2 && y.dim() == 2 && z.sizes() == y.sizes(), "FlowMatchingLoss::findOptimalTransport",
            "shape of y", y.sizes(), "that of z, [batch, size]");
    const at::NoGradGuard noGrad;
    Tensor cost = at::zeros({z.size(0), z.size(0)}, z.options().dtype(at::kDouble));
    for (int i = 0; i < z.size(1); i++) {
        const Tensor d = y.select(1, i).unsqueeze(0) - z.select(1, i).unsqueeze(1);
        const bool turns = std::find(circular.begin(), circular.end(), i) != circular.end();
        cost += (turns ? wrapAngle(d) : d).square();
    }
    require(at::isfinite(cost).all().item<bool>(), "FlowMatchingLoss::findOptimalTransport", "z or y", "not finite",
            "finite");
    cost = cost.to(at::kCPU);
    return at::tensor(assignLeastCost(cost.const_data_ptr<double>(), z.size(0)), at::kLong).to(z.device());
}

Tensor FlowMatchingLoss::misfit(const Flow& flow, const Tensor& z, const Tensor& y, const Tensor& t) {
    const VelocityField& field = getField(flow);
    const Tensor d = findDisplacement(z, y, field.getCircular());
    return (field(z + t.unsqueeze(1) * d, t) - d).square().sum(1);
}

Tensor FlowMatchingLoss::evaluate(const Flow& flow, Random& random) {
    Tensor y = frames.draw(options.batchSize, random).y;
    const Tensor z = flow.getPrior()->sample(options.batchSize, random).to(y.device()),
                 t = random.uniform(1, options.batchSize)[0].to(y.device());
    if (options.coupling == FlowMatchingCoupling::OptimalTransport)
        y = y.index_select(0, findOptimalTransport(z, y, getField(flow).getCircular()));
    return misfit(flow, z, y, t).mean();
}

double FlowMatchingLoss::validate(const Flow& flow) {
    Random fixed(options.seed, 1);
    return frames.averageHeldOut([&](const TrainingFrames::Batch& batch) {
        const Tensor z = flow.getPrior()->sample(batch.y.size(0), fixed).to(batch.y.device());
        return misfit(flow, z, batch.y, fixed.uniform(1, batch.y.size(0))[0].to(batch.y.device()));
    });
}
