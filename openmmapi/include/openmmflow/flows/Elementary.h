#ifndef OPENMMFLOW_FLOWS_ELEMENTARY_H_
#define OPENMMFLOW_FLOWS_ELEMENTARY_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/** A change of order: x[i] = z[order[i]], logDet = 0. */
class OPENMMFLOW_EXPORT Permutation : public Transform {
public:
    /** @param order  each of 0..n-1 once */
    explicit Permutation(std::vector<int> order);
    [[nodiscard]] int getInputSize() const override { return static_cast<int>(order.size()); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "Permutation"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {forwardIndex, inverseIndex}; }

private:
    std::vector<int> order;
    at::Tensor forwardIndex, inverseIndex;
};

/**
 * A fixed affine map of each variable, x_i = shift_i + scale_i z_i, logDet = sum_i log|scale_i|: takes normalised
 * coordinates to physical ones. Not trained.
 */
class OPENMMFLOW_EXPORT Scaling : public Transform {
public:
    /** @param shift  finite, [size]  @param scale  finite and not zero, [size] */
    Scaling(std::vector<double> shift, std::vector<double> scale);
    [[nodiscard]] const at::Tensor& getShift() const { return shift; }
    [[nodiscard]] const at::Tensor& getScale() const { return scale; }
    [[nodiscard]] int getInputSize() const override { return static_cast<int>(shift.size(0)); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "Scaling"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {shift, scale}; }

private:
    at::Tensor shift, scale;
    double logDet;
};

/**
 * A trained scale of each variable, of either sign:
 *
 *     forward:  x_i = s_i z_i,  logDet =  sum_i log|s_i|
 *     inverse:  z_i = x_i/s_i,  logDet = -sum_i log|s_i|
 *
 * s = 1 at the start. Where s_i = 0 there is no inverse and the log-dets are infinite. Computes in float64 whatever the
 * dtype of s. Source: the scaling layer of NICE (Dinh, Krueger and Bengio, ICLR workshop 2015).
 */
class OPENMMFLOW_EXPORT LearnedScaling : public Transform {
public:
    /** @param size  number of variables, at least 1 */
    explicit LearnedScaling(int size);
    [[nodiscard]] int getInputSize() const override { return static_cast<int>(scale.size(0)); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "LearnedScaling"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return {{"scale", scale}}; }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {}; }

private:
    at::Tensor scale;
};

/**
 * A trained positive scale of each variable, by its logarithm:
 *
 *     forward:  x_i = exp(k_i) z_i,   logDet =  sum_i k_i
 *     inverse:  z_i = exp(-k_i) x_i,  logDet = -sum_i k_i
 *
 * k = 0 at the start. Computes in float64 whatever the dtype of k.
 */
class OPENMMFLOW_EXPORT ExpScaling : public Transform {
public:
    /** @param size  number of variables, at least 1 */
    explicit ExpScaling(int size);
    [[nodiscard]] int getInputSize() const override { return static_cast<int>(logScale.size(0)); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "ExpScaling"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return {{"logScale", logScale}}; }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {}; }

private:
    at::Tensor logScale;
};

/** A fixed rotation of some circular variables: x_i = wrap(z_i + shift_i) into [-pi, pi) for i in indices, logDet = 0.
 */
class OPENMMFLOW_EXPORT CircularShift : public Transform {
public:
    /** @param size  number of variables  @param indices  the circular ones that turn  @param shift  radians, one each
     */
    CircularShift(int size, std::vector<int> indices, std::vector<double> shift);
    [[nodiscard]] int getInputSize() const override { return size; }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "CircularShift"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {offset, circular}; }

private:
    int size;
    std::vector<int> indices;
    std::vector<double> shift;
    at::Tensor offset, circular; // float64 [size]; bool [size]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_ELEMENTARY_H_*/
