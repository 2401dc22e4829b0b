// SPDX-License-Identifier: MIT

#include "CommonCalcFlowForceKernel.h"
#include <openmm/common/ContextSelector.h>

using namespace OpenMMFlow;
using namespace OpenMM;

class CommonCalcFlowForceKernel::Work : public ComputeContext::WorkTask {
public:
    Work(CommonCalcFlowForceKernel& kernel, at::Tensor positions) : kernel(kernel), positions(std::move(positions)) {}
    // The thread itself would keep what is thrown for whoever waits next.
    void execute() override {
        kernel.failure = nullptr;
        try {
            kernel.result = kernel.function(positions);
        } catch (...) {
            kernel.failure = std::current_exception();
        }
    }

private:
    CommonCalcFlowForceKernel& kernel;
    at::Tensor positions;
};

class CommonCalcFlowForceKernel::Start : public ComputeContext::ForcePreComputation {
public:
    Start(CommonCalcFlowForceKernel& kernel, int groupFlag) : kernel(kernel), groupFlag(groupFlag) {}
    void computeForceAndEnergy(bool includeForces, bool includeEnergy, int groups) override {
        if ((groups & groupFlag) != 0)
            kernel.cc.getWorkThread().addTask(new Work(kernel, kernel.row->gatherPositions()));
    }

private:
    CommonCalcFlowForceKernel& kernel;
    const int groupFlag;
};

class CommonCalcFlowForceKernel::Finish : public ComputeContext::ForcePostComputation {
public:
    Finish(CommonCalcFlowForceKernel& kernel, int groupFlag) : kernel(kernel), groupFlag(groupFlag) {}
    double computeForceAndEnergy(bool includeForces, bool includeEnergy, int groups) override {
        if ((groups & groupFlag) == 0)
            return 0;
        kernel.cc.getWorkThread().flush();
        if (kernel.failure != nullptr)
            std::rethrow_exception(kernel.failure);
        if (includeForces && kernel.result.forces.defined())
            kernel.row->addForces(kernel.result.forces);
        return kernel.result.energy;
    }

private:
    CommonCalcFlowForceKernel& kernel;
    const int groupFlag;
};

void CommonCalcFlowForceKernel::initialize(ContextImpl& context, const std::vector<int>& atoms, int forceGroup,
                                           Function newFunction) {
    row = std::make_unique<DeviceRow>(cc, atoms, transfer);
    function = std::move(newFunction);
    cc.addPreComputation(new Start(*this, 1 << forceGroup));
    cc.addPostComputation(new Finish(*this, 1 << forceGroup));
}

// Another force may have thrown between start and finish, and left the work undone.
CommonCalcFlowForceKernel::~CommonCalcFlowForceKernel() {
    cc.getWorkThread().flush();
    const ContextSelector selector(cc);
    row.reset();
}
