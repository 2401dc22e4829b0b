#ifndef OPENMMFLOW_TRAINING_LOSS_H_
#define OPENMMFLOW_TRAINING_LOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/training/TrainingFrames.h"

namespace OpenMMFlow {

/** Something to minimise: a function of a flow's parameters, estimated on a fresh random batch at every call. */
class OPENMMFLOW_EXPORT Loss {
public:
    virtual ~Loss() = default;
    /** The name under which the value is reported. */
    [[nodiscard]] virtual std::string getName() const = 0;
    /** An estimate of the loss, a scalar that autograd can differentiate with respect to the flow's parameters. */
    [[nodiscard]] virtual at::Tensor evaluate(const Flow& flow, Random& random) = 0;
    /** An estimate on held-out data, or NaN where the loss has none. Not differentiable. */
    [[nodiscard]] virtual double validate(const Flow& flow);
    /** What evaluate() leaves behind for later calls, for a Trainer's checkpoint; nothing where there is no such thing.
     */
    [[nodiscard]] virtual NamedTensors getState() const { return {}; }
    /** Take up what getState() gave. Throws, and changes nothing, if that was another loss. */
    virtual void setState(const NamedTensors& state);
};

/**
 * Maximum likelihood, the forward Kullback-Leibler divergence up to a constant (Noe et al. 2019, J_LL):
 *
 *     J_LL = E_{x ~ data}[-log q(x)]
 *
 * Frames may carry log weights, for data from another ensemble (a higher temperature): batches are then drawn in
 * proportion to the weights. Trailing transforms without parameters (charts, scalings) are inverted once, when frames
 * are added.
 */
class OPENMMFLOW_EXPORT MaximumLikelihoodLoss : public Loss {
public:
    struct Options {
        /** Frames in a batch. */
        int batchSize = 256;
        /** The part of the frames, picked at random, that is kept for validation. In [0, 1). */
        double validationFraction = 0.05;
        /** Seed of that choice. */
        std::uint64_t seed = 1;
        /**
         * With a ContinuousFlow, in training only: the number of probe vectors of Hutchinson's estimate of its log-det
         * (an unbiased estimate of the loss, cheaper in many dimensions); 0 for the exact one. validate() is always
         * exact.
         */
        int divergenceProbes = 0;
    };
    /** @param flow  the flow to train: settles which transforms can be inverted beforehand */
    MaximumLikelihoodLoss(const std::shared_ptr<Flow>& flow, const Options& options);
    /**
     * Add frames. Frames outside the flow's domain can't be learnt; they are left out and counted. Throws if that is
     * all.
     *
     * @param x          [frames, size]
     * @param logWeight  [frames], up to a constant; undefined or empty when all weigh the same
     */
    void addData(const at::Tensor& x, const at::Tensor& logWeight = {}) { frames.add(x, logWeight); }
    /** Forget all frames. */
    void clearData() { frames.clear(); }
    /** Frames to train on, frames kept for validation, frames left out. */
    [[nodiscard]] std::int64_t getNumTraining() const { return frames.getNumTraining(); }
    [[nodiscard]] std::int64_t getNumValidation() const { return frames.getNumValidation(); }
    [[nodiscard]] std::int64_t getNumLeftOut() const { return frames.getNumLeftOut(); }
    [[nodiscard]] std::string getName() const override { return "likelihood"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;
    [[nodiscard]] double validate(const Flow& flow) override;

private:
    [[nodiscard]] at::Tensor
    logQ(const Flow& flow, const TrainingFrames::Batch& batch,
         const std::function<TransformResult(const Transform&, const at::Tensor&)>& invert) const;
    Options options;
    TrainingFrames frames;
};

/**
 * Reverse Kullback-Leibler divergence, training on the energy (Noe et al. 2019, J_KL):
 *
 *     J_KL = E_{z ~ prior}[u(x) + log q(x)],  x = f(z)
 *
 * To survive clashes, in training only, energies above energyCut enter as cut + ln(u - cut + 1), and the highest part
 * of each batch is left out; samples without a finite energy are too. It seeks modes: use it after, or beside,
 * likelihood.
 */
class OPENMMFLOW_EXPORT ReverseKLLoss : public Loss {
public:
    struct Options {
        int batchSize = 256;
        /** Reduced energy above which it counts logarithmically. */
        double energyCut = 1e3;
        /** The part of each batch with the highest u + log q that is left out. In [0, 1). */
        double dropFraction = 0.02;
    };
    ReverseKLLoss(std::shared_ptr<ReducedPotential> potential, const Options& options);
    [[nodiscard]] std::string getName() const override { return "energy"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;

protected:
    /** The mean of u + log q over the samples kept, with u regularised. @param u, logQ  [batch] */
    [[nodiscard]] at::Tensor average(const at::Tensor& u, const at::Tensor& logQ) const;
    std::shared_ptr<ReducedPotential> potential;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_LOSS_H_*/
