// SPDX-License-Identifier: MIT

#include "FlowKernels.h"
#include "CommonCalcFlowForceKernel.h"
#include "CommonMovedAtomsKernel.h"
#include "openmmflow/latent/Check.h"

using namespace OpenMM;

KernelImpl* OpenMMFlow::createFlowKernel(const std::string& name, const Platform& platform, ComputeContext& cc,
                                         std::shared_ptr<const RowTransfer> transfer) {
    require(cc.getNumContexts() == 1, "OpenMM-Flow on " + platform.getName(), "number of devices of the Context",
            cc.getNumContexts(), "1");
    if (name == MovedAtomsKernel::Name())
        return new CommonMovedAtomsKernel(name, platform, cc, std::move(transfer));
    if (name == CalcFlowForceKernel::Name())
        return new CommonCalcFlowForceKernel(name, platform, cc, std::move(transfer));
    throw OpenMMException("OpenMM-Flow on " + platform.getName() + ": there is no kernel " + name);
}

void OpenMMFlow::registerFlowKernels(Platform& platform, KernelFactory* factory) {
    for (const std::string& name : {MovedAtomsKernel::Name(), CalcFlowForceKernel::Name()})
        platform.registerKernelFactory(name, factory);
}
