#ifndef OPENMMFLOW_LATENT_PRIOR_H_
#define OPENMMFLOW_LATENT_PRIOR_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include "openmmflow/latent/Random.h"
#include <ATen/core/Tensor.h>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace OpenMMFlow {

/** log p(z), float64 [batch], and its gradient with respect to z, float64 [batch, size]. */
struct DensityGradient {
    at::Tensor logDensity, gradient;
};

/**
 * The density p(z) of the latent variables: where a flow starts.
 *
 * Shapes: z is float64 [batch, size]; per-sample scalars are float64 [batch].
 */
class OPENMMFLOW_EXPORT Prior {
public:
    virtual ~Prior() = default;
    /** The number of latent variables. */
    [[nodiscard]] virtual int getSize() const = 0;
    /** Draw independent samples. @return z, float64 [count, size] */
    [[nodiscard]] virtual at::Tensor sample(std::int64_t count, Random& random) const = 0;
    /** log p(z), normalised. @param z  [batch, size]  @return float64 [batch] */
    [[nodiscard]] virtual at::Tensor logDensity(const at::Tensor& z) const = 0;
    /** log p(z) and its gradient, without a graph. This one takes it from autograd. @param z  [batch, size] */
    [[nodiscard]] virtual DensityGradient logDensityWithGradient(const at::Tensor& z) const;
    /**
     * Move each z by a kernel that leaves p(z) invariant and is reversible with respect to it.
     *
     * @param z         [batch, size]
     * @param stepSize  in (0, 1]: near 0 the move is small; at 1 it is an independent draw of the prior
     * @return the moved z, [batch, size]
     */
    [[nodiscard]] virtual at::Tensor perturb(const at::Tensor& z, double stepSize, Random& random) const = 0;
    /** Indices of the variables that live on a circle, [-pi, pi). */
    [[nodiscard]] virtual std::vector<int> getCircularIndices() const = 0;
    /**
     * The prior whose density is proportional to p(z)^(1/factor): for a Gaussian, all variances times factor (F9). Null
     * where that is not a density of this kind.
     *
     * @param factor  > 0
     */
    [[nodiscard]] virtual std::shared_ptr<Prior> scaleVariance(double factor) const { return nullptr; }
    /** {"type": ..., and what create() needs besides tensors}. */
    [[nodiscard]] virtual nlohmann::json getArchitecture() const = 0;
    /** Tensors that are saved with a flow, not trained: handles, with their names. */
    [[nodiscard]] virtual std::vector<std::pair<std::string, at::Tensor>> getBuffers() const { return {}; }
    /**
     * Make the prior that getArchitecture() described; its tensors still have to be filled in. Throws if the
     * description is not valid.
     */
    static std::shared_ptr<Prior> create(const nlohmann::json& architecture);
};

/**
 * Independent normal variables of one standard deviation: p(z) = N(0, sigma^2 I).
 *
 * perturb: z' = sqrt(1 - s^2) z + s sigma e, with e ~ N(0, I).
 */
class OPENMMFLOW_EXPORT GaussianPrior : public Prior {
public:
    /** @param size  at least 1  @param sigma  standard deviation, > 0 */
    explicit GaussianPrior(int size, double sigma = 1.0);
    [[nodiscard]] double getSigma() const { return sigma; }
    [[nodiscard]] int getSize() const override { return size; }
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const override;
    [[nodiscard]] at::Tensor logDensity(const at::Tensor& z) const override;
    [[nodiscard]] DensityGradient logDensityWithGradient(const at::Tensor& z) const override;
    [[nodiscard]] at::Tensor perturb(const at::Tensor& z, double stepSize, Random& random) const override;
    [[nodiscard]] std::vector<int> getCircularIndices() const override { return {}; }
    [[nodiscard]] std::shared_ptr<Prior> scaleVariance(double factor) const override;
    [[nodiscard]] nlohmann::json getArchitecture() const override;

private:
    int size;
    double sigma;
};

/**
 * Independent uniform variables on the circle [-pi, pi): p(z) = (2 pi)^-size.
 *
 * perturb: z' = wrap(z + s pi e), with e uniform in (-1, 1): symmetric, and independent of z at s = 1.
 */
