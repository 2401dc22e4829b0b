// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

double Loss::validate(const Flow& flow) {
    return NAN;
}

// The transforms of a flow in order: those of its Sequence, or its only one.
static std::vector<std::shared_ptr<Transform>> listTransforms(const Flow& flow) {
    if (const auto sequence = std::dynamic_pointer_cast<Sequence>(flow.getTransform()))
        return sequence->getTransforms();
    return {flow.getTransform()};
}

MaximumLikelihoodLoss::MaximumLikelihoodLoss(const std::shared_ptr<Flow>& flow, const Options& newOptions)
    : options(newOptions), random(newOptions.seed) {
    const char* where = "MaximumLikelihoodLoss::MaximumLikelihoodLoss";
    require(flow != nullptr, where, "flow", "null", "a Flow");
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(options.validationFraction >= 0 && options.validationFraction < 1, where, "validationFraction",
            options.validationFraction, "in [0, 1)");
    const auto transforms = listTransforms(*flow);
    numTrained = transforms.size();
    while (numTrained > 0 && transforms[numTrained - 1]->getParameters().empty())
        numTrained--;
    fixedTransforms.assign(transforms.begin() + static_cast<std::ptrdiff_t>(numTrained), transforms.end());
    size = flow->getSize();
}

void MaximumLikelihoodLoss::clearData() {
    training = {};
    validation = {};
    leftOut = 0;
}

std::int64_t MaximumLikelihoodLoss::getNumTraining() const {
    return training.y.defined() ? training.y.size(0) : 0;
}

std::int64_t MaximumLikelihoodLoss::getNumValidation() const {
    return validation.y.defined() ? validation.y.size(0) : 0;
}

void MaximumLikelihoodLoss::addData(const Tensor& x, const Tensor& logWeight) {
    const char* where = "MaximumLikelihoodLoss::addData";
    require(x.dim() == 2 && x.size(1) == size && x.size(0) > 0, where, "shape of x", x.sizes(),
            "[frames, " + std::to_string(size) + "]");
    const bool weighted = logWeight.defined() && logWeight.numel() > 0;
    if (weighted)
        require(logWeight.dim() == 1 && logWeight.size(0) == x.size(0), where, "shape of logWeight", logWeight.sizes(),
                "[frames]");
    const at::NoGradGuard noGrad;
    Tensor y = x.to(at::kDouble), logDet = at::zeros({x.size(0)}, at::kDouble);
    for (auto transform = fixedTransforms.rbegin(); transform != fixedTransforms.rend(); ++transform) {
        const TransformResult step = (*transform)->inverse(y);
        y = step.value;
        logDet = logDet + step.logDet;
    }
    Tensor weight = weighted ? logWeight.to(at::kDouble) : at::zeros({x.size(0)}, at::kDouble);
    const Tensor valid = (at::isfinite(logDet) & at::isfinite(y).all(1) & at::isfinite(weight)).nonzero().squeeze(1);
    leftOut += x.size(0) - valid.size(0);
    require(valid.size(0) > 0, where, "number of frames within the flow's domain", valid.size(0), "at least 1");

    const Tensor shuffled = valid.index_select(0, random.permutation(valid.size(0)));
    const auto numValidation =
        static_cast<std::int64_t>(options.validationFraction * static_cast<double>(valid.size(0)));
    const auto append = [&](Frames& frames, const Tensor& rows) {
        const auto join = [&rows](const Tensor& old, const Tensor& all) {
            const Tensor added = all.index_select(0, rows);
            return old.defined() ? at::cat({old, added}) : added;
        };
        frames.y = join(frames.y, y);
        frames.logDet = join(frames.logDet, logDet);
        frames.logWeight = join(frames.logWeight, weight);
        const Tensor relative = (frames.logWeight - frames.logWeight.max()).exp();
        frames.cumulative = relative.min().item<double>() < 1.0 ? relative.cumsum(0) : Tensor();
    };
    if (numValidation > 0)
        append(validation, shuffled.narrow(0, 0, numValidation));
    append(training, shuffled.narrow(0, numValidation, valid.size(0) - numValidation));
}

Tensor MaximumLikelihoodLoss::logQ(const Flow& flow, const Tensor& y, const Tensor& logDet) const {
    const auto transforms = listTransforms(flow);
    TransformResult map{y, logDet};
    for (std::size_t i = numTrained; i-- > 0;) {
        const TransformResult step = transforms[i]->inverse(map.value);
        map = {step.value, map.logDet + step.logDet};
    }
    return flow.getPrior()->logDensity(map.value) + map.logDet;
}

Tensor MaximumLikelihoodLoss::evaluate(const Flow& flow, Random& random) {
    require(getNumTraining() > 0, "MaximumLikelihoodLoss::evaluate", "number of frames", getNumTraining(),
            "at least 1: call addData");
    const Tensor uniform = random.uniform(1, options.batchSize).squeeze(0);
    const Tensor rows = training.cumulative.defined()
                            ? at::searchsorted(training.cumulative, uniform * training.cumulative[-1])
                            : (uniform * static_cast<double>(getNumTraining())).to(at::kLong);
    return -logQ(flow, training.y.index_select(0, rows), training.logDet.index_select(0, rows)).mean();
}

double MaximumLikelihoodLoss::validate(const Flow& flow) {
    if (getNumValidation() == 0)
        return NAN;
    const at::NoGradGuard noGrad;
    Tensor sum = at::zeros({}, at::kDouble);
    const Tensor weight = validation.logWeight.softmax(0);
    constexpr std::int64_t chunk = 1024;
    for (std::int64_t start = 0; start < getNumValidation(); start += chunk) {
        const std::int64_t count = std::min(chunk, getNumValidation() - start);
        sum -= (weight.narrow(0, start, count) *
                logQ(flow, validation.y.narrow(0, start, count), validation.logDet.narrow(0, start, count)))
                   .sum();
    }
    return sum.item<double>();
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
    const Tensor u = (*potential)(sample.x);
    const Tensor excess = at::clamp_min(u - options.energyCut, 0.0);
    const Tensor regular = at::where(u > options.energyCut, options.energyCut + at::log1p(excess), u);
    const Tensor loss = regular + sample.logQ;
    const Tensor finite = (at::isfinite(u) & at::isfinite(sample.logQ)).nonzero().squeeze(1);
    const auto kept = std::max<std::int64_t>(
        0, finite.size(0) - static_cast<std::int64_t>(options.dropFraction * static_cast<double>(options.batchSize)));
    require(kept > 0, "ReverseKLLoss::evaluate", "number of samples with a finite energy", finite.size(0),
            "larger: train on data first");
    const Tensor candidates = loss.index_select(0, finite);
    return std::get<0>(candidates.topk(kept, 0, false, false)).mean();
}
