#ifndef OPENMMFLOW_FLOWS_NETWORKBLOCK_H_
#define OPENMMFLOW_FLOWS_NETWORKBLOCK_H_
// SPDX-License-Identifier: MIT

#include "SplineBlock.h"
#include "openmmflow/flows/Conditioner.h"
#include <ATen/ATen.h>

namespace OpenMMFlow {

/**
 * A Conditioner's perceptron on many rows, block by block, as matrix products with everything between them done in the
 * cache. Lines are units and columns are rows of the batch, without gaps (stride = points):
 *
 *     h_0 = inputs,  h_i+1 = activation(W_i h_i + b_i),  raw = W_n h_n
 *
 * (the last bias is left to whoever reads raw), and for the pull-back, from g_n = dL/draw:
 *
 *     dL/dW_i = g_i h_i^T,  dL/db_i = sum of g_i over the rows,  g_i-1 = activation'_i (W_i^T g_i)
 */
template <class T>
class NetworkBlock {
public:
    /**
     * @param columns     where the conditioner's inputs are among those of y
     * @param size        columns of y
     */
    NetworkBlock(const Conditioner& conditioner, const std::vector<int>& columns, std::int64_t size);
    /** Compute some outputs only, int64, and let the gradients of the others be 0. */
    void selectOutputs(const at::Tensor& outputs);
    /** Lines of the tape: the inputs, and values and slopes of each hidden layer. */
    [[nodiscard]] std::int64_t countLines() const { return lines.back(); }
    [[nodiscard]] const at::Tensor& getLastBias() const { return biases.back(); }
    /**
     * @param y       [rows, size]
     * @param tape    [lines, points], filled; slopes only if there will be a pullBack()
     * @return        raw [outputs, points]
     */
    at::Tensor apply(const BlockShape& shape, const double* y, T* tape, bool keepSlopes) const;

    /** Of the parameters; [i] of each layer. Those of one block are added to those of others. */
    struct Gradients {
        std::vector<at::Tensor> weights, biases;
    };
    /**
     * @param onRaw      [outputs, points]
     * @param gradients  null if they are not wanted
     * @param onY        [rows, size], to which is added; null if not wanted
     */
    void pullBack(const BlockShape& shape, const T* tape, at::Tensor onRaw, Gradients* gradients, double* onY) const;
    /** After the last block: the gradients by the parameters as the conditioner has them. */
    void expand(Gradients& gradients) const;

private:
    void fillInputs(const BlockShape& shape, const double* y, T* inputs) const;
    void addToInputs(const BlockShape& shape, const T* inputs, const T* onInputs, double* onY) const;
    [[nodiscard]] at::Tensor view(const BlockShape& shape, const T* data, std::int64_t units) const;
    [[nodiscard]] std::int64_t countUnits(std::size_t layer) const { return weights[layer].size(1); }
    std::int64_t size;
    std::vector<int> open, circular; // columns of y, in the order of the inputs
    Activation activation;
    std::vector<at::Tensor> weights, biases; // without a graph
    at::Tensor selected;                     // int64, the outputs that are computed; undefined if all are
    std::int64_t numOutputs;                 // of the conditioner
    std::vector<std::int64_t> lines;         // of the tape, where the values of each layer start; and the end
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_NETWORKBLOCK_H_*/
