// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/SequentialSampler.h"
#include "AnnealedTools.h"
#include "openmmflow/samplers/LambdaSpacing.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// As many of each row as its weight asks for, up to rounding by one random number. @param weight  [N]  @return [N]
std::vector<std::int64_t> systematicRows(const Tensor& weight, double uniform, std::int64_t offset) {
    const std::vector<double> w = toVector(weight);
    double total = 0;
    for (const double value : w)
        total += value;
    std::vector<std::int64_t> rows;
    std::size_t row = 0;
    double sum = w[0];
    for (std::size_t i = 0; i < w.size(); i++) {
        const double wanted = (static_cast<double>(i) + uniform) / static_cast<double>(w.size()) * total;
        while (sum <= wanted && row + 1 < w.size())
            sum += w[++row];
        rows.push_back(offset + static_cast<std::int64_t>(row));
    }
    return rows;
}

} // namespace

/** One run: the walkers, in groups of equal size, and their weights. */
class SequentialSampler::Run {
public:
    Run(SequentialSampler& sampler, const Tensor& start, Random& random)
        : sampler(sampler), path(*sampler.path), random(random),
          state(path.evaluate(start, 0.0, sampler.kernel->getGradient())),
          logWeight(repeatForRows(0.0, start).view({sampler.options.numGroups, -1})) {
        result.lambdas = {0.0};
    }

    [[nodiscard]] double chooseLambda(int stage) {
        if (!sampler.lambdas.empty())
            return sampler.lambdas[stage];
        require(stage <= sampler.options.maxStages, "SequentialSampler::run", "number of stages", stage,
                "at most maxStages, " + std::to_string(sampler.options.maxStages));
        return nextLambda(path, state, sampler.options.targetCess, logWeight.flatten());
    }

    void transportAndWeigh(int stage, double lambda) {
        PathState next;
        Tensor v;
        if (sampler.layers.empty()) {
            next = path.atLambda(state, lambda, sampler.kernel->getGradient());
            v = next.logDensity - state.logDensity;
        } else {
            const TransformResult map = sampler.layers[stage - 1]->forward(state.x);
            next = path.evaluate(map.value, lambda, sampler.kernel->getGradient());
            next.momentum = state.momentum;
            v = next.logDensity + map.logDet - state.logDensity;
        }
        v = finiteOrMinusInfinity(v);
        addStage(result, logWeight.flatten(), v);
        result.lambdas.push_back(lambda);
        logWeight = logWeight + v.view_as(logWeight);
        state = next;
    }

    void resample() {
        const Tensor poor = essFraction(logWeight) < sampler.options.resampleBelow, mean = logMeanExp(logWeight);
        const std::int64_t size = logWeight.size(1);
        std::vector<std::int64_t> rows;
        Tensor weights = logWeight.clone();
        bool any = false;
        for (std::int64_t group = 0; group < logWeight.size(0); group++) {
            const bool alive = mean[group].isfinite().item<bool>();
            if (poor[group].item<bool>() && alive) {
                const auto chosen = systematicRows(logWeight[group].softmax(0), random.uniform(), group * size);
                rows.insert(rows.end(), chosen.begin(), chosen.end());
                weights[group].fill_(mean[group].item<double>());
                any = true;
            } else
                for (std::int64_t i = 0; i < size; i++)
                    rows.push_back(group * size + i);
        }
        if (any)
            state = selectRows(state, at::tensor(rows, at::kLong).to(state.x.device()));
        logWeight = weights;
    }

    SequentialSampler& sampler;
    AnnealedPath& path;
    Random& random;
    PathState state;
    Tensor logWeight; // [groups, walkers of a group]
    AnnealedResult result;
};

SequentialSampler::SequentialSampler(std::shared_ptr<AnnealedPath> newPath, std::shared_ptr<AnnealedKernel> newKernel,
                                     std::vector<double> newLambdas, const Options& newOptions)
    : path(std::move(newPath)), kernel(std::move(newKernel)), lambdas(std::move(newLambdas)), options(newOptions) {
    const char* where = "SequentialSampler::SequentialSampler";
    require(path != nullptr, where, "path", "null", "an AnnealedPath");
    require(kernel != nullptr, where, "kernel", "null", "an AnnealedKernel");
    if (!lambdas.empty())
        requireLambdas(where, lambdas);
    require(options.resampleBelow >= 0 && options.resampleBelow <= 1, where, "resampleBelow", options.resampleBelow,
            "in [0, 1]");
    require(options.numGroups >= 1, where, "numGroups", options.numGroups, "at least 1");
    require(options.targetCess > 0 && options.targetCess < 1, where, "targetCess", options.targetCess, "in (0, 1)");
    require(options.maxStages >= 1, where, "maxStages", options.maxStages, "at least 1");
}

void SequentialSampler::setLayers(std::vector<std::shared_ptr<Transform>> newLayers) {
    const char* where = "SequentialSampler::setLayers";
    if (!newLayers.empty()) {
        require(!lambdas.empty(), where, "number of lambdas", 0, "given beforehand: layers belong to stages");
        require(newLayers.size() + 1 == lambdas.size(), where, "number of layers", newLayers.size(),
                "that of the stages, " + std::to_string(lambdas.size() - 1));
    }
    for (const auto& layer : newLayers) {
        require(layer != nullptr, where, "a layer", "null", "a Transform");
        require(layer->getInputSize() == path->getSize(), where, "input size of a layer", layer->getInputSize(),
                "that of the path, " + std::to_string(path->getSize()));
        require(layer->getOutputSize() == path->getSize(), where, "output size of a layer", layer->getOutputSize(),
                "that of the path, " + std::to_string(path->getSize()));
    }
    layers = std::move(newLayers);
}

AnnealedResult SequentialSampler::run(const Tensor& start, Random& random) {
    return runObserved(start, random, {});
}

AnnealedResult SequentialSampler::runObserved(const Tensor& start, Random& random, const Observer& observer) {
    const char* where = "SequentialSampler::run";
    requireStart(where, start, *path);
    require(start.size(0) % options.numGroups == 0, where, "number of walkers", start.size(0),
            "a multiple of numGroups, " + std::to_string(options.numGroups));
    const at::NoGradGuard noGrad;
    const EvaluationCounter counter(*path);
    Run run(*this, start, random);
    for (int k = 1; run.state.lambda < 1; k++) {
        const double lambda = run.chooseLambda(k);
        if (observer)
            observer(k, run.state, run.logWeight.flatten());
        run.transportAndWeigh(k, lambda);
        run.resample();
        run.result.acceptance.push_back(kernel->move(*path, k, lambda, run.state, random));
    }
    AnnealedResult result = std::move(run.result);
    result.state = run.state;
    result.x = run.state.x;
    result.logWeight = run.logWeight.flatten();
    estimateLogZOfGroups(result, logMeanExp(run.logWeight));
    counter.report(result);
    return result;
}
