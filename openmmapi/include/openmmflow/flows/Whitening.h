#ifndef OPENMMFLOW_FLOWS_WHITENING_H_
#define OPENMMFLOW_FLOWS_WHITENING_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/**
 * Principal components, scaled to unit variance: the linear map that gives normal latent variables the mean and the
 * covariance of some data. Not trained, its log-det is constant.
 *
 *     forward:  x = mean + W z,          W = V diag(sqrt(lambda)),  covariance = V diag(lambda) V^T
 *               logDet = sum_i (1/2) ln lambda_i
 *     inverse:  z = W^-1 (x - mean)
 *
 * Variables are in the order of falling variance. Source: Noe et al., Science 365, eaaw1147 (2019), where rigid motions
 * are removed with the components of no variance; here a chart removes them before (EckartCoordinates), so that the
 * density stays exact.
 */
class OPENMMFLOW_EXPORT Whitening : public Transform {
public:
    /**
     * From data.
     *
     * @param x          [frames, size], more frames than variables
     * @param logWeight  [frames], up to a constant; undefined or empty when all weigh the same
     * Throws when a direction has no variance: less than 1e-12 of the largest.
     */
    static std::shared_ptr<Whitening> fromData(const at::Tensor& x, const at::Tensor& logWeight = {});
    /** For Transform::create: mean 0, W = I until the buffers are filled in. @param size  at least 1 */
    explicit Whitening(int size);
    /** float64 [size]; [size, size], columns of falling norm. */
    [[nodiscard]] const at::Tensor& getMean() const { return mean; }
    [[nodiscard]] const at::Tensor& getMatrix() const { return matrix; }
    [[nodiscard]] int getInputSize() const override { return static_cast<int>(mean.size(0)); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] bool isConstantLogDet() const override { return true; }
    [[nodiscard]] std::string getTypeName() const override { return "Whitening"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {}; }
    [[nodiscard]] NamedTensors getBuffers() const override { return {{"mean", mean}, {"matrix", matrix}}; }

private:
    // Orthogonal columns, so that the inverse is the transpose over their squared norms.
    at::Tensor mean, matrix;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_WHITENING_H_*/
