// SPDX-License-Identifier: MIT

#include "TestDevice.h"
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

using at::Tensor;

namespace {

constexpr c10::DeviceType deviceType = c10::DeviceType::PrivateUse1;

// The highest bit of an address: never that of memory of a program.
void* flip(void* address) {
    return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(address) ^ (std::uintptr_t{1} << 63));
}

struct Allocator : c10::Allocator {
    static void release(void* context) { c10::free_cpu(context); }
    c10::DataPtr allocate(std::size_t count) override {
        void* memory = count > 0 ? c10::alloc_cpu(count) : nullptr;
        return {count > 0 ? flip(memory) : nullptr, memory, release, c10::Device(deviceType, 0)};
    }
    void copy_data(void* to, const void* from, std::size_t count) const override {
        default_copy_data(flip(to), flip(const_cast<void*>(from)), count);
    }
};

Allocator allocator;

struct Hooks : at::PrivateUse1HooksInterface {
    void init() const override {}
    bool isAvailable() const override { return true; }
    bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

/** One device with one stream, in which everything is done at once. */
struct Guard : c10::impl::NoOpDeviceGuardImpl<deviceType> {
    c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
    c10::Device getDevice() const override { return c10::Device(deviceType, 0); }
    c10::Stream getStream(c10::Device) const noexcept override {
        return c10::Stream(c10::Stream::DEFAULT, getDevice());
    }
    c10::Stream getNewStream(c10::Device, int) const override { return getStream(getDevice()); }
    c10::Stream exchangeStream(c10::Stream) const noexcept override { return getStream(getDevice()); }
    void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
    void block(void*, const c10::Stream&) const override {}
    bool queryEvent(void*) const override { return true; }
    void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};

/** The same numbers as a tensor of the processor. */
Tensor onHost(const Tensor& t) {
    if (t.is_cpu() || t.numel() == 0)
        return t.is_cpu() ? t : at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kCPU));
    Tensor host = at::from_blob(flip(t.mutable_data_ptr()), t.sizes(), t.strides(), t.options().device(at::kCPU));
    host._set_conj(t.is_conj());
    host._set_neg(t.is_neg());
    return host;
}

Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
    return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator,
                                     c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype_or_default(dtype),
                                     format);
}

Tensor emptyStrided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                    std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
    return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
                                             c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                             dtype_or_default(dtype));
}

Tensor copyFrom(const Tensor& from, const Tensor& to, bool) {
    onHost(to).copy_(onHost(from));
    return to;
}

// Only for results of operations, which have nothing in them yet.
const Tensor& resize(const Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
    self.unsafeGetTensorImpl()->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
    const std::size_t count = self.nbytes() + self.storage_offset() * self.element_size();
    if (count > self.storage().nbytes()) {
        const c10::Storage& storage = self.storage();
        storage.set_data_ptr_noswap(allocator.allocate(count));
        storage.set_nbytes(count);
    }
    return self;
}

Tensor copyFromAndResize(const Tensor& from, const Tensor& to) {
    if (to.sizes() != from.sizes()) // a view stays one
        to.resize_(from.sizes());
    return copyFrom(from, to, false);
}

Tensor asStrided(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                 std::optional<c10::SymInt> offset) {
    return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                             offset.has_value() ? std::optional<std::int64_t>(offset->expect_int())
                                                                : std::nullopt);
}

Tensor view(const Tensor& self, c10::SymIntArrayRef size) {
    return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

Tensor reshapeAlias(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
    return asStrided(self, size, stride, std::nullopt);
}

// As for CUDA: set_data() may move a tensor to the device.
bool canReplace(const Tensor&, const Tensor&) {
    return true;
}

// Any other operation.
void runOnHost(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
    const auto check = [&](const Tensor& t) {
        TORCH_CHECK(!t.defined() || t.device().type() == deviceType || t.dim() == 0, operation.schema().name(),
                    " mixes tensors of a device and of the processor");
    };
    for (const c10::IValue& argument : torch::jit::last(*stack, operation.schema().arguments().size())) {
        if (argument.isTensor())
            check(argument.toTensor());
        else if (argument.isTensorList())
            for (const Tensor& t : argument.toTensorVector())
                check(t);
    }
    at::native::cpu_fallback(operation, stack);
}

} // namespace

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)
REGISTER_ALLOCATOR(deviceType, &allocator)

// Not before it is needed: where torch knows such a device, it takes it for the only one beside the processor.
extern "C" __attribute__((visibility("default"))) void registerStrictDevice() {
    using c10::DispatchKey;
    static Hooks hooks;
    at::RegisterPrivateUse1HooksInterface(&hooks);
    c10::register_privateuse1_backend("strict");
    static torch::Library operations(torch::Library::IMPL, "aten", DispatchKey::PrivateUse1, __FILE__, __LINE__);
    operations.impl("empty.memory_format", empty);
    operations.impl("empty_strided", emptyStrided);
    operations.impl("_copy_from", copyFrom);
    operations.impl("_copy_from_and_resize", copyFromAndResize);
    operations.impl("resize_", resize);
    operations.impl("as_strided", asStrided);
    operations.impl("view", view);
    operations.impl("_reshape_alias", reshapeAlias);
    operations.impl("unfold", at::native::unfold);
    operations.impl("view_as_complex", at::native::view_as_complex);
    operations.impl("view_as_real", at::native::view_as_real);
    operations.impl("_has_compatible_shallow_copy_type", canReplace);
    static torch::Library others(torch::Library::IMPL, "_", DispatchKey::PrivateUse1, __FILE__, __LINE__);
    others.fallback(torch::CppFunction::makeFromBoxedFunction<&runOnHost>());
    // copyFrom() takes care of these.
    static torch::Library conjugates(torch::Library::IMPL, "aten", DispatchKey::Conjugate, __FILE__, __LINE__);
    static torch::Library negatives(torch::Library::IMPL, "aten", DispatchKey::Negative, __FILE__, __LINE__);
    for (torch::Library* library : {&conjugates, &negatives})
        library->impl("_copy_from", torch::CppFunction::makeFallthrough());
}

const std::string& OpenMMFlow::getTestDevice() {
    static const std::string device = [] {
        if (at::hasCUDA())
            return "cuda";
        registerStrictDevice();
        return "strict";
    }();
    return device;
}
