#ifndef OPENMMFLOW_TRAINING_FLOWMATCHINGLOSS_H_
#define OPENMMFLOW_TRAINING_FLOWMATCHINGLOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/ContinuousFlow.h"
#include "openmmflow/training/Loss.h"

namespace OpenMMFlow {

/** Which latent variable goes to which frame of a batch: any, or those that make the transport shortest. */
enum class FlowMatchingCoupling { Independent, OptimalTransport };

/**
 * Flow matching: regression of a ContinuousFlow's velocity on straight paths from the prior to the data, without
 * solving its equation (Lipman et al., ICLR 2023; Tong et al., TMLR 2024):
 *
 *     J_FM = E_{z ~ prior, y ~ data, t ~ U(0, 1)} |v(z + t d, t) - d|^2,    d = y - z
 *
 * For circular variables d is wrapped into [-pi, pi), so that the path is the shorter arc of the circle. The minimum is
 * the velocity that carries the prior to the data; J_FM itself does not go to zero there. With OptimalTransport, the z
 * and y of each batch are paired such that sum |d|^2 is least (a small batch only approximates optimal transport):
 * paths cross less, hence training is less noisy and the field quicker to integrate.
 *
 * The flow is a ContinuousFlow, or a Sequence of one followed by transforms without parameters (charts, scalings),
 * which are inverted once, when frames are added. Frames may carry log weights, as in MaximumLikelihoodLoss. It does
 * not train on the energy: follow it with ReverseKLLoss or PathGradientLoss if that is wanted.
 */
class OPENMMFLOW_EXPORT FlowMatchingLoss : public Loss {
public:
    struct Options {
        /** Frames in a batch. */
        int batchSize = 256;
        /** The part of the frames, picked at random, that is kept for validation. In [0, 1). */
        double validationFraction = 0.05;
        /** Seed of that choice, and of the times and latent variables of validate(). */
        std::uint64_t seed = 1;
        FlowMatchingCoupling coupling = FlowMatchingCoupling::Independent;
    };
    /** @param flow  the flow to train. Its circular variables must be those of its prior. */
    FlowMatchingLoss(const std::shared_ptr<Flow>& flow, const Options& options);
    /** Add frames: as MaximumLikelihoodLoss::addData. */
    void addData(const at::Tensor& x, const at::Tensor& logWeight = {}) { frames.add(x, logWeight); }
    /** Forget all frames. */
    void clearData() { frames.clear(); }
    /** Frames to train on, frames kept for validation, frames left out. */
    [[nodiscard]] std::int64_t getNumTraining() const { return frames.getNumTraining(); }
    [[nodiscard]] std::int64_t getNumValidation() const { return frames.getNumValidation(); }
    [[nodiscard]] std::int64_t getNumLeftOut() const { return frames.getNumLeftOut(); }
    [[nodiscard]] std::string getName() const override { return "flow matching"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;
    /** J_FM of the held-out frames with independent coupling, at the same times and latent variables in every call. */
    [[nodiscard]] double validate(const Flow& flow) override;
    /**
     * The pairing of least sum |d|^2 (the assignment problem, by shortest augmenting paths: cubic in the batch).
     *
     * @param z, y      [batch, size]
     * @param circular  the variables whose differences are wrapped
     * @return int64 [batch]: z[i] goes to y[result[i]]
     */
    [[nodiscard]] static at::Tensor findOptimalTransport(const at::Tensor& z, const at::Tensor& y,
                                                         const std::vector<int>& circular);

private:
    [[nodiscard]] static at::Tensor misfit(const Flow& flow, const at::Tensor& z, const at::Tensor& y,
                                           const at::Tensor& t);
    Options options;
    TrainingFrames frames;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_FLOWMATCHINGLOSS_H_*/
