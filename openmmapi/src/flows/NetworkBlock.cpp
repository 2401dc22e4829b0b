// SPDX-License-Identifier: MIT

#include "NetworkBlock.h"
#include "NetworkKernel.h"

using namespace OpenMMFlow;
using at::Tensor;

template <class T>
NetworkBlock<T>::NetworkBlock(const Conditioner& conditioner, const std::vector<int>& columns, std::int64_t size)
    : size(size), activation(conditioner.getOptions().activation) {
    for (const int input : conditioner.getOpen())
        open.push_back(columns[input]);
    for (const int input : conditioner.getCircular())
        circular.push_back(columns[input]);
    lines.push_back(0);
    for (std::size_t i = 0; i < conditioner.getWeights().size(); i++) {
        weights.push_back(conditioner.getWeights()[i].detach());
        biases.push_back(conditioner.getBiases()[i].detach());
        lines.push_back(lines.back() + (i == 0 ? 1 : 2) * countUnits(i));
    }
    numOutputs = biases.back().size(0);
}

template <class T>
void NetworkBlock<T>::selectOutputs(const Tensor& outputs) {
    selected = outputs;
    weights.back() = weights.back().index_select(0, outputs);
    biases.back() = biases.back().index_select(0, outputs);
}

template <class T>
void NetworkBlock<T>::expand(Gradients& gradients) const {
    if (!selected.defined())
        return;
    for (Tensor* last : {&gradients.weights.back(), &gradients.biases.back()}) {
        std::vector<std::int64_t> sizes = last->sizes().vec();
        sizes[0] = numOutputs;
        *last = at::zeros(sizes, last->options()).index_copy_(0, selected, *last);
    }
}

template <class T>
Tensor NetworkBlock<T>::view(const BlockShape& shape, const T* data, std::int64_t units) const {
    return at::from_blob(const_cast<T*>(data), {units, shape.points}, {shape.stride, 1}, weights[0].options());
}

template <class T>
void NetworkBlock<T>::fillInputs(const BlockShape& shape, const double* y, T* inputs) const {
    const auto fill = [&](const std::vector<int>& columns, const auto& function) {
        for (const int column : columns) {
            for (std::int64_t row = 0; row < shape.rows; row++)
                inputs[row] = static_cast<T>(function(y[row * size + column]));
            std::fill(inputs + shape.rows, inputs + shape.points, T(0));
            inputs += shape.stride;
        }
    };
    fill(open, [](double value) { return value; });
    fill(circular, [](double value) { return std::cos(value); });
    fill(circular, [](double value) { return std::sin(value); });
}

template <class T>
void NetworkBlock<T>::addToInputs(const BlockShape& shape, const T* inputs, const T* onInputs, double* onY) const {
    for (const int column : open) {
        for (std::int64_t row = 0; row < shape.rows; row++)
            onY[row * size + column] += onInputs[row];
        inputs += shape.stride;
        onInputs += shape.stride;
    }
    const std::int64_t toSine = static_cast<std::int64_t>(circular.size()) * shape.stride;
    for (const int column : circular) {
        for (std::int64_t row = 0; row < shape.rows; row++)
            onY[row * size + column] += static_cast<double>(inputs[row]) * onInputs[toSine + row] -
                                        static_cast<double>(inputs[toSine + row]) * onInputs[row];
        inputs += shape.stride;
        onInputs += shape.stride;
    }
}

template <class T>
void NetworkBlock<T>::apply(const BlockShape& shape, const double* y, T* tape, bool keepSlopes, T* raw) const {
    const NetworkKernels<T>& kernels = getNetworkKernels<T>();
    const auto activate = activation == Activation::SiLU   ? kernels.silu
                          : activation == Activation::ReLU ? kernels.relu
                                                           : kernels.tanh;
    fillInputs(shape, y, tape);
    for (std::size_t i = 0; i < weights.size(); i++) {
        const std::int64_t units = weights[i].size(0);
        const bool last = i + 1 == weights.size();
        T* result = last ? raw : tape + lines[i + 1] * shape.stride;
        Tensor product = view(shape, result, units);
        at::mm_out(product, weights[i], view(shape, tape + lines[i] * shape.stride, countUnits(i)));
        if (!last)
            activate(biases[i].template const_data_ptr<T>(), static_cast<int>(units), shape.points, shape.stride,
                     result, keepSlopes ? result + units * shape.stride : nullptr);
    }
}

template <class T>
void NetworkBlock<T>::pullBack(const BlockShape& shape, const T* tape, T* onRaw, Gradients* gradients,
                               double* onY) const {
    const bool first = gradients != nullptr && gradients->weights.empty();
    if (first)
        for (std::size_t i = 0; i < weights.size(); i++) {
            gradients->weights.push_back(at::empty_like(weights[i]));
            gradients->biases.push_back(at::zeros_like(biases[i]));
        }
    Tensor scratch[2]; // results of one layer and the next, in turn
    std::vector<T> unused;
    T* on = onRaw;
    for (std::size_t i = weights.size(); i-- > 0;) {
        const std::int64_t units = weights[i].size(0), inputs = countUnits(i);
        const T* slope = i + 1 == weights.size() ? nullptr : tape + (lines[i + 1] + units) * shape.stride;
        unused.resize(gradients == nullptr ? units : 0);
        T* onBias = gradients == nullptr ? unused.data() : gradients->biases[i].template mutable_data_ptr<T>();
        getNetworkKernels<T>().pullBackActivation(slope, static_cast<int>(units), shape.points, shape.stride, on,
                                                  onBias);
        const Tensor onResult = view(shape, on, units);
        if (gradients != nullptr) {
            const Tensor h = view(shape, tape + lines[i] * shape.stride, inputs);
            at::addmm_out(gradients->weights[i], gradients->weights[i], onResult, h.t(), first ? 0 : 1);
        }
        if (i == 0 && onY == nullptr)
            break;
        Tensor& onInput = scratch[i % 2];
        if (!onInput.defined() || onInput.size(0) < inputs)
            onInput = at::empty({inputs, shape.stride}, weights[0].options());
        on = onInput.template mutable_data_ptr<T>();
        Tensor product = view(shape, on, inputs);
        at::mm_out(product, weights[i].t(), onResult);
    }
    if (onY != nullptr)
        addToInputs(shape, tape, on, onY);
}

template class OpenMMFlow::NetworkBlock<float>;
template class OpenMMFlow::NetworkBlock<double>;
