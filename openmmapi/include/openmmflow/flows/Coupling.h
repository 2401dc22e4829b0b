#ifndef OPENMMFLOW_FLOWS_COUPLING_H_
#define OPENMMFLOW_FLOWS_COUPLING_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioner.h"

namespace OpenMMFlow {

/**
 * Splits variables into those a coupling changes (active) and those it is conditioned on (passive), and joins them
 * again.
 */
class OPENMMFLOW_EXPORT Split {
public:
    /** @param size  number of variables  @param active  some, but not all, of 0..size-1, each once */
    Split(int size, std::vector<int> active);
    [[nodiscard]] int getSize() const { return size; }
    [[nodiscard]] const std::vector<int>& getActive() const { return active; }
    [[nodiscard]] const std::vector<int>& getPassive() const { return passive; }
    /** @return positions within the passive (or active) list of those variables that are in a list of all variables */
    [[nodiscard]] std::vector<int> findPassive(const std::vector<int>& variables) const;
    [[nodiscard]] std::vector<int> findActive(const std::vector<int>& variables) const;
    [[nodiscard]] at::Tensor takeActive(const at::Tensor& y) const;
    [[nodiscard]] at::Tensor takePassive(const at::Tensor& y) const;
    [[nodiscard]] at::Tensor join(const at::Tensor& activePart, const at::Tensor& passivePart) const;
    /** As Transform::getConstants(). */
    [[nodiscard]] std::vector<at::Tensor> getConstants() const { return {activeIndex, passiveIndex, joinIndex}; }

private:
    int size;
    std::vector<int> active, passive;
    at::Tensor activeIndex, passiveIndex, joinIndex;
};

/**
 * Additive coupling (NICE; Dinh, Krueger and Bengio, ICLR workshop 2015). With t = conditioner(z_passive):
 *
 *     forward:  x_active = z_active + t,  logDet = 0
 *     inverse:  z_active = x_active - t,  logDet = 0
 *
 * It keeps volumes: use it with a layer that scales. Identity at the start.
 *
 * Odd couplings commute with the change of all signs, f(-z) = -f(z), to the last bit: with n the conditioner's network,
 * t(y) = (n(y) - n(-y))/2. Flows of a prior and a target that have this symmetry (Z2) then have it too.
 */
class OPENMMFLOW_EXPORT AdditiveCoupling : public Transform {
public:
    /** @param odd  whether f(-z) = -f(z) */
    AdditiveCoupling(int size, std::vector<int> active, const Conditioner::Options& options = {}, bool odd = false);
    [[nodiscard]] int getInputSize() const override { return split.getSize(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "AdditiveCoupling"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return conditioner.getParameters(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] at::Tensor predict(const at::Tensor& passivePart) const;
    /** Without a graph or tensor operations, for few rows. */
    [[nodiscard]] PulledResult run(const at::Tensor& y, bool inverse, bool differentiate) const;
    Split split;
    Conditioner conditioner;
    bool odd;
};

/**
 * Affine coupling (RealNVP; Dinh, Sohl-Dickstein and Bengio, ICLR 2017). With (s, t) = conditioner(z_passive):
 *
 *     forward:  x_active = z_active * exp(s) + t,     logDet =  sum s
 *     inverse:  z_active = (x_active - t) * exp(-s),  logDet = -sum s
 *
 * s = bound * tanh(raw / bound) is kept within +-bound. Identity at the start.
 *
 * Odd couplings commute with the change of all signs, f(-z) = -f(z), and their log-det is even: see AdditiveCoupling
 * for t; the raw s is made even in the same way, (n(y) + n(-y))/2.
 */
class OPENMMFLOW_EXPORT AffineCoupling : public Transform {
public:
    /** @param scaleBound  the largest |s|, > 0  @param odd  whether f(-z) = -f(z) */
    AffineCoupling(int size, std::vector<int> active, const Conditioner::Options& options = {}, double scaleBound = 3.0,
                   bool odd = false);
    [[nodiscard]] int getInputSize() const override { return split.getSize(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "AffineCoupling"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return conditioner.getParameters(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] std::pair<at::Tensor, at::Tensor> predict(const at::Tensor& passivePart) const;
    /** Without a graph or tensor operations, for few rows. */
    [[nodiscard]] PulledResult run(const at::Tensor& y, bool inverse, bool differentiate) const;
    Split split;
    Conditioner conditioner;
    double scaleBound;
    bool odd;
};

/**
 * Rational-quadratic spline coupling (Durkan et al., NeurIPS 2019), on intervals and on circles (Rezende et al., 2020).
 *
 * Each active variable passes through a monotonic spline whose knots and slopes are predicted from the passive ones;
 * see RationalQuadraticSpline.h for the formula. Open variables are splined on [-bound, bound] and left alone outside;
 * circular ones on [-pi, pi) with equal slopes at both ends, after a predicted rotation. Identity at the start.
 */
class OPENMMFLOW_EXPORT SplineCoupling : public Transform {
public:
    struct Options {
        /** Number of bins of each spline, at least 2. */
        int bins = 8;
        /** Half-width of the interval on which open variables are splined, > 0. */
        double bound = 5.0;
        Conditioner::Options conditioner;
    };
    /**
     * @param size      number of variables
     * @param active    the variables to change: some, but not all
     * @param circular  which of all the variables live on [-pi, pi)
     */
    SplineCoupling(int size, std::vector<int> active, std::vector<int> circular, const Options& options);
    [[nodiscard]] int getInputSize() const override { return split.getSize(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "SplineCoupling"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return conditioner.getParameters(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] TransformResult apply(const at::Tensor& y, bool inverse) const;
    /** Without a graph or tensor operations, for few rows. */
    [[nodiscard]] PulledResult run(const at::Tensor& y, bool inverse, bool differentiate) const;
    Split split;
    std::vector<int> circular;
    Options options;
    at::Tensor circularActive; // bool [active]
    Conditioner conditioner;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_COUPLING_H_*/
