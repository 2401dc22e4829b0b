#ifndef OPENMMFLOW_FLOWS_CONDITIONED_H_
#define OPENMMFLOW_FLOWS_CONDITIONED_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Coupling.h"

namespace OpenMMFlow {

/**
 * A conditional flow at one value of its conditions: temperature, lambda, couplings.
 *
 * The conditional flow itself is an ordinary transform of variables and conditions side by side, (z, c) -> (x, c),
 * whose layers read the columns c but never change them: couplings that list them as passive. It is trained as such, on
 * frames (x, c). Fixing c gives the transform of z alone,
 *
 *     forward:  x = f(z; c),       logDet = log|det df/dz|
 *     inverse:  z = f^-1(x; c)
 *
 * as the Jacobian of the joint map has unit blocks for c. A transform that does change c throws. Parameters are shared,
 * so that views of one conditional flow at many values are trained together. Source: Winkler et al., "Learning
 * Likelihoods with Conditional Normalizing Flows" (2019).
 */
class OPENMMFLOW_EXPORT Conditioned : public Transform {
public:
    /**
     * @param transform  of variables and conditions; as many columns of output as of input
     * @param indices    columns of the conditions: some, not all
     * @param values     of the conditions, finite, one each
     */
    Conditioned(std::shared_ptr<Transform> transform, const std::vector<int>& indices, std::vector<double> values);
    /** The same flow at other values: shares the transform. */
    [[nodiscard]] std::shared_ptr<Conditioned> withValues(std::vector<double> values) const;
    [[nodiscard]] const std::vector<double>& getValues() const { return values; }
    [[nodiscard]] const std::shared_ptr<Transform>& getTransform() const { return transform; }
    [[nodiscard]] int getInputSize() const override;
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return transform->isConstantLogDet(); }
    [[nodiscard]] std::string getTypeName() const override { return "Conditioned"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return transform->getParameters(); }
    [[nodiscard]] NamedTensors getBuffers() const override { return transform->getBuffers(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] at::Tensor join(const at::Tensor& y) const;
    [[nodiscard]] TransformResult separate(const TransformResult& joint) const;
    std::shared_ptr<Transform> transform;
    std::vector<double> values;
    Split split;           // conditions are its active part
    at::Tensor conditions; // float64 [1, conditions]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CONDITIONED_H_*/
