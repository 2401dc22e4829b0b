#ifndef OPENMMFLOW_FLOWS_MASKEDAUTOREGRESSIVE_H_
#define OPENMMFLOW_FLOWS_MASKEDAUTOREGRESSIVE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioner.h"

namespace OpenMMFlow {

/** The map of one variable in an autoregressive flow. */
enum class AutoregressiveMap { Affine, Spline };

/**
 * A masked autoregressive flow (MAF; Papamakarios, Pavlakou and Murray, NeurIPS 2017): each variable passes through a
 * map whose parameters a masked network (MADE) predicts from the x of the variables before it.
 *
 *     Affine:  x_i = z_i exp(s_i) + t_i,  (s_i, t_i) = network(x_0..x_i-1),  logDet = sum s  (forward)
 *     Spline:  x_i = spline(z_i),  see RationalQuadraticSpline.h, with all of its parameters predicted in the same way
 *
 * s = scaleBound * tanh(raw / scaleBound). inverse (x -> z, densities) takes one pass of the network, forward (samples)
 * one for each variable; Inverse(MaskedAutoregressive) has it the other way round: the inverse autoregressive flow
 * (IAF; Kingma et al., NeurIPS 2016). A Permutation between two of them changes the order. Identity at the start.
 */
class OPENMMFLOW_EXPORT MaskedAutoregressive : public Transform {
public:
    struct Options {
        AutoregressiveMap map = AutoregressiveMap::Affine;
        /** Affine: the largest |s|, > 0. */
        double scaleBound = 3.0;
        /** Spline: number of bins, at least 2. */
        int bins = 8;
        /** Spline: half-width of the interval on which open variables are splined, > 0. */
        double bound = 5.0;
        /** For every variable to be seen, hidden layers have at least size - 1 units. */
        Conditioner::Options conditioner;
    };
    /**
     * @param size      number of variables, at least 1
     * @param circular  which of them live on [-pi, pi); none where the map is affine
     */
    MaskedAutoregressive(int size, std::vector<int> circular, const Options& options);
    [[nodiscard]] int getInputSize() const override { return size; }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "MaskedAutoregressive"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] NamedTensors getParameters() const override { return conditioner.getParameters(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] int countParameters() const;
    [[nodiscard]] TransformResult apply(const at::Tensor& y, const at::Tensor& raw, const at::Tensor& isCircular,
                                        bool inverse) const;
    int size;
    std::vector<int> circular;
    Options options;
    at::Tensor isCircular; // bool [size]
    Conditioner conditioner;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_MASKEDAUTOREGRESSIVE_H_*/
