#ifndef OPENMMFLOW_FLOWS_SEQUENCE_H_
#define OPENMMFLOW_FLOWS_SEQUENCE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/** Transforms applied in written order: forward(z) = f_n(... f_2(f_1(z))), logDet = the sum of theirs. */
class OPENMMFLOW_EXPORT Sequence : public Transform {
public:
    /** @param transforms  at least one; each one's input size is the output size of the one before */
    explicit Sequence(std::vector<std::shared_ptr<Transform>> transforms);
    [[nodiscard]] const std::vector<std::shared_ptr<Transform>>& getTransforms() const { return transforms; }
    [[nodiscard]] int getInputSize() const override;
    [[nodiscard]] int getOutputSize() const override;
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override;
    [[nodiscard]] std::string getTypeName() const override { return "Sequence"; }
    /** Those of the last transform. */
    [[nodiscard]] std::vector<HeldDistance> getHeldDistances() const override {
        return transforms.back()->getHeldDistances();
    }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override;
    [[nodiscard]] NamedTensors getBuffers() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;
    [[nodiscard]] at::Tensor place(const at::Tensor& x, const at::Tensor& reference) const override;

private:
    std::vector<std::shared_ptr<Transform>> transforms;
};

/** A transform with its directions exchanged: forward is the other's inverse. */
class OPENMMFLOW_EXPORT Inverse : public Transform {
public:
    /** @param transform  one whose input and output sizes are equal */
    explicit Inverse(std::shared_ptr<Transform> transform);
    [[nodiscard]] int getInputSize() const override { return transform->getInputSize(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override { return transform->inverse(z); }
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override { return transform->forward(x); }
    [[nodiscard]] bool isConstantLogDet() const override { return transform->isConstantLogDet(); }
    [[nodiscard]] std::string getTypeName() const override { return "Inverse"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return transform->getParameters(); }
    [[nodiscard]] NamedTensors getBuffers() const override { return transform->getBuffers(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return transform->getConstants(); }

private:
    std::shared_ptr<Transform> transform;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SEQUENCE_H_*/
