// SPDX-License-Identifier: MIT
// The plugin library for OpenMM's CUDA Platform: see OpenMM::Platform::loadPluginLibrary().

#include "FlowKernels.h"
#include "openmmflow/latent/Export.h"
#include <openmm/cuda/CudaContext.h>
#include <openmm/cuda/CudaPlatform.h>

using namespace OpenMM;

namespace {

class CudaFlowKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(std::string name, const Platform& platform, ContextImpl& context) const override {
        auto& data = *static_cast<CudaPlatform::PlatformData*>(context.getPlatformData());
        return OpenMMFlow::createFlowKernel(name, platform, *data.contexts[0],
                                            std::make_shared<OpenMMFlow::RowTransfer>());
    }
};

} // namespace

extern "C" OPENMMFLOW_EXPORT void registerPlatforms() {}

extern "C" OPENMMFLOW_EXPORT void registerKernelFactories() {
    OpenMMFlow::registerFlowKernels(Platform::getPlatformByName("CUDA"), new CudaFlowKernelFactory());
}
