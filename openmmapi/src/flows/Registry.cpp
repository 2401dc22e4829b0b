// SPDX-License-Identifier: MIT
// The names under which transforms and priors are saved: one line for each class.

#include "openmmflow/flows/Conditioned.h"
#include "openmmflow/flows/ContinuousFlow.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/EckartCoordinates.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/FlowPrior.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/flows/MaskedAutoregressive.h"
#include "openmmflow/flows/MixedCoordinates.h"
#include "openmmflow/flows/OnColumns.h"
#include "openmmflow/flows/ParticleOrdering.h"
#include "openmmflow/flows/RigidBodies.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/flows/SmoothCoupling.h"
#include "openmmflow/flows/Whitening.h"
#include "openmmflow/latent/Check.h"
#include <functional>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using nlohmann::json;

namespace {

using Maker = std::function<std::shared_ptr<Transform>(const json&)>;

std::shared_ptr<Transform> makeSequence(const json& a) {
    std::vector<std::shared_ptr<Transform>> transforms;
    for (const auto& transform : a.at("transforms"))
        transforms.push_back(Transform::create(transform));
    return std::make_shared<Sequence>(transforms);
}

std::shared_ptr<Transform> makeSplineCoupling(const json& a) {
    return std::make_shared<SplineCoupling>(
        a.at("size").get<int>(), a.at("active").get<std::vector<int>>(), a.at("circular").get<std::vector<int>>(),
        SplineCoupling::Options{a.at("bins").get<int>(), a.at("bound").get<double>(),
                                Conditioner::readOptions(a.at("conditioner"))});
}

std::shared_ptr<Transform> makeSmoothCoupling(const json& a) {
    return std::make_shared<SmoothCoupling>(
        a.at("size").get<int>(), a.at("active").get<std::vector<int>>(), a.at("circular").get<std::vector<int>>(),
        SmoothCoupling::Options{a.at("components").get<int>(), a.at("bound").get<double>(),
                                Conditioner::readOptions(a.at("conditioner"))});
}

std::shared_ptr<Transform> makeMaskedAutoregressive(const json& a) {
    const auto& map = a.at("map");
    require(map == "Affine" || map == "Spline", "Transform::create", "map", map.dump(), "Affine or Spline");
    return std::make_shared<MaskedAutoregressive>(
        a.at("size").get<int>(), a.at("circular").get<std::vector<int>>(),
        MaskedAutoregressive::Options{map == "Affine" ? AutoregressiveMap::Affine : AutoregressiveMap::Spline,
                                      a.at("scaleBound").get<double>(), a.at("bins").get<int>(),
                                      a.at("bound").get<double>(), Conditioner::readOptions(a.at("conditioner"))});
}

const std::map<std::string, Maker>& getMakers() {
    static const std::map<std::string, Maker> makers = {
        {"Sequence", makeSequence},
        {"Inverse", [](const json& a) { return std::make_shared<Inverse>(Transform::create(a.at("transform"))); }},
        {"Permutation",
         [](const json& a) { return std::make_shared<Permutation>(a.at("order").get<std::vector<int>>()); }},
        {"Scaling",
         [](const json& a) {
             return std::make_shared<Scaling>(a.at("shift").get<std::vector<double>>(),
                                              a.at("scale").get<std::vector<double>>());
         }},
        {"LearnedScaling", [](const json& a) { return std::make_shared<LearnedScaling>(a.at("size").get<int>()); }},
        {"ExpScaling", [](const json& a) { return std::make_shared<ExpScaling>(a.at("size").get<int>()); }},
        {"CircularShift",
         [](const json& a) {
             return std::make_shared<CircularShift>(a.at("size").get<int>(), a.at("indices").get<std::vector<int>>(),
                                                    a.at("shift").get<std::vector<double>>());
         }},
        {"AdditiveCoupling",
         [](const json& a) {
             return std::make_shared<AdditiveCoupling>(a.at("size").get<int>(), a.at("active").get<std::vector<int>>(),
                                                       Conditioner::readOptions(a.at("conditioner")),
                                                       a.value("odd", false));
         }},
        {"AffineCoupling",
         [](const json& a) {
             return std::make_shared<AffineCoupling>(a.at("size").get<int>(), a.at("active").get<std::vector<int>>(),
                                                     Conditioner::readOptions(a.at("conditioner")),
                                                     a.at("scaleBound").get<double>(), a.value("odd", false));
         }},
        {"SplineCoupling", makeSplineCoupling},
        {"SmoothCoupling", makeSmoothCoupling},
        {"MaskedAutoregressive", makeMaskedAutoregressive},
        {"InternalCoordinates", InternalCoordinates::fromArchitecture},
        {"EckartCoordinates", EckartCoordinates::fromArchitecture},
        {"MixedCoordinates", MixedCoordinates::fromArchitecture},
        {"Conditioned",
         [](const json& a) {
             return std::make_shared<Conditioned>(Transform::create(a.at("transform")),
                                                  a.at("indices").get<std::vector<int>>(),
                                                  a.at("values").get<std::vector<double>>());
         }},
        {"OnColumns",
         [](const json& a) {
             return std::make_shared<OnColumns>(Transform::create(a.at("transform")), a.at("size").get<int>(),
                                                a.at("columns").get<std::vector<int>>());
         }},
        {"RigidBodies", RigidBodies::fromArchitecture},
        {"ParticleOrdering", ParticleOrdering::fromArchitecture},
        {"Whitening", [](const json& a) { return std::make_shared<Whitening>(a.at("size").get<int>()); }},
        {"ContinuousFlow", ContinuousFlow::fromArchitecture},
    };
    return makers;
}

std::vector<std::shared_ptr<Prior>> makePriors(const json& list) {
    std::vector<std::shared_ptr<Prior>> priors;
    for (const auto& prior : list)
        priors.push_back(Prior::create(prior));
    return priors;
}

const std::map<std::string, std::function<std::shared_ptr<Prior>(const json&)>>& getPriorMakers() {
    static const std::map<std::string, std::function<std::shared_ptr<Prior>(const json&)>> makers = {
        {"GaussianPrior",
         [](const json& a) {
             return std::make_shared<GaussianPrior>(a.at("size").get<int>(), a.at("sigma").get<double>());
         }},
        {"UniformTorusPrior",
         [](const json& a) { return std::make_shared<UniformTorusPrior>(a.at("size").get<int>()); }},
        {"ProductPrior", [](const json& a) { return std::make_shared<ProductPrior>(makePriors(a.at("factors"))); }},
        {"MixturePrior",
         [](const json& a) {
             return std::make_shared<MixturePrior>(makePriors(a.at("components")),
                                                   a.at("weights").get<std::vector<double>>());
         }},
        {"FlowPrior", FlowPrior::fromArchitecture},
    };
    return makers;
}

} // namespace

// Here and not in the latent stage, as a prior may hold a flow.
std::shared_ptr<Prior> Prior::create(const json& architecture) {
    try {
        const auto type = architecture.at("type").get<std::string>();
        const auto maker = getPriorMakers().find(type);
        require(maker != getPriorMakers().end(), "Prior::create", "type", type, "the name of a known prior");
        return maker->second(architecture);
    } catch (const json::exception& error) {
        throw OpenMM::OpenMMException(std::string("Prior::create: the description is not valid: ") + error.what());
    }
}

std::shared_ptr<Transform> Transform::create(const json& architecture) {
    try {
        const auto type = architecture.at("type").get<std::string>();
        const auto maker = getMakers().find(type);
        require(maker != getMakers().end(), "Transform::create", "type", type, "the name of a known transform");
        return maker->second(architecture);
    } catch (const json::exception& error) {
        throw OpenMM::OpenMMException(std::string("Transform::create: the description is not valid: ") + error.what());
    }
}
