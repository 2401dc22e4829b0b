#ifndef OPENMMFLOW_TRAINING_REACTIONCOORDINATEENTROPYLOSS_H_
#define OPENMMFLOW_TRAINING_REACTIONCOORDINATEENTROPYLOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"
#include <functional>

namespace OpenMMFlow {

/** r(x): a number for each sample, differentiable by autograd. [batch, size] -> [batch] */
using ReactionCoordinate = std::function<at::Tensor(const at::Tensor& x)>;

/**
 * Minus the entropy of a reaction coordinate r over the flow's samples (Noe et al. 2019, J_RC): beside other losses it
 * makes the flow spread along r, over barriers too. By a Gaussian kernel density estimate that leaves out the point
 * itself, with N samples of a batch and bandwidth h,
 *
 *     L = (1/N) sum_i log p_i,   p_i = 1/(N - 1) sum_{j != i} exp(-(r_i - r_j)^2/(2 h^2)) / (sqrt(2 pi) h)
 *
 * which estimates E[log p_h(r)], p_h the density of r smoothed by the kernel. The entropy has no upper bound: take a
 * coordinate with a bounded range, or a loss that bounds it. Differences on a circle are the shortest; h should be far
 * below the period. Samples whose r is not finite are left out.
 */
class OPENMMFLOW_EXPORT ReactionCoordinateEntropyLoss : public Loss {
public:
    struct Options {
        /** Samples in a batch, at least 2. */
        int batchSize = 256;
        /** h, in units of r, > 0. */
        double bandwidth = 0.1;
        /** Where r repeats itself, such as 2 pi of an angle; 0 if it does not. */
        double period = 0;
    };
    ReactionCoordinateEntropyLoss(ReactionCoordinate coordinate, const Options& options);
    [[nodiscard]] std::string getName() const override { return "entropy"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;

private:
    ReactionCoordinate coordinate;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_REACTIONCOORDINATEENTROPYLOSS_H_*/
