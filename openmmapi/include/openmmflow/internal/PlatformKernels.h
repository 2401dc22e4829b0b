#ifndef OPENMMFLOW_INTERNAL_PLATFORMKERNELS_H_
#define OPENMMFLOW_INTERNAL_PLATFORMKERNELS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <openmm/Kernel.h>
#include <openmm/internal/ContextImpl.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

/** A kernel of a Context's Platform. */
struct PlatformKernel {
    /** Without implementation where the Platform has none. */
    OpenMM::Kernel kernel;
    bool exists = false;
    /** Why there is none. */
    std::string problem;
};

/** Make a kernel where a plugin library has given the Platform one that will have this Context. */
[[nodiscard]] OPENMMFLOW_EXPORT PlatformKernel makePlatformKernel(const std::string& name,
                                                                  OpenMM::ContextImpl& context);

/** MovedAtomsKernel of some atoms, initialized, and where it works, for people to read. */
struct MovedAtoms {
    OpenMM::Kernel kernel;
    std::string description;
};

/** That of the Platform, or else that which works on the host. */
[[nodiscard]] OPENMMFLOW_EXPORT MovedAtoms makeMovedAtoms(OpenMM::ContextImpl& context, const std::vector<int>& atoms);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_INTERNAL_PLATFORMKERNELS_H_*/
