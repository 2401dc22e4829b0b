// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioner.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/Lattice.h"
#include "openmmflow/latent/Random.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace OpenMMFlow {
NLOHMANN_JSON_SERIALIZE_ENUM(Activation,
                             {{Activation::SiLU, "SiLU"}, {Activation::ReLU, "ReLU"}, {Activation::Tanh, "Tanh"}})
}

Conditioner::Conditioner(int inputSize, std::vector<int> circularInputs, int outputSize, const Options& newOptions)
    : options(newOptions), circular(std::move(circularInputs)) {
    require(inputSize >= 1, "Conditioner::Conditioner", "inputSize", inputSize, "at least 1");
    require(outputSize >= 1, "Conditioner::Conditioner", "outputSize", outputSize, "at least 1");
    for (int i = 0; i < inputSize; i++)
        if (std::find(circular.begin(), circular.end(), i) == circular.end())
            open.push_back(i);
    require(open.size() + circular.size() == static_cast<std::size_t>(inputSize), "Conditioner::Conditioner",
            "number of circular variables", circular.size(), "different indices in 0..inputSize-1");
    require(options.extents.empty(), "Conditioner::Conditioner", "number of extents", options.extents.size(),
            "0: only additive and affine couplings have convolutional networks");
    circularIndex = indexTensor(circular);
    openIndex = indexTensor(open);

    std::vector<int> sizes{static_cast<int>(open.size() + 2 * circular.size())};
    sizes.insert(sizes.end(), options.hiddenSizes.begin(), options.hiddenSizes.end());
    sizes.push_back(outputSize);
    makeLayers(sizes, 1);
}

// Each layer takes fanInFactor times as many numbers as the one before has.
void Conditioner::makeLayers(const std::vector<int>& sizes, int fanInFactor) {
    Random random(options.seed);
    options.seed = random.getSeed();
    for (std::size_t i = 0; i + 1 < sizes.size(); i++) {
        require(sizes[i + 1] >= 1, "Conditioner::Conditioner", "a size of the network", sizes[i + 1], "at least 1");
        const bool last = i + 2 == sizes.size();
        const int fanIn = fanInFactor * sizes[i];
        const double scale = last ? 0.0 : 1.0 / std::sqrt(fanIn);
        const auto draw = [&](int rows, int columns) {
            return (scale * (2 * random.uniform(rows, columns) - 1)).to(at::kFloat);
        };
        weights.push_back(draw(sizes[i + 1], fanIn).set_requires_grad(true));
        biases.push_back(draw(1, sizes[i + 1]).reshape({sizes[i + 1]}).set_requires_grad(true));
    }
}

Conditioner Conditioner::makeForCoupling(const std::vector<int>& passive, const std::vector<int>& active,
                                         int outputsPerSite, const Options& options) {
    const int numPassive = static_cast<int>(passive.size()), numActive = static_cast<int>(active.size());
    if (options.extents.empty())
        return {numPassive, {}, outputsPerSite * numActive, options};
    const Lattice lattice(options.extents);
    require(lattice.getSize() == numPassive + numActive, "Conditioner::makeForCoupling",
            "number of sites of the lattice", lattice.getSize(),
            "the number of variables, " + std::to_string(numPassive + numActive));
    Conditioner result;
    result.options = options;
    result.places = at::full({lattice.getSize()}, numPassive, at::kLong);
    result.places.index_copy_(0, indexTensor(passive), at::arange(numPassive, at::kLong));
    const Tensor neighbours = lattice.getNeighbourhoods();
    std::vector<int> sizes{1};
    for (const int channels : options.hiddenSizes) {
        result.neighbours.push_back(neighbours);
        sizes.push_back(channels);
    }
    result.neighbours.push_back(neighbours.index_select(0, indexTensor(active)));
    sizes.push_back(outputsPerSite);
    result.makeLayers(sizes, static_cast<int>(neighbours.size(1)));
    return result;
}

Conditioner Conditioner::makeAutoregressive(int size, std::vector<int> circular, int outputsPerVariable,
                                            const Options& options) {
    Conditioner result(size, std::move(circular), size * outputsPerVariable, options);
    // Inputs are the open variables, the cosines and the sines of the circular ones.
    Tensor degrees = 1 + at::cat({result.openIndex, result.circularIndex, result.circularIndex});
    for (const int hidden : options.hiddenSizes) {
        const Tensor next = 1 + at::remainder(at::arange(hidden, at::kLong), std::max(1, size - 1));
        result.masks.push_back(next.unsqueeze(1) >= degrees);
        degrees = next;
    }
    const Tensor outputs = 1 + at::arange(size, at::kLong).repeat_interleave(outputsPerVariable);
    result.masks.push_back(outputs.unsqueeze(1) > degrees);
    return result;
}

Tensor Conditioner::gatherNeighbours(const Tensor& h, std::size_t layer) const {
    return h.index_select(1, neighbours[layer].flatten()).reshape({h.size(0), neighbours[layer].size(0), -1});
}

Tensor Conditioner::operator()(const Tensor& y) const {
    const bool convolves = !neighbours.empty();
    Tensor h; // [batch, units] or [batch, sites, channels]
    if (convolves)
        h = at::constant_pad_nd(y, {0, 1}).index_select(1, places).unsqueeze(2);
    else {
        const Tensor angles = y.index_select(1, circularIndex);
        h = at::cat({y.index_select(1, openIndex), angles.cos(), angles.sin()}, 1);
    }
    h = h.to(weights[0].dtype());
    for (std::size_t i = 0; i < weights.size(); i++) {
        if (convolves)
            h = gatherNeighbours(h, i);
        h = at::linear(h, masks.empty() ? weights[i] : weights[i] * masks[i], biases[i]);
        if (i + 1 < weights.size())
            h = options.activation == Activation::SiLU   ? at::silu(h)
                : options.activation == Activation::ReLU ? at::relu(h)
                                                         : at::tanh(h);
    }
    return convolves ? h.transpose(1, 2).flatten(1) : h;
}

NamedTensors Conditioner::getParameters() const {
    NamedTensors parameters;
    for (std::size_t i = 0; i < weights.size(); i++) {
        parameters.emplace_back("weight" + std::to_string(i), weights[i]);
        parameters.emplace_back("bias" + std::to_string(i), biases[i]);
    }
    return parameters;
}

std::vector<Tensor> Conditioner::getConstants() const {
    std::vector<Tensor> all = masks;
    appendTo(all, neighbours);
    for (const Tensor& index : {circularIndex, openIndex, places})
        if (index.defined())
            all.push_back(index);
    return all;
}

nlohmann::json Conditioner::getArchitecture() const {
    return {{"hiddenSizes", options.hiddenSizes}, {"activation", options.activation}, {"extents", options.extents}};
}

Conditioner::Options Conditioner::readOptions(const nlohmann::json& architecture) {
    Options result;
    result.hiddenSizes = architecture.at("hiddenSizes").get<std::vector<int>>();
    const auto& name = architecture.at("activation");
    require(name == "SiLU" || name == "ReLU" || name == "Tanh", "Conditioner::readOptions", "activation", name.dump(),
            "SiLU, ReLU or Tanh");
    result.activation = name.get<Activation>();
    result.extents = architecture.value("extents", std::vector<int>());
    result.seed = 1; // the weights are read afterwards
    return result;
}
