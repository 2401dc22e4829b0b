// SPDX-License-Identifier: MIT

#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "../latent/TensorTools.h"
#include "DeviceSpline.h"
#include "SplineBlock.h"
#include "openmmflow/latent/Check.h"
#include <ATen/Parallel.h>
#include <numeric>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr double minBin = 1e-3, minSlope = 1e-3;

/** A batch as one block: numbers of type T with the rows as columns. */
BlockShape shapeOf(std::int64_t batch) {
    const std::int64_t points = (batch + splineLanes - 1) / splineLanes * splineLanes;
    return {batch, points, points};
}

/** function(first row, shape of these rows) on ranges of rows, in several threads. */
template <class Function>
void runRanges(const BlockShape& whole, std::size_t n, const Function& function) {
    const auto grain = static_cast<std::int64_t>(std::max<std::size_t>(1, 512 / (splineLanes * n)));
    at::parallel_for(0, whole.points / splineLanes, grain, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t first = begin * splineLanes, last = end * splineLanes;
        function(first, BlockShape{std::min(last, whole.rows) - first, last - first, whole.stride});
    });
}

/** The kernels as a function that autograd knows. */
template <class T>
struct SplineFunction : torch::autograd::Function<SplineFunction<T>> {
    struct Tape : torch::CustomClassHolder {
        SplineSettings settings;
        Tensor records; // [n (2K + 8), stride]
    };

    static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& raw,
                                 const SplineSettings& settings) {
        const BlockShape whole = shapeOf(x.size(0));
        const Tensor columns = at::zeros({settings.countRaw(), whole.stride}, raw.options());
        columns.narrow(1, 0, whole.rows).copy_(raw.t());
        const auto tape = c10::make_intrusive<Tape>();
        tape->settings = settings;
        tape->records = at::empty({settings.countRecords(), whole.stride}, raw.options());
        const Tensor value = at::empty_like(x), logDet = at::empty({x.size(0)}, x.options());
        const std::vector<T> bias(settings.countRaw());
        runRanges(whole, settings.active.size(), [&](std::int64_t first, const BlockShape& shape) {
            applySplines<T>(settings, shape, x.const_data_ptr<double>() + first * settings.size,
                            columns.const_data_ptr<T>() + first, bias.data(),
                            value.mutable_data_ptr<double>() + first * settings.size,
                            logDet.mutable_data_ptr<double>() + first,
                            tape->records.template mutable_data_ptr<T>() + first);
        });
        context->saved_data["tape"] = c10::IValue::make_capsule(tape);
        return {value, logDet};
    }

    static variable_list backward(AutogradContext* context, variable_list gradients) {
        refuseSecondDerivatives("RationalQuadraticSpline");
        const auto tape = c10::static_intrusive_pointer_cast<Tape>(context->saved_data["tape"].toCapsule());
        const SplineSettings& settings = tape->settings;
        const Tensor onValue = gradients[0].contiguous(), onLogDet = gradients[1].contiguous();
        const BlockShape whole = shapeOf(onValue.size(0));
        const Tensor onX = at::empty_like(onValue);
        const Tensor onRaw = at::empty({settings.countRaw(), whole.stride}, tape->records.options());
        runRanges(whole, settings.active.size(), [&](std::int64_t first, const BlockShape& shape) {
            pullBackSplines<T>(
                settings, shape, tape->records.template const_data_ptr<T>() + first,
                onValue.const_data_ptr<double>() + first * settings.size, onLogDet.const_data_ptr<double>() + first,
                onX.mutable_data_ptr<double>() + first * settings.size, onRaw.mutable_data_ptr<T>() + first);
        });
        return {onX, onRaw.narrow(1, 0, whole.rows).t(), Tensor()};
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
    if (findDeviceKernels(x.device().type()) != nullptr)
        return applyDeviceSpline(x, raw, circular, bins, bound, inverse);
    if (!x.is_cpu())
        return applyReference(x, raw, circular, bins, bound, inverse);
    SplineSettings settings{x.size(1), std::vector<int>(x.size(1)), {}, bins, bound, inverse};
    std::iota(settings.active.begin(), settings.active.end(), 0);
    const Tensor flags = circular.contiguous();
    settings.circular.assign(flags.const_data_ptr<bool>(), flags.const_data_ptr<bool>() + x.size(1));
    const auto result = raw.scalar_type() == at::kFloat ? SplineFunction<float>::apply(x.contiguous(), raw, settings)
                                                        : SplineFunction<double>::apply(x.contiguous(), raw, settings);
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
    const Tensor isEnd = at::zeros({bins + 1}, circular.options());
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
