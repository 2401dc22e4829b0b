#ifndef OPENMMFLOW_TRAINING_LOSS_H_
#define OPENMMFLOW_TRAINING_LOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include "openmmflow/flows/Flow.h"

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
    void addData(const at::Tensor& x, const at::Tensor& logWeight = {});
    /** Forget all frames. */
    void clearData();
    /** Frames to train on, frames kept for validation, frames left out. */
    [[nodiscard]] std::int64_t getNumTraining() const;
    [[nodiscard]] std::int64_t getNumValidation() const;
    [[nodiscard]] std::int64_t getNumLeftOut() const { return leftOut; }
    [[nodiscard]] std::string getName() const override { return "likelihood"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;
    [[nodiscard]] double validate(const Flow& flow) override;

private:
    struct Frames {
        at::Tensor y, logDet, logWeight; // y: what the trained transforms see; logDet of the part already inverted
        at::Tensor cumulative;           // of the weights, for drawing; undefined when all are equal
    };
    [[nodiscard]] at::Tensor logQ(const Flow& flow, const at::Tensor& y, const at::Tensor& logDet) const;
    Options options;
    Random random;
    int size;
    std::size_t numTrained; // leading transforms, which have to be inverted at every evaluation
    std::vector<std::shared_ptr<Transform>> fixedTransforms; // the ones after them
    Frames training, validation;
    std::int64_t leftOut = 0;
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

private:
    std::shared_ptr<ReducedPotential> potential;
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_LOSS_H_*/
