#ifndef OPENMMFLOW_TRAINING_ADAM_H_
#define OPENMMFLOW_TRAINING_ADAM_H_
// SPDX-License-Identifier: MIT

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <vector>

namespace OpenMMFlow {

/** Adam's moments, with the update by LibTorch's fused kernel. */
class Adam {
public:
    explicit Adam(std::vector<at::Tensor> list) : parameters(std::move(list)) {
        for (const at::Tensor& parameter : parameters) {
            first.push_back(at::zeros_like(parameter).detach());
            second.push_back(at::zeros_like(parameter).detach());
            steps.push_back(at::zeros({}, parameter.options().dtype(at::kFloat).requires_grad(false)));
        }
    }
    void step(const std::vector<at::Tensor>& gradients, double learningRate) {
        const at::NoGradGuard noGrad;
        at::_foreach_add_(steps, 1);
        at::_fused_adam_(parameters, gradients, first, second, {}, steps, learningRate, 0.9, 0.999, 0.0, 1e-8, false,
                         false);
    }
    std::vector<at::Tensor> parameters, first, second, steps;
};

/** The gradient of a scalar with respect to some parameters: zero for those that it does not depend on. Dense, as fused
 * kernels on devices want it. */
inline std::vector<at::Tensor> gradientOf(const at::Tensor& value, const std::vector<at::Tensor>& parameters) {
    auto gradients = torch::autograd::grad({value}, parameters, {}, std::nullopt, false, true);
    for (std::size_t i = 0; i < gradients.size(); i++)
        gradients[i] = gradients[i].defined() ? gradients[i].contiguous() : at::zeros_like(parameters[i]);
    return gradients;
}

/** The norm of all of them together. */
inline double globalNorm(const std::vector<at::Tensor>& gradients) {
    return at::stack(at::_foreach_norm(gradients)).to(at::kDouble).norm().item<double>();
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_ADAM_H_*/
