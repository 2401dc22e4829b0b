#ifndef OPENMMFLOW_DEVICEROW_H_
#define OPENMMFLOW_DEVICEROW_H_
// SPDX-License-Identifier: MIT

#include <ATen/core/Tensor.h>
#include <memory>
#include <openmm/common/ComputeArray.h>
#include <openmm/common/ComputeContext.h>
#include <vector>

namespace OpenMMFlow {

/** How a row goes between OpenMM's array and a tensor: here through the host's memory. A Platform may have a shorter
 * way. */
class RowTransfer {
public:
    virtual ~RowTransfer() = default;
    /**
     * The array's kernels have been queued, not waited for; no ContextSelector is held.
     * @param array  [size], in the Context's mixed precision  @return a new tensor, float64 [1, size]
     */
    [[nodiscard]] virtual at::Tensor toTensor(OpenMM::ArrayInterface& array) const;
    /** @param row  float64 [1, size], on any device; the array has all of it for kernels that are queued after this */
    virtual void toArray(const at::Tensor& row, OpenMM::ArrayInterface& array) const;
    /** What work with the tensors needs, whatever the caller has selected, for as long as it is held. */
    class Guard {
    public:
        virtual ~Guard() = default;
    };
    /** @return may be null */
    [[nodiscard]] virtual std::unique_ptr<Guard> enterTensors() const { return nullptr; }
};

/** Some atoms' part of a Context's arrays: see MovedAtomsKernel. */
class DeviceRow {
public:
    DeviceRow(OpenMM::ComputeContext& cc, const std::vector<int>& atoms, std::shared_ptr<const RowTransfer> transfer);
    [[nodiscard]] at::Tensor gatherPositions();
    void scatterPositions(const at::Tensor& row);
    [[nodiscard]] at::Tensor gatherForces();
    /** Add to the forces of the evaluation that goes on. */
    void addForces(const at::Tensor& row);

private:
    OpenMM::ComputeKernel makeKernel(const OpenMM::ComputeProgram& program, const char* name,
                                     std::vector<OpenMM::ArrayInterface*> arrays);
    void execute(const OpenMM::ComputeKernel& kernel) { kernel->execute(static_cast<int>(atoms.size())); }
    void followOrder();
    [[nodiscard]] at::Tensor computeShift(const at::Device& device);

    OpenMM::ComputeContext& cc;
    const std::vector<int> atoms;
    const std::shared_ptr<const RowTransfer> transfer;
    std::vector<int> slots; // where the arrays have the atoms
    at::Tensor shift;       // of the last computeShift()
    std::vector<double> shiftValues;
    OpenMM::ComputeArray slotArray, row;
    OpenMM::ComputeKernel gatherPositionsKernel, scatterPositionsKernel, gatherForcesKernel, addForcesKernel;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_DEVICEROW_H_*/
