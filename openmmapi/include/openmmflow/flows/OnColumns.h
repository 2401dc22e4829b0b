#ifndef OPENMMFLOW_FLOWS_ONCOLUMNS_H_
#define OPENMMFLOW_FLOWS_ONCOLUMNS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Coupling.h"

namespace OpenMMFlow {

/**
 * A transform of some of the variables; the others stay as they are:
 *
 *     x_columns = f(z_columns),  x_others = z_others,  logDet = that of f
 *
 * It makes a flow of two of the three coordinates of each particle a flow of the particles of a System, for example.
 */
class OPENMMFLOW_EXPORT OnColumns : public Transform {
public:
    /**
     * @param transform  f, as many columns of output as of input
     * @param size       number of variables in all
     * @param columns    where f's columns are among them, in its order: some but not all, each once
     */
    OnColumns(std::shared_ptr<Transform> transform, int size, const std::vector<int>& columns);
    [[nodiscard]] const std::shared_ptr<Transform>& getTransform() const { return transform; }
    [[nodiscard]] const std::vector<int>& getColumns() const { return split.getActive(); }
    [[nodiscard]] int getInputSize() const override { return split.getSize(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return transform->isConstantLogDet(); }
    [[nodiscard]] std::string getTypeName() const override { return "OnColumns"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return transform->getParameters(); }
    [[nodiscard]] NamedTensors getBuffers() const override { return transform->getBuffers(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] TransformResult join(const TransformResult& part, const at::Tensor& whole) const;
    std::shared_ptr<Transform> transform;
    Split split; // f's columns are its active part
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_ONCOLUMNS_H_*/
