#ifndef OPENMMFLOW_STAGEPROPAGATOR_H_
#define OPENMMFLOW_STAGEPROPAGATOR_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/AnnealedProtocol.h"
#include <cstdint>
#include <memory>
#include <openmm/LangevinMiddleIntegrator.h>
#include <openmm/internal/ContextImpl.h>

namespace OpenMMFlow {

/** What the steps at a stage did. */
struct StageResult {
    /** The potential energy of the last state, kJ/mol. */
    double potential = 0;
    /** What steps without friction and noise have added to the total energy, kJ/mol; 0 where it is not counted. */
    double shadowWork = 0;
    /** Steps accepted; every one where nothing is decided. */
    std::int64_t accepted = 0;
};

/**
 * Steps of dynamics at the present parameters of a Context, by an integrator of its own and the platform's kernel for
 * it. Unlike the Context's integrator it does not call updateContextState(): no barostat acts. Time and step count
 * advance.
 */
class StagePropagator {
public:
    virtual ~StagePropagator() = default;
    /**
     * Make the steps. Forces in the integration force groups must be those of the present positions and parameters.
     * Velocities are at the time of the positions, before and after.
     *
     * @param potential  the potential energy of the present state, kJ/mol
     */
    [[nodiscard]] virtual StageResult run(OpenMM::ContextImpl& context, const AnnealedProtocol& protocol,
                                          double temperature, int steps, double potential) = 0;
};

/**
 * @param owner  gives the constraint tolerance and the force groups, which may not change later
 * @param seed   of the kernel. CPU and GPU platforms want that of all other integrators of the Context; Reference
 *               starts its random numbers anew with each kernel that is made
 */
[[nodiscard]] std::unique_ptr<StagePropagator> makeStagePropagator(StageDynamics dynamics, OpenMM::ContextImpl& context,
                                                                   const OpenMM::Integrator& owner, int seed);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_STAGEPROPAGATOR_H_*/
