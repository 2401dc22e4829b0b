// SPDX-License-Identifier: MIT
#include "openmmflow/flows/FlowFile.h"
#include <ATen/ATen.h>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <limits>
#include <openmm/OpenMMException.h>
#include <random>
#include <sys/resource.h>
#include <unistd.h>

using namespace OpenMMFlow;
using OpenMM::OpenMMException;

namespace {

/** CRC-64/XZ bit by bit, as its catalogue entry defines it. */
std::string crc64(const std::string& bytes) {
    std::uint64_t crc = ~std::uint64_t{0};
    for (const unsigned char byte : bytes) {
        crc ^= byte;
        for (int bit = 0; bit < 8; ++bit)
            crc = crc & 1 ? (crc >> 1) ^ 0xC96C5795D7870F42 : crc >> 1;
    }
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(~crc));
    return digits;
}

const std::string start = R"({"__metadata__":{"checksum":")";
const std::string zeros(16, '0');

/** Give damaged bytes the right checksum, so that the checks behind it are reached. */
std::string seal(std::string bytes) {
    if (bytes.size() < 8 + start.size() + 16)
        return bytes;
    bytes.replace(8 + start.size(), 16, zeros);
    return bytes.replace(8 + start.size(), 16, crc64(bytes));
}

std::string withLength(const std::string& header, const std::string& data, std::uint64_t length) {
    return seal(std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
}

/** A sealed file with the given tensor entries. */
std::string craft(const std::string& entries, const std::string& data,
                  const std::string& metadata = R"(,"format":"openmm-flow","version":"1")") {
    const std::string header = start + zeros + "\"" + metadata + "}" + (entries.empty() ? "" : ",") + entries + "}";
    return withLength(header, data, header.size());
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
    return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string floats(const std::vector<float>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

/** The message with which a file is refused; empty when it is read. */
std::string refusal(const std::string& bytes) {
    try {
        FlowFile::fromBytes(bytes);
    } catch (const OpenMMException& e) {
        return e.what();
    }
    return "";
}

void expectRefused(const std::string& bytes, const std::string& why) {
    EXPECT_NE(refusal(bytes).find(why), std::string::npos) << "refused with: " << refusal(bytes);
}

FlowFile makeSmallFile() {
    return {{{"weights", at::arange(6, at::kFloat).reshape({2, 3}) - 2.5},
             {"index", at::arange(3, at::kLong)},
             {"bias", at::full({1}, 0.25, at::kDouble)}},
            {{"note", "two\nlines, \"quoted\", \xC3\xA9"}}};
}

void expectEqual(const FlowFile& actual, const FlowFile& expected) {
    EXPECT_EQ(actual.metadata, expected.metadata);
    ASSERT_EQ(actual.tensors.size(), expected.tensors.size());
    for (std::size_t i = 0; i < expected.tensors.size(); ++i) {
        EXPECT_EQ(actual.tensors[i].first, expected.tensors[i].first);
        EXPECT_EQ(actual.tensors[i].second.scalar_type(), expected.tensors[i].second.scalar_type());
        EXPECT_TRUE(at::equal(actual.tensors[i].second, expected.tensors[i].second));
    }
}

/** A folder of its own for each test, removed at its end. */
class FlowFileOnDisk : public testing::Test {
protected:
    void SetUp() override {
        const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
        folder = std::filesystem::temp_directory_path() / (name + std::to_string(::getpid()));
        std::filesystem::create_directories(folder);
    }
    void TearDown() override { std::filesystem::remove_all(folder); }
    long countFiles() const {
        return std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
    }
    std::filesystem::path folder;
};

} // namespace

TEST(FlowFile, RoundTripKeepsNamesOrderTypesAndValues) {
    const FlowFile file = makeSmallFile();
    expectEqual(FlowFile::fromBytes(file.toBytes()), file);
}

TEST(FlowFile, RoundTripOfScalarsEmptyAndStridedTensors) {
    const FlowFile file{{{"scalar", at::scalar_tensor(3.5, at::kDouble)},
                         {"empty", at::empty({0, 4}, at::kFloat)},
                         {"transposed", at::arange(12, at::kDouble).reshape({3, 4}).t()},
                         {"none", at::empty({0}, at::kLong)}},
                        {}};
    expectEqual(FlowFile::fromBytes(file.toBytes()), file);
    expectEqual(FlowFile::fromBytes(FlowFile{}.toBytes()), FlowFile{});
}

TEST(FlowFile, ReadTensorsOwnTheirMemory) {
    std::string bytes = makeSmallFile().toBytes();
    const FlowFile file = FlowFile::fromBytes(bytes);
    bytes.assign(bytes.size(), 'x');
    expectEqual(file, makeSmallFile());
}

TEST(FlowFile, ChecksumIsCrc64XzOfTheFileWithZerosInItsPlace) {
    ASSERT_EQ(crc64("123456789"), "995dc9bbdf1939fa"); // the catalogue's check value
    const std::string bytes = makeSmallFile().toBytes();
    EXPECT_EQ(seal(bytes), bytes);
}

TEST(FlowFile, LayoutIsAlignedAndFilledWithSpaces) {
    const std::string bytes = makeSmallFile().toBytes();
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    EXPECT_EQ(length % 8, 0u);
    const std::string header = bytes.substr(8, length);
    EXPECT_EQ(header.substr(header.find_last_not_of(' ')), "}" + std::string(length - 1 - header.rfind('}'), ' '));
    EXPECT_NE(header.find(entry("index", "I64", "[3]", "[0,24]")), std::string::npos) << header;
    EXPECT_NE(header.find(entry("bias", "F64", "[1]", "[24,32]")), std::string::npos) << header;
    EXPECT_NE(header.find(entry("weights", "F32", "[2,3]", "[32,56]")), std::string::npos) << header;
    EXPECT_EQ(bytes.size(), 8 + length + 56);
}

TEST(FlowFile, ReadsCraftedFile) {
    const FlowFile file = FlowFile::fromBytes(craft(entry("a", "F32", "[2]", "[0,8]"), floats({1.5f, -2.0f})));
    ASSERT_EQ(file.tensors.size(), 1u);
    EXPECT_TRUE(at::equal(file.tensors[0].second, at::tensor({1.5f, -2.0f})));
}

TEST(FlowFile, RefusesEveryTruncation) {
    const std::string bytes = makeSmallFile().toBytes();
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        EXPECT_NE(refusal(bytes.substr(0, size)), "") << size;
        EXPECT_NE(refusal(seal(bytes.substr(0, size))), "") << size << ", with a right checksum";
    }
}

TEST(FlowFile, RefusesEveryFlippedBit) {
    const std::string bytes = makeSmallFile().toBytes();
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        std::string damaged = bytes;
        damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
        EXPECT_NE(refusal(damaged), "") << "bit " << bit;
    }
}

