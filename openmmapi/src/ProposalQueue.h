#ifndef OPENMMFLOW_PROPOSALQUEUE_H_
#define OPENMMFLOW_PROPOSALQUEUE_H_
// SPDX-License-Identifier: MIT

#include "BackgroundThread.h"
#include "ProposalEnergies.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/energies/ConstraintMetric.h"
#include "openmmflow/flows/Flow.h"

namespace OpenMMFlow {

/** Configurations that a flow proposes, [count] rows, with what is known of them before the state is. */
struct Proposals {
    FlowSample samples;
    at::Tensor metric;  // (1/2) log det Z of their constraints, float64 [count]
    at::Tensor energy;  // kJ/mol, float64 [count], +inf where there is none; undefined where it was not prepared
    bool ahead = false; // prepared in the background
};

/**
 * The proposals of independence jumps, drawn from a flow in batches: they do not depend on the state.
 *
 * Batch i comes from stream i of the seed. It is a pure function of seed, i, size and flow, so that a checkpoint keeps
 * where the queue stands, and no samples; and so that it does not matter who draws it. The next batch may be prepared
 * by a thread, from a copy of the flow, of which nobody else knows. What it has prepared is used if it turns out to be
 * what is needed; else, and where something was thrown, the batch is drawn when it is needed.
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
    ~ProposalQueue();
    /**
     * Draw from a flow from now on. Proposals that were drawn from another are thrown away; a batch that nobody has
     * drawn since restore() keeps its place.
     */
    void setFlow(std::shared_ptr<const Flow> flow, std::shared_ptr<const ConstraintMetric> metric);
    /** Where energies may be prepared, too; null for nowhere. */
    void setEnergies(std::shared_ptr<ProposalEnergies> newEnergies) { energies = std::move(newEnergies); }
    /** No energies from now on: the Forces of the Context were changed. */
    void invalidateEnergies() {
        if (energies != nullptr)
            energies->invalidate();
    }
    /** Begin a new batch with the next proposals. */
    void discard() { place.used = place.size; }
    /** The same if the flow's parameters have changed since the batch was drawn: their densities are others. */
    void discardIfFlowChanged();
    /** The next `count` proposals. */
    [[nodiscard]] Proposals take(std::int64_t count, ProposalPreparation preparation);
    [[nodiscard]] const Place& getPlace() const { return place; }
    void restore(std::uint64_t newSeed, const Place& newPlace);
    /** End the thread and the Context of the energies. */
    void stop();

private:
    struct Batch {
        Proposals proposals;
        ProposalEnergies::Conditions conditions; // of its energies
    };
    /** A batch that the thread draws: from what, and the result. */
    struct Task;
    [[nodiscard]] static Batch draw(const Flow& flow, const ConstraintMetric& metric, std::uint64_t seed,
                                    const Place& place);
    [[nodiscard]] bool isDrawn() const { return batch.proposals.samples.x.defined(); }
    [[nodiscard]] Batch obtain();
    void prepare(const Place& next, bool withEnergies);

    std::uint64_t seed;
    std::shared_ptr<const Flow> flow, copy; // copy: for the thread, null until it is needed
    std::shared_ptr<const ConstraintMetric> metric;
    std::shared_ptr<ProposalEnergies> energies;
    Place place;
    Batch batch;
    std::string parameters, description; // of the flow: when it was last looked at, and when it was copied
    bool canCopy = true;                 // not a flow with a part in Python
    std::shared_ptr<Task> task;
    std::unique_ptr<BackgroundThread> thread;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_PROPOSALQUEUE_H_*/
