#ifndef OPENMMFLOW_WRAPPERS_PYTHONTRANSFORM_H_
#define OPENMMFLOW_WRAPPERS_PYTHONTRANSFORM_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

struct _object; // PyObject

namespace OpenMMFlow {

/**
 * A transform that a Python object computes, so that flows of any PyTorch library can be used.
 *
 *     object.forward(z) -> (x, logDet),  object.inverse(x) -> (z, logDet)
 *
 * Arguments are float64 tensors [batch, size]; results may have any floating dtype and become float64. If the object is
 * a torch.nn.Module, its parameters are this transform's. Exceptions become OpenMMException; Ctrl-C is passed on.
 *
 * It can be trained and sampled, and used in integrators and forces, but not saved, cloned or pickled: save the object
 * itself, and wrap it again.
 */
class PythonTransform : public Transform {
public:
    /**
     * @param object          see above
     * @param inputSize       columns of z
     * @param outputSize      columns of x; the same as of z if 0
     * @param constantLogDet  see isConstantLogDet()
     */
    explicit PythonTransform(_object* object, int inputSize, int outputSize = 0, bool constantLogDet = false);
    ~PythonTransform() override;
    /** The Python object. @return a new reference */
    [[nodiscard]] _object* getObject() const;
    [[nodiscard]] int getInputSize() const override { return inputSize; }
    [[nodiscard]] int getOutputSize() const override { return outputSize; }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return constantLogDet; }
    [[nodiscard]] std::string getTypeName() const override { return "PythonTransform"; }
    /** Always throws. */
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override;
    [[nodiscard]] NamedTensors getBuffers() const override;

private:
    [[nodiscard]] TransformResult call(const char* method, const at::Tensor& argument, int argumentSize,
                                       int resultSize) const;
    [[nodiscard]] NamedTensors collect(const char* method) const;
    _object* object;
    int inputSize, outputSize;
    bool constantLogDet;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_WRAPPERS_PYTHONTRANSFORM_H_*/
