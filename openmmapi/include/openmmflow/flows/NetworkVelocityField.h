#ifndef OPENMMFLOW_FLOWS_NETWORKVELOCITYFIELD_H_
#define OPENMMFLOW_FLOWS_NETWORKVELOCITYFIELD_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioner.h"
#include "openmmflow/flows/VelocityField.h"

namespace OpenMMFlow {

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
 * h, in one pass: h' = phi(s), T' = phi'(s) W T, with s = W h + b. Hutchinson's estimate needs those along the probes
 * only.
 */
class OPENMMFLOW_EXPORT NetworkVelocityField : public VelocityField {
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
    NetworkVelocityField(int size, std::vector<int> circular, const Options& options);
    [[nodiscard]] int getSize() const override { return size; }
    [[nodiscard]] const std::vector<int>& getCircular() const override { return circular; }
    [[nodiscard]] at::Tensor operator()(const at::Tensor& y, const at::Tensor& t) const override;
    [[nodiscard]] NamedTensors getParameters() const override { return network.getParameters(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override {
        return {circularIndex, openIndex, phases, unitVectors};
    }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    /** The options that getArchitecture() described. */
    static Options readOptions(const nlohmann::json& architecture);
    [[nodiscard]] PullBack pullBack(const at::Tensor& y, const at::Tensor& t, const at::Tensor& probes,
                                    const at::Tensor& onVelocity, const at::Tensor& onDivergence,
                                    Derivatives derivatives) const override;
    [[nodiscard]] std::shared_ptr<VelocityField> withParameters(std::vector<at::Tensor> tensors) const override;
    [[nodiscard]] std::int64_t countIntermediates(std::int64_t probes) const override;

private:
    struct Pass; // one pass through the layers, with what the way back needs
    [[nodiscard]] at::Tensor makeFeatures(const at::Tensor& y, const at::Tensor& t) const;
    [[nodiscard]] Pass run(const at::Tensor& y, const at::Tensor& t, const at::Tensor& probes) const;
    [[nodiscard]] PullBack reverse(const Pass& pass, const at::Tensor& onVelocity, const at::Tensor& onDivergence,
                                   Derivatives derivatives) const;
    [[nodiscard]] VelocityResult evaluate(const at::Tensor& y, const at::Tensor& t,
                                          const at::Tensor& probes) const override;
    int size;
    std::vector<int> circular;
    Options options;
    Conditioner network;                // the parameters and how they start
    std::vector<at::Tensor> parameters; // weight and bias of each layer in turn
    at::Tensor circularIndex, openIndex;
    at::Tensor phases, unitVectors; // pi k, [frequencies]; [1, size, size]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_NETWORKVELOCITYFIELD_H_*/
