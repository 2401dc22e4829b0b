#ifndef OPENMMFLOW_FLOWS_NETWORKPASS_H_
#define OPENMMFLOW_FLOWS_NETWORKPASS_H_
// SPDX-License-Identifier: MIT

#include "NetworkKernel.h"
#include "openmmflow/flows/Conditioner.h"
#include <ATen/ATen.h>
#include <limits>

namespace OpenMMFlow {

/**
 * A Conditioner's network on a few rows, without tensors: its hidden layers at once, its outputs where they are asked
 * for, and the pull-back of its last hidden layer to the inputs. Belongs to one call: parameters must not change
 * meanwhile.
 */
template <class T>
class NetworkPass {
public:
    /**
     * @param y        [rows, stride]
     * @param columns  where the conditioner's inputs are among those of y
     */
    NetworkPass(const Conditioner& conditioner, const std::vector<int>& columns, const double* y, std::int64_t rows,
                std::int64_t stride);
    [[nodiscard]] std::int64_t getNumRows() const { return rows; }
    /** Units of the last hidden layer. */
    [[nodiscard]] int getHiddenSize() const { return layers.back().columns; }
    /** Outputs first .. first + count - 1 of one row. @param result  [count] */
    void readOutputs(std::int64_t row, int first, int count, T* result) const;
    /** Add what gradients by two combinations of these outputs are by the last hidden layer, [hidden size] each. */
    void pullBackOutputs(int first, int count, const T* onOutputs0, const T* onOutputs1, T* onHidden0,
                         T* onHidden1) const;
    /**
     * Add what a gradient by the last hidden layer of one row is by that row of y.
     *
     * @param onHidden  [hidden size], overwritten
     * @param onY       [stride]
     */
    void pullBack(std::int64_t row, std::vector<T>& onHidden, double* onY) const;

private:
    struct Layer {
        at::Storage weightStorage, biasStorage; // keep the numbers alive
        const T *weight, *bias;
        int rows, columns;
        std::vector<T> input, slope; // [rows of the batch, columns], and the activation's slope that made the input
    };
    const NetworkKernels<T>& kernels;
    std::int64_t rows;
    std::vector<int> open, circular; // columns of y, in the order of the inputs
    std::vector<double> cosines, sines;
    std::vector<Layer> layers;
};

/**
 * Batches up to which passes without tensors are faster than tensor operations or autograd on one core, as measured
 * with the flow of examples/benchmarks/spline_flow.py. Gradients of couplings of float64 have half as many rows.
 */
constexpr std::int64_t maxRowsOfValues = 8, maxRowsOfGradients = 16, maxRowsOfSmoothGradients = 32;

/**
 * Whether passes by the own kernels are possible: some rows, on the CPU, of float64 and with plain layers of one dtype.
 *
 * @param size  columns that y is to have
 */
bool suitsNetworkPass(const Conditioner& conditioner, int size, const at::Tensor& y,
                      std::int64_t maxRows = std::numeric_limits<std::int64_t>::max());

/** The same for the gradients of cheap maps. */
bool suitsGradientPass(const Conditioner& conditioner, int size, const at::Tensor& y);

/** The same for values, where in addition the caller wants no graph. */
bool suitsPlainPass(const Conditioner& conditioner, int size, const at::Tensor& y);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_NETWORKPASS_H_*/
