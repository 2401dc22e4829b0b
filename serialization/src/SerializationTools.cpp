// SPDX-License-Identifier: MIT

#include "SerializationTools.h"
#include "openmmflow/latent/Check.h"
#include <charconv>
#include <cmath>

using namespace OpenMM;

static const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string OpenMMFlow::encodeBase64(const std::string& bytes) {
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
        std::uint32_t group = 0;
        for (std::size_t k = 0; k < 3; k++)
            group = (group << 8) | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
        for (std::size_t k = 0; k < 4; k++)
            text += k <= count ? alphabet[(group >> (18 - 6 * k)) & 63] : '=';
    }
    return text;
}

std::string OpenMMFlow::decodeBase64(const std::string& text) {
    std::string bytes;
    bytes.reserve(text.size() / 4 * 3);
    for (std::size_t i = 0; i + 3 < text.size(); i += 4) {
        std::uint32_t group = 0;
        int padding = 0;
        for (std::size_t k = 0; k < 4; k++) {
            const std::size_t value = alphabet.find(text[i + k]);
            padding += text[i + k] == '=';
            group = (group << 6) | (value == std::string::npos ? 0u : static_cast<std::uint32_t>(value));
        }
        for (int k = 0; k < 3 - padding; k++)
            bytes += static_cast<char>((group >> (16 - 8 * k)) & 255);
    }
    if (encodeBase64(bytes) != text)
        throw OpenMMException("the flow in the XML is damaged: it is not valid Base64");
    return bytes;
}

// XmlSerializer writes the type of every object into its node.
static std::string describe(const SerializationNode& node) {
    return node.getStringProperty("type", "XML");
}

template <class Number>
static Number readAs(const SerializationNode& node, const std::string& name) {
    const std::string& text = node.getStringProperty(name);
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    OpenMMFlow::require(error == std::errc() && end == text.data() + text.size(), describe(node), name,
                        "\"" + text + "\"", "a number");
    return value;
}

double OpenMMFlow::readNumber(const SerializationNode& node, const std::string& name) {
    const auto value = readAs<double>(node, name);
    require(std::isfinite(value), describe(node), name, value, "finite");
    return value;
}

long long OpenMMFlow::readInteger(const SerializationNode& node, const std::string& name) {
    return readAs<long long>(node, name);
}

std::uint64_t OpenMMFlow::readSeed(const SerializationNode& node, const std::string& name) {
    return readAs<std::uint64_t>(node, name);
}

void OpenMMFlow::checkVersion(const SerializationNode& node, const std::string& who, int latest) {
    const long long version = readInteger(node, "version");
    require(version >= 1 && version <= latest, who, "version", version, "between 1 and " + std::to_string(latest));
}

void OpenMMFlow::writeFlow(SerializationNode& node, const Flow& flow) {
    node.setStringProperty("flow", encodeBase64(flow.serialize()));
}

std::shared_ptr<OpenMMFlow::Flow> OpenMMFlow::readFlow(const SerializationNode& node) {
    return Flow::deserialize(decodeBase64(node.getStringProperty("flow")));
}
