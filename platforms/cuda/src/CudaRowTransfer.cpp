// SPDX-License-Identifier: MIT

#include "CudaRowTransfer.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <openmm/common/ContextSelector.h>
#include <openmm/cuda/CudaArray.h>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

namespace {

void check(CUresult result, const char* what) {
    require(result == CUDA_SUCCESS, "OpenMM-Flow on CUDA", what, CudaContext::getErrorString(result), "a success");
}

/** The primary context on top of the thread's stack; when it goes, torch has finished what it was given, in any stream.
 */
class PrimaryGuard : public RowTransfer::Guard {
public:
    explicit PrimaryGuard(CUcontext primary) { check(cuCtxPushCurrent(primary), "cuCtxPushCurrent"); }
    ~PrimaryGuard() override {
        cuCtxSynchronize();
        CUcontext popped = nullptr;
        cuCtxPopCurrent(&popped);
    }
    PrimaryGuard(const PrimaryGuard&) = delete;
    PrimaryGuard& operator=(const PrimaryGuard&) = delete;
};

at::ScalarType typeOf(const ArrayInterface& array) {
    return array.getElementSize() == sizeof(float) ? at::kFloat : at::kDouble;
}

std::size_t sizeOf(const ArrayInterface& array) {
    return array.getSize() * static_cast<std::size_t>(array.getElementSize());
}

CUdeviceptr addressOf(const Tensor& tensor) {
    return reinterpret_cast<CUdeviceptr>(tensor.const_data_ptr());
}

} // namespace

CudaRowTransfer::CudaRowTransfer(CudaContext& cu) : cu(cu) {
    check(cuDevicePrimaryCtxRetain(&primary, cu.getDevice()), "cuDevicePrimaryCtxRetain");
}

CudaRowTransfer::~CudaRowTransfer() {
    cuDevicePrimaryCtxRelease(cu.getDevice());
}

std::unique_ptr<RowTransfer::Guard> CudaRowTransfer::enterTensors() const {
    return std::make_unique<PrimaryGuard>(primary);
}

void CudaRowTransfer::copy(CUdeviceptr to, CUdeviceptr from, std::size_t size) const {
    const ContextSelector selector(cu);
    check(cuMemcpyDtoDAsync(to, from, size, cu.getCurrentStream()), "cuMemcpyDtoDAsync");
    check(cuStreamSynchronize(cu.getCurrentStream()), "cuStreamSynchronize");
}

// The new tensor's memory may be that of another which torch has yet to read: wait for torch before it is written.
Tensor CudaRowTransfer::toTensor(ArrayInterface& array) const {
    const PrimaryGuard guard(primary);
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(cu.getDeviceIndex()));
    const Tensor row =
        at::empty({1, static_cast<std::int64_t>(array.getSize())}, at::device(device).dtype(typeOf(array)));
    check(cuCtxSynchronize(), "cuCtxSynchronize");
    copy(addressOf(row), cu.unwrap(array).getDevicePointer(), sizeOf(array));
    return row.to(at::kDouble);
}

void CudaRowTransfer::toArray(const Tensor& row, ArrayInterface& array) const {
    const PrimaryGuard guard(primary);
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(cu.getDeviceIndex()));
    const Tensor values = row.to(device, typeOf(array)).contiguous();
    check(cuCtxSynchronize(), "cuCtxSynchronize");
    copy(cu.unwrap(array).getDevicePointer(), addressOf(values), sizeOf(array));
}
