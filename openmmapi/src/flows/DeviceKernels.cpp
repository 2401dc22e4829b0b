// SPDX-License-Identifier: MIT

#include "DeviceKernels.h"
#include <array>
#include <atomic>

using namespace OpenMMFlow;

static std::atomic<const DeviceKernels*>& place(c10::DeviceType type) {
    static std::array<std::atomic<const DeviceKernels*>, c10::COMPILE_TIME_MAX_DEVICE_TYPES> kernels{};
    return kernels.at(static_cast<std::size_t>(type));
}

void OpenMMFlow::setDeviceKernels(c10::DeviceType type, const DeviceKernels* kernels) {
    place(type).store(kernels, std::memory_order_release);
}

const DeviceKernels* OpenMMFlow::findDeviceKernels(c10::DeviceType type) {
    return place(type).load(std::memory_order_acquire);
}
