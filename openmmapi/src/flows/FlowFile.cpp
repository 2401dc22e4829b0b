// SPDX-License-Identifier: MIT
#include "openmmflow/flows/FlowFile.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <unistd.h>

using namespace OpenMMFlow;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "files are little endian, and are copied as they are");

namespace {

constexpr std::string_view reading = "FlowFile::fromBytes", writing = "FlowFile::toBytes";
constexpr std::string_view formatName = "openmm-flow", formatVersion = "1", metadataKey = "__metadata__";
constexpr std::array<std::string_view, 3> reservedKeys = {"checksum", "format", "version"};
constexpr std::uint64_t largestHeader = 100'000'000;
constexpr std::size_t lengthSize = 8, checksumSize = 16, alignment = 8, mostDimensions = 64;
/** What every header begins with: the checksum stands at one place, found without trusting the JSON. */
constexpr std::string_view headerStart = R"({"__metadata__":{"checksum":")";
constexpr std::size_t checksumPosition = lengthSize + headerStart.size();

struct DType {
    std::string_view name;
    at::ScalarType type;
    std::int64_t size;
};
constexpr std::array<DType, 3> dtypes = {{{"F32", at::kFloat, 4}, {"F64", at::kDouble, 8}, {"I64", at::kLong, 8}}};

/** CRC-64/XZ: ECMA-182's polynomial, reflected, all ones before and after. */
class Crc64 {
public:
    void add(std::string_view bytes) {
        for (const char byte : bytes)
            crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ (crc >> 8);
    }
    std::string getDigits() const {
        std::string digits;
        for (int shift = 60; shift >= 0; shift -= 4)
            digits += "0123456789abcdef"[(~crc >> shift) & 0xf];
        return digits;
    }

private:
    static constexpr std::array<std::uint64_t, 256> table = [] {
        std::array<std::uint64_t, 256> entries{};
        for (std::uint64_t i = 0; i < entries.size(); ++i) {
            entries[i] = i;
            for (int bit = 0; bit < 8; ++bit)
                entries[i] = (entries[i] >> 1) ^ (entries[i] & 1 ? 0xC96C5795D7870F42 : 0);
        }
        return entries;
    }();
    std::uint64_t crc = ~std::uint64_t{0};
};

/** @param bytes  a file, at least as long as its checksum needs */
std::string computeChecksum(std::string_view bytes) {
    Crc64 crc;
    crc.add(bytes.substr(0, checksumPosition));
    crc.add(std::string(checksumSize, '0'));
    crc.add(bytes.substr(checksumPosition + checksumSize));
    return crc.getDigits();
}

/** Text from a file, fit for a message: escaped and not too long. */
std::string quote(std::string_view text) {
    return json(text.substr(0, 60)).dump(-1, ' ', true, json::error_handler_t::replace);
}

bool isFinite(const at::Tensor& tensor) {
    return !tensor.is_floating_point() || at::isfinite(tensor).all().item<bool>();
}

/** The header's values, and the names of its entries in written order. */
struct Header {
    json values;
    std::vector<std::string> names;
};

Header parseHeader(std::string_view text) {
    Header header;
    std::vector<std::set<std::string>> keys;
    const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
        using Event = json::parse_event_t;
        if (event == Event::object_start || event == Event::array_start)
            require(depth < 3, reading, "the header's nesting", depth + 1, "at most 3");
        if (event == Event::object_start) {
            keys.emplace_back();
        } else if (event == Event::object_end) {
            keys.pop_back();
        } else if (event == Event::key) {
            const auto& name = parsed.get_ref<const std::string&>();
            require(keys.back().insert(name).second, reading, "a key of the header", quote(name), "given once");
            if (depth == 1 && name != metadataKey)
                header.names.push_back(name);
        }
        return true;
    };
    const bool hasNull = text.find('\0') != std::string_view::npos; // the parser would take it for the end
    require(!hasNull, reading, "the header's text", "not valid JSON", "free of null bytes");
    try {
        header.values = json::parse(text.begin(), text.end(), check);
    } catch (const json::exception& e) {
        throw OpenMM::OpenMMException(std::string(reading) + ": the header is not valid JSON: " + e.what());
    }
    return header;
}

