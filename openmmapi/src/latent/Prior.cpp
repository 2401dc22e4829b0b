// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Prior.h"
#include "TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

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

/** Those of several priors, with their numbers before the names. */
std::vector<std::pair<std::string, Tensor>> joinBuffers(const std::vector<std::shared_ptr<Prior>>& priors) {
    std::vector<std::pair<std::string, Tensor>> all;
    for (std::size_t i = 0; i < priors.size(); i++)
        for (const auto& [name, tensor] : priors[i]->getBuffers())
            all.emplace_back(std::to_string(i) + "." + name, tensor);
    return all;
}

nlohmann::json describe(const std::vector<std::shared_ptr<Prior>>& priors) {
    auto list = nlohmann::json::array();
    for (const auto& prior : priors)
        list.push_back(prior->getArchitecture());
    return list;
}

/** For each row the number of the column that u in (0, 1) falls on, int64 [batch]. @param p  probabilities by row */
Tensor chooseColumn(const Tensor& p, Random& random) {
    const Tensor u = random.uniform(p.size(0), 1).to(p.device());
    return (p.cumsum(1).narrow(1, 0, p.size(1) - 1) <= u).sum(1);
}

} // namespace

DensityGradient Prior::logDensityWithGradient(const Tensor& z) const {
    const at::AutoGradMode grad(true);
    const Tensor argument = z.detach().set_requires_grad(true);
    const Tensor density = logDensity(argument);
    if (!density.requires_grad())
        return {density, at::zeros_like(argument.detach())};
    return {density.detach(), torch::autograd::grad({density.sum()}, {argument})[0]};
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

DensityGradient GaussianPrior::logDensityWithGradient(const Tensor& z) const {
    const at::NoGradGuard noGrad;
    return {logDensity(z.detach()), z.detach() * (-1 / (sigma * sigma))};
}

Tensor GaussianPrior::perturb(const Tensor& z, double stepSize, Random& random) const {
    checkShape(z, size, "GaussianPrior::perturb");
    checkStep(stepSize, "GaussianPrior::perturb");
    return std::sqrt(1 - stepSize * stepSize) * z + stepSize * sample(z.size(0), random).to(z.device());
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

DensityGradient UniformTorusPrior::logDensityWithGradient(const Tensor& z) const {
    return {logDensity(z.detach()), at::zeros_like(z.detach())};
}

Tensor UniformTorusPrior::perturb(const Tensor& z, double stepSize, Random& random) const {
    checkShape(z, size, "UniformTorusPrior::perturb");
    checkStep(stepSize, "UniformTorusPrior::perturb");
    return wrapAngle(z + stepSize * sample(z.size(0), random).to(z.device()));
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

DensityGradient ProductPrior::logDensityWithGradient(const Tensor& z) const {
    checkShape(z, size, "ProductPrior::logDensityWithGradient");
    Tensor sum = at::zeros({z.size(0)}, z.options().dtype(at::kDouble).requires_grad(false));
    std::vector<Tensor> gradients;
    std::int64_t start = 0;
    for (const auto& factor : factors) {
        const DensityGradient part = factor->logDensityWithGradient(z.narrow(1, start, factor->getSize()));
        sum = sum + part.logDensity;
        gradients.push_back(part.gradient);
        start += factor->getSize();
    }
    return {sum, at::cat(gradients, 1)};
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
    return {{"type", "ProductPrior"}, {"factors", describe(factors)}};
}

std::vector<std::pair<std::string, Tensor>> ProductPrior::getBuffers() const {
    return joinBuffers(factors);
}

MixturePrior::MixturePrior(std::vector<std::shared_ptr<Prior>> priors, std::vector<double> newWeights)
    : components(std::move(priors)), weights(std::move(newWeights)) {
    const char* where = "MixturePrior::MixturePrior";
    require(!components.empty(), where, "number of components", components.size(), "at least 1");
    require(weights.size() == components.size(), where, "number of weights", weights.size(),
            "the number of components, " + std::to_string(components.size()));
    for (const auto& component : components) {
        require(component != nullptr, where, "a component", "null", "a Prior");
        require(component->getSize() == getSize(), where, "size of a component", component->getSize(),
                "that of the first, " + std::to_string(getSize()));
        require(component->getCircularIndices() == getCircularIndices(), where, "circular variables of a component",
                "others", "those of the first");
    }
    for (const double weight : weights)
        require(weight > 0 && std::isfinite(weight), where, "a weight", weight, "positive and finite");
    logWeights = at::tensor(weights, at::kDouble).log().log_softmax(0).unsqueeze(0);
}

Tensor MixturePrior::sample(std::int64_t count, Random& random) const {
    const Tensor chosen = chooseColumn(logWeights.exp().expand({count, logWeights.size(1)}), random);
    Tensor z = at::empty({count, getSize()}, at::kDouble);
    for (std::size_t k = 0; k < components.size(); k++) {
        const Tensor rows = (chosen == static_cast<std::int64_t>(k)).nonzero().squeeze(1);
        if (rows.numel() > 0)
            z.index_copy_(0, rows, components[k]->sample(rows.numel(), random));
    }
    return z;
}

Tensor MixturePrior::logJoint(const Tensor& z) const {
    checkShape(z, getSize(), "MixturePrior::logJoint");
    std::vector<Tensor> columns;
    for (const auto& component : components)
        columns.push_back(component->logDensity(z));
    return at::stack(columns, 1) + logWeights.to(z.device());
}

Tensor MixturePrior::logDensity(const Tensor& z) const {
    checkShape(z, getSize(), "MixturePrior::logDensity");
    return logJoint(z).logsumexp(1);
}

DensityGradient MixturePrior::logDensityWithGradient(const Tensor& z) const {
    checkShape(z, getSize(), "MixturePrior::logDensityWithGradient");
    std::vector<Tensor> columns, gradients;
    for (const auto& component : components) {
        const DensityGradient part = component->logDensityWithGradient(z);
        columns.push_back(part.logDensity);
        gradients.push_back(part.gradient);
    }
    // The gradient of a mixture is that of its components, weighted by their probabilities given z. Where z is outside
    // of a component's domain, its gradient may be anything.
    const Tensor joint = at::stack(columns, 1) + logWeights.to(z.device()), weight = joint.softmax(1).unsqueeze(2);
    const Tensor terms = at::where(weight > 0, weight * at::stack(gradients, 1), 0.0);
    return {joint.logsumexp(1), terms.sum(1)};
}

Tensor MixturePrior::perturb(const Tensor& z, double stepSize, Random& random) const {
    checkShape(z, getSize(), "MixturePrior::perturb");
    checkStep(stepSize, "MixturePrior::perturb");
    const Tensor chosen = chooseColumn(logJoint(z).softmax(1), random);
    const Tensor anew = random.uniform(z.size(0), 1).to(z.device()) < stepSize;
    Tensor moved = z.clone();
    for (std::size_t k = 0; k < components.size(); k++) {
        const Tensor rows = (chosen == static_cast<std::int64_t>(k)).nonzero().squeeze(1);
        if (rows.numel() > 0)
            moved.index_copy_(0, rows, components[k]->perturb(z.index_select(0, rows), stepSize, random));
    }
    return at::where(anew, sample(z.size(0), random).to(z.device()), moved);
}

nlohmann::json MixturePrior::getArchitecture() const {
    return {{"type", "MixturePrior"}, {"components", describe(components)}, {"weights", weights}};
}

std::vector<std::pair<std::string, Tensor>> MixturePrior::getBuffers() const {
    return joinBuffers(components);
}
