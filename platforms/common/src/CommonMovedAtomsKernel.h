#ifndef OPENMMFLOW_COMMONMOVEDATOMSKERNEL_H_
#define OPENMMFLOW_COMMONMOVEDATOMSKERNEL_H_
// SPDX-License-Identifier: MIT

#include "DeviceRow.h"
#include "openmmflow/internal/MovedAtomsKernel.h"
#include <list>

namespace OpenMMFlow {

/** MovedAtomsKernel of the Platforms that are built on OpenMM's ComputeContext: OpenCL, CUDA, HIP. */
class CommonMovedAtomsKernel : public MovedAtomsKernel {
public:
    CommonMovedAtomsKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ComputeContext& cc,
                           std::shared_ptr<const RowTransfer> transfer)
        : MovedAtomsKernel(name, platform), cc(cc), transfer(std::move(transfer)) {}
    ~CommonMovedAtomsKernel() override;
    void initialize(OpenMM::ContextImpl& context, const std::vector<int>& atoms) override;
    [[nodiscard]] at::Tensor gather(OpenMM::ContextImpl& context) override;
    void scatter(OpenMM::ContextImpl& context, const at::Tensor& row) override;
    [[nodiscard]] at::Tensor gatherForces(OpenMM::ContextImpl& context) override;
    void save(OpenMM::ContextImpl& context) override;
    void restore(OpenMM::ContextImpl& context) override;

private:
    // The arrays that make up a state, and what was kept of each.
    struct SavedArray {
        OpenMM::ArrayInterface& array;
        OpenMM::ComputeArray saved;
    };
    OpenMM::ComputeContext& cc;
    std::shared_ptr<const RowTransfer> transfer;
    std::unique_ptr<DeviceRow> row;
    std::list<SavedArray> arrays;
    std::vector<OpenMM::mm_int4> cellOffsets;
    std::vector<int> order;
    int stepsSinceReorder = 0;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_COMMONMOVEDATOMSKERNEL_H_*/