/** Check the reserved entries and return the others. */
std::map<std::string, std::string> readMetadata(const json& values) {
    require(values.is_object(), reading, "metadata", values.type_name(), "an object");
    for (const auto& [key, value] : values.items())
        require(value.is_string(), reading, "metadata " + quote(key), value.type_name(), "a string");
    auto metadata = values.get<std::map<std::string, std::string>>();
    require(metadata["format"] == formatName, reading, "format", quote(metadata["format"]), "\"openmm-flow\"");
    require(metadata["version"] == formatVersion, reading, "version", quote(metadata["version"]),
            "\"1\": a later OpenMM-Flow wrote this file");
    for (const auto key : reservedKeys)
        metadata.erase(std::string(key));
    return metadata;
}

/** Non-negative integers that int64 holds. */
std::vector<std::int64_t> readSizes(const json& values, const std::string& name, std::size_t mostEntries) {
    require(values.is_array() && values.size() <= mostEntries, reading, name, values.type_name(),
            "an array of at most " + std::to_string(mostEntries) + " sizes");
    std::vector<std::int64_t> sizes;
    for (const json& value : values) {
        const bool valid = value.is_number_unsigned() &&
                           value.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()};
        require(valid, reading, name, quote(value.dump(-1, ' ', true, json::error_handler_t::replace)),
                "made of integers in [0, 2^63)");
        sizes.push_back(value.get<std::int64_t>());
    }
    return sizes;
}

/** The bytes of a tensor. Zeros count as ones in the bound, as torch multiplies strides that way. */
std::int64_t countBytes(const std::vector<std::int64_t>& shape, std::int64_t itemSize, const std::string& name) {
    std::int64_t bytes = itemSize, bound = itemSize;
    for (const std::int64_t size : shape) {
        require(!__builtin_mul_overflow(bound, std::max<std::int64_t>(size, 1), &bound), reading, name, size,
                "such that the tensor has less than 2^63 bytes");
        bytes *= size;
    }
    return bytes;
}

struct Range {
    std::int64_t begin, end;
};

/** One tensor, a copy of its part of the data. */
std::pair<at::Tensor, Range> readTensor(const std::string& name, const json& entry, std::string_view data) {
    const std::string label = "tensor " + quote(name);
    const bool complete = entry.is_object() && entry.size() == 3 && entry.contains("dtype") &&
                          entry.contains("shape") && entry.contains("data_offsets");
    require(complete, reading, label, entry.type_name(), "an object with dtype, shape and data_offsets");
    const auto dtype =
        std::find_if(dtypes.begin(), dtypes.end(), [&](const DType& d) { return entry["dtype"] == d.name; });
    require(dtype != dtypes.end(), reading, label + "'s dtype",
            quote(entry["dtype"].dump(-1, ' ', true, json::error_handler_t::replace)), "F32, F64 or I64");
    const auto shape = readSizes(entry["shape"], label + "'s shape", mostDimensions);
    const auto offsets = readSizes(entry["data_offsets"], label + "'s data_offsets", 2);
    require(offsets.size() == 2, reading, label + "'s number of data_offsets", offsets.size(), "2");
    const Range range{offsets[0], offsets[1]};
    require(range.begin <= range.end && range.end <= static_cast<std::int64_t>(data.size()), reading, label + "'s end",
            range.end,
            "between its begin " + std::to_string(range.begin) + " and the data's size " + std::to_string(data.size()));
    require(range.end - range.begin == countBytes(shape, dtype->size, label + "'s size"), reading, label + "'s length",
            range.end - range.begin, "the bytes of its shape");
    const at::Tensor tensor = at::empty(shape, dtype->type);
    std::copy_n(data.begin() + range.begin, range.end - range.begin, static_cast<char*>(tensor.data_ptr()));
    require(isFinite(tensor), reading, label, "not finite", "finite");
    return {tensor, range};
}

