#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_ANALYTICSYSTEM_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_ANALYTICSYSTEM_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ContextPotential.h"

namespace OpenMMFlow {

/** The temperature, in K, at which kT is 1 kJ/mol: energies in kJ/mol are reduced energies. */
inline constexpr double unitTemperature = 1 / 0.00831446261815324;

/**
 * A small OpenMM System about which much is known exactly, to try methods on. Lengths are in nm and energies in kJ/mol;
 * what a class tells of its System (ln Z, probabilities, means) holds at unitTemperature.
 *
 * A System of one or two dimensions still has three coordinates per particle. Those that it does not use are confined
 * by a term of their own, c^2/2 each, which adds (1/2) ln(2 pi) to the ln Z of the whole System and changes nothing
 * else. What is said of a System is said of its used coordinates, the columns that getColumns() lists.
 */
class OPENMMFLOW_EXPORT AnalyticSystem {
public:
    virtual ~AnalyticSystem() = default;
    /** A new System. */
    [[nodiscard]] virtual std::unique_ptr<OpenMM::System> createSystem() const = 0;
    /** Where a simulation can start, nm. Unused coordinates are 0. */
    [[nodiscard]] virtual std::vector<OpenMM::Vec3> getPositions() const = 0;
    /** The columns of x [3 particles] that the system uses. */
    [[nodiscard]] virtual std::vector<int> getColumns() const = 0;
    /**
     * u of the used coordinates alone, at unitTemperature; the others are 0.
     *
     * @param options  of the Contexts behind it
     */
    [[nodiscard]] std::shared_ptr<ReducedPotential> createPotential(const ContextPotential::Options& options) const;
    [[nodiscard]] std::shared_ptr<ReducedPotential> createPotential() const;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_ANALYTICSYSTEM_H_*/
