// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Prior.h"
#include "TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

void checkShape(const Tensor& z, int size, std::string_view where) {
    require(z.dim() == 2 && z.size(1) == size, where, "shape of z", z.sizes(), "[batch, " + std::to_string(size) + "]");
}

void checkStep(double stepSize, std::string_view where) {
    require(stepSize > 0 && stepSize <= 1, where, "stepSize", stepSize, "in (0, 1]");
}

void checkFactor(double factor, std::string_view where) {
    require(factor > 0 && std::isfinite(factor), where, "factor", factor, "positive and finite");
}

} // namespace

std::shared_ptr<Prior> Prior::create(const nlohmann::json& architecture) {
    try {
        const auto type = architecture.at("type").get<std::string>();
        if (type == "GaussianPrior")
            return std::make_shared<GaussianPrior>(architecture.at("size").get<int>(),
                                                   architecture.at("sigma").get<double>());
        if (type == "UniformTorusPrior")
            return std::make_shared<UniformTorusPrior>(architecture.at("size").get<int>());
        if (type == "ProductPrior") {
            std::vector<std::shared_ptr<Prior>> factors;
            for (const auto& factor : architecture.at("factors"))
                factors.push_back(create(factor));
            return std::make_shared<ProductPrior>(factors);
        }
        require(false, "Prior::create", "type", type, "GaussianPrior, UniformTorusPrior or ProductPrior");
    } catch (const nlohmann::json::exception& error) {
        throw OpenMM::OpenMMException(std::string("Prior::create: the description is not valid: ") + error.what());
    }
    return nullptr;
}

GaussianPrior::GaussianPrior(int size, double sigma) : size(size), sigma(sigma) {
    require(size >= 1, "GaussianPrior::GaussianPrior", "size", size, "at least 1");
    require(sigma > 0 && std::isfinite(sigma), "GaussianPrior::GaussianPrior", "sigma", sigma, "positive and finite");
}

Tensor GaussianPrior::sample(std::int64_t count, Random& random) const {
    return sigma * random.normal(count, size);
}

Tensor GaussianPrior::logDensity(const Tensor& z) const {
    checkShape(z, size, "GaussianPrior::logDensity");
    return -0.5 * (z / sigma).square().sum(1) - size * (std::log(sigma) + 0.5 * std::log(2 * M_PI));
}

Tensor GaussianPrior::perturb(const Tensor& z, double stepSize, Random& random) const {
    checkShape(z, size, "GaussianPrior::perturb");
    checkStep(stepSize, "GaussianPrior::perturb");
    return std::sqrt(1 - stepSize * stepSize) * z + stepSize * sample(z.size(0), random);
}

std::shared_ptr<Prior> GaussianPrior::scaleVariance(double factor) const {
    checkFactor(factor, "GaussianPrior::scaleVariance");
    return std::make_shared<GaussianPrior>(size, sigma * std::sqrt(factor));
}

nlohmann::json GaussianPrior::getArchitecture() const {
    return {{"type", "GaussianPrior"}, {"size", size}, {"sigma", sigma}};
}

UniformTorusPrior::UniformTorusPrior(int size) : size(size) {
    require(size >= 1, "UniformTorusPrior::UniformTorusPrior", "size", size, "at least 1");
}

Tensor UniformTorusPrior::sample(std::int64_t count, Random& random) const {
    return (2 * M_PI) * random.uniform(count, size) - M_PI;
}

Tensor UniformTorusPrior::logDensity(const Tensor& z) const {
    checkShape(z, size, "UniformTorusPrior::logDensity");
    return at::full({z.size(0)}, -size * std::log(2 * M_PI), z.options().dtype(at::kDouble));
}

Tensor UniformTorusPrior::perturb(const Tensor& z, double stepSize, Random& random) const {
    checkShape(z, size, "UniformTorusPrior::perturb");
    checkStep(stepSize, "UniformTorusPrior::perturb");
    return wrapAngle(z + stepSize * sample(z.size(0), random));
}

std::vector<int> UniformTorusPrior::getCircularIndices() const {
    std::vector<int> indices(size);
    for (int i = 0; i < size; i++)
        indices[i] = i;
    return indices;
}

std::shared_ptr<Prior> UniformTorusPrior::scaleVariance(double factor) const {
    checkFactor(factor, "UniformTorusPrior::scaleVariance");
    return std::make_shared<UniformTorusPrior>(size);
}

nlohmann::json UniformTorusPrior::getArchitecture() const {
    return {{"type", "UniformTorusPrior"}, {"size", size}};
}

ProductPrior::ProductPrior(std::vector<std::shared_ptr<Prior>> priors) : factors(std::move(priors)) {
    require(!factors.empty(), "ProductPrior::ProductPrior", "number of factors", factors.size(), "at least 1");
    for (const auto& factor : factors) {
        require(factor != nullptr, "ProductPrior::ProductPrior", "a factor", "null", "a Prior");
        size += factor->getSize();
    }
}

Tensor ProductPrior::sample(std::int64_t count, Random& random) const {
    std::vector<Tensor> parts;
    for (const auto& factor : factors)
        parts.push_back(factor->sample(count, random));
    return at::cat(parts, 1);
}

Tensor ProductPrior::logDensity(const Tensor& z) const {
    checkShape(z, size, "ProductPrior::logDensity");
    Tensor sum = at::zeros({z.size(0)}, z.options().dtype(at::kDouble));
    std::int64_t start = 0;
    for (const auto& factor : factors) {
        sum = sum + factor->logDensity(z.narrow(1, start, factor->getSize()));
        start += factor->getSize();
    }
    return sum;
}

Tensor ProductPrior::perturb(const Tensor& z, double stepSize, Random& random) const {
    checkShape(z, size, "ProductPrior::perturb");
    std::vector<Tensor> parts;
    std::int64_t start = 0;
    for (const auto& factor : factors) {
        parts.push_back(factor->perturb(z.narrow(1, start, factor->getSize()), stepSize, random));
        start += factor->getSize();
    }
    return at::cat(parts, 1);
}

std::vector<int> ProductPrior::getCircularIndices() const {
    std::vector<int> indices;
    int start = 0;
    for (const auto& factor : factors) {
        for (int index : factor->getCircularIndices())
            indices.push_back(start + index);
        start += factor->getSize();
    }
    return indices;
}

std::shared_ptr<Prior> ProductPrior::scaleVariance(double factor) const {
    std::vector<std::shared_ptr<Prior>> scaled;
    for (const auto& prior : factors) {
        scaled.push_back(prior->scaleVariance(factor));
        if (scaled.back() == nullptr)
            return nullptr;
    }
    return std::make_shared<ProductPrior>(scaled);
}

nlohmann::json ProductPrior::getArchitecture() const {
    auto list = nlohmann::json::array();
    for (const auto& factor : factors)
        list.push_back(factor->getArchitecture());
    return {{"type", "ProductPrior"}, {"factors", list}};
}
