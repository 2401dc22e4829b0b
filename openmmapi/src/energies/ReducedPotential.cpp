// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/** u(x) as autograd sees it: the gradient is computed with the energy, where it will be needed. */
struct EnergyFunction : torch::autograd::Function<EnergyFunction> {
    static Tensor forward(AutogradContext* context, const Tensor& x, ReducedPotential* potential) {
        const EnergyResult result = potential->evaluate(x, Gradient::Compute);
        context->save_for_backward({result.gradient.reshape(x.sizes()), result.u.isfinite()});
        return result.u;
    }

    static variable_list backward(AutogradContext* context, variable_list onU) {
        const auto saved = context->get_saved_variables();
        const Tensor &gradient = saved[0], &finite = saved[1];
        // A sample without an energy passes nothing on, whatever comes from above: 0 times infinity would be NaN.
        const Tensor above = at::where(finite, onU[0], at::zeros_like(onU[0]));
        std::vector<std::int64_t> perSample(gradient.dim(), 1);
        perSample[0] = gradient.size(0);
        const Tensor onX = gradient * above.reshape(perSample);
        if (!at::GradMode::is_enabled())
            return {onX, Tensor()};
        // Under create_graph: the next derivative would leave the Hessian of u out, so it must fail.
        const auto refusal = std::make_shared<torch::autograd::DelayedError>(
            "ReducedPotential: second derivatives of the energy are not available", 1);
        return {(*refusal)({onX.detach().requires_grad_()})[0], Tensor()};
    }
};

} // namespace

Tensor ReducedPotential::operator()(const Tensor& x) {
    if (at::GradMode::is_enabled() && x.requires_grad())
        return EnergyFunction::apply(x, this);
    return evaluate(x).u;
}
