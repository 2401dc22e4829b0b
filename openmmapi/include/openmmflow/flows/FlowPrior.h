#ifndef OPENMMFLOW_FLOWS_FLOWPRIOR_H_
#define OPENMMFLOW_FLOWS_FLOWPRIOR_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Flow.h"

namespace OpenMMFlow {

/**
 * The density of a trained flow as the prior of another: p(z) = q(z), with q of Flow.h.
 *
 *     perturb:  z -> latent of the flow, moved there by the kernel of its prior, and back
 *
 * A mixture of flows, one for each metastable state, is a flow from a MixturePrior of these, by the chart that they
 * share or, where x needs no chart, by an identity such as Scaling(0, 1). It jumps from any state to any other, by
 *
 *     log q(x) = ln sum_k w_k q_k(x):
 *
 * the density of x whichever flow proposed it, so that components may overlap, which is what makes jumps between flows
 * exact. Sampling costs one pass through one flow and the inverse of all.
 *
 * The flow is copied and does not change any more: train the components first. A row that the flow can't draw is NaN,
 * and log p is -inf outside of its domain.
 */
class OPENMMFLOW_EXPORT FlowPrior : public Prior {
public:
    /**
     * @param flow      of as many latent variables as variables: without a chart that leaves rigid motions out
     * @param circular  columns of the flow's x that live on [-pi, pi), each once
     */
    explicit FlowPrior(const Flow& flow, std::vector<int> circular = {});
    [[nodiscard]] int getSize() const override { return flow->getSize(); }
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const override;
    [[nodiscard]] at::Tensor logDensity(const at::Tensor& z) const override;
    [[nodiscard]] DensityGradient logDensityWithGradient(const at::Tensor& z) const override;
    [[nodiscard]] at::Tensor perturb(const at::Tensor& z, double stepSize, Random& random) const override;
    [[nodiscard]] std::vector<int> getCircularIndices() const override { return circular; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> getBuffers() const override;
    /** The prior that getArchitecture() described. */
    static std::shared_ptr<FlowPrior> fromArchitecture(const nlohmann::json& architecture);

private:
    FlowPrior(std::shared_ptr<Flow> flow, std::vector<int> circular);
    std::shared_ptr<Flow> flow;
    std::vector<int> circular; // in ascending order
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_FLOWPRIOR_H_*/
