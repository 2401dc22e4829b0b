#ifndef OPENMMFLOW_COMMONCALCFLOWFORCEKERNEL_H_
#define OPENMMFLOW_COMMONCALCFLOWFORCEKERNEL_H_
// SPDX-License-Identifier: MIT

#include "DeviceRow.h"
#include "openmmflow/internal/CalcFlowForceKernel.h"
#include <exception>

namespace OpenMMFlow {

/**
 * CalcFlowForceKernel of the Platforms that are built on OpenMM's ComputeContext. The row is gathered before any other
 * force is computed, the flow works in the Context's worker thread beside the device, and its forces are added at the
 * end.
 */
class CommonCalcFlowForceKernel : public CalcFlowForceKernel {
public:
    CommonCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ComputeContext& cc,
                              std::shared_ptr<const RowTransfer> transfer)
        : CalcFlowForceKernel(name, platform), cc(cc), transfer(std::move(transfer)) {}
    ~CommonCalcFlowForceKernel() override;
    void initialize(OpenMM::ContextImpl& context, const std::vector<int>& atoms, int forceGroup,
                    Function function) override;
    double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) override { return 0; }

private:
    class Start;
    class Work;
    class Finish;
    OpenMM::ComputeContext& cc;
    std::shared_ptr<const RowTransfer> transfer;
    std::unique_ptr<DeviceRow> row;
    Function function;
    RowForces result;
    std::exception_ptr failure;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_COMMONCALCFLOWFORCEKERNEL_H_*/