class OPENMMFLOW_EXPORT UniformTorusPrior : public Prior {
public:
    /** @param size  at least 1 */
    explicit UniformTorusPrior(int size);
    [[nodiscard]] int getSize() const override { return size; }
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const override;
    [[nodiscard]] at::Tensor logDensity(const at::Tensor& z) const override;
    [[nodiscard]] DensityGradient logDensityWithGradient(const at::Tensor& z) const override;
    [[nodiscard]] at::Tensor perturb(const at::Tensor& z, double stepSize, Random& random) const override;
    [[nodiscard]] std::vector<int> getCircularIndices() const override;
    /** The same prior: a uniform density is its own power. */
    [[nodiscard]] std::shared_ptr<Prior> scaleVariance(double factor) const override;
    [[nodiscard]] nlohmann::json getArchitecture() const override;

private:
    int size;
};

/** Several priors side by side: z = (z_1, z_2, ...), p(z) = p_1(z_1) p_2(z_2) ... */
class OPENMMFLOW_EXPORT ProductPrior : public Prior {
public:
    /** @param factors  at least one, in the order of their variables */
    explicit ProductPrior(std::vector<std::shared_ptr<Prior>> factors);
    [[nodiscard]] const std::vector<std::shared_ptr<Prior>>& getFactors() const { return factors; }
    [[nodiscard]] int getSize() const override { return size; }
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const override;
    [[nodiscard]] at::Tensor logDensity(const at::Tensor& z) const override;
    [[nodiscard]] DensityGradient logDensityWithGradient(const at::Tensor& z) const override;
    [[nodiscard]] at::Tensor perturb(const at::Tensor& z, double stepSize, Random& random) const override;
    [[nodiscard]] std::vector<int> getCircularIndices() const override;
    [[nodiscard]] std::shared_ptr<Prior> scaleVariance(double factor) const override;
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> getBuffers() const override;

private:
    std::vector<std::shared_ptr<Prior>> factors;
    int size = 0;
};

/**
 * A mixture: p(z) = sum_k w_k p_k(z), of priors of the same variables.
 *
 *     sample:   k with probability w_k, then z ~ p_k
 *     perturb:  with probability s an independent draw of p; otherwise k with probability w_k p_k(z)/p(z), then z' by
 *               the kernel of p_k. As w_k p_k(z) k_k(z'|z) is symmetric in z and z', so is the sum over k.
 *
 * A flow from a mixture is several modes without the thin bridges between them that a flow from one mode has to leave
 * (Stimper, Schoelkopf and Hernandez-Lobato, "Resampling Base Distributions of Normalizing Flows", AISTATS 2022). Of
 * FlowPriors it is a mixture of flows, one for each metastable state: see FlowPrior.h. Weights are not trained.
 */
class OPENMMFLOW_EXPORT MixturePrior : public Prior {
public:
    /**
     * @param components  at least one, all of one size and with the same circular variables
     * @param weights     one each, > 0; only their ratios matter
     */
    MixturePrior(std::vector<std::shared_ptr<Prior>> components, std::vector<double> weights);
    [[nodiscard]] const std::vector<std::shared_ptr<Prior>>& getComponents() const { return components; }
    [[nodiscard]] const std::vector<double>& getWeights() const { return weights; }
    [[nodiscard]] int getSize() const override { return components[0]->getSize(); }
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const override;
    [[nodiscard]] at::Tensor logDensity(const at::Tensor& z) const override;
    [[nodiscard]] DensityGradient logDensityWithGradient(const at::Tensor& z) const override;
    [[nodiscard]] at::Tensor perturb(const at::Tensor& z, double stepSize, Random& random) const override;
    [[nodiscard]] std::vector<int> getCircularIndices() const override { return components[0]->getCircularIndices(); }
    /** ln w_k p_k(z), [batch, components]: less log p(z), the log probabilities of the components given z. */
    [[nodiscard]] at::Tensor logJoint(const at::Tensor& z) const;
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> getBuffers() const override;

private:
    std::vector<std::shared_ptr<Prior>> components;
    std::vector<double> weights;
    at::Tensor logWeights; // of the normalised weights, [1, components]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_LATENT_PRIOR_H_*/
