// SPDX-License-Identifier: MIT

#include "FlowForceProxy.h"
#include "SerializationTools.h"
#include "openmmflow/FlowForce.h"

using namespace OpenMMFlow;
using namespace OpenMM;

void FlowForceProxy::serialize(const void* object, SerializationNode& node) const {
    const auto& force = *static_cast<const FlowForce*>(object);
    node.setIntProperty("version", 1);
    node.setStringProperty("name", force.getName());
    node.setIntProperty("forceGroup", force.getForceGroup());
    node.setDoubleProperty("temperature", force.getTemperature());
    node.setStringProperty("scaleParameter", force.getScaleParameter());
    node.setDoubleProperty("defaultScale", force.getDefaultScale());
    writeFlow(node, *force.getFlow());
}

void* FlowForceProxy::deserialize(const SerializationNode& node) const {
    checkVersion(node, "FlowForceProxy::deserialize", 1);
    auto force = std::make_unique<FlowForce>(readFlow(node), readNumber(node, "temperature"));
    force->setName(node.getStringProperty("name"));
    force->setForceGroup(static_cast<int>(readInteger(node, "forceGroup")));
    force->setScaleParameter(node.getStringProperty("scaleParameter"));
    force->setDefaultScale(readNumber(node, "defaultScale"));
    return force.release();
}
