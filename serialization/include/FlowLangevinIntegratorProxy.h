#ifndef OPENMMFLOW_FLOWLANGEVININTEGRATORPROXY_H_
#define OPENMMFLOW_FLOWLANGEVININTEGRATORPROXY_H_
// SPDX-License-Identifier: MIT

#include <openmm/serialization/SerializationProxy.h>

namespace OpenMMFlow {

/** Writes and reads FlowLangevinIntegrator as XML, the flow's weights included. */
class FlowLangevinIntegratorProxy : public OpenMM::SerializationProxy {
public:
    FlowLangevinIntegratorProxy() : SerializationProxy("FlowLangevinIntegrator") {}
    void serialize(const void* object, OpenMM::SerializationNode& node) const override;
    void* deserialize(const OpenMM::SerializationNode& node) const override;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWLANGEVININTEGRATORPROXY_H_*/
