// SPDX-License-Identifier: MIT

#include "openmmflow/flows/FlowPrior.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

FlowPrior::FlowPrior(const Flow& newFlow, std::vector<int> newCircular)
    : FlowPrior(newFlow.clone(), std::move(newCircular)) {}

FlowPrior::FlowPrior(std::shared_ptr<Flow> newFlow, std::vector<int> newCircular)
    : flow(std::move(newFlow)), circular(std::move(newCircular)) {
    const char* where = "FlowPrior::FlowPrior";
    require(flow->getSize() == flow->getLatentSize(), where, "number of latent variables of the flow",
            flow->getLatentSize(), "its number of variables, " + std::to_string(flow->getSize()));
    std::sort(circular.begin(), circular.end());
    for (auto index = circular.begin(); index != circular.end(); ++index)
        require(*index >= 0 && *index < getSize() && (index == circular.begin() || index[-1] != *index), where,
                "a circular column", *index, "a column of the flow, each at most once");
    for (const auto& [name, tensor] : flow->getParameters())
        tensor.set_requires_grad(false);
}

Tensor FlowPrior::sample(std::int64_t count, Random& random) const {
    return flow->sample(count, random).x;
}

Tensor FlowPrior::logDensity(const Tensor& z) const {
    return flow->logQ(z);
}

DensityGradient FlowPrior::logDensityWithGradient(const Tensor& z) const {
    const LogQGradient result = flow->logQWithGradient(z);
    return {result.logQ, result.gradient};
}

Tensor FlowPrior::perturb(const Tensor& z, double stepSize, Random& random) const {
    const Tensor latent = flow->toLatent(z).z;
    return flow->fromLatent(flow->getPrior()->perturb(latent, stepSize, random)).x;
}

nlohmann::json FlowPrior::getArchitecture() const {
    return {{"type", "FlowPrior"},
            {"prior", flow->getPrior()->getArchitecture()},
            {"transform", flow->getTransform()->getArchitecture()},
            {"circular", circular}};
}

std::vector<std::pair<std::string, Tensor>> FlowPrior::getBuffers() const {
    return flow->getTensors();
}

std::shared_ptr<FlowPrior> FlowPrior::fromArchitecture(const nlohmann::json& architecture) {
    const auto flow = std::make_shared<Flow>(Prior::create(architecture.at("prior")),
                                             Transform::create(architecture.at("transform")));
    return std::shared_ptr<FlowPrior>(new FlowPrior(flow, architecture.at("circular").get<std::vector<int>>()));
}
