// SPDX-License-Identifier: MIT

#include "NetworkBlock.h"
#include "MatrixProduct.h"
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
    return at::from_blob(const_cast<T*>(data), {units, shape.points}, weights[0].options());
}

template <class T>
void NetworkBlock<T>::fillInputs(const BlockShape& shape, const double* y, T* inputs) const {
    const auto fill = [&](const std::vector<int>& columns, const auto& function) {
        for (const int column : columns) {
            for (std::int64_t row = 0; row < shape.rows; row++)
                inputs[row] = static_cast<T>(function(y[row * size + column]));
            std::fill(inputs + shape.rows, inputs + shape.points, T(0));
            inputs += shape.points;
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
        inputs += shape.points;
        onInputs += shape.points;
    }
    const std::int64_t toSine = static_cast<std::int64_t>(circular.size()) * shape.points;
    for (const int column : circular) {
        for (std::int64_t row = 0; row < shape.rows; row++)
            onY[row * size + column] += static_cast<double>(inputs[row]) * onInputs[toSine + row] -
                                        static_cast<double>(inputs[toSine + row]) * onInputs[row];
        inputs += shape.points;
        onInputs += shape.points;
    }
}

template <class T>
Tensor NetworkBlock<T>::apply(const BlockShape& shape, const double* y, T* tape, bool keepSlopes) const {
    const NetworkKernels<T>& kernels = getNetworkKernels<T>();
    const auto activate = activation == Activation::SiLU   ? kernels.silu
                          : activation == Activation::ReLU ? kernels.relu
                                                           : kernels.tanh;
    fillInputs(shape, y, tape);
    for (std::size_t i = 0;; i++) {
        const Tensor h = view(shape, tape + lines[i] * shape.points, countUnits(i));
        Tensor product = multiplyByTransposed(weights[i], h.t());
        if (i + 1 == weights.size())
            return product;
        const std::int64_t units = weights[i].size(0);
        T* result = tape + lines[i + 1] * shape.points;
        activate(biases[i].template const_data_ptr<T>(), static_cast<int>(units), shape.points,
                 product.template const_data_ptr<T>(), result, keepSlopes ? result + units * shape.points : nullptr);
    }
}

template <class T>
void NetworkBlock<T>::pullBack(const BlockShape& shape, const T* tape, Tensor onRaw, Gradients* gradients,
                               double* onY) const {
    if (gradients != nullptr && gradients->weights.empty()) {
        gradients->weights.resize(weights.size());
        for (const Tensor& bias : biases)
            gradients->biases.push_back(at::zeros_like(bias));
    }
    std::vector<T> unused;
    Tensor on = std::move(onRaw);
    for (std::size_t i = weights.size(); i-- > 0;) {
        const std::int64_t units = weights[i].size(0);
        const T* slope = i + 1 == weights.size() ? nullptr : tape + (lines[i + 1] + units) * shape.points;
        unused.resize(gradients == nullptr ? units : 0);
        T* onBias = gradients == nullptr ? unused.data() : gradients->biases[i].template mutable_data_ptr<T>();
        getNetworkKernels<T>().pullBackActivation(slope, static_cast<int>(units), shape.points,
                                                  on.template mutable_data_ptr<T>(), onBias);
        if (gradients != nullptr) {
            const Tensor h = view(shape, tape + lines[i] * shape.points, countUnits(i));
            addProductWithTransposed(gradients->weights[i], on, h);
        }
        if (i == 0 && onY == nullptr)
            return;
        on = multiplyByTransposed(weights[i].t(), on.t());
    }
    addToInputs(shape, tape, on.template const_data_ptr<T>(), onY);
}

template class OpenMMFlow::NetworkBlock<float>;
template class OpenMMFlow::NetworkBlock<double>;
