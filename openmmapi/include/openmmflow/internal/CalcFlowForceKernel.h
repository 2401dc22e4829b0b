#ifndef OPENMMFLOW_INTERNAL_CALCFLOWFORCEKERNEL_H_
#define OPENMMFLOW_INTERNAL_CALCFLOWFORCEKERNEL_H_
// SPDX-License-Identifier: MIT

#include <ATen/core/Tensor.h>
#include <functional>
#include <openmm/KernelImpl.h>
#include <openmm/Platform.h>
#include <openmm/internal/ContextImpl.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

/** The energy of a row of positions (see MovedAtomsKernel), and the forces on its atoms. */
struct RowForces {
    /** kJ/mol */
    double energy = 0;
    /** kJ/mol/nm, of the shape of the row; undefined where all are 0 */
    at::Tensor forces;
};

/** The energy of FlowForce and its forces, on a Platform that keeps positions elsewhere than on the host. */
class CalcFlowForceKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() { return "OpenMMFlowCalcFlowForce"; }
    using Function = std::function<RowForces(const at::Tensor& row)>;
    CalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform) : KernelImpl(name, platform) {}
    /**
     * @param atoms       different particles of the System
     * @param forceGroup  of the Force
     * @param function    may be called in another thread, one call at a time
     */
    virtual void initialize(OpenMM::ContextImpl& context, const std::vector<int>& atoms, int forceGroup,
                            Function function) = 0;
    /** Part of ContextImpl::calcForcesAndEnergy(). @return kJ/mol, or 0 where the kernel gives its energy to the
     * Platform in another way */
    virtual double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) = 0;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_INTERNAL_CALCFLOWFORCEKERNEL_H_*/
