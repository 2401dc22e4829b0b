// SPDX-License-Identifier: MIT

#include "SplineLayer.h"
#include "../latent/TensorTools.h"
#include "NetworkBlock.h"
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/** Blocks of about so many rows are fast in matrix products and fit into the cache with what is computed from them. */
constexpr std::int64_t maxRowsOfBlock = 256, minRowsOfThread = 32;

/** From so many rows on, products with the outputs that splines use save more than it takes to select these. */
constexpr std::int64_t minRowsOfSelection = 512;

std::int64_t divideUp(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

/** A batch in blocks of equal size, but for the last one. Lines have no gaps: products are slow over these. */
struct Blocks {
    std::int64_t batch, points, count;
    explicit Blocks(std::int64_t batch) : batch(batch) {
        const std::int64_t threads = std::min<std::int64_t>(at::get_num_threads(), batch / minRowsOfThread);
        const std::int64_t wanted = std::max({divideUp(batch, maxRowsOfBlock), threads, std::int64_t{1}});
        const std::int64_t vectors = divideUp(divideUp(batch, wanted), splineLanes);
        // Lines a power of two apart would fall on each other in the cache.
        points = splineLanes * (vectors % 8 == 0 ? vectors + 1 : vectors);
        count = divideUp(batch, points);
    }
    [[nodiscard]] std::int64_t start(std::int64_t block) const { return block * points; }
    [[nodiscard]] BlockShape shape(std::int64_t block) const {
        return {std::min(points, batch - start(block)), points, points};
    }
    /** function(first, end) on ranges of blocks, in several threads, with plain tensors of the types that they have. */
    template <class Function>
    void run(const Function& function) const {
        at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
            const at::NoGradGuard noGrad;
            const c10::impl::ExcludeDispatchKeyGuard noAutocast(c10::autocast_dispatch_keyset);
            function(begin, end);
        });
    }
};

/** What both directions of autograd share. */
template <class T>
struct Layer : torch::CustomClassHolder {
    NetworkBlock<T> network;
    SplineSettings settings;
    Blocks blocks;
    bool differentiable;
    Tensor tape; // [blocks, lines, points] of the network's lines, then the splines' records

    Layer(NetworkBlock<T> network, const SplineSettings& settings, std::int64_t batch, bool differentiable)
        : network(std::move(network)), settings(settings), blocks(batch), differentiable(differentiable) {
        const auto isOpen = [](char circular) { return circular == 0; };
        if (batch >= minRowsOfSelection && std::any_of(settings.circular.begin(), settings.circular.end(), isOpen))
            leaveOutUnused();
    }

    void leaveOutUnused() {
        std::vector<int> used;
        const int count = countSplineNumbers(settings.bins, true, false);
        for (std::size_t i = 0; i < settings.active.size(); i++)
            for (int k = 0; k < count; k++)
                if (settings.circular[i] != 0 || (k != 2 * settings.bins && k != 3 * settings.bins))
                    used.push_back(static_cast<int>(i) * count + k);
        network.selectOutputs(indexTensor(used));
        settings.dense = true;
    }

    /** Numbers of a block. */
    [[nodiscard]] std::int64_t countTape() const {
        return (network.countLines() + (differentiable ? settings.countRecords() : 0)) * blocks.points;
    }

    TransformResult apply(const Tensor& y) {
        const at::TensorOptions options = network.getLastBias().options();
        if (differentiable)
            tape = at::empty({blocks.count, countTape()}, options);
        Tensor value = y.clone(), logDet = at::empty({blocks.batch}, y.options());
        const double* from = y.const_data_ptr<double>();
        double *to = value.mutable_data_ptr<double>(), *sum = logDet.mutable_data_ptr<double>();
        const T* bias = network.getLastBias().template const_data_ptr<T>();
        blocks.run([&](std::int64_t first, std::int64_t end) {
            const Tensor scratch = differentiable ? Tensor() : at::empty({countTape()}, options);
            for (std::int64_t block = first; block < end; block++) {
                const std::int64_t row = blocks.start(block), offset = row * settings.size;
                T* lines = (differentiable ? tape[block] : scratch).template mutable_data_ptr<T>();
                T* records = differentiable ? lines + network.countLines() * blocks.points : nullptr;
                const Tensor raw = network.apply(blocks.shape(block), from + offset, lines, differentiable);
                applySplines<T>(settings, blocks.shape(block), from + offset, raw.template const_data_ptr<T>(), bias,
                                to + offset, sum + row, records);
            }
        });
        return {value, logDet};
    }

