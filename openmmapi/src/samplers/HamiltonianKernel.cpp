// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/HamiltonianKernel.h"
#include "WeightTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// The end of a trajectory, its momentum in state.momentum.
PathState leapfrog(AnnealedPath& path, PathState state, double step, int numSteps) {
    for (int j = 0; j < numSteps; j++) {
        const Tensor half = state.momentum + 0.5 * step * state.gradient;
        state = path.evaluate(state.x + step * half, state.lambda, Gradient::Compute);
        state.momentum = half + 0.5 * step * state.gradient;
    }
    return state;
}

// -H
Tensor logJoint(const PathState& state) {
    return state.logDensity - 0.5 * state.momentum.square().sum(1);
}

} // namespace

HamiltonianKernel::HamiltonianKernel(const Options& newOptions)
    : SteppedKernel({"HamiltonianKernel", newOptions.stepSize, newOptions.targetAcceptance}), options(newOptions) {
    const char* where = "HamiltonianKernel::HamiltonianKernel";
    require(options.numSteps >= 1, where, "numSteps", options.numSteps, "at least 1");
    require(options.numMoves >= 1, where, "numMoves", options.numMoves, "at least 1");
}

double HamiltonianKernel::move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) {
    const at::NoGradGuard noGrad;
    state = path.atLambda(state, lambda, Gradient::Compute);
    const double step = steps.get(stage);
    const std::int64_t batch = state.x.size(0);
    std::int64_t numAccepted = 0;
    for (int i = 0; i < options.numMoves; i++) {
        PathState start = state;
        start.momentum = normalLike(state.x, random);
        PathState proposed = leapfrog(path, start, step, options.numSteps);
        const Tensor accepted = metropolis(logJoint(proposed) - logJoint(start), random);
        numAccepted += accepted.sum().item<std::int64_t>();
        proposed.momentum = state.momentum; // these are of other kernels
        state = choose(accepted, proposed, state);
    }
    return finish(stage, numAccepted, batch * options.numMoves);
}

GeneralizedHamiltonianKernel::GeneralizedHamiltonianKernel(const Options& newOptions)
    : SteppedKernel({"GeneralizedHamiltonianKernel", newOptions.stepSize, newOptions.targetAcceptance}),
      options(newOptions) {
    const char* where = "GeneralizedHamiltonianKernel::GeneralizedHamiltonianKernel";
    require(options.numSteps >= 1, where, "numSteps", options.numSteps, "at least 1");
    require(options.numMoves >= 1, where, "numMoves", options.numMoves, "at least 1");
    require(options.refreshment > 0 && options.refreshment <= 1, where, "refreshment", options.refreshment,
            "in (0, 1]");
}

double GeneralizedHamiltonianKernel::move(AnnealedPath& path, int stage, double lambda, PathState& state,
                                          Random& random) {
    const at::NoGradGuard noGrad;
    state = path.atLambda(state, lambda, Gradient::Compute);
    const double step = steps.get(stage), r = options.refreshment, kept = std::sqrt(1 - r * r);
    const std::int64_t batch = state.x.size(0);
    std::int64_t numAccepted = 0;
    if (!state.momentum.defined())
        state.momentum = normalLike(state.x, random);
    for (int i = 0; i < options.numMoves; i++) {
        state.momentum = kept * state.momentum + r * normalLike(state.x, random);
        const PathState proposed = leapfrog(path, state, step, options.numSteps);
        const Tensor accepted = metropolis(logJoint(proposed) - logJoint(state), random);
        numAccepted += accepted.sum().item<std::int64_t>();
        state.momentum = -state.momentum; // where it stays
        state = choose(accepted, proposed, state);
    }
    return finish(stage, numAccepted, batch * options.numMoves);
}
