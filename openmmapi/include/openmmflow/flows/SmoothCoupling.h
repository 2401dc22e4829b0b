#ifndef OPENMMFLOW_FLOWS_SMOOTHCOUPLING_H_
#define OPENMMFLOW_FLOWS_SMOOTHCOUPLING_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Coupling.h"

namespace OpenMMFlow {

/**
 * A coupling that can be differentiated any number of times, for flows whose log-density is used as an energy: the
 * forces of splines have kinks at the knots (Koehler, Kraemer and Noe, NeurIPS 2021). K components per active variable,
 * all of their numbers predicted from the passive variables:
 *
 *     open:      z = x + t + sum_k a_k tanh((x - b_k)/c_k)
 *                dz/dx = 1 + sum_k (a_k/c_k) (1 - tanh^2((x - b_k)/c_k)),  a_k/c_k > -0.95/K, hence dz/dx > 0.05
 *     circular:  z = wrap(x + t + 2 sum_k rho_k A_k),  A_k = arg(1 - w_k exp(-ix))
 *                dz/dx = sum_k rho_k (1 - |w_k|^2)/|exp(ix) - w_k|^2,  |w_k| < 0.99, rho_k > 0, sum_k rho_k = 1
 *
 * x + 2 A_k is a Moebius map of the circle, lifted to the line: arg stays within +-pi/2, so it grows by 2 pi when x
 * does, and so does a convex mixture of such maps (Rezende et al., ICML 2020, with the rotation t instead of a fixed
 * point).
 *
 * inverse (x -> z) is in closed form and forward solves it for x, by Newton steps safeguarded by bisection until the
 * residual is rounding error: forces, densities and likelihoods need inverse, once a step; samples need forward, once
 * each. Inverse(SmoothCoupling) has it the other way round. Both are differentiable to any order; forward by the
 * implicit function theorem, dx/dz = 1/(dz/dx), dx/dp = -(dz/dp)/(dz/dx).
 *
 * Identity at the start.
 */
class OPENMMFLOW_EXPORT SmoothCoupling : public Transform {
public:
    struct Options {
        /** K, at least 1. */
        int components = 8;
        /** The b_k of open variables start evenly spread over [-bound, bound], with c_k their distance; > 0. */
        double bound = 3.0;
        /** A smooth activation: not ReLU. */
        Conditioner::Options conditioner;
    };
    /**
     * @param size      number of variables
     * @param active    the variables to change: some, but not all
     * @param circular  which of all the variables live on [-pi, pi)
     */
    SmoothCoupling(int size, std::vector<int> active, std::vector<int> circular, const Options& options);
    [[nodiscard]] int getInputSize() const override { return split.getSize(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "SmoothCoupling"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return conditioner.getParameters(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] TransformResult apply(const at::Tensor& y, bool inverse) const;
    /** Without a graph or tensor operations, for few rows; derivatives are those of the inverse alone. */
    [[nodiscard]] PulledResult run(const at::Tensor& y, bool inverse, bool differentiate) const;
    Split split; // its active variables are the open ones and then the circular ones
    std::vector<int> circular;
    Options options;
    Conditioner conditioner;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_SMOOTHCOUPLING_H_*/
