// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Whitening.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

Whitening::Whitening(int size) {
    require(size >= 1, "Whitening::Whitening", "size", size, "at least 1");
    mean = at::zeros({size}, at::kDouble);
    matrix = at::eye(size, at::kDouble);
}

std::shared_ptr<Whitening> Whitening::fromData(const Tensor& x, const Tensor& logWeight) {
    const char* where = "Whitening::fromData";
    require(x.dim() == 2 && x.size(0) > x.size(1), where, "shape of x", x.sizes(),
            "[frames, size] with more frames than variables");
    const at::NoGradGuard noGrad;
    const Tensor data = x.to(at::kDouble);
    require(at::isfinite(data).all().item<bool>(), where, "x", "not finite", "finite");
    Tensor weight = at::full({x.size(0)}, 1.0 / static_cast<double>(x.size(0)), at::kDouble);
    if (logWeight.defined() && logWeight.numel() > 0) {
        require(logWeight.dim() == 1 && logWeight.size(0) == x.size(0), where, "shape of logWeight", logWeight.sizes(),
                "[frames]");
        weight = logWeight.to(at::kDouble).softmax(0);
    }
    auto result = std::make_shared<Whitening>(static_cast<int>(x.size(1)));
    const Tensor mean = at::matmul(weight, data), centred = data - mean;
    const auto [lambda, vectors] = at::linalg_eigh(at::matmul(centred.t() * weight, centred)); // rising
    require(lambda[0].item<double>() > 1e-12 * lambda[-1].item<double>(), where, "smallest variance of a direction",
            lambda[0].item<double>(), "more than 1e-12 of the largest: remove what does not vary, e.g. rigid motions");
    result->mean.copy_(mean);
    result->matrix.copy_((vectors * lambda.sqrt()).flip(1));
    return result;
}

TransformResult Whitening::forward(const Tensor& z) const {
    const Tensor logDet = matrix.norm(2, 0).log().sum();
    return {mean + at::matmul(z, matrix.t()), logDet.expand({z.size(0)})};
}

TransformResult Whitening::inverse(const Tensor& x) const {
    const Tensor squaredNorm = matrix.square().sum(0);
    return {at::matmul(x - mean, matrix) / squaredNorm, (-0.5 * squaredNorm.log().sum()).expand({x.size(0)})};
}

PulledResult Whitening::inverseWithPullBack(const Tensor& x) const {
    const at::NoGradGuard noGrad;
    return {inverse(x.detach()), [matrix = matrix](const Tensor& onValue) {
                return at::matmul(onValue / matrix.square().sum(0), matrix.t());
            }};
}

nlohmann::json Whitening::getArchitecture() const {
    return {{"type", getTypeName()}, {"size", getInputSize()}};
}
