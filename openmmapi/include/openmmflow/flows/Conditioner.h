#ifndef OPENMMFLOW_FLOWS_CONDITIONER_H_
#define OPENMMFLOW_FLOWS_CONDITIONER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

enum class Activation { SiLU, ReLU, Tanh };

/**
 * The network of a coupling layer: a multilayer perceptron whose last layer starts at zero, so that a coupling starts
 * as its parameters' neutral value. Circular inputs enter as (cos, sin).
 *
 * Weights start as torch's Linear does: uniform in +-1/sqrt(fan in), drawn from an explicit generator.
 */
class OPENMMFLOW_EXPORT Conditioner {
public:
    struct Options {
        std::vector<int> hiddenSizes = {128, 128};
        Activation activation = Activation::SiLU;
        /** Seed of the initial weights; 0 chooses. */
        std::uint64_t seed = 0;
    };
    /**
     * @param inputSize   number of conditioning variables
     * @param circular    which of 0..inputSize-1 are circular
     * @param outputSize  number of parameters to predict
     */
    Conditioner(int inputSize, std::vector<int> circular, int outputSize, const Options& options);
    /**
     * A network whose outputs for variable i depend on the variables before it only (MADE; Germain et al., ICML 2015):
     * weights are masked by degrees, i + 1 for input and output i and 1..size-1 in turn for hidden units, such that a
     * hidden unit sees the degrees up to its own and an output those below its own.
     *
     * @param size                number of variables
     * @param circular            which of 0..size-1 are circular
     * @param outputsPerVariable  number of parameters to predict for each; outputs are ordered variable by variable
     */
    static Conditioner makeAutoregressive(int size, std::vector<int> circular, int outputsPerVariable,
                                          const Options& options);
    /** @param y  float64 [batch, input size]  @return [batch, output size] in the dtype of the weights */
    [[nodiscard]] at::Tensor operator()(const at::Tensor& y) const;
    [[nodiscard]] NamedTensors getParameters() const;
    [[nodiscard]] nlohmann::json getArchitecture() const;
    /** The options that getArchitecture() described. */
    static Options readOptions(const nlohmann::json& architecture);

    /** What NetworkPass reads: the layers, and where the inputs are. */
    [[nodiscard]] const Options& getOptions() const { return options; }
    [[nodiscard]] const std::vector<at::Tensor>& getWeights() const { return weights; }
    [[nodiscard]] const std::vector<at::Tensor>& getBiases() const { return biases; }
    [[nodiscard]] bool isMasked() const { return !masks.empty(); }
    [[nodiscard]] const std::vector<int>& getOpen() const { return open; }
    [[nodiscard]] const std::vector<int>& getCircular() const { return circular; }

private:
    Options options;
    std::vector<int> open, circular; // the inputs of each kind, in the order in which the network takes them
    at::Tensor circularIndex, openIndex;
    std::vector<at::Tensor> weights, biases;
    std::vector<at::Tensor> masks; // bool, of the shapes of weights; empty when nothing is masked
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CONDITIONER_H_*/
