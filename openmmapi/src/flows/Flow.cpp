// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/FlowFile.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>
#include <set>

using namespace OpenMMFlow;
using at::Tensor;

Flow::Flow(std::shared_ptr<Prior> newPrior, std::shared_ptr<Transform> newTransform, std::vector<int> newAtoms)
    : prior(std::move(newPrior)), transform(std::move(newTransform)), atoms(std::move(newAtoms)) {
    require(prior != nullptr, "Flow::Flow", "prior", "null", "a Prior");
    require(transform != nullptr, "Flow::Flow", "transform", "null", "a Transform");
    require(prior->getSize() == transform->getInputSize(), "Flow::Flow", "size of the prior", prior->getSize(),
            "the input size of the transform, " + std::to_string(transform->getInputSize()));
    if (!atoms.empty())
        require(transform->getOutputSize() == 3 * static_cast<int>(atoms.size()), "Flow::Flow", "number of atoms",
                atoms.size(), "a third of the transform's output size, " + std::to_string(transform->getOutputSize()));
    std::set<int> seen;
    for (int atom : atoms)
        require(atom >= 0 && seen.insert(atom).second, "Flow::Flow", "an atom", atom,
                "a particle index, each at most once");
}

void Flow::setTemperature(double kelvin) {
    require(kelvin >= 0 && std::isfinite(kelvin), "Flow::setTemperature", "kelvin", kelvin,
            "positive, or 0 for no temperature");
    temperature = kelvin;
}

bool Flow::canScaleTemperature() const {
    return temperature > 0 && transform->isConstantLogDet() && prior->scaleVariance(1.0) != nullptr;
}

std::shared_ptr<Flow> Flow::atTemperature(double kelvin) const {
    const char* where = "Flow::atTemperature";
    require(kelvin > 0 && std::isfinite(kelvin), where, "kelvin", kelvin, "positive and finite");
    require(temperature > 0, where, "the flow's temperature", temperature, "set: call setTemperature");
    require(transform->isConstantLogDet(), where, "log-determinant of the transform", "not constant",
            "constant to scale with temperature; reweight this flow's samples instead");
    const auto scaled = prior->scaleVariance(kelvin / temperature);
    require(scaled != nullptr, where, "prior", prior->getArchitecture().at("type").dump(),
            "one whose variance can be scaled");
    auto flow = std::make_shared<Flow>(scaled, transform, atoms);
    flow->temperature = kelvin;
    flow->device = device;
    flow->metadata = metadata;
    return flow;
}

static void checkArgument(const char* where, const char* name, const Tensor& t, int size, const std::string& device) {
    require(t.dim() == 2 && t.size(1) == size, where, std::string("shape of ") + name, t.sizes(),
            "[batch, " + std::to_string(size) + "]");
    if (t.device().type() != at::Device(device).type())
        require(false, where, "device of the argument", t.device().str(), "that of the flow, " + device);
}

FlowSample Flow::sample(std::int64_t count, Random& random) const {
    require(count >= 1, "Flow::sample", "count", count, "at least 1");
    return fromLatent(prior->sample(count, random).to(at::Device(device)));
}

FlowSample Flow::fromLatent(const Tensor& z) const {
    checkArgument("Flow::fromLatent", "z", z, getLatentSize(), device);
    const Tensor latent = z.to(at::kDouble);
    const TransformResult map = transform->forward(latent);
    return {latent, map.value, map.logDet, prior->logDensity(latent) - map.logDet};
}

FlowSample Flow::toLatent(const Tensor& x) const {
    checkArgument("Flow::toLatent", "x", x, getSize(), device);
    const Tensor configuration = x.to(at::kDouble);
    const TransformResult map = transform->inverse(configuration);
    return {map.value, configuration, -map.logDet, prior->logDensity(map.value) + map.logDet};
}

LogQGradient Flow::logQWithGradient(const Tensor& x) const {
    checkArgument("Flow::logQWithGradient", "x", x, getSize(), device);
    const at::NoGradGuard noGrad;
    const PulledResult map = transform->inverseWithPullBack(x.detach().to(at::kDouble));
    const DensityGradient latent = prior->logDensityWithGradient(map.result.value);
    return {latent.logDensity + map.result.logDet, map.pullBack(latent.gradient)};
}

