// SPDX-License-Identifier: MIT

#include "DeviceRow.h"
#include "KernelSources.h"
#include <ATen/ATen.h>
#include <openmm/common/ContextSelector.h>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

Tensor RowTransfer::toTensor(ArrayInterface& array) const {
    const ContextSelector selector(array.getContext());
    Tensor row = at::empty({1, static_cast<std::int64_t>(array.getSize())},
                           array.getElementSize() == sizeof(float) ? at::kFloat : at::kDouble);
    array.download(row.mutable_data_ptr());
    return row.to(at::kDouble);
}

void RowTransfer::toArray(const Tensor& row, ArrayInterface& array) const {
    const Tensor values =
        row.to(at::kCPU, array.getElementSize() == sizeof(float) ? at::kFloat : at::kDouble).contiguous();
    const ContextSelector selector(array.getContext());
    array.upload(values.const_data_ptr());
}

DeviceRow::DeviceRow(ComputeContext& cc, const std::vector<int>& atoms, std::shared_ptr<const RowTransfer> transfer)
    : cc(cc), atoms(atoms), transfer(std::move(transfer)), slots(atoms.size(), -1) {
    const ContextSelector selector(cc);
    const bool isDouble = cc.getUseDoublePrecision() || cc.getUseMixedPrecision();
    slotArray.initialize<int>(cc, atoms.size(), "openmmflowSlots");
    row.initialize(cc, 3 * atoms.size(), isDouble ? sizeof(double) : sizeof(float), "openmmflowRow");
    const ComputeProgram program =
        cc.compileProgram(movedAtomsSource, {{"NUM_MOVED", cc.intToString(static_cast<int>(atoms.size()))},
                                             {"PADDED_NUM_ATOMS", cc.intToString(cc.getPaddedNumAtoms())}});
    std::vector<ArrayInterface*> positions = {&cc.getPosq()};
    if (cc.getUseMixedPrecision())
        positions.push_back(&cc.getPosqCorrection());
    gatherPositionsKernel = makeKernel(program, "gatherPositions", positions);
    scatterPositionsKernel = makeKernel(program, "scatterPositions", positions);
    gatherForcesKernel = makeKernel(program, "gatherForces", {&cc.getLongForceBuffer()});
    addForcesKernel = makeKernel(program, "addForces", {&cc.getLongForceBuffer()});
}

ComputeKernel DeviceRow::makeKernel(const ComputeProgram& program, const char* name,
                                    std::vector<ArrayInterface*> arrays) {
    ComputeKernel kernel = program->createKernel(name);
    kernel->addArg(slotArray);
    kernel->addArg(row);
    for (ArrayInterface* array : arrays)
        kernel->addArg(*array);
    return kernel;
}

// OpenMM changes the order of its arrays now and then.
void DeviceRow::followOrder() {
    const std::vector<int>& order = cc.getAtomIndex();
    bool changed = false;
    for (std::size_t i = 0; i < atoms.size() && !changed; i++)
        changed = slots[i] < 0 || order[slots[i]] != atoms[i];
    if (!changed)
        return;
    std::vector<int> slotOf(order.size());
    for (std::size_t slot = 0; slot < order.size(); slot++)
        slotOf[order[slot]] = static_cast<int>(slot);
    for (std::size_t i = 0; i < atoms.size(); i++)
        slots[i] = slotOf[atoms[i]];
    slotArray.upload(slots);
}

// From the atoms' positions to those of the arrays, which have molecules shifted by whole cells: [1, 3 atoms], nm.
Tensor DeviceRow::computeShift(const at::Device& device) {
    Vec3 box[3];
    cc.getPeriodicBoxVectors(box[0], box[1], box[2]);
    std::vector<double> values;
    values.reserve(3 * atoms.size());
    for (const int slot : slots) {
        const mm_int4& cells = cc.getPosCellOffsets()[slot];
        const Vec3 offset = box[0] * cells.x + box[1] * cells.y + box[2] * cells.z;
        values.insert(values.end(), {offset[0], offset[1], offset[2]});
    }
    if (!shift.defined() || shift.device() != device || values != shiftValues) {
        shift = at::tensor(values, at::kDouble).unsqueeze(0).to(device);
        shiftValues = values;
    }
    return shift;
}

Tensor DeviceRow::gatherPositions() {
    {
        const ContextSelector selector(cc);
        followOrder();
        execute(gatherPositionsKernel);
    }
    const auto guard = transfer->enterTensors();
    const Tensor wrapped = transfer->toTensor(row);
    return wrapped - computeShift(wrapped.device());
}

void DeviceRow::scatterPositions(const Tensor& positions) {
    {
        const ContextSelector selector(cc);
        followOrder();
    }
    {
        const auto guard = transfer->enterTensors();
        transfer->toArray(positions + computeShift(positions.device()), row);
    }
    const ContextSelector selector(cc);
    execute(scatterPositionsKernel);
}

Tensor DeviceRow::gatherForces() {
    {
        const ContextSelector selector(cc);
        followOrder();
        execute(gatherForcesKernel);
    }
    return transfer->toTensor(row);
}

void DeviceRow::addForces(const Tensor& forces) {
    transfer->toArray(forces, row);
    const ContextSelector selector(cc);
    followOrder();
    execute(addForcesKernel);
}
