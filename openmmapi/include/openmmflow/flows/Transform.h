#ifndef OPENMMFLOW_FLOWS_TRANSFORM_H_
#define OPENMMFLOW_FLOWS_TRANSFORM_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <ATen/core/Tensor.h>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace OpenMMFlow {

/** Tensors with their names, in a fixed order. The tensors are handles: they share storage with their owner. */
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/**
 * What a map returns: the value, and log|det J| of the map just applied, J its Jacobian.
 * value is [batch, size]; logDet is float64 [batch].
 */
struct TransformResult {
    at::Tensor value;
    at::Tensor logDet;
};

/**
 * A result, and the gradient of sum(onValue * value) + sum(logDet) with respect to the argument as a function of
 * onValue: [batch, columns of value] -> [batch, columns of the argument], both float64. None is part of an autograd
 * graph. The function is to be called at most once, and before parameters change.
 */
struct PulledResult {
    TransformResult result;
    std::function<at::Tensor(const at::Tensor& onValue)> pullBack;
};

/** Two atoms, by their numbers in a chart, and the distance at which it holds them, nm. */
struct HeldDistance {
    int first, second;
    double length;
};

/**
 * An invertible map between latent variables z and configurations x.
 *
 *     forward:  x = f(z),       logDet = log|det df/dz|
 *     inverse:  z = f^-1(x),    logDet = log|det df^-1/dx| = -(logDet of forward at z)
 *
 * Data are float64 whatever the dtype of the parameters, so that log-dets and round trips keep double accuracy;
 * networks compute in the dtype of their parameters (float32 unless set otherwise). Both directions are differentiable
 * by autograd, with respect to the argument and to the parameters, and never modify their argument. Rows of a batch do
 * not influence each other.
 *
 * A point outside a transform's domain is not an error: its row gets logDet = NaN in forward (the sample is invalid)
 * and logDet = -inf in inverse (the density there is 0).
 */
class OPENMMFLOW_EXPORT Transform {
public:
    virtual ~Transform() = default;
    /** The number of latent variables, columns of z. */
    [[nodiscard]] virtual int getInputSize() const = 0;
    /** The number of columns of x. It differs from getInputSize() only for charts that leave rigid motions out. */
    [[nodiscard]] virtual int getOutputSize() const { return getInputSize(); }
    /** x = f(z). @param z  float64 [batch, input size] */
    [[nodiscard]] virtual TransformResult forward(const at::Tensor& z) const = 0;
    /** z = f^-1(x). @param x  float64 [batch, output size] */
    [[nodiscard]] virtual TransformResult inverse(const at::Tensor& x) const = 0;
    /**
     * inverse(x) and its pull-back: what gradients of log q(x) are made of. This one takes it from autograd; transforms
     * that forces use have their own, without a graph, for small batches.
     */
    [[nodiscard]] virtual PulledResult inverseWithPullBack(const at::Tensor& x) const;
    /** Whether the log-det is the same number for every argument: a promise that the contract suite checks. */
    [[nodiscard]] virtual bool isConstantLogDet() const { return false; }
    /** The name under which create() knows this class. */
    [[nodiscard]] virtual std::string getTypeName() const = 0;
    /** For charts: the distances that no latent variable changes, as those of a System's constraints. */
    [[nodiscard]] virtual std::vector<HeldDistance> getHeldDistances() const { return {}; }
    /** What create() needs besides tensors. Throws if this transform can't be saved. */
    [[nodiscard]] virtual nlohmann::json getArchitecture() const = 0;
    /** The trainable tensors. */
    [[nodiscard]] virtual NamedTensors getParameters() const { return {}; }
    /** Tensors that are saved but not trained. */
    [[nodiscard]] virtual NamedTensors getBuffers() const { return {}; }
    /**
     * Tensors that are neither, such as lists of indices: handles, for moving them to another device (Flow::to). This
     * one throws: a transform that says nothing works on processors only.
     */
    [[nodiscard]] virtual std::vector<at::Tensor> getConstants() const;
    /**
     * For charts that leave rigid motions out: move each x rigidly onto the frame of a reference. Others return x.
     *
     * @param x          [batch, output size]
     * @param reference  [batch, output size] or [1, output size]
     */
    [[nodiscard]] virtual at::Tensor place(const at::Tensor& x, const at::Tensor& reference) const { return x; }
    /**
     * Make the transform that getTypeName() and getArchitecture() described; its tensors still have to be filled in.
     *
     * @param architecture  {"type": name, ...}
     */
    static std::shared_ptr<Transform> create(const nlohmann::json& architecture);
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_TRANSFORM_H_*/
