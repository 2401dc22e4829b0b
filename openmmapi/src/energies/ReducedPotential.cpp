// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/** u(x) as autograd sees it: the gradient is computed with the energy, where it will be needed. */
struct EnergyFunction : torch::autograd::Function<EnergyFunction> {
    static Tensor forward(AutogradContext* context, const Tensor& x, ReducedPotential* potential) {
        const EnergyResult result = potential->evaluate(x, x.requires_grad() ? Gradient::Compute : Gradient::Omit);
        if (result.gradient.defined())
            context->save_for_backward({result.gradient.reshape(x.sizes())});
        return result.u;
    }
    static variable_list backward(AutogradContext* context, variable_list gradU) {
        const Tensor gradient = context->get_saved_variables()[0];
        std::vector<std::int64_t> shape(gradient.dim(), 1);
        shape[0] = gradient.size(0);
        // A sample without a finite energy has no gradient, whatever comes from above (0 * inf would be NaN).
        const Tensor above = gradU[0].reshape(shape);
        return {at::where(gradient == 0, at::zeros_like(gradient), gradient * above), Tensor()};
    }
};

} // namespace

Tensor ReducedPotential::operator()(const Tensor& x) {
    return EnergyFunction::apply(x, this);
}
