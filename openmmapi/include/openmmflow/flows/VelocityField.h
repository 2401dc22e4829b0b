#ifndef OPENMMFLOW_FLOWS_VELOCITYFIELD_H_
#define OPENMMFLOW_FLOWS_VELOCITYFIELD_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioner.h"

namespace OpenMMFlow {

/** v(y, t), float64 [batch, size], and its divergence tr(dv/dy) or an estimate of it, float64 [batch]. */
struct VelocityResult {
    at::Tensor velocity, divergence;
};

/**
 * The velocity of a continuous flow, a multilayer perceptron n of the variables and of time:
 *
 *     v(y, t) = n(f),  f = (open y, t, cos(pi k t), sin(pi k t), cos(circular y), sin(circular y)),  k = 1..frequencies
 *
 * so that v is periodic in the circular variables. The last layer starts at zero: v = 0, the flow is the identity.
 * With `odd`, v(y, t) = [n(y, t) - n(-y, t)]/2, which satisfies v(-y) = -v(y): a flow from a prior that is even in z
 * then has a density that is even in x (the Z2 symmetry of lattice fields). It costs twice as much.
 *
 * The divergence is exact. The tangents T = dh/dy of all variables pass through the layers side by side with the values
 * h, in one pass: h' = phi(s), T' = phi'(s) W T, with s = W h + b. Hutchinson's estimate (Grathwohl et al., FFJORD,
 * ICLR 2019, equation 7) needs the tangents along some probe vectors e with E[e e^T] = 1 only:
 *
 *     tr(dv/dy) = E[e^T (dv/dy) e]
 *
 * Unlike other networks this one computes in float64 even where its parameters are float32: the error estimate of an
 * integrator can't fall below the rounding noise of its field.
 *
 * All functions are differentiable by autograd. Shapes: y is float64 [batch, size], t float64 [batch].
 */
class OPENMMFLOW_EXPORT VelocityField {
public:
    struct Options {
        /** Layers and activation. ReLU is refused: its divergence jumps. */
        Conditioner::Options network;
        /** Fourier features of t, at least 0. Each more makes the field vary faster in time, and its integration
         * dearer.
         */
        int frequencies = 2;
        /** Whether v(-y, t) = -v(y, t). */
        bool odd = false;
    };
    /** @param size  number of variables  @param circular  which of 0..size-1 live on [-pi, pi) */
    VelocityField(int size, std::vector<int> circular, const Options& options);
    [[nodiscard]] int getSize() const { return size; }
    [[nodiscard]] const std::vector<int>& getCircular() const { return circular; }
    /** v(y, t). @return float64 [batch, size] */
    [[nodiscard]] at::Tensor operator()(const at::Tensor& y, const at::Tensor& t) const;
    /** v(y, t) and tr(dv/dy). */
    [[nodiscard]] VelocityResult withDivergence(const at::Tensor& y, const at::Tensor& t) const;
    /**
     * v(y, t) and the mean over the probes of e^T (dv/dy) e. For training only: a random log-det must never enter an
     * accept decision.
     *
     * @param probes  float64 [batch, number of probes, size]
     */
    [[nodiscard]] VelocityResult withEstimatedDivergence(const at::Tensor& y, const at::Tensor& t,
                                                         const at::Tensor& probes) const;
    [[nodiscard]] NamedTensors getParameters() const { return network.getParameters(); }
    [[nodiscard]] nlohmann::json getArchitecture() const;
    /** The options that getArchitecture() described. */
    static Options readOptions(const nlohmann::json& architecture);

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
    [[nodiscard]] PullBack pullBack(const at::Tensor& y, const at::Tensor& t, const at::Tensor& probes,
                                    const at::Tensor& onVelocity, const at::Tensor& onDivergence,
                                    Derivatives derivatives) const;
    /** The same field with other tensors for its parameters, in the order of getParameters(). */
    [[nodiscard]] VelocityField withParameters(std::vector<at::Tensor> tensors) const;
    /** Numbers that pullBack() stores for each row and probe: for choosing the size of a batch. */
    [[nodiscard]] std::int64_t countIntermediates() const;

private:
    struct Pass; // one pass through the layers, with what the way back needs
    [[nodiscard]] at::Tensor makeFeatures(const at::Tensor& y, const at::Tensor& t) const;
    [[nodiscard]] Pass run(const at::Tensor& y, const at::Tensor& t, const at::Tensor& probes) const;
    [[nodiscard]] PullBack reverse(const Pass& pass, const at::Tensor& onVelocity, const at::Tensor& onDivergence,
                                   Derivatives derivatives) const;
    [[nodiscard]] VelocityResult evaluate(const at::Tensor& y, const at::Tensor& t, const at::Tensor& probes) const;
    int size;
    std::vector<int> circular;
    Options options;
    Conditioner network;                // the parameters and how they start
    std::vector<at::Tensor> parameters; // weight and bias of each layer in turn
    at::Tensor circularIndex, openIndex;
    at::Tensor phases, unitVectors; // pi k, [frequencies]; [1, size, size]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_VELOCITYFIELD_H_*/
