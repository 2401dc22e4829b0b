#ifndef OPENMMFLOW_INTERNAL_FLOWFORCEIMPL_H_
#define OPENMMFLOW_INTERNAL_FLOWFORCEIMPL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/FlowForce.h"
#include <openmm/internal/CustomCPPForceImpl.h>

namespace OpenMMFlow {

/** FlowForce at work: on the host, for every Platform. */
class FlowForceImpl : public OpenMM::CustomCPPForceImpl {
public:
    explicit FlowForceImpl(const FlowForce& owner) : CustomCPPForceImpl(owner), owner(owner) {}
    void initialize(OpenMM::ContextImpl& context) override;
    const FlowForce& getOwner() const override { return owner; }
    double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                        std::vector<OpenMM::Vec3>& forces) override;
    std::map<std::string, double> getDefaultParameters() override;

private:
    const FlowForce& owner;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_INTERNAL_FLOWFORCEIMPL_H_*/
