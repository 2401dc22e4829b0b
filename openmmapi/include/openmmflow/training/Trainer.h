#ifndef OPENMMFLOW_TRAINING_TRAINER_H_
#define OPENMMFLOW_TRAINING_TRAINER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/training/Loss.h"

namespace OpenMMFlow {

class Adam;

/** Where a training stands. */
struct TrainingProgress {
    /** Iterations done, and in all. */
    std::int64_t iteration = 0, iterations = 0;
    /** The latest value of each loss, by the order in which they were added, and of their weighted sum. */
    std::vector<double> losses;
    double total = 0;
    double learningRate = 0;
    /** Norm of the latest gradient before clipping. */
    double gradientNorm = 0;
    /** Steps left out because the loss or its gradient was not finite. */
    std::int64_t skipped = 0;
};

/**
 * Minimises a weighted sum of losses over a flow's parameters with Adam (Kingma and Ba, ICLR 2015), gradient clipping
 * by the global norm, and a cosine schedule from learningRate to 0 over all iterations.
 *
 * A step whose gradient is not finite is left out and counted; ten in a row, or a parameter that is not finite, throw.
 * A checkpoint holds the parameters, Adam's moments, the losses' states (a replay buffer), the random numbers' state
 * and the iteration: a training that is resumed with the same losses and data goes on as if it had not stopped.
 */
class OPENMMFLOW_EXPORT Trainer {
public:
    struct Options {
        /** Iterations of the whole schedule. */
        std::int64_t iterations = 5000;
        double learningRate = 1e-3;
        /** Iterations over which the learning rate rises from 0. */
        std::int64_t warmup = 100;
        /** Largest norm of the gradient. */
        double gradientClip = 100.0;
        /** Threads for the networks while training, beside those of the energies; 0 leaves torch's setting alone. */
        int numThreads = 1;
        /** 0 chooses. */
        std::uint64_t seed = 0;
    };
    Trainer(std::shared_ptr<Flow> flow, const Options& options);
    ~Trainer();
    /** Add a loss. @param weight  its factor in the sum, > 0 */
    void addLoss(std::shared_ptr<Loss> loss, double weight = 1.0);
    /**
     * Do some iterations of the schedule, stopping at its end.
     * @return where the training stands
     */
    TrainingProgress train(std::int64_t iterations);
    [[nodiscard]] TrainingProgress getProgress() const;
    /** The held-out value of each loss; NaN for those that have none. */
    [[nodiscard]] std::vector<double> validate() const;
    /** Write everything needed to go on, whole or not at all. */
    void saveCheckpoint(const std::string& path) const;
    /**
     * Go on from a checkpoint. Throws, and changes nothing, if it is damaged, or of another flow, losses or number of
     * iterations; the other options are those of this trainer.
     */
    void loadCheckpoint(const std::string& path);

private:
    std::shared_ptr<Flow> flow;
    Options options;
    Random random;
    std::unique_ptr<Adam> optimizer;
    std::vector<std::pair<std::shared_ptr<Loss>, double>> losses;
    TrainingProgress progress;
    int skippedInRow = 0;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_TRAINER_H_*/
