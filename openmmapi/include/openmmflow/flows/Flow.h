#ifndef OPENMMFLOW_FLOWS_FLOW_H_
#define OPENMMFLOW_FLOWS_FLOW_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"
#include "openmmflow/latent/Prior.h"
#include <map>

namespace OpenMMFlow {

/** A batch drawn from a flow: z [batch, latent size], x [batch, size], logDet (of forward) and logQ float64 [batch]. */
struct FlowSample {
    at::Tensor z, x, logDet, logQ;
};

/** log q(x), float64 [batch], and its gradient with respect to x, float64 [batch, size]. */
struct LogQGradient {
    at::Tensor logQ, gradient;
};

/**
 * A normalizing flow: a prior p(z) and a transform x = f(z), hence a density that can be sampled and evaluated (F1):
 *
 *     log q(x) = log p(z) - log|det df/dz|,  z = f^-1(x)
 *
 * A flow of a molecule ends in an InternalCoordinates chart; its q is then a density of configurations up to rigid
 * motion. Sampling and evaluating make no autograd graph unless a gradient is asked for by the caller (torch's grad
 * mode).
 */
class OPENMMFLOW_EXPORT Flow {
public:
    /**
     * @param prior      as many variables as the transform's input
     * @param transform  z -> x
     * @param atoms      the particles of a System that x describes, three columns each in this order; empty when x is
     * not made of particles
     */
    Flow(std::shared_ptr<Prior> prior, std::shared_ptr<Transform> transform, std::vector<int> atoms = {});
    [[nodiscard]] const std::shared_ptr<Prior>& getPrior() const { return prior; }
    [[nodiscard]] const std::shared_ptr<Transform>& getTransform() const { return transform; }
    [[nodiscard]] const std::vector<int>& getAtoms() const { return atoms; }
    /** Columns of x. */
    [[nodiscard]] int getSize() const { return transform->getOutputSize(); }
    /** Columns of z. */
    [[nodiscard]] int getLatentSize() const { return prior->getSize(); }
    /** The temperature the flow was trained for, in K; 0 when it is not tied to one. */
    [[nodiscard]] double getTemperature() const { return temperature; }
    void setTemperature(double kelvin);
    /**
     * Whether the flow can be taken to another temperature exactly: it has a temperature, a constant log-det, and a
     * prior whose powers are priors.
     */
    [[nodiscard]] bool canScaleTemperature() const;
    /**
     * The flow at another temperature (F9): the same transform, shared, from a prior with variances scaled by T'/T. If
     * this flow is exact at its temperature T, that one is exact at T'. Throws unless canScaleTemperature(): the
     * density of any other flow does not scale, and its samples at T' are this flow's samples, reweighted.
     *
     * @param kelvin  T', > 0
     */
    [[nodiscard]] std::shared_ptr<Flow> atTemperature(double kelvin) const;
    /** Free text that is saved with the flow: how it was trained, names, versions. */
    [[nodiscard]] const std::map<std::string, std::string>& getMetadata() const { return metadata; }
    void setMetadata(const std::string& key, const std::string& value) { metadata[key] = value; }

    /** Draw independent samples. @param count  at least 1 */
    [[nodiscard]] FlowSample sample(std::int64_t count, Random& random) const;
    /** x and log q(x) of given latent variables. @param z  [batch, latent size] */
    [[nodiscard]] FlowSample fromLatent(const at::Tensor& z) const;
    /** z, logDet (of forward) and log q(x) of given configurations. @param x  [batch, size] */
    [[nodiscard]] FlowSample toLatent(const at::Tensor& x) const;
    /** log q(x), float64 [batch]; -inf outside the flow's domain. @param x  [batch, size] */
    [[nodiscard]] at::Tensor logQ(const at::Tensor& x) const { return toLatent(x).logQ; }
    /**
     * log q(x) and its gradient, without a graph: for the forces of a density. At small batches several times as fast
     * as by autograd, with which it agrees to rounding. Rows outside the flow's domain have logQ = -inf (or NaN) and a
     * gradient of zeros or NaN.
     *
     * @param x  [batch, size]
     */
    [[nodiscard]] LogQGradient logQWithGradient(const at::Tensor& x) const;
    /** Move each x rigidly onto the frame of a reference: see Transform::place. */
    [[nodiscard]] at::Tensor place(const at::Tensor& x, const at::Tensor& reference) const;

    [[nodiscard]] NamedTensors getParameters() const { return transform->getParameters(); }
    /** Everything that is saved: "parameters.", "buffers." and "prior." with the names within. */
    [[nodiscard]] NamedTensors getTensors() const;
    /** Change the dtype of the networks' parameters. @param dtype  float32 or float64 */
    void setParameterType(at::ScalarType dtype);
    /** A copy that shares nothing with this flow, on the same device. */
    [[nodiscard]] std::shared_ptr<Flow> clone() const;
    /**
     * A copy that shares nothing with this flow and works on a device. Random numbers are the same on every device:
     * they are drawn on the processor. Throws where a part of the flow works on processors only.
     *
     * @param device  as torch names it: "cpu", "cuda", "cuda:1"
     */
    [[nodiscard]] std::shared_ptr<Flow> to(const std::string& device) const;
    /** Where the flow's tensors are and its samples come from; arguments have to be there. */
    [[nodiscard]] std::string getDevice() const { return device; }

    /** Write the flow to a file, whole or not at all. See FlowFile.h for the format. */
    void save(const std::string& path) const;
    /** Read a flow. Throws if the file is damaged, truncated, of a later version or not a flow. Runs no code from it.
     */
    static std::shared_ptr<Flow> load(const std::string& path);
    /** The bytes of save(), and back. */
    [[nodiscard]] std::string serialize() const;
    static std::shared_ptr<Flow> deserialize(const std::string& bytes);

private:
    std::shared_ptr<Prior> prior;
    std::shared_ptr<Transform> transform;
    std::vector<int> atoms;
    double temperature = 0.0;
    std::string device = "cpu";
    std::map<std::string, std::string> metadata;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_FLOW_H_*/
