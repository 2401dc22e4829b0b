// SPDX-License-Identifier: MIT

#include "openmmflow/internal/PlatformKernels.h"
#include "HostMovedAtomsKernel.h"

using namespace OpenMMFlow;
using namespace OpenMM;

PlatformKernel OpenMMFlow::makePlatformKernel(const std::string& name, ContextImpl& context) {
    const Platform& platform = context.getPlatform();
    if (!platform.supportsKernels({name}))
        return {{}, false, "no plugin library of OpenMM-Flow for this Platform is loaded"};
    try {
        return {platform.createKernel(name, context), true, ""};
    } catch (const OpenMMException& error) {
        return {{}, false, error.what()};
    }
}

MovedAtoms OpenMMFlow::makeMovedAtoms(ContextImpl& context, const std::vector<int>& atoms) {
    const Platform& platform = context.getPlatform();
    const std::string& name = platform.getName();
    const bool onHost = name == "Reference" || name == "CPU";
    PlatformKernel made = onHost ? PlatformKernel() : makePlatformKernel(MovedAtomsKernel::Name(), context);
    MovedAtoms moved{made.exists ? made.kernel : Kernel(new HostMovedAtomsKernel(platform)), name};
    moved.kernel.getAs<MovedAtomsKernel>().initialize(context, atoms);
    if (made.exists)
        moved.description += ": on the device";
    else if (onHost)
        moved.description += ": on the host, as everything there";
    else
        moved.description +=
            ": through the host, which copies all positions for each trial and puts a rejected one back "
            "to the precision of the Platform only, because " +
            made.problem;
    return moved;
}
