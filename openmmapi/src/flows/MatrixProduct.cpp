// SPDX-License-Identifier: MIT

#include "MatrixProduct.h"
#include <ATen/core/dispatch/Dispatcher.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// Torch has oneDNN's products as operators without a C++ interface: X W^T + B, and a sum with another matrix.
using Linear = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, c10::string_view,
                      c10::List<std::optional<at::Scalar>>, std::optional<c10::string_view>);
using LinearAdd = Tensor(const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, c10::string_view);

/** Those operators where they are faster than at::mm. */
struct OneDnn {
    std::optional<c10::TypedOperatorHandle<Linear>> multiply;
    std::optional<c10::TypedOperatorHandle<LinearAdd>> add;

    OneDnn() {
#if defined(__x86_64__)
        if (!__builtin_cpu_supports("avx512f") || __builtin_cpu_is("intel"))
            return;
        const auto first = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
        const auto second = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", "binary"});
        if (!first.has_value() || !second.has_value())
            return;
        try {
            multiply = first->typed<Linear>();
            add = second->typed<LinearAdd>();
        } catch (const c10::Error&) { // a version of torch that has them with other arguments
            multiply.reset();
        }
#endif
    }
    static const OneDnn& get() {
        static const OneDnn operators;
        return operators;
    }
    [[nodiscard]] bool serves(const Tensor& a) const {
        return multiply.has_value() && a.scalar_type() == at::kFloat && at::globalContext().userEnabledMkldnn();
    }
};

} // namespace

Tensor OpenMMFlow::multiplyByTransposed(const Tensor& a, const Tensor& b) {
    const OneDnn& oneDnn = OneDnn::get();
    if (!oneDnn.serves(a))
        return at::mm(a, b.t());
    return oneDnn.multiply->call(a, b, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

void OpenMMFlow::addProductWithTransposed(Tensor& sum, const Tensor& a, const Tensor& b) {
    const OneDnn& oneDnn = OneDnn::get();
    if (!sum.defined())
        sum = multiplyByTransposed(a, b);
    else if (oneDnn.serves(a))
        sum = oneDnn.add->call(a, sum, b, std::nullopt, "add");
    else
        sum.addmm_(a, b.t());
}
