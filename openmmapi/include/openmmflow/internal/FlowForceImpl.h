#ifndef OPENMMFLOW_INTERNAL_FLOWFORCEIMPL_H_
#define OPENMMFLOW_INTERNAL_FLOWFORCEIMPL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/FlowForce.h"
#include "openmmflow/internal/CalcFlowForceKernel.h"
#include <openmm/Kernel.h>
#include <openmm/internal/CustomCPPForceImpl.h>

namespace OpenMMFlow {

/** FlowForce at work: by the Platform's own kernel where there is one, else by that of CustomCPPForceImpl, which copies
 * the positions and forces of all particles. */
class FlowForceImpl : public OpenMM::CustomCPPForceImpl {
public:
    explicit FlowForceImpl(const FlowForce& owner) : CustomCPPForceImpl(owner), owner(owner) {}
    void initialize(OpenMM::ContextImpl& context) override;
    const FlowForce& getOwner() const override { return owner; }
    double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy,
                               int groups) override;
    double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                        std::vector<OpenMM::Vec3>& forces) override;
    std::map<std::string, double> getDefaultParameters() override;

private:
    [[nodiscard]] RowForces evaluate(OpenMM::ContextImpl& context, const at::Tensor& row) const;

    const FlowForce& owner;
    bool hasOwnKernel = false;
    OpenMM::Kernel ownKernel;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_INTERNAL_FLOWFORCEIMPL_H_*/
