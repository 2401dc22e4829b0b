#ifndef OPENMMFLOW_CUDAROWTRANSFER_H_
#define OPENMMFLOW_CUDAROWTRANSFER_H_
// SPDX-License-Identifier: MIT

#include "DeviceRow.h"
#include <cuda.h>
#include <openmm/cuda/CudaContext.h>

namespace OpenMMFlow {

/**
 * Rows as CUDA tensors of the Context's device, without a way through the host.
 *
 * OpenMM works in a CUDA context of its own and torch in the primary one. Addresses of either are valid in both; the
 * order of their work is kept by waiting: for all that torch has queued before OpenMM's stream touches a tensor's
 * memory, and for that stream before torch goes on. Torch is called with the primary context current, whatever the
 * caller has selected.
 */
class CudaRowTransfer : public RowTransfer {
public:
    explicit CudaRowTransfer(OpenMM::CudaContext& cu);
    ~CudaRowTransfer() override;
    CudaRowTransfer(const CudaRowTransfer&) = delete;
    CudaRowTransfer& operator=(const CudaRowTransfer&) = delete;
    [[nodiscard]] at::Tensor toTensor(OpenMM::ArrayInterface& array) const override;
    void toArray(const at::Tensor& row, OpenMM::ArrayInterface& array) const override;
    [[nodiscard]] std::unique_ptr<Guard> enterTensors() const override;

private:
    /** Copy in the Context's stream, and wait. */
    void copy(CUdeviceptr to, CUdeviceptr from, std::size_t size) const;
    OpenMM::CudaContext& cu;
    CUcontext primary = nullptr;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_CUDAROWTRANSFER_H_*/
