#ifndef OPENMMFLOW_FLOWKERNELS_H_
#define OPENMMFLOW_FLOWKERNELS_H_
// SPDX-License-Identifier: MIT

#include "DeviceRow.h"
#include <openmm/KernelFactory.h>
#include <openmm/Platform.h>
#include <string>

namespace OpenMMFlow {

/**
 * Make one of OpenMM-Flow's kernels. Throws where it does not know the name, and where a Context is spread over several
 * devices: what is there for one of them does not serve for all.
 */
[[nodiscard]] OpenMM::KernelImpl* createFlowKernel(const std::string& name, const OpenMM::Platform& platform,
                                                   OpenMM::ComputeContext& cc,
                                                   std::shared_ptr<const RowTransfer> transfer);

/** Give a Platform a factory for each of OpenMM-Flow's kernels. */
void registerFlowKernels(OpenMM::Platform& platform, OpenMM::KernelFactory* factory);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWKERNELS_H_*/
