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
 * The metadata begins with three reserved keys: "checksum", "format" = "openmm-flow" and "version". The checksum is the
 * CRC-64/XZ, as 16 hexadecimal digits, of the whole file with those digits as zeros. The header lists the tensors in
 * their order; their data are stored with the 8-byte types first, so that each is aligned.
 *
 * Reading refuses: a wrong checksum, truncation, trailing bytes, duplicate keys, overlaps and holes, sizes that
 * overflow or disagree with shapes, a header over 100 MB, a dtype other than F32, F64, I64, and non-finite weights.
 * Nothing is allocated that the file's own length does not pay for.
 */
struct OPENMMFLOW_EXPORT FlowFile {
    NamedTensors tensors;
    /** Without the reserved keys: toBytes() adds and fromBytes() checks and removes them. */
    std::map<std::string, std::string> metadata;

    /** The bytes of a file. Throws on whatever fromBytes() would refuse to read back, and on text that is not UTF-8. */
    [[nodiscard]] std::string toBytes() const;
    /** @param bytes  a whole file. The tensors do not refer to it. */
    static FlowFile fromBytes(const std::string& bytes);
    /** Write to a temporary file beside `path`, flush it to disk, rename: `path` is the old file or the new one, whole.
     */
    static void writeAtomically(const std::string& path, const std::string& bytes);
    static std::string readBytes(const std::string& path);
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_FLOWFILE_H_*/
