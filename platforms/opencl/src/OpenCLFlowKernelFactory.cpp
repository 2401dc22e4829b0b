// SPDX-License-Identifier: MIT
// The plugin library for OpenMM's OpenCL Platform: see OpenMM::Platform::loadPluginLibrary().

#include "FlowKernels.h"
#include "openmmflow/latent/Export.h"
#include <openmm/opencl/OpenCLContext.h>
#include <openmm/opencl/OpenCLPlatform.h>

using namespace OpenMM;

namespace {

class OpenCLFlowKernelFactory : public KernelFactory {
public:
    KernelImpl* createKernelImpl(std::string name, const Platform& platform, ContextImpl& context) const override {
        auto& data = *static_cast<OpenCLPlatform::PlatformData*>(context.getPlatformData());
        return OpenMMFlow::createFlowKernel(name, platform, *data.contexts[0],
                                            std::make_shared<OpenMMFlow::RowTransfer>());
    }
};

} // namespace

extern "C" OPENMMFLOW_EXPORT void registerPlatforms() {}

extern "C" OPENMMFLOW_EXPORT void registerKernelFactories() {
    OpenMMFlow::registerFlowKernels(Platform::getPlatformByName("OpenCL"), new OpenCLFlowKernelFactory());
}
