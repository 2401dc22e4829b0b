#ifndef OPENMMFLOW_TRAINING_PRIORITISEDREPLAYBUFFER_H_
#define OPENMMFLOW_TRAINING_PRIORITISEDREPLAYBUFFER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"
#include "openmmflow/latent/Random.h"

namespace OpenMMFlow {

/** What PrioritisedReplayBuffer::draw() returns: where the points are stored, int64 [count], and what was stored. */
struct ReplayDraw {
    at::Tensor rows, x, logQ;
};

/**
 * Weighted samples of a density that depends on a flow's q, kept to be used more than once (Midgley et al., ICLR 2023).
 *
 * Of a point x it knows log w, and log q(x) of the flow when log w was right. For weights towards p^2/q a later flow
 * has w' = w q_old(x)/q_new(x): that is what update() does. When full, new points replace the oldest.
 */
class OPENMMFLOW_EXPORT PrioritisedReplayBuffer {
public:
    /** @param capacity  points, at least 1 */
    explicit PrioritisedReplayBuffer(std::int64_t capacity);
    [[nodiscard]] std::int64_t getCapacity() const { return capacity; }
    [[nodiscard]] std::int64_t getSize() const;
    /**
     * Add points; those whose log weight or log q is not finite are left out.
     *
     * @param x          [points, size]
     * @param logWeight  [points]   @param logQ  [points]
     */
    void add(const at::Tensor& x, const at::Tensor& logWeight, const at::Tensor& logQ);
    /** Draw in proportion to the weights, with replacement. @param count  at least 1 */
    [[nodiscard]] ReplayDraw draw(std::int64_t count, Random& random) const;
    /**
     * Tell the buffer the log q of a later flow: log w += log q_old - log q_new. Points whose new log q is not finite
     * stay as they are.
     *
     * @param rows  where the points are, as drawn; may repeat   @param logQ  [rows]
     */
    void update(const at::Tensor& rows, const at::Tensor& logQ);
    /** The log weights of all points, float64 [size]. */
    [[nodiscard]] at::Tensor getLogWeights() const;
    /** All that is stored: x, logWeight, logQ, and oldest, the row to be replaced next; nothing while it is empty. */
    [[nodiscard]] NamedTensors getState() const;
    /** Take up what getState() gave. Throws, and changes nothing, if that was not a buffer of this capacity or a
     * smaller one. */
    void setState(const NamedTensors& state);

private:
    std::int64_t capacity, oldest = 0; // the row to be replaced next, once full
    at::Tensor x, logWeight, logQ;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_PRIORITISEDREPLAYBUFFER_H_*/