/** Every byte of the data belongs to one tensor. */
void checkCoverage(std::vector<Range> ranges, std::size_t dataSize) {
    std::sort(ranges.begin(), ranges.end(),
              [](const Range& a, const Range& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
    std::int64_t covered = 0;
    for (const Range& range : ranges) {
        require(range.begin == covered, reading, "a tensor's begin", range.begin,
                std::to_string(covered) + ", the end of the one before (no overlaps, no holes)");
        covered = range.end;
    }
    require(covered == static_cast<std::int64_t>(dataSize), reading, "the size of the data", dataSize,
            std::to_string(covered) + ", the end of the last tensor");
}

/** A tensor made ready to be copied out, with its entry of the header. */
struct Stored {
    std::string name;
    at::Tensor tensor;
    const DType* dtype;
    std::int64_t begin = 0;
};

std::vector<Stored> prepareTensors(const NamedTensors& tensors) {
    std::vector<Stored> stored;
    std::set<std::string> names;
    for (const auto& [name, tensor] : tensors) {
        const std::string label = "tensor " + quote(name);
        require(name != metadataKey && names.insert(name).second, writing, "a tensor's name", quote(name),
                "used once, and not __metadata__");
        require(tensor.defined(), writing, label, "undefined", "a tensor");
        const at::ScalarType type = tensor.scalar_type();
        const auto dtype = std::find_if(dtypes.begin(), dtypes.end(), [&](const DType& d) { return d.type == type; });
        require(dtype != dtypes.end(), writing, label + "'s dtype", type, "Float, Double or Long");
        require(isFinite(tensor), writing, label, "not finite", "finite");
        stored.push_back({name, tensor.detach().cpu().contiguous(), &*dtype});
    }
    return stored;
}

/** Give each tensor its place in the data: larger types first. @return their order in the data */
std::vector<const Stored*> arrange(std::vector<Stored>& stored) {
    std::vector<Stored*> order;
    for (Stored& entry : stored)
        order.push_back(&entry);
    std::stable_sort(order.begin(), order.end(),
                     [](const Stored* a, const Stored* b) { return a->dtype->size > b->dtype->size; });
    std::int64_t offset = 0;
    for (Stored* entry : order) {
        entry->begin = offset;
        offset += static_cast<std::int64_t>(entry->tensor.nbytes());
    }
    return {order.begin(), order.end()};
}

std::string writeHeader(const std::vector<Stored>& stored, const std::map<std::string, std::string>& metadata) {
    nlohmann::ordered_json header, text;
    text["checksum"] = std::string(checksumSize, '0');
    text["format"] = formatName;
    text["version"] = formatVersion;
    for (const auto& [key, value] : metadata) {
        require(std::find(reservedKeys.begin(), reservedKeys.end(), key) == reservedKeys.end(), writing,
                "a key of the metadata", quote(key), "none of the reserved checksum, format and version");
        text[key] = value;
    }
    header[metadataKey] = std::move(text);
    for (const Stored& entry : stored)
        header[entry.name] = {
            {"dtype", entry.dtype->name},
            {"shape", entry.tensor.sizes().vec()},
            {"data_offsets", {entry.begin, entry.begin + static_cast<std::int64_t>(entry.tensor.nbytes())}}};
    try {
        std::string json = header.dump();
        json.append((alignment - json.size() % alignment) % alignment, ' ');
        return json;
    } catch (const json::exception& e) {
        throw OpenMM::OpenMMException(std::string(writing) + ": a name or the metadata is not UTF-8: " + e.what());
    }
}

[[noreturn]] void throwSystemError(std::string_view where, const std::string& path, int error) {
    throw OpenMM::OpenMMException(std::string(where) + ": " + path + ": " + std::strerror(error));
}

/** A file descriptor that closes itself. */
class Descriptor {
public:
    explicit Descriptor(int descriptor) : descriptor(descriptor) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (descriptor >= 0)
            ::close(descriptor);
    }
    int get() const { return descriptor; }
    /** Closing can report a write that failed late. @return whether it succeeded */
    bool close() { return ::close(std::exchange(descriptor, -1)) == 0; }

private:
    int descriptor;
};

/** Create a file that did not exist, beside `path`. */
std::pair<int, std::string> createTemporary(const std::string& path) {
    static std::atomic<unsigned> counter = 0;
    while (true) {
        std::string name = path + "." + std::to_string(::getpid()) + "." + std::to_string(counter++) + ".tmp";
        const int descriptor = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST)
            return {descriptor, std::move(name)};
    }
}

