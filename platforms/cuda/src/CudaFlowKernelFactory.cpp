// SPDX-License-Identifier: MIT
// The plugin library for OpenMM's CUDA Platform: see OpenMM::Platform::loadPluginLibrary().

#include "CudaRowTransfer.h"
#include "FlowKernels.h"
#include "openmmflow/latent/Export.h"
#include <ATen/Context.h>
#include <openmm/cuda/CudaPlatform.h>

using namespace OpenMM;
using namespace OpenMMFlow;

namespace {

/** Rows go to the device's tensors where torch is built for CUDA and finds the device, else to the host's. */
std::shared_ptr<const RowTransfer> makeTransfer(CudaContext& cu) {
    if (at::hasCUDA())
        return std::make_shared<CudaRowTransfer>(cu);
    return std::make_shared<RowTransfer>();
}

class CudaFlowKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(std::string name, const Platform& platform, ContextImpl& context) const override {
        auto& data = *static_cast<CudaPlatform::PlatformData*>(context.getPlatformData());
        return createFlowKernel(name, platform, *data.contexts[0], makeTransfer(*data.contexts[0]));
    }
};

} // namespace

extern "C" OPENMMFLOW_EXPORT void registerPlatforms() {}

extern "C" OPENMMFLOW_EXPORT void registerKernelFactories() {
    registerFlowKernels(Platform::getPlatformByName("CUDA"), new CudaFlowKernelFactory());
}
