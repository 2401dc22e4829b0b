// SPDX-License-Identifier: MIT

#include "Checkpoint.h"
#include "../samplers/StateTools.h"
#include "openmmflow/latent/Check.h"

using namespace OpenMMFlow;
using at::Tensor;

static const char* const key = "trainer"; // of the JSON in the file's metadata

Checkpoint::Checkpoint(const char* where, const std::string& path)
    : where(where), file(FlowFile::fromBytes(FlowFile::readBytes(path))),
      saved(file.tensors.begin(), file.tensors.end()) {
    const auto text = file.metadata.find(key);
    values = text == file.metadata.end() ? nlohmann::json() : nlohmann::json::parse(text->second, nullptr, false);
    if (!values.is_object())
        throw OpenMM::OpenMMException(std::string(where) + ": " + path + " is not a training checkpoint");
}

void Checkpoint::write(const std::string& path) {
    file.metadata[key] = values.dump();
    FlowFile::writeAtomically(path, file.toBytes());
}

void Checkpoint::add(const std::string& prefix, const NamedTensors& tensors) {
    for (const auto& [name, tensor] : tensors)
        file.tensors.emplace_back(prefix + name, tensor.detach());
}

// A parameter and its moments, by their names in a file.
template <class Use>
static void forMoments(const NamedTensors& parameters, const Adam& optimizer, const Use& use) {
    for (std::size_t i = 0; i < parameters.size(); i++) {
        use("parameters." + parameters[i].first, parameters[i].second);
        use("first." + parameters[i].first, optimizer.first[i]);
        use("second." + parameters[i].first, optimizer.second[i]);
        use("steps." + parameters[i].first, optimizer.steps[i]);
    }
}

void Checkpoint::add(const std::string& prefix, const NamedTensors& parameters, const Adam& optimizer) {
    forMoments(parameters, optimizer, [&](const std::string& name, const Tensor& tensor) {
        file.tensors.emplace_back(prefix + name, tensor.detach());
    });
}

void Checkpoint::expect(const std::string& prefix, const NamedTensors& parameters, const Adam& optimizer) {
    forMoments(parameters, optimizer, [&](const std::string& name, const Tensor& tensor) {
        const auto found = saved.find(prefix + name);
        const bool missing = found == saved.end();
        require(!missing && found->second.sizes() == tensor.sizes() && found->second.dtype() == tensor.dtype(), where,
                prefix + name, missing ? "missing" : "of another shape or dtype", "that of the flow in training");
        copies.emplace_back(tensor, found->second);
    });
}

NamedTensors Checkpoint::find(const std::string& prefix) const {
    return withoutPrefix(file.tensors, prefix);
}

template <class Value>
Value Checkpoint::get(const char* name) const {
    try {
        return values.at(name).get<Value>();
    } catch (const nlohmann::json::exception& error) {
        throw OpenMM::OpenMMException(std::string(where) + ": the file is not a training checkpoint: " + error.what());
    }
}

std::int64_t Checkpoint::getInteger(const char* name) const {
    return get<std::int64_t>(name);
}

void Checkpoint::setRandom(const Random& random) {
    const Random::State state = random.getState();
    values.update({{"seed", state.seed}, {"stream", state.stream}, {"position", state.position}});
}

Random::State Checkpoint::getRandom() const {
    return {get<std::uint64_t>("seed"), get<std::uint64_t>("stream"), get<std::uint64_t>("position")};
}

void Checkpoint::restore() const {
    const at::NoGradGuard noGrad;
    for (const auto& [to, from] : copies)
        to.copy_(from);
}