    /** @return the gradient by y, or an undefined tensor, and those by weights and biases, if they are wanted */
    [[nodiscard]] variable_list pullBack(const Tensor& onValue, const Tensor& onLogDet, bool byY,
                                         bool byParameters) const {
        Tensor onY = byY ? onValue.clone() : Tensor();
        double* to = byY ? onY.mutable_data_ptr<double>() : nullptr;
        std::vector<typename NetworkBlock<T>::Gradients> parts(blocks.count); // a thread's is where its range begins
        blocks.run([&](std::int64_t first, std::int64_t end) {
            const Tensor onRaw = at::empty({settings.countRaw(), blocks.points}, tape.options());
            for (std::int64_t block = first; block < end; block++) {
                const std::int64_t row = blocks.start(block), offset = row * settings.size;
                const T* lines = tape[block].template const_data_ptr<T>();
                double* onRows = byY ? to + offset : nullptr;
                pullBackSplines<T>(settings, blocks.shape(block), lines + network.countLines() * blocks.points,
                                   onValue.const_data_ptr<double>() + offset, onLogDet.const_data_ptr<double>() + row,
                                   onRows, onRaw.template mutable_data_ptr<T>());
                network.pullBack(blocks.shape(block), lines, onRaw, byParameters ? &parts[first] : nullptr, onRows);
            }
        });
        const at::NoGradGuard noGrad;
        for (std::size_t part = 1; part < parts.size(); part++)
            for (std::size_t i = 0; i < parts[part].weights.size(); i++) {
                parts[0].weights[i] += parts[part].weights[i];
                parts[0].biases[i] += parts[part].biases[i];
            }
        if (byParameters)
            network.expand(parts[0]);
        variable_list all{onY};
        all.insert(all.end(), parts[0].weights.begin(), parts[0].weights.end());
        all.insert(all.end(), parts[0].biases.begin(), parts[0].biases.end());
        return all;
    }
};

template <class T>
struct LayerFunction : torch::autograd::Function<LayerFunction<T>> {
    static variable_list forward(AutogradContext* context, const Tensor& y, at::TensorList parameters,
                                 const c10::intrusive_ptr<Layer<T>>& layer) {
        const TransformResult result = layer->apply(y);
        if (layer->differentiable) {
            context->saved_data["layer"] = c10::IValue::make_capsule(layer);
            context->save_for_backward(parameters.vec()); // so that changes in place are noticed
        }
        return {result.value, result.logDet};
    }

    static variable_list backward(AutogradContext* context, variable_list gradients) {
        refuseSecondDerivatives("SplineCoupling");
        const std::size_t count = context->get_saved_variables().size();
        const auto layer = c10::static_intrusive_pointer_cast<Layer<T>>(context->saved_data["layer"].toCapsule());
        bool byParameters = false;
        for (std::size_t i = 0; i < count; i++)
            byParameters = byParameters || context->needs_input_grad(i + 1);
        variable_list all = layer->pullBack(gradients[0].contiguous(), gradients[1].contiguous(),
                                            context->needs_input_grad(0), byParameters);
        all.resize(count + 2); // none by the layer
        return all;
    }
};

template <class T>
TransformResult applyLayer(const Conditioner& conditioner, const std::vector<int>& passive,
                           const SplineSettings& settings, const Tensor& y) {
    variable_list parameters = conditioner.getWeights();
    parameters.insert(parameters.end(), conditioner.getBiases().begin(), conditioner.getBiases().end());
    const auto wantsGraph = [](const Tensor& t) { return t.requires_grad(); };
    const bool differentiable =
        at::GradMode::is_enabled() && (wantsGraph(y) || std::any_of(parameters.begin(), parameters.end(), wantsGraph));
    const auto layer = c10::make_intrusive<Layer<T>>(NetworkBlock<T>(conditioner, passive, settings.size), settings,
                                                     y.size(0), differentiable);
    const auto result = LayerFunction<T>::apply(y.contiguous(), at::TensorList(parameters), layer);
    return {result[0], result[1]};
}

} // namespace

TransformResult OpenMMFlow::applySplineLayer(const Conditioner& conditioner, const std::vector<int>& passive,
                                             const SplineSettings& settings, const Tensor& y) {
    return conditioner.getWeights()[0].scalar_type() == at::kFloat
               ? applyLayer<float>(conditioner, passive, settings, y)
               : applyLayer<double>(conditioner, passive, settings, y);
}
