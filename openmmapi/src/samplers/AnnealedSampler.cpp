// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedSampler.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/samplers/Acceptance.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

Tensor finiteOrMinusInfinity(const Tensor& value) {
    return at::where(value.isfinite(), value, at::full_like(value, -INFINITY));
}

Tensor logDensity(const PathPoint& point, double beta) {
    return finiteOrMinusInfinity((1 - beta) * point.log0 + beta * point.log1);
}

Tensor logGradient(const PathPoint& point, double beta) {
    return (1 - beta) * point.gradient0 + beta * point.gradient1;
}

AnnealedState choose(const Tensor& accepted, const AnnealedState& proposed, const AnnealedState& current) {
    const Tensor rows = accepted.unsqueeze(1);
    const PathPoint &a = proposed.point, &b = current.point;
    return {at::where(rows, proposed.x, current.x),
            {at::where(accepted, a.log0, b.log0), at::where(accepted, a.log1, b.log1),
             at::where(rows, a.gradient0, b.gradient0), at::where(rows, a.gradient1, b.gradient1)}};
}

} // namespace

HamiltonianKernel::HamiltonianKernel(const Options& newOptions) : options(newOptions) {
    const char* where = "HamiltonianKernel::HamiltonianKernel";
    require(options.stepSize > 0 && std::isfinite(options.stepSize), where, "stepSize", options.stepSize,
            "positive and finite");
    require(options.numSteps >= 1, where, "numSteps", options.numSteps, "at least 1");
    require(options.numMoves >= 1, where, "numMoves", options.numMoves, "at least 1");
    require(options.targetAcceptance >= 0 && options.targetAcceptance < 1, where, "targetAcceptance",
            options.targetAcceptance, "in [0, 1)");
}

double HamiltonianKernel::getStepSize(int stage) const {
    require(stage >= 0, "HamiltonianKernel::getStepSize", "stage", stage, "at least 0");
    return stage < static_cast<int>(stepSizes.size()) ? stepSizes[stage] : options.stepSize;
}

void HamiltonianKernel::setStepSizes(std::vector<double> values) {
    for (const double value : values)
        require(value > 0 && std::isfinite(value), "HamiltonianKernel::setStepSizes", "a step size", value,
                "positive and finite");
    stepSizes = std::move(values);
}

double HamiltonianKernel::move(AnnealedPath& path, int stage, double beta, AnnealedState& state, Random& random) {
    const at::NoGradGuard noGrad;
    const double step = getStepSize(stage);
    const std::int64_t batch = state.x.size(0);
    std::int64_t numAccepted = 0;
    for (int i = 0; i < options.numMoves; i++) {
        const Tensor start = random.normal(batch, state.x.size(1));
        AnnealedState proposed = state;
        Tensor momentum = start;
        for (int j = 0; j < options.numSteps; j++) {
            momentum = momentum + 0.5 * step * logGradient(proposed.point, beta);
            proposed.x = proposed.x + step * momentum;
            proposed.point = path.evaluate(proposed.x);
            momentum = momentum + 0.5 * step * logGradient(proposed.point, beta);
        }
        const Tensor logAlpha = logDensity(proposed.point, beta) - 0.5 * momentum.square().sum(1) -
                                logDensity(state.point, beta) + 0.5 * start.square().sum(1);
        const Tensor uniform = random.uniform(batch, 1), accepted = at::empty({batch}, at::kBool);
        for (std::int64_t row = 0; row < batch; row++) {
            const bool yes = accept(AcceptanceTest::Metropolis, logAlpha.const_data_ptr<double>()[row],
                                    uniform.const_data_ptr<double>()[row]);
            accepted.data_ptr<bool>()[row] = yes;
            numAccepted += yes;
        }
        state = choose(accepted, proposed, state);
    }
    const double acceptance = static_cast<double>(numAccepted) / static_cast<double>(batch * options.numMoves);
    if (options.targetAcceptance > 0) {
        if (stage >= static_cast<int>(stepSizes.size()))
            stepSizes.resize(stage + 1, options.stepSize);
        stepSizes[stage] *= acceptance > options.targetAcceptance ? 1.1 : 1 / 1.1;
    }
    return acceptance;
}

AnnealedSampler::AnnealedSampler(std::shared_ptr<AnnealedPath> newPath, std::shared_ptr<AnnealedKernel> newKernel,
                                 std::vector<double> newBetas)
    : path(std::move(newPath)), kernel(std::move(newKernel)), betas(std::move(newBetas)) {
    const char* where = "AnnealedSampler::AnnealedSampler";
    require(path != nullptr, where, "path", "null", "an AnnealedPath");
    require(kernel != nullptr, where, "kernel", "null", "an AnnealedKernel");
    require(betas.size() >= 2, where, "number of betas", betas.size(), "at least 2");
    require(betas.front() == 0, where, "the first beta", betas.front(), "0");
    require(betas.back() == 1, where, "the last beta", betas.back(), "1");
    for (std::size_t k = 1; k < betas.size(); k++)
        require(betas[k] > betas[k - 1], where, "a beta", betas[k],
                "larger than that before, " + std::to_string(betas[k - 1]));
}

std::vector<double> AnnealedSampler::equalSteps(int numStages) {
    require(numStages >= 1, "AnnealedSampler::equalSteps", "numStages", numStages, "at least 1");
    std::vector<double> betas;
    for (int k = 0; k <= numStages; k++)
        betas.push_back(static_cast<double>(k) / numStages);
    return betas;
}

AnnealedResult AnnealedSampler::run(const Tensor& start, Random& random) {
    require(start.dim() == 2 && start.size(1) == path->getSize() && start.size(0) > 0, "AnnealedSampler::run",
            "shape of start", start.sizes(), "[batch, " + std::to_string(path->getSize()) + "]");
    const at::NoGradGuard noGrad;
    AnnealedState state{start.detach().to(at::kDouble), {}};
    state.point = path->evaluate(state.x);
    AnnealedResult result;
    result.logWeight = at::zeros({start.size(0)}, at::kDouble);
    const int last = static_cast<int>(betas.size()) - 1;
    for (int k = 1; k <= last; k++) {
        result.logWeight = result.logWeight + (betas[k] - betas[k - 1]) * (state.point.log1 - state.point.log0);
        if (k < last)
            result.acceptance.push_back(kernel->move(*path, k, betas[k], state, random));
    }
    result.logWeight = finiteOrMinusInfinity(result.logWeight);
    result.x = state.x;
    result.log0 = state.point.log0;
    result.log1 = state.point.log1;
    return result;
}
