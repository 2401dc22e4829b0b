#ifndef OPENMMFLOW_TRAINING_ANNEALEDFLOWTRANSPORT_H_
#define OPENMMFLOW_TRAINING_ANNEALEDFLOWTRANSPORT_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/SequentialSampler.h"

namespace OpenMMFlow {

class Adam;

/** Where the training of layers stands. */
struct TransportProgress {
    /** Iterations done. */
    std::int64_t iteration = 0;
    /** The latest value of each stage's loss L_k; it is at least -ln(Z_k/Z_{k-1}), and that for a perfect layer. */
    std::vector<double> losses;
    /** The latest pass: ln(Z_1/Z_0) with its error, and the conditional effective part of each stage. */
    double logZRatio = 0, logZRatioError = 0;
    std::vector<double> cess;
    /** Updates of a layer left out because its loss or gradient was not finite. */
    std::int64_t skipped = 0;
};

/**
 * Trains the layers of a SequentialSampler (continual repeated annealed flow transport, CRAFT; Matthews, Arbel, Rezende
 * and Doucet, ICML 2022). Each iteration is a pass of new walkers; each layer T_k learns from the weighted walkers x
 * that its stage has got, by the divergence from where it takes them to pi_k,
 *
 *     L_k = sum_i W_i [log pi_{k-1}(x_i) - log pi_k(T_k(x_i)) - logDet_k(x_i)]
 *         ~ KL(T_k pi_{k-1} | pi_k) - ln(Z_k/Z_{k-1})
 *
 * with the reparameterisation gradient, x_i and W_i constants. After the pass all layers take a step of Adam. The
 * sampler's results are exact before, while and after its layers are trained; training makes its weights more even.
 * Reverse KL seeks modes: moves and resampling between the layers are what keeps the others.
 *
 * Layers should start at the identity. Each pass costs, beside the sampler's evaluations, one with gradient for each
 * walker and stage.
 */
class OPENMMFLOW_EXPORT AnnealedFlowTransport {
public:
    struct Options {
        /** Walkers of a pass: a multiple of the sampler's numGroups. */
        int batchSize = 1000;
        double learningRate = 1e-2;
        /** Largest norm of a layer's gradient. */
        double gradientClip = 100.0;
        /** Threads for the networks while training; 0 leaves torch's setting alone. */
        int numThreads = 1;
        /** 0 chooses. */
        std::uint64_t seed = 0;
    };
    /**
     * @param sampler  with layers, at least one of which has parameters
     * @param start    samples of pi_0 of the sampler's path: a Prior, or a flow as a FlowPrior
     */
    AnnealedFlowTransport(std::shared_ptr<SequentialSampler> sampler, std::shared_ptr<const Prior> start,
                          const Options& options);
    ~AnnealedFlowTransport();
    /** @param iterations  at least 1 @return where the training stands */
    TransportProgress train(std::int64_t iterations);
    /**
     * Write the layers' parameters, Adam's moments, the kernel's step sizes, the random numbers' state and the
     * iteration, whole or not at all.
     */
    void saveCheckpoint(const std::string& path) const;
    /**
     * Go on from a checkpoint of a training of the same layers and options, as if it had not stopped. Throws if it is
     * of another, or damaged.
     */
    void loadCheckpoint(const std::string& path);

private:
    void learn(int stage, const PathState& walkers, const at::Tensor& logWeight);
    std::shared_ptr<SequentialSampler> sampler;
    std::vector<std::shared_ptr<Transform>> layers; // the sampler's
    std::shared_ptr<const Prior> start;
    Options options;
    Random random;
    std::vector<std::unique_ptr<Adam>> optimizers;  // by stage - 1; null for layers without parameters
    std::vector<std::vector<at::Tensor>> gradients; // of this pass
    TransportProgress progress;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_ANNEALEDFLOWTRANSPORT_H_*/
