// SPDX-License-Identifier: MIT

#include "openmmflow/FlowForce.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/internal/FlowForceImpl.h"
#include "openmmflow/latent/Check.h"

using namespace OpenMMFlow;

FlowForce::FlowForce(std::shared_ptr<Flow> newFlow, double temperature)
    : flow(std::move(newFlow)), temperature(temperature) {
    require(flow != nullptr, "FlowForce::FlowForce", "flow", "null", "a Flow");
    require(!flow->getAtoms().empty(), "FlowForce::FlowForce", "number of the flow's atoms", 0, "at least 1");
    require(temperature > 0 && std::isfinite(temperature), "FlowForce::FlowForce", "temperature", temperature,
            "positive and finite");
    setName("FlowForce");
}

FlowForce::~FlowForce() = default;

const std::vector<int>& FlowForce::getParticles() const {
    return flow->getAtoms();
}

void FlowForce::setScaleParameter(const std::string& name) {
    require(!name.empty(), "FlowForce::setScaleParameter", "name", "empty", "the name of a Context parameter");
    scaleParameter = name;
}

void FlowForce::setDefaultScale(double scale) {
    require(std::isfinite(scale), "FlowForce::setDefaultScale", "scale", scale, "finite");
    defaultScale = scale;
}

OpenMM::ForceImpl* FlowForce::createImpl() const {
    return new FlowForceImpl(*this);
}
