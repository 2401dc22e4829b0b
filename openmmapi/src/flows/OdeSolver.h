#ifndef OPENMMFLOW_FLOWS_ODESOLVER_H_
#define OPENMMFLOW_FLOWS_ODESOLVER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/ContinuousFlow.h"
#include <functional>

namespace OpenMMFlow {

/**
 * Integrates ds/dt = f(t, s) for each row of a batch by itself, over one unit of time.
 *
 * Every row has its own time and step size and is dropped from the batch when it arrives: rows share evaluations of f
 * but nothing else.
 */
class OdeSolver {
public:
    /** ds/dt of some rows. @param t  [active]  @param state  [active, n]  @param rows  int64 [active], which ones */
    using Field = std::function<at::Tensor(const at::Tensor& t, const at::Tensor& state, const at::Tensor& rows)>;
    /**
     * Is shown the quadrature nodes of accepted steps: int f dt over the step, in either direction, is
     * +-sum(weight g(t, state)), with weights that sum to the length of the step.
     */
    using Observer = std::function<void(const at::Tensor& t, const at::Tensor& state, const at::Tensor& rows,
                                        const at::Tensor& weight)>;
    enum class Direction { ZeroToOne, OneToZero };
    /** @return the state at the other end, [batch, n]; NaN in rows that failed */
    static at::Tensor solve(const Field& field, const at::Tensor& start, Direction direction, const OdeOptions& options,
                            const Observer& observer = {});
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_ODESOLVER_H_*/
