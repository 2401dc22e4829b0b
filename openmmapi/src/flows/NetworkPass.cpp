// SPDX-License-Identifier: MIT

#include "NetworkPass.h"
#include "DeviceKernels.h"

using namespace OpenMMFlow;
using at::Tensor;

static std::int64_t roundUp(std::int64_t count) {
    constexpr std::int64_t lanes = 8;
    return (count + lanes - 1) / lanes * lanes;
}

template <class T>
NetworkPass<T>::NetworkPass(const Conditioner& conditioner, const std::vector<int>& columns, const double* y,
                            std::int64_t rows, std::int64_t stride)
    : kernels(getNetworkKernels<T>()), rows(rows) {
    for (const int input : conditioner.getOpen())
        open.push_back(columns[input]);
    for (const int input : conditioner.getCircular())
        circular.push_back(columns[input]);
    for (std::size_t i = 0; i < conditioner.getWeights().size(); i++) {
        const Tensor &weight = conditioner.getWeights()[i], &bias = conditioner.getBiases()[i];
        layers.push_back({weight.storage(),
                          bias.storage(),
                          weight.const_data_ptr<T>(),
                          bias.const_data_ptr<T>(),
                          static_cast<int>(weight.size(0)),
                          static_cast<int>(weight.size(1)),
                          {},
                          {}});
        const std::int64_t padded = roundUp(rows * weight.size(1)); // activations come in whole vectors
        layers.back().input.resize(padded);
        layers.back().slope.resize(i == 0 ? 0 : padded);
    }
    cosines.resize(rows * circular.size());
    sines.resize(rows * circular.size());
    T* input = layers[0].input.data();
    for (std::int64_t row = 0; row < rows; row++) {
        for (const int column : open)
            *input++ = static_cast<T>(y[row * stride + column]);
        for (std::size_t i = 0; i < circular.size(); i++) {
            cosines[row * circular.size() + i] = std::cos(y[row * stride + circular[i]]);
            *input++ = static_cast<T>(cosines[row * circular.size() + i]);
        }
        for (std::size_t i = 0; i < circular.size(); i++) {
            sines[row * circular.size() + i] = std::sin(y[row * stride + circular[i]]);
            *input++ = static_cast<T>(sines[row * circular.size() + i]);
        }
    }
    const Activation activation = conditioner.getOptions().activation;
    const auto activate = activation == Activation::SiLU   ? kernels.silu
                          : activation == Activation::ReLU ? kernels.relu
                                                           : kernels.tanh;
    for (std::size_t i = 0; i + 1 < layers.size(); i++) {
        const Layer& layer = layers[i];
        Layer& next = layers[i + 1];
        for (std::int64_t row = 0; row < rows; row++)
            kernels.multiply(layer.weight, layer.bias, layer.rows, layer.columns,
                             layer.input.data() + row * layer.columns, next.input.data() + row * next.columns);
        const T noBias = 0;
        activate(&noBias, 1, static_cast<std::int64_t>(next.input.size()), next.input.data(), next.input.data(),
                 next.slope.data());
    }
}

template <class T>
void NetworkPass<T>::readOutputs(std::int64_t row, int first, int count, T* result) const {
    const Layer& last = layers.back();
    kernels.multiply(last.weight + std::int64_t{first} * last.columns, last.bias + first, count, last.columns,
                     last.input.data() + row * last.columns, result);
}

template <class T>
void NetworkPass<T>::pullBackOutputs(int first, int count, const T* onOutputs0, const T* onOutputs1, T* onHidden0,
                                     T* onHidden1) const {
    const Layer& last = layers.back();
    kernels.pullBackTwo(last.weight + std::int64_t{first} * last.columns, onOutputs0, onOutputs1, count, last.columns,
                        onHidden0, onHidden1);
}

template <class T>
void NetworkPass<T>::pullBack(std::int64_t row, std::vector<T>& onHidden, double* onY) const {
    for (std::size_t i = layers.size() - 1; i > 0; i--) {
        const Layer &layer = layers[i - 1], &next = layers[i];
        for (int k = 0; k < next.columns; k++)
            onHidden[k] *= next.slope[row * next.columns + k];
        std::vector<T> onInput(layer.columns);
        kernels.pullBack(layer.weight, onHidden.data(), layer.rows, layer.columns, onInput.data());
        onHidden = std::move(onInput);
    }
    const T* on = onHidden.data();
    for (const int column : open)
        onY[column] += *on++;
    for (std::size_t i = 0; i < circular.size(); i++)
        onY[circular[i]] += cosines[row * circular.size() + i] * static_cast<double>(on[circular.size() + i]) -
                            sines[row * circular.size() + i] * static_cast<double>(on[i]);
}

template class OpenMMFlow::NetworkPass<float>;
template class OpenMMFlow::NetworkPass<double>;

bool OpenMMFlow::suitsNetworkPass(const Conditioner& conditioner, int size, const Tensor& y, std::int64_t maxRows) {
    if (y.dim() != 2 || y.size(1) != size || y.size(0) < 1 || y.size(0) > maxRows || !y.is_cpu() ||
        y.scalar_type() != at::kDouble || !conditioner.isPerceptron())
        return false;
    if (findDeviceKernels(y.device().type()) != nullptr) // those go first
        return false;
    const at::ScalarType dtype = conditioner.getWeights()[0].scalar_type();
    const auto isPlain = [&](const Tensor& t) { return t.is_cpu() && t.scalar_type() == dtype && t.is_contiguous(); };
    const auto all = [&](const std::vector<Tensor>& list) { return std::all_of(list.begin(), list.end(), isPlain); };
    return (dtype == at::kFloat || dtype == at::kDouble) && all(conditioner.getWeights()) &&
           all(conditioner.getBiases());
}

bool OpenMMFlow::suitsGradientPass(const Conditioner& conditioner, int size, const Tensor& y) {
    const bool single = conditioner.getWeights()[0].scalar_type() == at::kFloat;
    return suitsNetworkPass(conditioner, size, y, single ? maxRowsOfGradients : maxRowsOfGradients / 2);
}

bool OpenMMFlow::suitsPlainPass(const Conditioner& conditioner, int size, const Tensor& y) {
    const auto any = [](const std::vector<Tensor>& list) {
        return std::any_of(list.begin(), list.end(), [](const Tensor& t) { return t.requires_grad(); });
    };
    if (at::GradMode::is_enabled() &&
        (y.requires_grad() || any(conditioner.getWeights()) || any(conditioner.getBiases())))
        return false;
    return suitsNetworkPass(conditioner, size, y, maxRowsOfValues);
}