Tensor Flow::place(const Tensor& x, const Tensor& reference) const {
    return transform->place(x, reference);
}

void Flow::setParameterType(at::ScalarType dtype) {
    require(dtype == at::kFloat || dtype == at::kDouble, "Flow::setParameterType", "dtype", at::toString(dtype),
            "Float or Double");
    for (const auto& [name, tensor] : getParameters())
        tensor.set_data(tensor.detach().to(dtype));
}

std::shared_ptr<Flow> Flow::clone() const {
    return to(device);
}

std::shared_ptr<Flow> Flow::to(const std::string& newDevice) const {
    try {
        const at::Device target(newDevice);
        const auto copy = deserialize(serialize());
        if (target.is_cpu())
            return copy;
        require(prior->getBuffers().empty(), "Flow::to", "device", newDevice,
                "cpu: a prior with tensors of its own works on processors only");
        std::vector<Tensor> tensors = copy->transform->getConstants();
        for (const auto& [name, tensor] : copy->getTensors())
            tensors.push_back(tensor);
        for (const Tensor& tensor : tensors)
            tensor.set_data(tensor.detach().to(target));
        copy->device = newDevice;
        return copy;
    } catch (const c10::Error& error) {
        throw OpenMM::OpenMMException("Flow::to: " + newDevice + ": " + error.what_without_backtrace());
    }
}

void Flow::save(const std::string& path) const {
    FlowFile::writeAtomically(path, serialize());
}

std::shared_ptr<Flow> Flow::load(const std::string& path) {
    try {
        return deserialize(FlowFile::readBytes(path));
    } catch (const OpenMM::OpenMMException& error) {
        throw OpenMM::OpenMMException("Flow::load: " + path + ": " + error.what());
    }
}

NamedTensors Flow::getTensors() const {
    NamedTensors all;
    for (const auto& [name, tensor] : transform->getParameters())
        all.emplace_back("parameters." + name, tensor);
    for (const auto& [name, tensor] : transform->getBuffers())
        all.emplace_back("buffers." + name, tensor);
    for (const auto& [name, tensor] : prior->getBuffers())
        all.emplace_back("prior." + name, tensor);
    return all;
}

std::string Flow::serialize() const {
    FlowFile file;
    for (const auto& [name, tensor] : getTensors())
        file.tensors.emplace_back(name, tensor.detach());
    const nlohmann::json architecture = {{"prior", prior->getArchitecture()},
                                         {"transform", transform->getArchitecture()},
                                         {"atoms", atoms},
                                         {"temperature", temperature}};
    file.metadata["architecture"] = architecture.dump();
    for (const auto& [key, value] : metadata)
        file.metadata["user." + key] = value;
    return file.toBytes();
}

std::shared_ptr<Flow> Flow::deserialize(const std::string& bytes) {
    const FlowFile file = FlowFile::fromBytes(bytes);
    const auto text = file.metadata.find("architecture");
    require(text != file.metadata.end(), "Flow::deserialize", "architecture", "missing", "in the file's metadata");
    std::shared_ptr<Flow> flow;
    try {
        const auto architecture = nlohmann::json::parse(text->second);
        flow = std::make_shared<Flow>(Prior::create(architecture.at("prior")),
                                      Transform::create(architecture.at("transform")),
                                      architecture.at("atoms").get<std::vector<int>>());
        flow->setTemperature(architecture.at("temperature").get<double>());
    } catch (const nlohmann::json::exception& error) {
        throw OpenMM::OpenMMException(std::string("Flow::deserialize: the architecture is not valid: ") + error.what());
    }
    for (const auto& [key, value] : file.metadata)
        if (key.rfind("user.", 0) == 0)
            flow->metadata[key.substr(5)] = value;

    std::map<std::string, Tensor> saved(file.tensors.begin(), file.tensors.end());
    for (const auto& [name, tensor] : flow->getTensors()) {
        const auto found = saved.find(name);
        require(found != saved.end(), "Flow::deserialize", "tensor " + name, "missing", "in the file");
        require(found->second.sizes() == tensor.sizes(), "Flow::deserialize", "shape of " + name, found->second.sizes(),
                "what the architecture needs");
        tensor.set_data(found->second);
        saved.erase(found);
    }
    require(saved.empty(), "Flow::deserialize", "number of tensors that the architecture does not know", saved.size(),
            "0");
    return flow;
}
