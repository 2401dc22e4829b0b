#ifndef OPENMMFLOW_TRAINING_PATHGRADIENTLOSS_H_
#define OPENMMFLOW_TRAINING_PATHGRADIENTLOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"

namespace OpenMMFlow {

/**
 * The reverse Kullback-Leibler divergence with another estimator of its gradient, the path gradient (Roeder, Wu and
 * Duvenaud, NeurIPS 2017; for flows Vaitl, Nicoli, Nakajima and Kessel, ICML 2022):
 *
 *     dJ_KL/dtheta = E_{z ~ prior}[G dg(z)/dtheta],  G = d(u + log q)/dx at x = g(z) and fixed parameters
 *
 * It leaves out the score, E[dlog q(x)/dtheta at fixed x] = 0, whose samples are pure noise. Where q is the target G is
 * zero, and so is the gradient of every sample ("sticking the landing"), while that of ReverseKLLoss still fluctuates.
 * log q(x) and its gradient come from the inverse of the flow, which each iteration pays for in addition.
 *
 * The value and the regularisation are those of ReverseKLLoss. Its dropFraction > 0 makes this estimator biased, a
 * little: the score of the samples that are kept no longer averages to zero.
 */
class OPENMMFLOW_EXPORT PathGradientLoss : public ReverseKLLoss {
public:
    PathGradientLoss(std::shared_ptr<ReducedPotential> potential, const ReverseKLLoss::Options& options);
    [[nodiscard]] std::string getName() const override { return "path gradient"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_PATHGRADIENTLOSS_H_*/
