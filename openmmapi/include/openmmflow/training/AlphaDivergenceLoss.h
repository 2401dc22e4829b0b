#ifndef OPENMMFLOW_TRAINING_ALPHADIVERGENCELOSS_H_
#define OPENMMFLOW_TRAINING_ALPHADIVERGENCELOSS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedSampler.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "openmmflow/training/Loss.h"
#include "openmmflow/training/PrioritisedReplayBuffer.h"

namespace OpenMMFlow {

/**
 * The alpha = 2 divergence, the variance of the importance weights, from the energy alone: flow annealed importance
 * sampling bootstrap (FAB; Midgley, Stimper, Simm, Schoelkopf and Hernandez-Lobato, ICLR 2023). It covers modes that
 * reverse KL drops, as far as the annealing finds them. Annealed importance sampling with Hamiltonian moves takes the
 * flow's samples towards p^2/q, p = exp(-u), where most of the gradient
 *
 *     grad int p^2/q dx = -E_{p^2/q}[grad log q] int p^2/q dx
 *
 * comes from. Without buffer, with the weights w of the annealed points x_i as constants,
 *
 *     L = -sum_i softmax_i(log w) log q(x_i)
 *
 * With one, annealed points are stored, and points drawn in proportion to their weights make
 *
 *     L = -(1/N) sum_i c_i log q(x_i),   c_i = min(q_stored(x_i)/q(x_i), largestCorrection), a constant,
 *
 * after which w and q of the points drawn are brought up to date. Values of L are not comparable between calls.
 *
 * Hamiltonian moves need configurations x with a density in all their columns. Where the flow leaves rigid motions out,
 * they move x rigidly too, which is right as long as u does not change with that.
 */
class OPENMMFLOW_EXPORT AlphaDivergenceLoss : public Loss {
public:
    struct Options {
        /** Walkers of the annealing, and points in a batch. */
        int batchSize = 256;
        /** Stages from q to p^2/q, with moves at all but the last; 1 is importance sampling. */
        int numStages = 5;
        HamiltonianKernel::Options kernel;
        /** Points that are kept; 0 takes every batch from a new annealing. */
        std::int64_t bufferCapacity = 20000;
        /** Points that the buffer must hold before the first step. */
        std::int64_t minimumPoints = 1024;
        /** Evaluations of the loss after each annealing, at least 1. For a buffer only. */
        int stepsPerAnnealing = 4;
        /** The largest c_i, > 0; it bounds the gradient, and biases it where it is reached. */
        double largestCorrection = 10;
    };
    AlphaDivergenceLoss(std::shared_ptr<ReducedPotential> potential, const Options& options);
    [[nodiscard]] std::string getName() const override { return "alpha divergence"; }
    [[nodiscard]] at::Tensor evaluate(const Flow& flow, Random& random) override;
    /** The buffer, the step sizes of the moves and the counters. */
    [[nodiscard]] NamedTensors getState() const override;
    void setState(const NamedTensors& state) override;
    /** Evaluations of the energy so far, each with its gradient. */
    [[nodiscard]] std::int64_t getNumEvaluations() const { return numEvaluations; }
    /** The accepted part of the moves at each stage of the latest annealing. */
    [[nodiscard]] const std::vector<double>& getAcceptance() const { return acceptance; }
    /** Points in the buffer. */
    [[nodiscard]] std::int64_t getNumPoints() const { return buffer.getSize(); }

private:
    /** Annealed points with their log weights, and log q there. */
    struct Annealed {
        at::Tensor x, logWeight, logQ;
    };
    [[nodiscard]] Annealed anneal(const Flow& flow, Random& random);
    void fillBuffer(const Flow& flow, Random& random);
    std::shared_ptr<ReducedPotential> potential;
    Options options;
    std::shared_ptr<HamiltonianKernel> kernel;
    PrioritisedReplayBuffer buffer;
    std::int64_t numEvaluations = 0, numCalls = 0;
    std::vector<double> acceptance;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_ALPHADIVERGENCELOSS_H_*/
