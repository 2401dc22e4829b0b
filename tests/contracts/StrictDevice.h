#ifndef OPENMMFLOW_TESTS_CONTRACTS_STRICTDEVICE_H_
#define OPENMMFLOW_TESTS_CONTRACTS_STRICTDEVICE_H_
// SPDX-License-Identifier: MIT

namespace OpenMMFlow {

/**
 * The name of a device of tensors that is as strict as a GPU, on a machine without one. Its memory is the processor's
 * at addresses that can't be read, so that code for the host faults there, and an operation that is given tensors of
 * the processor beside its own throws. Otherwise operations are the processor's. For programs that are linked with
 * StrictDevice.cpp.
 */
inline constexpr const char* strictDevice = "strict";

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_CONTRACTS_STRICTDEVICE_H_*/
