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
 * On a lattice (Options::extents) it can be convolutional instead: each layer sees the sites up to one step away in
 * each dimension, periodically (Lattice::getNeighbourhoods()), with the same weights everywhere; the active sites enter
 * as zeros. Translations that keep active sites active then commute with the coupling, and the number of parameters
 * does not depend on the lattice (Albergo, Kanwar and Shanahan, Phys. Rev. D 100, 034515, 2019). A site sees as many
 * steps away as there are layers, one more than hidden sizes.
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
        /** Extents of the lattice whose sites the variables are, for a convolutional network; empty for a perceptron.
         */
        std::vector<int> extents = {};
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
    /**
     * The network of a coupling: perceptron or, if options.extents says so, convolutions (see above), whose hidden
     * sizes are numbers of channels. Outputs come function by function: all sites' first one, then all sites' second.
     *
     * @param passive          the sites that are known, of all; inputs in this order
     * @param active           the sites to predict for; each function's outputs in this order
     * @param outputsPerSite   number of functions
     */
    static Conditioner makeForCoupling(const std::vector<int>& passive, const std::vector<int>& active,
                                       int outputsPerSite, const Options& options);
    /** @param y  float64 [batch, input size]  @return [batch, output size] in the dtype of the weights */
    [[nodiscard]] at::Tensor operator()(const at::Tensor& y) const;
    [[nodiscard]] NamedTensors getParameters() const;
    /** As Transform::getConstants(). */
    [[nodiscard]] std::vector<at::Tensor> getConstants() const;
    [[nodiscard]] nlohmann::json getArchitecture() const;
    /** The options that getArchitecture() described. */
    static Options readOptions(const nlohmann::json& architecture);

    /** What NetworkPass reads: the layers, and where the inputs are. */
    [[nodiscard]] const Options& getOptions() const { return options; }
    [[nodiscard]] const std::vector<at::Tensor>& getWeights() const { return weights; }
    [[nodiscard]] const std::vector<at::Tensor>& getBiases() const { return biases; }
    [[nodiscard]] bool isPerceptron() const { return masks.empty() && neighbours.empty(); }
    [[nodiscard]] const std::vector<int>& getOpen() const { return open; }
    [[nodiscard]] const std::vector<int>& getCircular() const { return circular; }

private:
    Conditioner() = default;
    void makeLayers(const std::vector<int>& sizes, int fanInFactor);
    [[nodiscard]] at::Tensor gatherNeighbours(const at::Tensor& h, std::size_t layer) const;
    Options options;
    std::vector<int> open, circular; // the inputs of each kind, in the order in which the network takes them
    at::Tensor circularIndex, openIndex;
    std::vector<at::Tensor> weights, biases;
    std::vector<at::Tensor> masks; // bool, of the shapes of weights; empty when nothing is masked
    // Of convolutions: the place of each site in (inputs, 0), [sites], and for each layer the sites that each output
    // sees, [sites or active, 3^dimensions].
    at::Tensor places;
    std::vector<at::Tensor> neighbours;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CONDITIONER_H_*/
