// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/StochasticFlow.h"
#include "AnnealedTools.h"

using namespace OpenMMFlow;
using at::Tensor;

StochasticFlow::StochasticFlow(std::shared_ptr<AnnealedPath> newPath) : path(std::move(newPath)) {
    require(path != nullptr, "StochasticFlow::StochasticFlow", "path", "null", "an AnnealedPath");
}

void StochasticFlow::addTransform(std::shared_ptr<Transform> transform) {
    const char* where = "StochasticFlow::addTransform";
    require(transform != nullptr, where, "transform", "null", "a Transform");
    require(transform->getInputSize() == path->getSize(), where, "input size", transform->getInputSize(),
            "that of the path, " + std::to_string(path->getSize()));
    require(transform->getOutputSize() == path->getSize(), where, "output size", transform->getOutputSize(),
            "that of the path, " + std::to_string(path->getSize()));
    blocks.emplace_back(std::move(transform));
}

void StochasticFlow::addMoves(std::shared_ptr<AnnealedKernel> kernel, double lambda, int numMoves) {
    const char* where = "StochasticFlow::addMoves";
    require(kernel != nullptr, where, "kernel", "null", "an AnnealedKernel");
    require(lambda >= 0 && lambda <= 1, where, "lambda", lambda, "in [0, 1]");
    require(numMoves >= 1, where, "numMoves", numMoves, "at least 1");
    blocks.emplace_back(Moves{std::move(kernel), lambda, numMoves});
}

AnnealedResult StochasticFlow::run(const Tensor& start, Random& random) {
    requireStart("StochasticFlow::run", start, *path);
    const at::NoGradGuard noGrad;
    const EvaluationCounter counter(*path);
    AnnealedResult result;
    PathState state = path->evaluate(start, 0.0);
    Tensor logWeight = -state.logDensity, momentum;
    for (std::size_t i = 0; i < blocks.size(); i++) {
        if (const auto* transform = std::get_if<std::shared_ptr<Transform>>(&blocks[i])) {
            const TransformResult map = (*transform)->forward(state.x);
            logWeight = logWeight + map.logDet;
            momentum = state.momentum.defined() ? state.momentum : momentum;
            state = {}; // its density is found when it is needed, at the lambda where it is
            state.x = map.value;
            continue;
        }
        const auto& [kernel, lambda, numMoves] = std::get<Moves>(blocks[i]);
        if (!state.logDensity.defined()) {
            state = path->evaluate(state.x, lambda, kernel->getGradient());
            state.momentum = momentum;
        }
        state = path->atLambda(state, lambda, kernel->getGradient());
        const Tensor before = state.logDensity;
        double acceptance = 0;
        for (int j = 0; j < numMoves; j++)
            acceptance += kernel->move(*path, static_cast<int>(i), lambda, state, random) / numMoves;
        // A walker without density at the stage has not moved.
        logWeight = logWeight + at::where(before.isfinite(), before - state.logDensity, 0.0);
        result.acceptance.push_back(acceptance);
    }
    state = state.logDensity.defined() ? path->atLambda(state, 1.0) : path->evaluate(state.x, 1.0);
    result.logWeight = finiteOrMinusInfinity(logWeight + state.logDensity);
    result.lambdas = {0.0, 1.0};
    addStage(result, at::zeros_like(result.logWeight), result.logWeight);
    result.x = state.x;
    result.state = state;
    estimateLogZ(result, result.logWeight);
    counter.report(result);
    return result;
}