TEST(FlowFile, RefusesTrailingBytes) {
    const std::string bytes = makeSmallFile().toBytes();
    expectRefused(bytes + "x", "checksum");
    expectRefused(seal(bytes + "x"), "the size of the data is 57, but must be 56");
}

TEST(FlowFile, RefusesLengthsBeyondTheFile) {
    const std::string header = start + zeros + R"(","format":"openmm-flow","version":"1"}})";
    expectRefused(withLength(header, "", header.size() + 1), "the rest of the file: it is truncated");
    for (const std::uint64_t length : {std::uint64_t{100'000'001}, std::uint64_t{1} << 63, ~std::uint64_t{0}})
        expectRefused(withLength(header, "", length), "at most 100 MB");
    expectRefused("", "truncated or not a flow");
    expectRefused(withLength(header, "", 0), "not a flow");
}

TEST(FlowFile, RefusesMalformedHeaders) {
    const std::string good = start + zeros + R"(","format":"openmm-flow","version":"1"}})";
    for (const std::string& bad : {good + "}", good.substr(0, good.size() - 1), good + " x", good + std::string(1, 0),
                                   good + R"({"a":1})", good.substr(0, good.size() - 1) + ",}"})
        expectRefused(withLength(bad, "", bad.size()), "not valid JSON");
    const std::string badText = start + zeros + "\",\"format\":\"\xff\"}}";
    expectRefused(withLength(badText, "", badText.size()), "not valid JSON");
    const std::string otherStart = R"({"a":{},"__metadata__":{"checksum":"0000000000000000","format":"openmm-flow"}})";
    expectRefused(withLength(otherStart, "", otherStart.size()), "not a flow");
    const std::string nested = R"("a":{"shape":[)" + std::string(100'000, '[');
    expectRefused(craft(nested, ""), "the header's nesting is 4, but must be at most 3");
}

TEST(FlowFile, RefusesOtherFormatsVersionsAndMetadata) {
    expectRefused(craft("", "", R"(,"format":"pt","version":"1")"), R"(format is "pt")");
    expectRefused(craft("", "", R"(,"version":"1")"), "format is");
    expectRefused(craft("", "", R"(,"format":"openmm-flow","version":"2")"), R"(version is "2")");
    expectRefused(craft("", "", R"(,"format":"openmm-flow")"), "version is");
    expectRefused(craft("", "", R"(,"format":"openmm-flow","version":1)"), R"(metadata "version" is number)");
}

TEST(FlowFile, RefusesDuplicateKeys) {
    const std::string a = entry("a", "F32", "[1]", "[0,4]"), data = floats({1, 2});
    expectRefused(craft(a + "," + a, data.substr(4)), R"(a key of the header is "a", but must be given once)");
    expectRefused(craft(a + R"(,"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]})", data), "given once");
    expectRefused(craft(R"("a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})", data), "given once");
    expectRefused(craft("", "", R"(,"format":"openmm-flow","version":"1","version":"1")"), "given once");
    expectRefused(craft(R"("__metadata__":{})", ""), "given once");
}

