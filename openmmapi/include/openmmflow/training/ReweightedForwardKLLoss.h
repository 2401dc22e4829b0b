#ifndef OPENMMFLOW_TRAINING_REWEIGHTEDFORWARDKLLOSS_H_
#define OPENMMFLOW_TRAINING_REWEIGHTEDFORWARDKLLOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"

namespace OpenMMFlow {

/**
 * Forward Kullback-Leibler divergence without data, up to a constant: the flow's own samples stand for the target with
 * their importance weights (F1),
 *
 *     L = -sum_i w_i log q(x_i),   x_i ~ q,   w_i = softmax_i(-u(x_i) - log q(x_i))
 *
 * Samples and weights are constants in the gradient, which is that of the forward divergence, -E_p[grad log q],
 * estimated with self-normalised weights, and with a control variate: the score has no mean, E_q[grad log q] = 0, so
 *
 *     grad L = -sum_i (w_i - 1/N) grad log q(x_i)
 *
 * has the same expectation and no variance where q is the target. Where weights are spread widely, few samples count
 * and the estimate is biased towards what the flow already knows: it finds no state that the flow does not reach.
 */
class OPENMMFLOW_EXPORT ReweightedForwardKLLoss : public Loss {
public:
    struct Options {
        int batchSize = 256;
        /**
         * The part of the batch whose largest log weights are lowered to the smallest among them, in [0, 1); no effect
         * below two samples. Less noise, but it starves states that the flow has too little of, whose weights are
         * large.
         */
        double clipFraction = 0;
    };
    ReweightedForwardKLLoss(std::shared_ptr<ReducedPotential> potential, const Options& options);
    [[nodiscard]] std::string getName() const override { return "reweighted likelihood"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;

private:
    std::shared_ptr<ReducedPotential> potential;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_REWEIGHTEDFORWARDKLLOSS_H_*/
