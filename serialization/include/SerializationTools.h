#ifndef OPENMMFLOW_SERIALIZATIONTOOLS_H_
#define OPENMMFLOW_SERIALIZATIONTOOLS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Flow.h"
#include <memory>
#include <openmm/serialization/SerializationNode.h>
#include <string>

namespace OpenMMFlow {

/** Base64 of RFC 4648, with padding. */
std::string encodeBase64(const std::string& bytes);
/** The inverse; throws on anything encodeBase64() would not write. */
std::string decodeBase64(const std::string& text);

/** A property that must be there and be a finite number; OpenMM's own reader takes "abc" for 0. */
double readNumber(const OpenMM::SerializationNode& node, const std::string& name);
/** The same for whole numbers. */
long long readInteger(const OpenMM::SerializationNode& node, const std::string& name);
/** The same for seeds, which use all 64 bits. */
std::uint64_t readSeed(const OpenMM::SerializationNode& node, const std::string& name);
/** Throws unless a node is of a version that this library can read. @param latest  the version that it writes */
void checkVersion(const OpenMM::SerializationNode& node, const std::string& who, int latest);

/** A flow, weights and all, as one property. */
void writeFlow(OpenMM::SerializationNode& node, const Flow& flow);
std::shared_ptr<Flow> readFlow(const OpenMM::SerializationNode& node);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SERIALIZATIONTOOLS_H_*/
