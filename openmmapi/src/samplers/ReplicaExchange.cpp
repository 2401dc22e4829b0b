// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/ReplicaExchange.h"
#include "AnnealedTools.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include "openmmflow/samplers/LambdaSpacing.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr std::int64_t numBlocks = 20;

class AdaptationGuard {
public:
    explicit AdaptationGuard(AnnealedKernel& kernel) : kernel(kernel) { kernel.suspendAdaptation(true); }
    ~AdaptationGuard() { kernel.suspendAdaptation(false); }
    AdaptationGuard(const AdaptationGuard&) = delete;
    AdaptationGuard& operator=(const AdaptationGuard&) = delete;

private:
    AnnealedKernel& kernel;
};

// A stage that gives a point no weight is a work of +inf; of two such stages a point says nothing.
Tensor work(const PathState& here, const PathState& there) {
    const Tensor w = here.logDensity - there.logDensity;
    return w.masked_fill(w.isnan(), INFINITY);
}

// Ladders where there are enough, else consecutive times, each as a sum. @param values  [times, ladders]
Tensor sumBlocks(const Tensor& values) {
    if (values.size(1) >= numBlocks)
        return values.sum(0);
    std::vector<Tensor> sums;
    for (std::int64_t b = 0; b < numBlocks; b++)
        sums.push_back(values.slice(0, b * values.size(0) / numBlocks, (b + 1) * values.size(0) / numBlocks).sum());
    return at::stack(sums);
}

} // namespace

/** One run: the ladders, stage by stage. */
class ReplicaExchange::Run {
public:
    Run(ReplicaExchange& engine, const Tensor& start, int numLadders, Random& random)
        : engine(engine), path(*engine.path), random(random), numPairs(engine.lambdas.size() - 1), forward(numPairs),
          reverse(numPairs), swaps(numPairs), acceptance(numPairs + 1) {
        for (std::size_t k = 0; k <= numPairs; k++) {
            const bool same = start.size(0) == numLadders;
            const Tensor x = same ? start : start.slice(0, k * numLadders, (k + 1) * numLadders);
            states.push_back(path.evaluate(x, engine.lambdas[k], engine.kernel->getGradient()));
            require(states.back().logDensity.isfinite().all().item<bool>(), "ReplicaExchange::run",
                    "the density of a walker's start at stage " + std::to_string(k), 0,
                    "positive: it would never move");
            fromStart.push_back(repeatForRows(0.0, x));
        }
    }

    void sweep(std::int64_t time, bool record) {
        for (std::size_t k = 0; k <= numPairs; k++) {
            const double accepted =
                engine.kernel->move(path, static_cast<int>(k), engine.lambdas[k], states[k], random);
            if (record)
                acceptance[k] += accepted / engine.options.numSweeps;
        }
        for (std::size_t k = time % 2; k < numPairs; k += 2)
            swap(k, record);
        if (record)
            trips += fromStart.back().sum().item<double>();
        fromStart.front().fill_(1.0);
        fromStart.back().fill_(0.0);
    }

    [[nodiscard]] ReplicaExchangeResult finish(std::vector<Tensor> samples) const {
        ReplicaExchangeResult result;
        result.lambdas = engine.lambdas;
        result.acceptance = acceptance;
        result.state = states.back();
        result.x = at::cat(samples);
        Tensor influence;
        for (std::size_t k = 0; k < numPairs; k++) {
            const Tensor wF = at::stack(forward[k]), wR = at::stack(reverse[k]);
            const BarResult estimate = bar(toVector(wF), toVector(wR));
            const Tensor f = (estimate.deltaF - wF).sigmoid(), r = (-estimate.deltaF - wR).sigmoid();
            const Tensor blocks = sumBlocks(f - r) / ((f * (1 - f)).sum() + (r * (1 - r)).sum());
            influence = influence.defined() ? influence + blocks : blocks;
            result.logZIncrements.push_back(-estimate.deltaF);
            result.logZRatio -= estimate.deltaF;
            result.overlap.push_back(estimate.overlap);
            result.cess.push_back(cessFraction(at::zeros_like(wF).flatten(), -wF.flatten()).item<double>());
            result.swapAcceptance.push_back(at::stack(swaps[k]).mean().item<double>());
        }
        const auto count = static_cast<double>(influence.numel());
        result.logZRatioError = std::sqrt(influence.square().sum().item<double>() * count / (count - 1));
        result.logWeight = repeatForRows(result.logZRatio, result.x);
        result.tripsPerSweep = trips / static_cast<double>(states[0].x.size(0) * engine.options.numSweeps);
        return result;
    }

