#ifndef OPENMMFLOW_FLOWFORCEPROXY_H_
#define OPENMMFLOW_FLOWFORCEPROXY_H_
// SPDX-License-Identifier: MIT

#include <openmm/serialization/SerializationProxy.h>

namespace OpenMMFlow {

/** Writes and reads FlowForce as XML, the flow's weights included. */
class FlowForceProxy : public OpenMM::SerializationProxy {
public:
    FlowForceProxy() : SerializationProxy("FlowForce") {}
    void serialize(const void* object, OpenMM::SerializationNode& node) const override;
    void* deserialize(const OpenMM::SerializationNode& node) const override;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWFORCEPROXY_H_*/
