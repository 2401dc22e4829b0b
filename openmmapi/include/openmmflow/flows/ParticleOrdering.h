#ifndef OPENMMFLOW_FLOWS_PARTICLEORDERING_H_
#define OPENMMFLOW_FLOWS_PARTICLEORDERING_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/**
 * One labelling of identical particles: of all orders of each group, the one nearest to a reference. Without it a flow
 * of N exchangeable particles would have to learn N! copies of every configuration.
 *
 *     inverse:  x -> y, the particles of each group reordered so that sum_i |y_i - a_i|^2 is least;  logDet = 0
 *     forward:  y -> x = y;  logDet = 0, or NaN and a row of NaN where y is not in its own nearest order
 *
 * q is then a density of configurations of unlabelled particles, as a chart's is one up to rigid motion: for an energy
 * that does not change when particles of a group are exchanged, the weights exp(-u)/q are exact, and ln Z of labelled
 * particles is larger by sum_groups ln N_g!. As the last transform of a flow, it may follow any others.
 *
 * Sources: Noe et al., Science 365, eaaw1147 (2019), for the use; Jonker and Volgenant, Computing 38, 325 (1987), for
 * shortest augmenting paths in linear assignment.
 */
class OPENMMFLOW_EXPORT ParticleOrdering : public Transform {
public:
    /**
     * @param reference  [particles, dimension], finite
     * @param groups     sets of identical particles, each with at least 2; no particle in two of them
     */
    ParticleOrdering(const at::Tensor& reference, std::vector<std::vector<int>> groups);
    /** The ordering that getArchitecture() described. */
    static std::shared_ptr<ParticleOrdering> fromArchitecture(const nlohmann::json& architecture);
    [[nodiscard]] const at::Tensor& getReference() const { return reference; }
    [[nodiscard]] const std::vector<std::vector<int>>& getGroups() const { return groups; }
    [[nodiscard]] int getInputSize() const override { return static_cast<int>(reference.numel()); }
    [[nodiscard]] TransformResult forward(const at::Tensor& y) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    /** The same wherever forward is defined. */
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "ParticleOrdering"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {}; }

private:
    [[nodiscard]] at::Tensor findOrder(const at::Tensor& x) const;
    at::Tensor reference; // float64 [particles, dimension], on the processor
    std::vector<std::vector<int>> groups;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_PARTICLEORDERING_H_*/