    std::vector<PathState> states;

private:
    void swap(std::size_t k, bool record) {
        const Gradient gradient = engine.kernel->getGradient();
        const PathState up = path.atLambda(states[k], engine.lambdas[k + 1], gradient);
        const PathState down = path.atLambda(states[k + 1], engine.lambdas[k], gradient);
        const Tensor wF = work(states[k], up), wR = work(states[k + 1], down);
        const Tensor accepted = metropolis(-wF - wR, random);
        states[k] = choose(accepted, down, states[k]);
        states[k + 1] = choose(accepted, up, states[k + 1]);
        const Tensor lower = fromStart[k];
        fromStart[k] = at::where(accepted, fromStart[k + 1], lower);
        fromStart[k + 1] = at::where(accepted, lower, fromStart[k + 1]);
        if (!record)
            return;
        forward[k].push_back(wF);
        reverse[k].push_back(wR);
        swaps[k].push_back(accepted.to(at::kDouble).mean());
    }

    ReplicaExchange& engine;
    AnnealedPath& path;
    Random& random;
    std::size_t numPairs;
    std::vector<Tensor> fromStart;                            // 1 for walkers whose last end was stage 0
    std::vector<std::vector<Tensor>> forward, reverse, swaps; // by pair, then time
    std::vector<double> acceptance;
    double trips = 0;
};

ReplicaExchange::ReplicaExchange(std::shared_ptr<AnnealedPath> newPath, std::shared_ptr<AnnealedKernel> newKernel,
                                 std::vector<double> newLambdas, const Options& newOptions)
    : path(std::move(newPath)), kernel(std::move(newKernel)), lambdas(std::move(newLambdas)), options(newOptions) {
    const char* where = "ReplicaExchange::ReplicaExchange";
    require(path != nullptr, where, "path", "null", "an AnnealedPath");
    require(kernel != nullptr, where, "kernel", "null", "an AnnealedKernel");
    requireLambdas(where, lambdas);
    require(options.numEquilibration >= 0, where, "numEquilibration", options.numEquilibration, "at least 0");
    require(options.numSweeps >= 2, where, "numSweeps", options.numSweeps, "at least 2");
    require(options.sampleInterval >= 1 && options.sampleInterval <= options.numSweeps, where, "sampleInterval",
            options.sampleInterval, "at least 1, and at most numSweeps");
}

ReplicaExchangeResult ReplicaExchange::run(const Tensor& start, int numLadders, Random& random) {
    const char* where = "ReplicaExchange::run";
    requireStart(where, start, *path);
    const auto numStages = static_cast<std::int64_t>(lambdas.size());
    require(numLadders >= 1, where, "numLadders", numLadders, "at least 1");
    require(start.size(0) == numLadders || start.size(0) == numStages * numLadders, where, "rows of start",
            start.size(0), "numLadders, or one for each stage of each ladder");
    require(numLadders >= numBlocks || options.numSweeps >= 2 * numBlocks, where, "numSweeps", options.numSweeps,
            "at least 40 for fewer than 20 ladders");
    const at::NoGradGuard noGrad;
    const EvaluationCounter counter(*path);
    Run run(*this, start, numLadders, random);
    for (int i = 0; i < options.numEquilibration; i++)
        run.sweep(i, false);
    const AdaptationGuard settled(*kernel);
    std::vector<Tensor> samples;
    for (int i = 0; i < options.numSweeps; i++) {
        run.sweep(i, true);
        if ((i + 1) % options.sampleInterval == 0)
            samples.push_back(run.states.back().x);
    }
    ReplicaExchangeResult result = run.finish(std::move(samples));
    counter.report(result);
    return result;
}
