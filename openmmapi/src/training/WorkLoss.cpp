// SPDX-License-Identifier: MIT

#include "openmmflow/training/WorkLoss.h"
#include "LossTools.h"

using namespace OpenMMFlow;
using at::Tensor;

WorkLoss::Frames WorkLoss::Frames::select(const Tensor& rows) const {
    return {x.index_select(0, rows), u.index_select(0, rows)};
}

WorkLoss::Frames WorkLoss::Frames::onDeviceOf(const Flow& flow) const {
    const at::Device device(flow.getDevice());
    return {x.to(device), u.to(device)};
}

WorkLoss::Frames WorkLoss::Frames::draw(int count, Random& random) const {
    return select(drawRows(count, x.size(0), random));
}

WorkLoss::WorkLoss(std::shared_ptr<ReducedPotential> potentialA, std::shared_ptr<ReducedPotential> potentialB,
                   const Tensor& framesA, const Tensor& framesB, const Options& newOptions)
    : options(newOptions) {
    const char* where = "WorkLoss::WorkLoss";
    require(potentialA != nullptr && potentialB != nullptr, where, "a potential", "null", "a ReducedPotential");
    require(potentialA->getSize() == potentialB->getSize(), where, "size of potential B", potentialB->getSize(),
            "that of potential A, " + std::to_string(potentialA->getSize()));
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(options.energyCut > 0 && std::isfinite(options.energyCut), where, "energyCut", options.energyCut,
            "positive and finite");
    require(options.validationFraction >= 0 && options.validationFraction < 1, where, "validationFraction",
            options.validationFraction, "in [0, 1)");
    Random random(options.seed);
    a = makeState(std::move(potentialA), framesA, random);
    b = makeState(std::move(potentialB), framesB, random);
}

WorkLoss::State WorkLoss::makeState(std::shared_ptr<ReducedPotential> potential, const Tensor& frames,
                                    Random& random) const {
    State state{std::move(potential), {}, {}};
    Frames all;
    addFrames(*state.potential, frames, "WorkLoss::WorkLoss", all.x, all.u);
    const std::int64_t count = all.x.size(0);
    const auto heldOut = static_cast<std::int64_t>(options.validationFraction * static_cast<double>(count));
    require(heldOut < count, "WorkLoss::WorkLoss", "number of frames to train on", count - heldOut, "at least 1");
    const Tensor order = random.uniform(1, count).squeeze(0).argsort();
    state.validation = all.select(order.slice(0, 0, heldOut));
    state.training = all.select(order.slice(0, heldOut));
    state.cut = all.u.max().item<double>() + options.energyCut;
    return state;
}

Tensor WorkLoss::sumOfMeans(const Transform& map, const Frames& ofA, const Frames& ofB) const {
    const auto meanWork = [](const TransformResult& image, const State& end, const Frames& start) {
        const Tensor u = softenEnergy((*end.potential)(image.value), end.cut);
        return meanOfFinite(u - start.u - image.logDet, "WorkLoss::evaluate");
    };
    return meanWork(map.forward(ofA.x), b, ofA) + meanWork(map.inverse(ofB.x), a, ofB);
}

Tensor WorkLoss::evaluate(const Flow& flow, Random& random) {
    const Frames ofA = a.training.draw(options.batchSize, random), ofB = b.training.draw(options.batchSize, random);
    return sumOfMeans(*flow.getTransform(), ofA.onDeviceOf(flow), ofB.onDeviceOf(flow));
}

double WorkLoss::validate(const Flow& flow) {
    if (a.validation.x.size(0) == 0 || b.validation.x.size(0) == 0)
        return NAN;
    const at::NoGradGuard noGrad;
    return sumOfMeans(*flow.getTransform(), a.validation.onDeviceOf(flow), b.validation.onDeviceOf(flow))
        .item<double>();
}
