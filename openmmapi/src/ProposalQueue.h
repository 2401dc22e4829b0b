#ifndef OPENMMFLOW_PROPOSALQUEUE_H_
#define OPENMMFLOW_PROPOSALQUEUE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ConstraintMetric.h"
#include "openmmflow/flows/Flow.h"

namespace OpenMMFlow {

/** Configurations that a flow proposes, [count] rows, with (1/2) log det Z of their constraints, float64 [count]. */
struct Proposals {
    FlowSample samples;
    at::Tensor metric;
};

/**
 * The proposals of independence jumps, drawn from a flow in batches: they do not depend on the state.
 *
 * Batch i comes from stream i of the seed. It is a pure function of seed, i, size and flow, so that a checkpoint keeps
 * where the queue stands, and no samples.
 */
class ProposalQueue {
public:
    /** A batch, and how much of it was taken. */
    struct Place {
        std::uint64_t index = 0;
        std::int64_t size = 0, used = 0;
    };
    /** @param seed  not 0 */
    explicit ProposalQueue(std::uint64_t seed) : seed(seed) {}
    /**
     * Draw from a flow from now on. Proposals that were drawn from another are thrown away; a batch that nobody has
     * drawn since restore() keeps its place.
     */
    void setFlow(std::shared_ptr<const Flow> flow, std::shared_ptr<const ConstraintMetric> metric);
    /** Begin a new batch with the next proposals. */
    void discard() { place.used = place.size; }
    /** The same if the flow's parameters have changed since the batch was drawn: their densities are others. */
    void discardIfFlowChanged();
    /** The next `count` proposals. */
    [[nodiscard]] Proposals take(std::int64_t count);
    [[nodiscard]] const Place& getPlace() const { return place; }
    void restore(std::uint64_t newSeed, const Place& newPlace);

private:
    [[nodiscard]] bool isDrawn() const { return batch.samples.x.defined(); }
    void draw();

    std::uint64_t seed;
    std::shared_ptr<const Flow> flow;
    std::shared_ptr<const ConstraintMetric> metric;
    Place place;
    Proposals batch;
    std::string fingerprint; // of the flow's parameters when the batch was drawn
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_PROPOSALQUEUE_H_*/