TEST(FlowFile, RefusesOverlapsAndHoles) {
    const std::string data = floats({1, 2, 3});
    const auto first = entry("a", "F32", "[2]", "[0,8]");
    expectRefused(craft(first + "," + entry("b", "F32", "[2]", "[4,12]"), data), "no overlaps, no holes");
    expectRefused(craft(first + "," + entry("b", "F32", "[2]", "[0,8]"), data.substr(4)), "no overlaps, no holes");
    expectRefused(craft(entry("a", "F32", "[1]", "[0,4]") + "," + entry("b", "F32", "[1]", "[8,12]"), data),
                  "no overlaps, no holes");
    expectRefused(craft(entry("a", "F32", "[2]", "[4,12]"), data), "no overlaps, no holes");
    expectRefused(craft(first + "," + entry("b", "F32", "[0]", "[12,12]"), data), "no overlaps, no holes");
    expectRefused(craft("", data), "the size of the data is 12, but must be 0");
}

TEST(FlowFile, RefusesSizesThatDisagreeOrOverflow) {
    const std::string data = floats({1, 2});
    const auto refuse = [&](const std::string& shape, const std::string& offsets, const std::string& why) {
        expectRefused(craft(entry("a", "F32", shape, offsets), data), why);
    };
    refuse("[3]", "[0,8]", "the bytes of its shape");
    refuse("[2]", "[0,12]", "the data's size 8");
    refuse("[2]", "[8,0]", "between its begin 8");
    refuse("[2]", "[0,18446744073709551615]", "integers in [0, 2^63)");
    refuse("[2]", "[0,8,8]", "at most 2 sizes");
    refuse("[2]", "[8]", "must be 2");
    refuse("[2]", "8", "number, but must be an array");
    refuse("[-2]", "[0,8]", "integers in [0, 2^63)");
    refuse("[2.0]", "[0,8]", "integers in [0, 2^63)");
    refuse("[\"2\"]", "[0,8]", "integers in [0, 2^63)");
    refuse("[18446744073709551618]", "[0,8]", "integers in [0, 2^63)");
    refuse("[4611686018427387906]", "[0,8]", "less than 2^63 bytes"); // 4 (2^62 + 2) = 8 modulo 2^64
    refuse("[4294967296,4294967296]", "[0,8]", "less than 2^63 bytes");
    refuse("[0,4294967296,4294967296]", "[0,0]", "less than 2^63 bytes");
    std::string ones = "[1";
    for (int i = 0; i < 64; ++i)
        ones += ",1";
    refuse(ones + "]", "[0,4]", "at most 64 sizes");
}

TEST(FlowFile, RefusesOtherEntriesAndTypes) {
    const std::string data = floats({1, 2});
    for (const std::string dtype : {"F16", "BF16", "I32", "U8", "BOOL", "f32", ""})
        expectRefused(craft(entry("a", dtype, "[2]", "[0,8]"), data), "F32, F64 or I64");
    expectRefused(craft(R"("a":{"dtype":4,"shape":[2],"data_offsets":[0,8]})", data), "F32, F64 or I64");
    for (const std::string value : {"1", "[]", "null", R"({"dtype":"F32","shape":[2]})",
                                    R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1})",
                                    R"({"dtype":"F32","shape":[2],"offsets":[0,8]})"})
        expectRefused(craft("\"a\":" + value, data), "an object with dtype, shape and data_offsets");
}

TEST(FlowFile, RefusesNonFiniteWeights) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
        expectRefused(craft(entry("a", "F32", "[2]", "[0,8]"), floats({1, bad})), "tensor \"a\" is not finite");
        EXPECT_THROW((FlowFile{{{"a", at::full({2}, bad)}}, {}}.toBytes()), OpenMMException);
    }
}

TEST(FlowFile, WritesNothingThatItWouldNotRead) {
    const at::Tensor one = at::ones({1});
    for (const FlowFile& file : {FlowFile{{{"a", one}, {"a", one}}, {}}, FlowFile{{{"__metadata__", one}}, {}},
                                 FlowFile{{{"a", at::Tensor()}}, {}}, FlowFile{{{"a", one.to(at::kHalf)}}, {}},
                                 FlowFile{{{"a", one.to(at::kBool)}}, {}}, FlowFile{{{"\xff", one}}, {}},
                                 FlowFile{{}, {{"note", "\xff"}}}, FlowFile{{}, {{"checksum", ""}}},
                                 FlowFile{{}, {{"format", "openmm-flow"}}}, FlowFile{{}, {{"version", "1"}}}})
        EXPECT_THROW(static_cast<void>(file.toBytes()), OpenMMException);
}

