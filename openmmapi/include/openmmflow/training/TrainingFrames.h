#ifndef OPENMMFLOW_TRAINING_TRAININGFRAMES_H_
#define OPENMMFLOW_TRAINING_TRAININGFRAMES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Flow.h"
#include <functional>

namespace OpenMMFlow {

/**
 * The data of a loss: frames with log weights, split into those to train on and those held out.
 *
 * Trailing transforms without parameters (charts, scalings) are inverted once, when frames are added: a frame is kept
 * as y, what the trained transforms make, with logDet of the part already inverted.
 */
class OPENMMFLOW_EXPORT TrainingFrames {
public:
    /** Some frames: y [frames, size], logDet float64 [frames]. */
    struct Batch {
        at::Tensor y, logDet;
    };
    /**
     * @param flow                settles which transforms can be inverted beforehand
     * @param validationFraction  the part held out, in [0, 1)
     * @param seed                of that choice
     * @param owner               the class named in messages
     */
    TrainingFrames(const std::shared_ptr<Flow>& flow, double validationFraction, std::uint64_t seed, std::string owner);
    /** @param x  [frames, size]  @param logWeight  [frames], up to a constant; undefined or empty when all are equal */
    void add(const at::Tensor& x, const at::Tensor& logWeight);
    void clear();
    [[nodiscard]] std::int64_t getNumTraining() const { return training.size(); }
    [[nodiscard]] std::int64_t getNumValidation() const { return validation.size(); }
    /** Frames outside the flow's domain, which are not kept. */
    [[nodiscard]] std::int64_t getNumLeftOut() const { return leftOut; }
    /** How many transforms, the first ones, have to be inverted at every evaluation. */
    [[nodiscard]] std::size_t getNumTrained() const { return numTrained; }
    /** Draw training frames with replacement, in proportion to their weights. */
    [[nodiscard]] Batch draw(std::int64_t count, Random& random) const;
    /**
     * The weighted mean of a function of the held-out frames; NaN where there are none.
     * @param function  [frames] for some frames; called for all of them in their order, a part at a time
     */
    [[nodiscard]] double averageHeldOut(const std::function<at::Tensor(const Batch&)>& function) const;
    /** The transforms of a flow in order: those of its Sequence, or its only one. */
    static std::vector<std::shared_ptr<Transform>> listTransforms(const Flow& flow);

private:
    struct Frames {
        at::Tensor y, logDet, logWeight;
        at::Tensor cumulative; // of the weights, for drawing; undefined when all are equal
        [[nodiscard]] std::int64_t size() const { return y.defined() ? y.size(0) : 0; }
        [[nodiscard]] Batch take(const at::Tensor& rows, const std::string& device) const;
        void append(const at::Tensor& newY, const at::Tensor& newLogDet, const at::Tensor& newLogWeight);
    };
    std::string owner;
    double validationFraction;
    Random random;
    int size;
    std::string device; // the flow's, where batches go; frames stay on the host
    std::size_t numTrained;
    std::vector<std::shared_ptr<Transform>> fixedTransforms; // the ones after them
    Frames training, validation;
    std::int64_t leftOut = 0;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_TRAININGFRAMES_H_*/
