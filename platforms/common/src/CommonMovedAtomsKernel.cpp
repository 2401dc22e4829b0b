// SPDX-License-Identifier: MIT

#include "CommonMovedAtomsKernel.h"
#include <openmm/common/ContextSelector.h>

using namespace OpenMMFlow;
using namespace OpenMM;

void CommonMovedAtomsKernel::initialize(ContextImpl& context, const std::vector<int>& atoms) {
    row = std::make_unique<DeviceRow>(cc, atoms, transfer);
    const ContextSelector selector(cc);
    std::vector<ArrayInterface*> state = {&cc.getPosq(), &cc.getVelm()};
    if (cc.getUseMixedPrecision())
        state.push_back(&cc.getPosqCorrection());
    for (ArrayInterface* array : state) {
        arrays.emplace_back(*array);
        arrays.back().saved.initialize(cc, array->getSize(), array->getElementSize(), "openmmflowSaved");
    }
}

// Arrays must be let go of in their own context.
CommonMovedAtomsKernel::~CommonMovedAtomsKernel() {
    const ContextSelector selector(cc);
    arrays.clear();
    row.reset();
}

at::Tensor CommonMovedAtomsKernel::gather(ContextImpl& context) {
    return row->gatherPositions();
}

void CommonMovedAtomsKernel::scatter(ContextImpl& context, const at::Tensor& positions) {
    row->scatterPositions(positions);
    noteChange(context, State::Positions);
}

at::Tensor CommonMovedAtomsKernel::gatherForces(ContextImpl& context) {
    return row->gatherForces();
}

void CommonMovedAtomsKernel::save(ContextImpl& context) {
    const ContextSelector selector(cc);
    for (auto& [array, saved] : arrays)
        array.copyTo(saved);
    cellOffsets = cc.getPosCellOffsets();
    order = cc.getAtomIndex();
    stepsSinceReorder = cc.getStepsSinceReorder();
}

void CommonMovedAtomsKernel::restore(ContextImpl& context) {
    {
        const ContextSelector selector(cc);
        for (auto& [array, saved] : arrays)
            saved.copyTo(array);
        cc.setPosCellOffsets(cellOffsets);
        if (cc.getAtomIndex() != order)
            cc.setAtomIndex(order);
        cc.setStepsSinceReorder(stepsSinceReorder);
    }
    noteChange(context, State::Positions);
    noteChange(context, State::Velocities);
}
