// SPDX-License-Identifier: MIT

#include "DeviceSpline.h"
#include "../latent/TensorTools.h"
#include "SplineElement.h"
#include "openmmflow/latent/Check.h"
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

template <class T>
SplineBatch<T> describe(const Tensor& x, const Tensor& raw, const Tensor& circular, std::int64_t bins, double bound,
                        bool inverse) {
    return {x.const_data_ptr<double>(),
            raw.const_data_ptr<T>(),
            circular.const_data_ptr<bool>(),
            x.size(0),
            static_cast<int>(x.size(1)),
            static_cast<int>(bins),
            bound,
            inverse};
}

const DeviceKernels& kernelsOf(const Tensor& x) {
    const DeviceKernels* kernels = findDeviceKernels(x.device().type());
    require(kernels != nullptr, "RationalQuadraticSpline", "device", x.device(), "one with kernels");
    return *kernels;
}

template <class Function>
void withTypeOf(const Tensor& raw, const Function& function) {
    if (raw.scalar_type() == at::kFloat)
        function(float{});
    else
        function(double{});
}

struct SplineFunction : torch::autograd::Function<SplineFunction> {
    static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& raw, const Tensor& circular,
                                 std::int64_t bins, double bound, bool inverse) {
        Tensor value = at::empty_like(x), logDet = at::empty({x.size(0)}, x.options());
        withTypeOf(raw, [&]<class T>(T) {
            kernelsOf(x).spline<T>().apply(describe<T>(x, raw, circular, bins, bound, inverse),
                                           value.mutable_data_ptr<double>(), logDet.mutable_data_ptr<double>(),
                                           x.device().index());
        });
        context->save_for_backward({x, raw, circular});
        context->saved_data["bins"] = bins;
        context->saved_data["bound"] = bound;
        context->saved_data["inverse"] = inverse;
        return {value, logDet};
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        refuseSecondDerivatives("RationalQuadraticSpline");
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &raw = saved[1], &circular = saved[2];
        const std::int64_t bins = context->saved_data["bins"].toInt();
        const double bound = context->saved_data["bound"].toDouble();
        const bool inverse = context->saved_data["inverse"].toBool();
        const Tensor onValue = gradients[0].contiguous(), onLogDet = gradients[1].contiguous();
        Tensor gradX = at::empty_like(x), gradRaw = at::empty_like(raw);
        withTypeOf(raw, [&]<class T>(T) {
            kernelsOf(x).spline<T>().pullBack(describe<T>(x, raw, circular, bins, bound, inverse),
                                              onValue.const_data_ptr<double>(), onLogDet.const_data_ptr<double>(),
                                              gradX.mutable_data_ptr<double>(), gradRaw.mutable_data_ptr<T>(),
                                              x.device().index());
        });
        return {gradX, gradRaw, Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

} // namespace

TransformResult OpenMMFlow::applyDeviceSpline(const Tensor& x, const Tensor& raw, const Tensor& circular, int bins,
                                              double bound, bool inverse) {
    for (const auto* other : {&raw, &circular})
        require(other->device() == x.device(), "RationalQuadraticSpline::apply", "device of raw or circular",
                other->device(), "that of x, " + x.device().str());
    const auto result = SplineFunction::apply(x.contiguous(), raw.contiguous(), circular.contiguous(),
                                              std::int64_t{bins}, bound, inverse);
    return {result[0], result[1]};
}
