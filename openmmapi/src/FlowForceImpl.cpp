// SPDX-License-Identifier: MIT

#include "openmmflow/internal/FlowForceImpl.h"
#include "MovedAtoms.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/ThreadGuard.h"
#include <ATen/ATen.h>
#include <openmm/internal/ContextImpl.h>

using namespace OpenMMFlow;
using namespace OpenMM;

void FlowForceImpl::initialize(ContextImpl& context) {
    checkParticles("FlowForce", owner.getParticles(), context.getSystem());
    CustomCPPForceImpl::initialize(context);
}

std::map<std::string, double> FlowForceImpl::getDefaultParameters() {
    return {{owner.getScaleParameter(), owner.getDefaultScale()}};
}

double FlowForceImpl::computeForce(ContextImpl& context, const std::vector<Vec3>& positions,
                                   std::vector<Vec3>& forces) {
    std::fill(forces.begin(), forces.end(), Vec3());
    const double scale = context.getParameter(owner.getScaleParameter()) * gasConstant * owner.getTemperature();
    if (scale == 0)
        return 0;
    return translateErrors("FlowForce", [&] {
        const ThreadGuard oneThread(1);
        const auto [logQ, gradient] = owner.getFlow()->logQWithGradient(gather(positions, owner.getParticles()));
        require(std::isfinite(logQ.item<double>()), "FlowForce", "log q(x)", logQ.item<double>(),
                "finite: the configuration is outside the flow's domain");
        scatter(scale * gradient, owner.getParticles(), forces);
        return -scale * logQ.item<double>();
    });
}
