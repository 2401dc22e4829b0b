// SPDX-License-Identifier: MIT
// Makes the classes known to OpenMM's XmlSerializer as soon as the library is loaded.

#include "FlowForceProxy.h"
#include "FlowLangevinIntegratorProxy.h"
#include "openmmflow/FlowForce.h"
#include "openmmflow/FlowLangevinIntegrator.h"

using namespace OpenMMFlow;

static const bool registered = [] {
    OpenMM::SerializationProxy::registerProxy(typeid(FlowForce), new FlowForceProxy());
    OpenMM::SerializationProxy::registerProxy(typeid(FlowLangevinIntegrator), new FlowLangevinIntegratorProxy());
    return true;
}();
