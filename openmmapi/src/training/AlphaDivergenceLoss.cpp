// SPDX-License-Identifier: MIT

#include "openmmflow/training/AlphaDivergenceLoss.h"
#include "../samplers/StateTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

AlphaDivergenceLoss::AlphaDivergenceLoss(std::shared_ptr<ReducedPotential> newPotential, const Options& newOptions)
    : potential(std::move(newPotential)), options(newOptions),
      kernel(std::make_shared<HamiltonianKernel>(newOptions.kernel)),
      buffer(std::max<std::int64_t>(1, newOptions.bufferCapacity)) {
    const char* where = "AlphaDivergenceLoss::AlphaDivergenceLoss";
    require(potential != nullptr, where, "potential", "null", "a ReducedPotential");
    require(options.batchSize >= 1, where, "batchSize", options.batchSize, "at least 1");
    require(options.numStages >= 1, where, "numStages", options.numStages, "at least 1");
    require(options.bufferCapacity >= 0, where, "bufferCapacity", options.bufferCapacity, "at least 0");
    if (options.bufferCapacity > 0)
        require(options.minimumPoints >= 1 && options.minimumPoints <= options.bufferCapacity, where, "minimumPoints",
                options.minimumPoints, "at least 1, and at most bufferCapacity");
    require(options.stepsPerAnnealing >= 1, where, "stepsPerAnnealing", options.stepsPerAnnealing, "at least 1");
    require(options.largestCorrection > 0, where, "largestCorrection", options.largestCorrection, "positive");
}

AlphaDivergenceLoss::Annealed AlphaDivergenceLoss::anneal(const Flow& flow, Random& random) {
    const at::NoGradGuard noGrad;
    const std::shared_ptr<const Flow> borrowed(std::shared_ptr<const Flow>(), &flow); // for this call only
    const auto path = std::make_shared<FlowPath>(borrowed, potential, 2.0);
    AnnealedSampler sampler(path, kernel, AnnealedSampler::equalSteps(options.numStages));
    const AnnealedResult result = sampler.run(flow.sample(options.batchSize, random).x, random);
    numEvaluations += result.numEvaluations;
    acceptance = result.acceptance;
    return {result.x, result.logWeight, path->atLambda(result.state, 0.0).logDensity}; // the path has kept log q
}

void AlphaDivergenceLoss::fillBuffer(const Flow& flow, Random& random) {
    int fruitless = 0;
    do {
        const std::int64_t before = buffer.getSize();
        const Annealed result = anneal(flow, random);
        buffer.add(result.x.to(at::kCPU), result.logWeight.to(at::kCPU), result.logQ.to(at::kCPU));
        fruitless = buffer.getSize() > before ? 0 : fruitless + 1;
        require(fruitless < 10, "AlphaDivergenceLoss::evaluate",
                "number of annealings in a row without a finite weight", fruitless, "below 10: train on data first");
    } while (buffer.getSize() < options.minimumPoints);
}

NamedTensors AlphaDivergenceLoss::getState() const {
    NamedTensors state = kernel->getState();
    state.emplace_back("counters", at::tensor({numEvaluations, numCalls}, at::kLong));
    for (const auto& [name, tensor] : buffer.getState())
        state.emplace_back("buffer." + name, tensor);
    return state;
}

void AlphaDivergenceLoss::setState(const NamedTensors& state) {
    const char* where = "AlphaDivergenceLoss::setState";
    Tensor counters;
    NamedTensors ofKernel;
    for (const auto& [name, tensor] : state) {
        if (name == "counters")
            counters = tensor;
        else if (name.rfind("buffer.", 0) != 0)
            ofKernel.emplace_back(name, tensor);
    }
    require(counters.defined() && counters.scalar_type() == at::kLong && counters.sizes() == at::IntArrayRef{2}, where,
            "state", "without counters", "that of an alpha divergence");
    HamiltonianKernel checked(options.kernel);
    checked.setState(ofKernel);
    buffer.setState(withoutPrefix(state, "buffer."));
    *kernel = checked;
    numEvaluations = counters[0].item<std::int64_t>();
    numCalls = counters[1].item<std::int64_t>();
}

Tensor AlphaDivergenceLoss::evaluate(const Flow& flow, Random& random) {
    if (options.bufferCapacity == 0) {
        const Annealed result = anneal(flow, random);
        const Tensor rows = result.logWeight.isfinite().nonzero().squeeze(1); // the others weigh nothing
        require(rows.size(0) > 0, "AlphaDivergenceLoss::evaluate", "number of walkers with a finite weight", 0,
                "larger: train on data first");
        const Tensor weight = result.logWeight.index_select(0, rows).softmax(0);
        return -(weight * flow.logQ(result.x.index_select(0, rows))).sum();
    }
    if (numCalls++ % options.stepsPerAnnealing == 0)
        fillBuffer(flow, random);
    const ReplayDraw batch = buffer.draw(options.batchSize, random); // of points on the processor
    const Tensor logQ = flow.logQ(batch.x.to(at::Device(flow.getDevice())));
    const Tensor correction = (batch.logQ.to(logQ.device()) - logQ.detach()).exp().clamp_max(options.largestCorrection);
    buffer.update(batch.rows, logQ.to(at::kCPU));
    return -(correction * logQ).mean();
}
