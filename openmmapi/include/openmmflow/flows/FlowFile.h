#ifndef OPENMMFLOW_FLOWS_FLOWFILE_H_
#define OPENMMFLOW_FLOWS_FLOWFILE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"
#include <map>

namespace OpenMMFlow {

/**
 * A file of named tensors and text in the safetensors layout: 8 bytes header length (little endian), a JSON header
 * {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets"}}, then the tensors' bytes. Any safetensors
 * reader opens it.
 *
 * Metadata holds "format" = "openmm-flow", "version", and "checksum": the CRC-64/XZ, as 16 hexadecimal digits, of the
 * header with that field's digits as zeros, followed by the data. Reading refuses: a wrong checksum, truncation, trailing bytes,
 * duplicate keys, overlaps and holes, sizes that overflow or disagree with shapes, a header over 100 MB, a dtype other
 * than F32, F64, I64, and non-finite weights.
 */
struct OPENMMFLOW_EXPORT FlowFile {
    NamedTensors tensors;
    std::map<std::string, std::string> metadata;

    [[nodiscard]] std::string toBytes() const;
    static FlowFile fromBytes(const std::string& bytes);
    /** Write to a temporary file beside `path`, flush it to disk, rename. */
    static void writeAtomically(const std::string& path, const std::string& bytes);
    static std::string readBytes(const std::string& path);
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_FLOWFILE_H_*/
