// SPDX-License-Identifier: MIT

#include "openmmflow/flows/ParticleOrdering.h"
#include "../latent/TensorTools.h"
#include "Assignment.h"
#include "openmmflow/latent/Check.h"
#include <limits>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

ParticleOrdering::ParticleOrdering(const Tensor& newReference, std::vector<std::vector<int>> newGroups)
    : groups(std::move(newGroups)) {
    const char* where = "ParticleOrdering::ParticleOrdering";
    require(newReference.dim() == 2 && newReference.numel() > 0, where, "shape of the reference", newReference.sizes(),
            "[particles, dimension]");
    reference = newReference.detach().to(at::kDouble).contiguous().clone();
    require(at::isfinite(reference).all().item<bool>(), where, "the reference", "not finite", "finite");
    std::vector<bool> seen(reference.size(0), false);
    for (const auto& group : groups) {
        require(group.size() >= 2, where, "size of a group", group.size(), "at least 2");
        for (const int particle : group) {
            require(particle >= 0 && particle < reference.size(0) && !seen[particle], where, "a particle of a group",
                    particle, "one of those of the reference, in one group only");
            seen[particle] = true;
        }
    }
    require(!groups.empty(), where, "number of groups", groups.size(), "at least 1");
}

// For each particle of each row the particle of x that takes its place, [batch, particles]. Found on the processor.
Tensor ParticleOrdering::findOrder(const Tensor& argument) const {
    const at::NoGradGuard noGrad;
    const std::int64_t numParticles = reference.size(0);
    const Tensor x = argument.detach().to(at::kCPU), particles = x.reshape({x.size(0), numParticles, -1});
    Tensor order = at::arange(numParticles, at::kLong).repeat({x.size(0), 1});
    const Tensor finite = at::isfinite(x).all(1);
    auto to = order.accessor<std::int64_t, 2>();
    for (const auto& group : groups) {
        const Tensor members = indexTensor(group);
        const Tensor cost = (reference.index_select(0, members).unsqueeze(1).unsqueeze(0) -
                             particles.index_select(1, members).unsqueeze(1))
                                .square()
                                .sum(3)
                                .clamp_max(1e100) // squares of finite numbers may overflow
                                .contiguous();    // [batch, place, particle]
        const int n = static_cast<int>(group.size());
        for (std::int64_t row = 0; row < x.size(0); row++) {
            if (!finite[row].item<bool>())
                continue;
            const double* costs = cost.const_data_ptr<double>() + row * n * n;
            const std::vector<std::int64_t> best = assignLeastCost(costs, n);
            for (int i = 0; i < n; i++)
                to[row][group[i]] = group[best[i]];
        }
    }
    return order.to(argument.device());
}

TransformResult ParticleOrdering::forward(const Tensor& y) const {
    const Tensor order = findOrder(y);
    const Tensor inOrder = (order == at::arange(reference.size(0), order.options())).all(1) & at::isfinite(y).all(1);
    return {whereRows(inOrder, y, NAN), whereRows(inOrder, repeatForRows(0.0, y), NAN)};
}

TransformResult ParticleOrdering::inverse(const Tensor& x) const {
    const Tensor order = findOrder(x).unsqueeze(2).expand({x.size(0), reference.size(0), reference.size(1)});
    const Tensor y = x.reshape(order.sizes()).gather(1, order).reshape(x.sizes());
    return {y, whereRows(at::isfinite(x).all(1), repeatForRows(0.0, x), -std::numeric_limits<double>::infinity())};
}

nlohmann::json ParticleOrdering::getArchitecture() const {
    return {{"type", getTypeName()},
            {"dimension", reference.size(1)},
            {"reference", toVector(reference)},
            {"groups", groups}};
}

std::shared_ptr<ParticleOrdering> ParticleOrdering::fromArchitecture(const nlohmann::json& architecture) {
    const auto values = architecture.at("reference").get<std::vector<double>>();
    const auto dimension = architecture.at("dimension").get<std::int64_t>();
    require(dimension >= 1 && values.size() % dimension == 0, "ParticleOrdering::fromArchitecture", "dimension",
            dimension, "a divisor of the reference's size, " + std::to_string(values.size()));
    return std::make_shared<ParticleOrdering>(at::tensor(values, at::kDouble).reshape({-1, dimension}),
                                              architecture.at("groups").get<std::vector<std::vector<int>>>());
}
