// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/LatentKernel.h"
#include "WeightTools.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/samplers/LatentJump.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

StepSizes makeSteps(const LatentKernel::Options& options) {
    const bool independent = options.kind == JumpKind::Independence;
    return {"LatentKernel", independent ? 1.0 : options.stepSize, independent ? 0.0 : options.targetAcceptance,
            options.kind == JumpKind::RandomWalk ? INFINITY : 1.0};
}

Tensor pick(const Tensor& accepted, const Tensor& proposed, const Tensor& current) {
    return at::where(current.dim() == 2 ? accepted.unsqueeze(1) : accepted, proposed, current);
}

} // namespace

LatentKernel::LatentKernel(std::shared_ptr<const Flow> newFlow, const Options& newOptions)
    : SteppedKernel(makeSteps(newOptions)), flow(std::move(newFlow)), options(newOptions) {
    require(flow != nullptr, "LatentKernel::LatentKernel", "flow", "null", "a Flow");
    require(options.numMoves >= 1, "LatentKernel::LatentKernel", "numMoves", options.numMoves, "at least 1");
}

double LatentKernel::move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) {
    require(flow->getSize() == path.getSize(), "LatentKernel::move", "size of the path", path.getSize(),
            "that of the flow, " + std::to_string(flow->getSize()));
    const at::NoGradGuard noGrad;
    state = path.atLambda(state, lambda);
    FlowSample here = flow->toLatent(state.x);
    const bool walk = options.kind == JumpKind::RandomWalk;
    std::int64_t numAccepted = 0;
    for (int i = 0; i < options.numMoves; i++) {
        const Tensor z = proposeLatent(*flow->getPrior(), options.kind, steps.get(stage), here.z, random);
        const FlowSample there = flow->fromLatent(z);
        PathState proposed = path.evaluate(flow->place(there.x, state.x), lambda);
        proposed.momentum = state.momentum;
        const Tensor volume = walk ? there.logDet - here.logDet : here.logQ - there.logQ;
        const Tensor accepted = metropolis(proposed.logDensity - state.logDensity + volume, random);
        numAccepted += accepted.sum().item<std::int64_t>();
        state = choose(accepted, proposed, state);
        here = {pick(accepted, there.z, here.z), state.x, pick(accepted, there.logDet, here.logDet),
                pick(accepted, there.logQ, here.logQ)};
    }
    return finish(stage, numAccepted, state.x.size(0) * options.numMoves);
}
