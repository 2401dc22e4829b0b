// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedSampler.h"
#include "AnnealedTools.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/samplers/LambdaSpacing.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

AnnealedSampler::AnnealedSampler(std::shared_ptr<AnnealedPath> newPath, std::shared_ptr<AnnealedKernel> newKernel,
                                 std::vector<double> newLambdas)
    : path(std::move(newPath)), kernel(std::move(newKernel)), lambdas(std::move(newLambdas)) {
    const char* where = "AnnealedSampler::AnnealedSampler";
    require(path != nullptr, where, "path", "null", "an AnnealedPath");
    require(kernel != nullptr, where, "kernel", "null", "an AnnealedKernel");
    requireLambdas(where, lambdas);
}

std::vector<double> AnnealedSampler::equalSteps(int numStages) {
    require(numStages >= 1, "AnnealedSampler::equalSteps", "numStages", numStages, "at least 1");
    return powerLambdas(numStages, 1.0);
}

AnnealedResult AnnealedSampler::run(const Tensor& start, Random& random) {
    requireStart("AnnealedSampler::run", start, *path);
    const at::NoGradGuard noGrad;
    const EvaluationCounter counter(*path);
    AnnealedResult result;
    result.lambdas = lambdas;
    result.state = path->evaluate(start, 0.0, kernel->getGradient());
    result.logWeight = repeatForRows(0.0, start);
    const int last = static_cast<int>(lambdas.size()) - 1;
    for (int k = 1; k <= last; k++) {
        const Gradient wanted = k < last ? kernel->getGradient() : Gradient::Omit;
        const PathState next = path->atLambda(result.state, lambdas[k], wanted);
        const Tensor v = finiteOrMinusInfinity(next.logDensity - result.state.logDensity);
        addStage(result, result.logWeight, v);
        result.logWeight = result.logWeight + v;
        result.state = next;
        if (k < last)
            result.acceptance.push_back(kernel->move(*path, k, lambdas[k], result.state, random));
    }
    result.x = result.state.x;
    estimateLogZ(result, result.logWeight);
    counter.report(result);
    return result;
}
