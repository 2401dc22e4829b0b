#ifndef OPENMMFLOW_FLOWCHECK_H_
#define OPENMMFLOW_FLOWCHECK_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <string>

namespace OpenMM {
class System;
}

namespace OpenMMFlow {

class Flow;

/**
 * Throw unless a flow describes atoms of a System as they are there: particles that exist, have mass and are no virtual
 * sites, and whose constraints are just the distances that the flow's chart holds.
 *
 * A flow knows atoms by their numbers: it has to be made for the System, or one with the same order and constraints.
 *
 * @param who  the class or function that asks, for the message
 */
OPENMMFLOW_EXPORT void checkFlow(const Flow& flow, const OpenMM::System& system, const std::string& who);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWCHECK_H_*/
