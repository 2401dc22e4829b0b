#ifndef OPENMMFLOW_HOSTMOVEDATOMSKERNEL_H_
#define OPENMMFLOW_HOSTMOVEDATOMSKERNEL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/internal/MovedAtomsKernel.h"

namespace OpenMMFlow {

/**
 * MovedAtomsKernel by a Context's own vectors of all particles: the specification. It is what Reference and CPU need,
 * whose vectors are on the host in double, and serves wherever there is no other; a Platform that has them on a device,
 * wrapped and in lower precision, copies them each time, and gets them back to its precision only.
 */
class HostMovedAtomsKernel : public MovedAtomsKernel {
public:
    explicit HostMovedAtomsKernel(const OpenMM::Platform& platform) : MovedAtomsKernel(Name(), platform) {}
    void initialize(OpenMM::ContextImpl& context, const std::vector<int>& newAtoms) override { atoms = newAtoms; }
    [[nodiscard]] at::Tensor gather(OpenMM::ContextImpl& context) override;
    void scatter(OpenMM::ContextImpl& context, const at::Tensor& row) override;
    [[nodiscard]] at::Tensor gatherForces(OpenMM::ContextImpl& context) override;
    void save(OpenMM::ContextImpl& context) override;
    void restore(OpenMM::ContextImpl& context) override;

private:
    std::vector<int> atoms;
    std::vector<OpenMM::Vec3> vectors; // a place to work in
    std::vector<OpenMM::Vec3> savedPositions, savedVelocities;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_HOSTMOVEDATOMSKERNEL_H_*/