TEST(FlowFile, RandomDamageIsRefusedOrReadsBackTheSame) {
    // The checksum is made right after each mutation, so that only the checks behind it stand between it and a crash.
    const std::string original = makeSmallFile().toBytes();
    std::mt19937_64 random(20261123);
    const auto pick = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
    int accepted = 0;
    for (int trial = 0; trial < 20'000; ++trial) {
        std::string bytes = original;
        for (std::size_t edit = 0, edits = 1 + pick(4); edit < edits; ++edit) {
            const std::size_t at = pick(bytes.size()), length = 1 + pick(8);
            switch (pick(5)) {
            case 0:
                bytes[at] = static_cast<char>(random());
                break;
            case 1:
                bytes.insert(at, bytes.substr(pick(bytes.size()), length));
                break;
            case 2:
                bytes.replace(at, length, bytes.substr(pick(bytes.size()), length));
                break;
            case 3:
                bytes.erase(at, length);
                break;
            default:
                bytes.insert(at, 1, "[]{}\",:019-e"[pick(12)]);
                break;
            }
        }
        const std::uint64_t length = bytes.find("}}") == std::string::npos ? bytes.size() : bytes.rfind("}}") - 6;
        if (pick(2) && bytes.size() >= 8)
            bytes.replace(0, 8, reinterpret_cast<const char*>(&length), 8);
        bytes = seal(bytes);
        if (refusal(bytes).empty()) { // anything but an OpenMMException ends the test
            const FlowFile file = FlowFile::fromBytes(bytes);
            expectEqual(FlowFile::fromBytes(file.toBytes()), file);
            ++accepted;
        }
    }
    EXPECT_GT(accepted, 100) << "the mutations no longer reach behind the header";
    EXPECT_LT(accepted, 10'000);
}

TEST_F(FlowFileOnDisk, WritesReadsAndReplaces) {
    const std::string path = folder / "flow.safetensors";
    FlowFile::writeAtomically(path, std::string("old\0", 4));
    const std::string bytes = makeSmallFile().toBytes();
    FlowFile::writeAtomically(path, bytes);
    EXPECT_EQ(FlowFile::readBytes(path), bytes);
    EXPECT_EQ(countFiles(), 1);
}

TEST_F(FlowFileOnDisk, ReadsFilesLongerThanOneBlock) {
    std::string bytes(3'000'001, '\0');
    std::mt19937 random(7);
    for (char& byte : bytes)
        byte = static_cast<char>(random());
    FlowFile::writeAtomically(folder / "long", bytes);
    EXPECT_EQ(FlowFile::readBytes(folder / "long"), bytes);
}

TEST_F(FlowFileOnDisk, FailedWriteKeepsTheOldFileAndLeavesNothingElse) {
    const std::string path = folder / "flow.safetensors";
    FlowFile::writeAtomically(path, "old");
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    rlimit small = before;
    small.rlim_cur = 1000; // the disk is full after 1000 bytes
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    std::string message;
    try {
        FlowFile::writeAtomically(path, std::string(5000, 'n'));
    } catch (const OpenMMException& e) {
        message = e.what();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(message, "FlowFile::writeAtomically: " + path + ": " + std::strerror(EFBIG));
    EXPECT_EQ(FlowFile::readBytes(path), "old");
    EXPECT_EQ(countFiles(), 1);
}

TEST_F(FlowFileOnDisk, ErrorsNameTheFileAndTheReason) {
    const auto expectMessage = [](const std::function<void()>& action, const std::string& text) {
        try {
            action();
            ADD_FAILURE() << "did not throw: " << text;
        } catch (const OpenMMException& e) {
            EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
        }
    };
    const std::string missing = folder / "missing" / "flow";
    expectMessage([&] { FlowFile::readBytes(missing); }, missing + ": " + std::strerror(ENOENT));
    expectMessage([&] { FlowFile::readBytes(folder); }, folder.string() + ": " + std::strerror(EISDIR));
    expectMessage([&] { FlowFile::writeAtomically(missing, "x"); }, std::strerror(ENOENT));
    expectMessage([&] { FlowFile::writeAtomically(folder, "x"); }, folder.string() + ": " + std::strerror(EISDIR));
    EXPECT_EQ(countFiles(), 0);
    EXPECT_FALSE(std::filesystem::exists(folder.string() + "." + std::to_string(::getpid()) + ".0.tmp"));
}
