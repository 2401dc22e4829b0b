// SPDX-License-Identifier: MIT

#include "openmmflow/training/TrainingFrames.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

std::vector<std::shared_ptr<Transform>> TrainingFrames::listTransforms(const Flow& flow) {
    if (const auto sequence = std::dynamic_pointer_cast<Sequence>(flow.getTransform()))
        return sequence->getTransforms();
    return {flow.getTransform()};
}

TrainingFrames::TrainingFrames(const std::shared_ptr<Flow>& flow, double validationFraction, std::uint64_t seed,
                               std::string newOwner)
    : owner(std::move(newOwner)), validationFraction(validationFraction), random(seed) {
    const std::string where = owner + "::" + owner;
    require(flow != nullptr, where, "flow", "null", "a Flow");
    require(validationFraction >= 0 && validationFraction < 1, where, "validationFraction", validationFraction,
            "in [0, 1)");
    const auto transforms = listTransforms(*flow);
    numTrained = transforms.size();
    while (numTrained > 0 && transforms[numTrained - 1]->getParameters().empty())
        numTrained--;
    fixedTransforms.assign(transforms.begin() + static_cast<std::ptrdiff_t>(numTrained), transforms.end());
    size = flow->getSize();
    device = flow->getDevice();
}

void TrainingFrames::clear() {
    training = {};
    validation = {};
    leftOut = 0;
}

TrainingFrames::Batch TrainingFrames::Frames::take(const Tensor& rows, const std::string& device) const {
    return {y.index_select(0, rows).to(at::Device(device)), logDet.index_select(0, rows).to(at::Device(device))};
}

void TrainingFrames::Frames::append(const Tensor& newY, const Tensor& newLogDet, const Tensor& newLogWeight) {
    const auto join = [](const Tensor& old, const Tensor& added) {
        return old.defined() ? at::cat({old, added}) : added;
    };
    y = join(y, newY);
    logDet = join(logDet, newLogDet);
    logWeight = join(logWeight, newLogWeight);
    const Tensor relative = (logWeight - logWeight.max()).exp();
    cumulative = relative.min().item<double>() < 1.0 ? relative.cumsum(0) : Tensor();
}

void TrainingFrames::add(const Tensor& x, const Tensor& logWeight) {
    const std::string where = owner + "::addData";
    require(x.dim() == 2 && x.size(1) == size && x.size(0) > 0, where, "shape of x", x.sizes(),
            "[frames, " + std::to_string(size) + "]");
    const bool weighted = logWeight.defined() && logWeight.numel() > 0;
    if (weighted)
        require(logWeight.dim() == 1 && logWeight.size(0) == x.size(0), where, "shape of logWeight", logWeight.sizes(),
                "[frames]");
    const at::NoGradGuard noGrad;
    Tensor y = x.to(at::Device(device), at::kDouble), logDet = at::zeros({x.size(0)}, y.options());
    for (auto transform = fixedTransforms.rbegin(); transform != fixedTransforms.rend(); ++transform) {
        const TransformResult step = (*transform)->inverse(y);
        y = step.value;
        logDet = logDet + step.logDet;
    }
    y = y.to(at::kCPU);
    logDet = logDet.to(at::kCPU);
    const Tensor weight = weighted ? logWeight.to(at::kCPU, at::kDouble) : at::zeros({x.size(0)}, at::kDouble);
    const Tensor valid = (at::isfinite(logDet) & at::isfinite(y).all(1) & at::isfinite(weight)).nonzero().squeeze(1);
    leftOut += x.size(0) - valid.size(0);
    require(valid.size(0) > 0, where, "number of frames within the flow's domain", valid.size(0), "at least 1");

    const Tensor shuffled = valid.index_select(0, random.permutation(valid.size(0)));
    const auto numHeldOut = static_cast<std::int64_t>(validationFraction * static_cast<double>(valid.size(0)));
    const auto append = [&](Frames& frames, const Tensor& rows) {
        frames.append(y.index_select(0, rows), logDet.index_select(0, rows), weight.index_select(0, rows));
    };
    if (numHeldOut > 0)
        append(validation, shuffled.narrow(0, 0, numHeldOut));
    append(training, shuffled.narrow(0, numHeldOut, valid.size(0) - numHeldOut));
}

TrainingFrames::Batch TrainingFrames::draw(std::int64_t count, Random& generator) const {
    require(getNumTraining() > 0, owner + "::evaluate", "number of frames", getNumTraining(),
            "at least 1: call addData");
    const Tensor uniform = generator.uniform(1, count).squeeze(0);
    const Tensor rows = training.cumulative.defined()
                            ? at::searchsorted(training.cumulative, uniform * training.cumulative[-1])
                            : (uniform * static_cast<double>(getNumTraining())).to(at::kLong);
    return training.take(rows, device);
}

double TrainingFrames::averageHeldOut(const std::function<Tensor(const Batch&)>& function) const {
    if (getNumValidation() == 0)
        return NAN;
    const at::NoGradGuard noGrad;
    Tensor sum = at::zeros({}, at::kDouble);
    const Tensor weight = validation.logWeight.softmax(0);
    constexpr std::int64_t chunk = 1024;
    for (std::int64_t start = 0; start < getNumValidation(); start += chunk) {
        const std::int64_t count = std::min(chunk, getNumValidation() - start);
        const Batch batch = validation.take(at::arange(start, start + count, at::kLong), device);
        sum += (weight.narrow(0, start, count) * function(batch).to(at::kCPU)).sum();
    }
    return sum.item<double>();
}
