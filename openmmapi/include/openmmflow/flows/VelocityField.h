#ifndef OPENMMFLOW_FLOWS_VELOCITYFIELD_H_
#define OPENMMFLOW_FLOWS_VELOCITYFIELD_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/** v(y, t), float64 [batch, size], and its divergence tr(dv/dy) or an estimate of it, float64 [batch]. */
struct VelocityResult {
    at::Tensor velocity, divergence;
};

/**
 * The velocity v(y, t) of a ContinuousFlow, with its divergence and the derivatives that training needs.
 *
 * Hutchinson's estimate of the divergence (Grathwohl et al., FFJORD, ICLR 2019, equation 7) needs derivatives along
 * some probe vectors e with E[e e^T] = 1 only:
 *
 *     tr(dv/dy) = E[e^T (dv/dy) e]
 *
 * Unlike other networks, fields compute in float64 even where their parameters are float32: the error estimate of an
 * integrator can't fall below the rounding noise of its field.
 *
 * All functions are differentiable by autograd. Shapes: y is float64 [batch, size], t float64 [batch].
 */
class OPENMMFLOW_EXPORT VelocityField {
public:
    virtual ~VelocityField() = default;
    [[nodiscard]] virtual int getSize() const = 0;
    /** Which of 0..size-1 live on [-pi, pi). */
    [[nodiscard]] virtual const std::vector<int>& getCircular() const = 0;
    /** v(y, t). @return float64 [batch, size] */
    [[nodiscard]] virtual at::Tensor operator()(const at::Tensor& y, const at::Tensor& t) const = 0;
    /** v(y, t) and tr(dv/dy). */
    [[nodiscard]] VelocityResult withDivergence(const at::Tensor& y, const at::Tensor& t) const {
        return evaluate(y, t, {});
    }
    /**
     * v(y, t) and the mean over the probes of e^T (dv/dy) e, or something less random. For training only: a random
     * log-det must never enter an accept decision.
     *
     * @param probes  float64 [batch, number of probes, size]
     */
    [[nodiscard]] VelocityResult withEstimatedDivergence(const at::Tensor& y, const at::Tensor& t,
                                                         const at::Tensor& probes) const;
    [[nodiscard]] virtual NamedTensors getParameters() const = 0;
    /** As Transform::getConstants(). */
    [[nodiscard]] virtual std::vector<at::Tensor> getConstants() const = 0;
    /** {"type": name, ...}: what create() needs besides tensors. */
    [[nodiscard]] virtual nlohmann::json getArchitecture() const = 0;
    static std::shared_ptr<VelocityField> create(const nlohmann::json& architecture, int size,
                                                 const std::vector<int>& circular);

    /** What pullBack() returns: v, and the derivatives of sum(onVelocity v) + sum(onDivergence div v). */
    struct PullBack {
        at::Tensor velocity;                  // [batch, size]
        at::Tensor onArgument;                // [batch, size]
        std::vector<at::Tensor> onParameters; // float64, in the order of getParameters(); empty unless asked for
    };
    enum class Derivatives { ByArgument, ByArgumentAndParameters };
    /**
     * The product of a covector with the derivatives of (v, div v), in closed form and without an autograd graph: the
     * right-hand side of the adjoint equation.
     *
     * @param probes        as in withEstimatedDivergence(); undefined for the exact divergence
     * @param onVelocity    [batch, size]
     * @param onDivergence  [batch]
     */
    [[nodiscard]] virtual PullBack pullBack(const at::Tensor& y, const at::Tensor& t, const at::Tensor& probes,
                                            const at::Tensor& onVelocity, const at::Tensor& onDivergence,
                                            Derivatives derivatives) const = 0;
    /** The same field with other tensors for its parameters, in the order of getParameters(). */
    [[nodiscard]] virtual std::shared_ptr<VelocityField> withParameters(std::vector<at::Tensor> tensors) const = 0;
    /**
     * Numbers that pullBack() stores for each row: for choosing the size of a batch.
     *
     * @param probes  their number; 0 for the exact divergence
     */
    [[nodiscard]] virtual std::int64_t countIntermediates(std::int64_t probes) const = 0;

protected:
    /** @param probes  undefined for the exact divergence */
    [[nodiscard]] virtual VelocityResult evaluate(const at::Tensor& y, const at::Tensor& t,
                                                  const at::Tensor& probes) const = 0;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_VELOCITYFIELD_H_*/
