// SPDX-License-Identifier: MIT

#include "openmmflow/internal/FlowForceImpl.h"
#include "MovedAtoms.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/internal/PlatformKernels.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/ThreadGuard.h"
#include <ATen/ATen.h>
#include <openmm/internal/ContextImpl.h>

using namespace OpenMMFlow;
using namespace OpenMM;

void FlowForceImpl::initialize(ContextImpl& context) {
    checkParticles("FlowForce", owner.getParticles(), context.getSystem());
    const PlatformKernel made = makePlatformKernel(CalcFlowForceKernel::Name(), context);
    hasOwnKernel = made.exists;
    if (!hasOwnKernel) {
        CustomCPPForceImpl::initialize(context);
        return;
    }
    ownKernel = made.kernel;
    ownKernel.getAs<CalcFlowForceKernel>().initialize(
        context, owner.getParticles(), owner.getForceGroup(),
        [this, &context](const at::Tensor& row) { return evaluate(context, row); });
}

double FlowForceImpl::calcForcesAndEnergy(ContextImpl& context, bool includeForces, bool includeEnergy, int groups) {
    if (!hasOwnKernel)
        return CustomCPPForceImpl::calcForcesAndEnergy(context, includeForces, includeEnergy, groups);
    if (((groups >> owner.getForceGroup()) & 1) == 0)
        return 0;
    return ownKernel.getAs<CalcFlowForceKernel>().execute(context, includeForces, includeEnergy);
}

std::map<std::string, double> FlowForceImpl::getDefaultParameters() {
    return {{owner.getScaleParameter(), owner.getDefaultScale()}};
}

RowForces FlowForceImpl::evaluate(ContextImpl& context, const at::Tensor& row) const {
    const double scale = context.getParameter(owner.getScaleParameter()) * gasConstant * owner.getTemperature();
    if (scale == 0)
        return {};
    return translateErrors("FlowForce", [&]() -> RowForces {
        const ThreadGuard oneThread(1);
        const Flow& flow = *owner.getFlow();
        const auto [logQ, gradient] = flow.logQWithGradient(row.to(at::Device(flow.getDevice())));
        const double value = logQ.item<double>();
        require(std::isfinite(value), "FlowForce", "log q(x)", value,
                "finite: the configuration is outside the flow's domain");
        return {-scale * value, scale * gradient};
    });
}

double FlowForceImpl::computeForce(ContextImpl& context, const std::vector<Vec3>& positions,
                                   std::vector<Vec3>& forces) {
    std::fill(forces.begin(), forces.end(), Vec3());
    const RowForces result = evaluate(context, gather(positions, owner.getParticles()));
    if (result.forces.defined())
        scatter(result.forces, owner.getParticles(), forces);
    return result.energy;
}
