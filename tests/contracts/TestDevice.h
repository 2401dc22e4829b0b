#ifndef OPENMMFLOW_TESTS_CONTRACTS_TESTDEVICE_H_
#define OPENMMFLOW_TESTS_CONTRACTS_TESTDEVICE_H_
// SPDX-License-Identifier: MIT

#include <string>

namespace OpenMMFlow {

/**
 * A device of tensors for tests: "cuda" where torch has a GPU. Elsewhere a stand-in that is as strict, "strict": its
 * memory is the processor's at addresses that can't be read, so that code for the host faults there, and an operation
 * that is given tensors of the processor beside its own throws. Otherwise operations are the processor's.
 */
__attribute__((visibility("default"))) const std::string& getTestDevice();

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_CONTRACTS_TESTDEVICE_H_*/
