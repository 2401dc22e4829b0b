// SPDX-License-Identifier: MIT

#include "openmmflow/estimators/FlowFreeEnergy.h"
#include "LogMeanExp.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/Random.h"

using namespace OpenMMFlow;
using std::vector;

namespace {

vector<double> negated(const vector<double>& values) {
    vector<double> result(values.size());
    std::transform(values.begin(), values.end(), result.begin(), [](double y) { return -y; });
    return result;
}

WeightStatistic meanOf(const vector<double>& values) {
    const double count = static_cast<double>(values.size());
    double sum = 0, squares = 0;
    for (double y : values)
        sum += y / count;
    if (!std::isfinite(sum))
        return {sum, INFINITY};
    for (double y : values)
        squares += (y - sum) * (y - sum);
    return {sum, std::sqrt(squares / (count - 1) / count)};
}

} // namespace

FlowFreeEnergy OpenMMFlow::flowFreeEnergy(const vector<double>& logWeightsFlow,
                                          const vector<double>& logWeightsTarget) {
    const char* where = "flowFreeEnergy";
    require(logWeightsTarget.size() >= 2, where, "number of log weights of the target", logWeightsTarget.size(),
            "at least 2");
    std::size_t inside = 0;
    for (double y : logWeightsTarget) {
        require(!std::isnan(y) && y > -INFINITY, where, "a log weight of the target", y, "finite or +inf");
        inside += std::isfinite(y);
    }
    require(inside > 0, where, "number of samples of the target where the flow has a density", inside, "at least 1");
    FlowFreeEnergy result;
    const WeightStatistic mean = logMeanWeight(logWeightsFlow); // checks the others
    const vector<double> inverse = negated(logWeightsTarget);
    const LogMeanExp meanInverse = logMeanExp(inverse);
    result.fromFlow = {-mean.value, mean.standardError};
    result.fromTarget = {meanInverse.value, meanInverse.standardError};
    result.fromFlowBias = 0.5 * mean.standardError * mean.standardError;
    result.fromTargetBias = -0.5 * meanInverse.standardError * meanInverse.standardError;
    result.upperBound = meanOf(negated(logWeightsFlow));
    result.lowerBound = meanOf(inverse);
    const double covered = std::exp(meanInverse.value + mean.value);
    result.covered = {covered, covered * std::hypot(mean.standardError, meanInverse.standardError)};
    result.reverseFraction = effectiveSampleSize(logWeightsFlow).getFraction();
    result.forwardFraction = std::exp(-logMeanExp(logWeightsTarget).value - meanInverse.value);
    result.numFlow = static_cast<std::int64_t>(logWeightsFlow.size());
    result.numTarget = static_cast<std::int64_t>(logWeightsTarget.size());
    return result;
}

IndependenceChain OpenMMFlow::independenceChain(const vector<double>& logWeights, std::uint64_t seed) {
    (void)logMeanWeight(logWeights); // checks them
    Random random(seed);
    const auto start = std::find_if(logWeights.begin(), logWeights.end(), [](double y) { return std::isfinite(y); });
    auto current = static_cast<int>(start - logWeights.begin());
    std::int64_t run = 0, accepted = 0;
    IndependenceChain chain;
    chain.states.push_back(current);
    for (int next = current + 1; next < static_cast<int>(logWeights.size()); next++) {
        const bool accept = std::log(random.uniform()) < logWeights[next] - logWeights[current];
        current = accept ? next : current;
        accepted += accept;
        run = accept ? 0 : run + 1;
        chain.longestRun = std::max(chain.longestRun, run);
        chain.states.push_back(current);
    }
    const auto proposals = static_cast<double>(chain.states.size() - 1);
    chain.acceptance = proposals > 0 ? static_cast<double>(accepted) / proposals : 0;
    return chain;
}
