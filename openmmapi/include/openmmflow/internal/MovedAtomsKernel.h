#ifndef OPENMMFLOW_INTERNAL_MOVEDATOMSKERNEL_H_
#define OPENMMFLOW_INTERNAL_MOVEDATOMSKERNEL_H_
// SPDX-License-Identifier: MIT

#include <ATen/core/Tensor.h>
#include <openmm/KernelImpl.h>
#include <openmm/Platform.h>
#include <openmm/internal/ContextImpl.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

/**
 * Some atoms of a Context as a flow sees them, and the state of the whole Context before they were moved.
 *
 * A row is float64 [1, 3 atoms]: the atoms in the order of the list, whole molecules as the user has set them (not
 * wrapped into the periodic box), in nm. A kernel hands out rows on the device where it has them, the host's or CUDA's,
 * and takes rows on any.
 */
class MovedAtomsKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() { return "OpenMMFlowMovedAtoms"; }
    MovedAtomsKernel(const std::string& name, const OpenMM::Platform& platform) : KernelImpl(name, platform) {}
    /** To be called once, before all others. @param atoms  different particles of the System */
    virtual void initialize(OpenMM::ContextImpl& context, const std::vector<int>& atoms) = 0;
    /** The atoms' present positions. @return a new row */
    [[nodiscard]] virtual at::Tensor gather(OpenMM::ContextImpl& context) = 0;
    /**
     * Move the atoms to a row, rounded to the Platform's precision. Everything else stays as it is: virtual sites are
     * those of before until ContextImpl::computeVirtualSites().
     */
    virtual void scatter(OpenMM::ContextImpl& context, const at::Tensor& row) = 0;
    /** The forces of the last evaluation on the atoms, kJ/mol/nm. @return a new row */
    [[nodiscard]] virtual at::Tensor gatherForces(OpenMM::ContextImpl& context) = 0;
    /** Keep positions and velocities of all particles, with whatever the Platform has beside them, in place of those
     * kept before. */
    virtual void save(OpenMM::ContextImpl& context) = 0;
    /** Put back what was kept, bit for bit; as often as wanted. */
    virtual void restore(OpenMM::ContextImpl& context) = 0;

protected:
    /** Tell the Context's Integrator, as ContextImpl::setPositions() does. */
    static void noteChange(OpenMM::ContextImpl& context, OpenMM::State::DataType changed) {
        struct Access : OpenMM::Integrator { // the base's own pointer to member, which it gives to derived classes only
            using Integrator::stateChanged;
        };
        (context.getIntegrator().*&Access::stateChanged)(changed);
    }
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_INTERNAL_MOVEDATOMSKERNEL_H_*/
