// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/LambdaSpacing.h"
#include "WeightTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

void OpenMMFlow::requireLambdas(const char* where, const std::vector<double>& lambdas) {
    require(lambdas.size() >= 2, where, "number of lambdas", lambdas.size(), "at least 2");
    require(lambdas.front() == 0, where, "the first lambda", lambdas.front(), "0");
    require(lambdas.back() == 1, where, "the last lambda", lambdas.back(), "1");
    for (std::size_t k = 1; k < lambdas.size(); k++)
        require(lambdas[k] > lambdas[k - 1], where, "a lambda", lambdas[k],
                "larger than that before, " + std::to_string(lambdas[k - 1]));
}

std::vector<double> OpenMMFlow::powerLambdas(int numStages, double power) {
    require(numStages >= 1, "powerLambdas", "numStages", numStages, "at least 1");
    require(power > 0 && std::isfinite(power), "powerLambdas", "power", power, "positive and finite");
    std::vector<double> lambdas;
    for (int k = 0; k <= numStages; k++)
        lambdas.push_back(std::pow(static_cast<double>(k) / numStages, power));
    return lambdas;
}

double OpenMMFlow::conditionalEss(AnnealedPath& path, const PathState& state, double lambda, const Tensor& logWeight) {
    const Tensor next = path.atLambda(state, lambda).logDensity;
    const Tensor weights = logWeight.defined() ? logWeight : at::zeros_like(next);
    require(weights.sizes() == next.sizes(), "conditionalEss", "shape of logWeight", weights.sizes(),
            "that of the walkers' log densities");
    return cessFraction(weights, finiteOrMinusInfinity(next - state.logDensity)).item<double>();
}

double OpenMMFlow::nextLambda(AnnealedPath& path, const PathState& state, double target, const Tensor& logWeight) {
    require(target > 0 && target < 1, "nextLambda", "target", target, "in (0, 1)");
    if (conditionalEss(path, state, 1.0, logWeight) >= target)
        return 1.0;
    double low = state.lambda, high = 1.0;
    for (int i = 0; i < 50; i++) {
        const double middle = 0.5 * (low + high), cess = conditionalEss(path, state, middle, logWeight);
        if (std::abs(cess - target) < 0.05 * (1 - target))
            return middle;
        (cess > target ? low : high) = middle;
    }
    return high;
}

std::vector<double> OpenMMFlow::equalCessLambdas(const AnnealedResult& pilot, int numStages) {
    const char* where = "equalCessLambdas";
    requireLambdas(where, pilot.lambdas);
    require(pilot.cess.size() + 1 == pilot.lambdas.size(), where, "number of the pilot's cess", pilot.cess.size(),
            "one less than that of its lambdas, " + std::to_string(pilot.lambdas.size()));
    require(numStages >= 1, where, "numStages", numStages, "at least 1");
    std::vector<double> length = {0.0};
    for (const double cess : pilot.cess) {
        require(cess > 0 && cess <= 1 + 1e-9, where, "a cess of the pilot", cess, "in (0, 1]");
        // A step of no length would have no place of its own.
        length.push_back(length.back() + std::max(std::sqrt(std::max(0.0, -std::log(cess))), 1e-12));
    }
    std::vector<double> lambdas = {0.0};
    for (int k = 1; k < numStages; k++) {
        const double wanted = length.back() * k / numStages;
        const auto i = std::upper_bound(length.begin() + 1, length.end() - 1, wanted) - length.begin();
        const double part = (wanted - length[i - 1]) / (length[i] - length[i - 1]);
        lambdas.push_back(pilot.lambdas[i - 1] + part * (pilot.lambdas[i] - pilot.lambdas[i - 1]));
    }
    lambdas.push_back(1.0);
    return lambdas;
}
