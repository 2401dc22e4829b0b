// SPDX-License-Identifier: MIT

#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "../latent/TensorTools.h"
#include "SplineKernel.h"
#include "openmmflow/latent/Check.h"
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr double minBin = 1e-3, minSlope = 1e-3;

struct Settings {
    int bins;
    double bound;
    bool inverse;
};

template <class T>
SplineKernel<T> describe(const Tensor& x, const Tensor& raw, const Tensor& circular, const Settings& settings) {
    return {x.const_data_ptr<double>(),
            raw.const_data_ptr<T>(),
            circular.const_data_ptr<bool>(),
            static_cast<int>(circular.size(0)),
            settings.bins,
            settings.bound,
            settings.inverse};
}

std::int64_t grain(const Tensor& circular) {
    return std::max<std::int64_t>(1, 512 / circular.size(0));
}

/** The plain-loop kernels as a function that autograd knows. */
struct SplineFunction : torch::autograd::Function<SplineFunction> {
    static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& raw, const Tensor& circular,
                                 std::int64_t bins, double bound, bool inverse) {
        const Settings settings{static_cast<int>(bins), bound, inverse};
        Tensor value = at::empty(x.sizes(), x.options()), logDet = at::empty({x.size(0)}, x.options());
        at::parallel_for(0, x.size(0), grain(circular), [&](std::int64_t begin, std::int64_t end) {
            if (raw.scalar_type() == at::kFloat)
                getSplineKernels<float>().apply(describe<float>(x, raw, circular, settings),
                                                value.mutable_data_ptr<double>(), logDet.mutable_data_ptr<double>(),
                                                begin, end);
            else
                getSplineKernels<double>().apply(describe<double>(x, raw, circular, settings),
                                                 value.mutable_data_ptr<double>(), logDet.mutable_data_ptr<double>(),
                                                 begin, end);
        });
        context->save_for_backward({x, raw, circular});
        context->saved_data["bins"] = bins;
        context->saved_data["bound"] = bound;
        context->saved_data["inverse"] = inverse;
        return {value, logDet};
    }

    static variable_list backward(AutogradContext* context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const Tensor &x = saved[0], &raw = saved[1], &circular = saved[2];
        const Settings settings{static_cast<int>(context->saved_data["bins"].toInt()),
                                context->saved_data["bound"].toDouble(), context->saved_data["inverse"].toBool()};
        const Tensor gradValue = gradients[0].contiguous(), gradLogDet = gradients[1].contiguous();
        Tensor gradX = at::empty(x.sizes(), x.options()), gradRaw = at::empty(raw.sizes(), raw.options());
        at::parallel_for(0, x.size(0), grain(circular), [&](std::int64_t begin, std::int64_t end) {
            const auto run = [&]<class T>(T) {
                getSplineKernels<T>().backward(describe<T>(x, raw, circular, settings),
                                               gradValue.const_data_ptr<double>(), gradLogDet.const_data_ptr<double>(),
                                               gradX.mutable_data_ptr<double>(), gradRaw.mutable_data_ptr<T>(), begin,
                                               end);
            };
            if (raw.scalar_type() == at::kFloat)
                run(float{});
            else
                run(double{});
        });
        return {gradX, gradRaw, Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

void check(const Tensor& x, const Tensor& raw, const Tensor& circular, int bins, double bound) {
    const char* where = "RationalQuadraticSpline::apply";
    require(bins >= 2 && bins <= maxSplineBins, where, "bins", bins, "between 2 and 64");
    require(bound > 0 && std::isfinite(bound), where, "bound", bound, "positive and finite");
    require(x.dim() == 2 && x.scalar_type() == at::kDouble, where, "x", x.toString(), "float64 [batch, n]");
    require(circular.dim() == 1 && circular.size(0) == x.size(1) && circular.scalar_type() == at::kBool, where,
            "shape of circular", circular.sizes(), "bool [n]");
    require(raw.dim() == 2 && raw.size(0) == x.size(0) &&
                raw.size(1) == x.size(1) * RationalQuadraticSpline::countParameters(bins),
            where, "shape of raw", raw.sizes(), "[batch, n (3 bins + 1)]");
    require(raw.scalar_type() == at::kFloat || raw.scalar_type() == at::kDouble, where, "dtype of raw", raw.dtype(),
            "float32 or float64");
}

// Knots of the unit interval, [batch, n, K + 1], from raw sizes.
Tensor makeKnots(const Tensor& raw, int bins) {
    const Tensor fraction = (minBin / bins + (1 - minBin) * raw.softmax(-1)).to(at::kDouble);
    const Tensor inner = fraction.cumsum(-1).narrow(-1, 0, bins - 1);
    const Tensor edge = at::zeros_like(inner.narrow(-1, 0, 1));
    return at::cat({edge, inner, at::ones_like(edge)}, -1);
}

} // namespace

TransformResult RationalQuadraticSpline::apply(const Tensor& x, const Tensor& raw, const Tensor& circular, int bins,
                                               double bound, bool inverse) {
    check(x, raw, circular, bins, bound);
    const auto result =
        SplineFunction::apply(x.contiguous(), raw.contiguous(), circular, std::int64_t{bins}, bound, inverse);
    return {result[0], result[1]};
}

TransformResult RationalQuadraticSpline::applyReference(const Tensor& x, const Tensor& raw, const Tensor& circular,
                                                        int bins, double bound, bool inverse) {
    check(x, raw, circular, bins, bound);
    const Tensor parameters = raw.view({x.size(0), x.size(1), countParameters(bins)});
    const Tensor half = at::where(circular, at::full({}, M_PI, x.options()), at::full({}, bound, x.options()));
    const Tensor rotation = at::where(circular, parameters.select(-1, 3 * bins).to(at::kDouble), at::zeros_like(x));

    const Tensor argument = at::where(circular, wrapAngle(inverse ? x : x + rotation), x);
    const Tensor unit = (argument + half) / (2 * half);
    const Tensor inside = (unit >= 0) & (unit <= 1);
    const Tensor point = at::where(inside, unit, 0.5 * at::ones_like(unit)).unsqueeze(-1);

    const Tensor xKnots = makeKnots(parameters.narrow(-1, 0, bins), bins);
    const Tensor yKnots = makeKnots(parameters.narrow(-1, bins, bins), bins);
    const Tensor rawSlopes = parameters.narrow(-1, 2 * bins, bins);
    Tensor slopes = (minSlope + at::softplus(rawSlopes + std::log(std::expm1(1.0 - minSlope)))).to(at::kDouble);
    slopes = at::cat({slopes, slopes.narrow(-1, 0, 1)}, -1);
    const Tensor isEnd = at::zeros({bins + 1}, at::kBool);
    isEnd[0] = true;
    isEnd[bins] = true;
    slopes = at::where(isEnd & ~circular.unsqueeze(-1), at::ones_like(slopes), slopes);

    const Tensor& searched = inverse ? yKnots : xKnots;
    const Tensor bin = (point >= searched.narrow(-1, 1, bins - 1)).sum(-1, true);
    const auto pick = [](const Tensor& list, const Tensor& index) { return list.gather(-1, index).squeeze(-1); };
    const Tensor x0 = pick(xKnots, bin), y0 = pick(yKnots, bin), d0 = pick(slopes, bin), d1 = pick(slopes, bin + 1);
    const Tensor w = pick(xKnots, bin + 1) - x0, h = pick(yKnots, bin + 1) - y0, s = h / w, m = d1 + d0 - 2 * s;
    const Tensor p = point.squeeze(-1);

    Tensor t;
    if (inverse) {
        const Tensor e = p - y0, a = h * (s - d0) + e * m, b = h * d0 - e * m, c = -s * e;
        t = 2 * c / (-b - (b * b - 4 * a * c).clamp_min(0).sqrt());
    } else
        t = (p - x0) / w;
    const Tensor r = t * (1 - t), D = s + m * r;
    const Tensor result = (inverse ? x0 + w * t : y0 + h * (s * t * t + d0 * r) / D) * (2 * half) - half;
    const Tensor logSlope = 2 * s.log() + (d1 * t * t + 2 * s * r + d0 * (1 - t) * (1 - t)).log() - 2 * D.log();

    const Tensor turned = at::where(circular, wrapAngle(inverse ? result - rotation : result), result);
    const Tensor logDet = at::where(inside, logSlope, at::zeros_like(logSlope)).sum(-1);
    return {at::where(inside, turned, argument), inverse ? -logDet : logDet};
}
