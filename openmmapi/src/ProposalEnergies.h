#ifndef OPENMMFLOW_PROPOSALENERGIES_H_
#define OPENMMFLOW_PROPOSALENERGIES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ContextPotential.h"
#include <openmm/Integrator.h>
#include <openmm/internal/ContextImpl.h>

namespace OpenMMFlow {

/**
 * Energies of proposals from a Context of their own, computed ahead, where those serve as well as the energies of the
 * Context that jumps.
 *
 * A proposal is moved rigidly onto a frame that nobody knows ahead. So its energy must be that of the configuration up
 * to rigid motion, and of nothing that can change unseen: see canServe().
 */
class ProposalEnergies {
public:
    /**
     * Whether energies from another Context, of configurations elsewhere, are those of this Context to rounding:
     *
     * - its platform is Reference or CPU, which share no device and no random numbers with another Context that does
     *   not move;
     * - the atoms are all particles of the System (so that there are no virtual sites and no surroundings);
     * - every Force is one of OpenMM's own whose energy depends on distances, angles and torsions alone, without
     *   periodic boundaries: no external or centroid forces, biases, plugins, or functions of the user's own.
     *
     * Constraints don't matter: they don't act on energies.
     */
    static bool canServe(OpenMM::ContextImpl& context, const std::vector<int>& atoms);
    /** Copies the System: as it is when its Context is made, for later changes need not reach that. */
    ProposalEnergies(const OpenMM::Integrator& owner, OpenMM::ContextImpl& context, const std::vector<int>& atoms);
    /** What an energy depends on beside the configuration: the parameters of the Context. */
    using Conditions = std::map<std::string, double>;
    /** Those of now. */
    [[nodiscard]] Conditions getConditions() const { return context.getParameters(); }
    /** Whether energies computed under some conditions are those that the owner's Context has now. */
    [[nodiscard]] bool areValid(const Conditions& conditions) const;
    /** Never serve again: the Forces of the Context were changed, and the copy of its System was not. */
    void invalidate() { valid = false; }
    [[nodiscard]] bool isValid() const { return valid; }
    /** From any thread, one at a time. @return U, kJ/mol, float64 [rows]; +inf where there is none */
    [[nodiscard]] at::Tensor evaluate(const at::Tensor& x, const Conditions& conditions);
    [[nodiscard]] const std::vector<int>& getAtoms() const { return potential.getAtoms(); }

private:
    const OpenMM::Integrator& owner;
    OpenMM::ContextImpl& context;
    int forceGroups;            // the owner's at the beginning
    ContextPotential potential; // at kT = 1 kJ/mol
    bool valid = true;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_PROPOSALENERGIES_H_*/