bool writeAll(int descriptor, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
        if (written < 0 && errno != EINTR)
            return false;
        bytes.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
    }
    return true;
}

} // namespace

std::string FlowFile::toBytes() const {
    std::vector<Stored> stored = prepareTensors(tensors);
    const auto order = arrange(stored);
    const std::string header = writeHeader(stored, metadata);
    const std::uint64_t length = header.size();
    require(length <= largestHeader, writing, "the header's length", length, "at most 100 MB");
    std::string bytes(reinterpret_cast<const char*>(&length), lengthSize);
    bytes += header;
    for (const Stored* entry : order)
        bytes.append(static_cast<const char*>(entry->tensor.data_ptr()), entry->tensor.nbytes());
    bytes.replace(checksumPosition, checksumSize, computeChecksum(bytes));
    return bytes;
}

FlowFile FlowFile::fromBytes(const std::string& bytes) {
    const std::string_view all = bytes;
    require(all.size() >= checksumPosition + checksumSize, reading, "the file's length", all.size(),
            "at least " + std::to_string(checksumPosition + checksumSize) + ": it is truncated or not a flow");
    std::uint64_t length = 0;
    std::memcpy(&length, all.data(), lengthSize);
    require(length <= largestHeader, reading, "the header's length", length, "at most 100 MB: it is not a flow");
    require(length <= all.size() - lengthSize, reading, "the header's length", length,
            "at most " + std::to_string(all.size() - lengthSize) + ", the rest of the file: it is truncated");
    const std::string_view text = all.substr(lengthSize, length), data = all.substr(lengthSize + length);
    require(text.starts_with(headerStart), reading, "the header's start", quote(text.substr(0, headerStart.size())),
            std::string(headerStart) + ": the file is damaged or not a flow");
    const std::string_view checksum = all.substr(checksumPosition, checksumSize);
    require(checksum == computeChecksum(all), reading, "the checksum", quote(checksum),
            computeChecksum(all) + ": the file is damaged");

    const Header header = parseHeader(text);
    FlowFile file;
    file.metadata = readMetadata(header.values.at(std::string(metadataKey)));
    std::vector<Range> ranges;
    for (const std::string& name : header.names) {
        auto [tensor, range] = readTensor(name, header.values[name], data);
        file.tensors.emplace_back(name, std::move(tensor));
        ranges.push_back(range);
    }
    checkCoverage(std::move(ranges), data.size());
    return file;
}

void FlowFile::writeAtomically(const std::string& path, const std::string& bytes) {
    constexpr std::string_view where = "FlowFile::writeAtomically";
    auto [created, temporary] = createTemporary(path);
    if (created < 0)
        throwSystemError(where, temporary, errno);
    Descriptor file(created);
    const bool done = writeAll(file.get(), bytes) && ::fsync(file.get()) == 0 && file.close() &&
                      ::rename(temporary.c_str(), path.c_str()) == 0;
    if (!done) {
        const int error = errno;
        ::unlink(temporary.c_str());
        throwSystemError(where, path, error);
    }
    // The new name is on disk only when its folder is. Some file systems can't sync a folder: the file is whole anyway.
    const auto folder = std::filesystem::path(path).parent_path();
    const Descriptor parent(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (parent.get() >= 0)
        ::fsync(parent.get());
}

std::string FlowFile::readBytes(const std::string& path) {
    constexpr std::string_view where = "FlowFile::readBytes";
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0)
        throwSystemError(where, path, errno);
    std::string bytes, block(1 << 20, '\0');
    while (true) {
        const ssize_t count = ::read(file.get(), block.data(), block.size());
        if (count == 0)
            return bytes;
        if (count < 0 && errno != EINTR)
            throwSystemError(where, path, errno);
        bytes.append(block.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    }
}
