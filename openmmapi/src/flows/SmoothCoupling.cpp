// SPDX-License-Identifier: MIT

#include "openmmflow/flows/SmoothCoupling.h"
#include "../latent/Angle.h"
#include "../latent/TensorTools.h"
#include "CouplingPass.h"
#include "SmoothPoint.h"
#include "openmmflow/latent/Check.h"
#include <limits>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

using Settings = SmoothSettings;
constexpr double slopeMargin = Settings::slopeMargin, minWidth = Settings::minWidth, maxRadius = Settings::maxRadius;

/** A map of the line at some points, and its derivative there. */
struct Evaluation {
    Tensor value, slope;
};

/** softplus(raw + c), with c such that 0 becomes `neutral`. The threshold is where double precision sees no seam. */
Tensor positive(const Tensor& raw, double neutral) {
    return at::softplus(raw + std::log(std::expm1(neutral)), 1, 40);
}

/** z = x + t + sum_k a_k tanh((x - b_k)/c_k) from raw numbers [batch, n, 3K + 1]. */
class OpenMap {
public:
    OpenMap(const Tensor& raw, const Settings& settings) {
        const std::int64_t count = settings.components;
        const double spacing = 2 * settings.bound / static_cast<double>(count);
        const double floor = slopeMargin / static_cast<double>(count);
        height = positive(raw.narrow(-1, 0, count), floor) - floor;
        center =
            spacing * (raw.narrow(-1, count, count) + at::arange(count, raw.options().requires_grad(false)) + 0.5) -
            settings.bound;
        width = spacing * (minWidth + positive(raw.narrow(-1, 2 * count, count), 1 - minWidth));
        offset = raw.select(-1, 3 * count);
    }
    [[nodiscard]] Evaluation evaluate(const Tensor& x) const {
        const Tensor t = at::tanh((x.unsqueeze(-1) - center) / width);
        return {x + offset + (height * width * t).sum(-1), 1 + (height * (1 - t * t)).sum(-1)};
    }
    [[nodiscard]] const Tensor& getOffset() const { return offset; }
    /** How far z - x - t can be from 0. */
    [[nodiscard]] Tensor getReach() const { return (height * width).abs().sum(-1); }

private:
    Tensor height, center, width, offset; // height is a_k/c_k
};

/** z = x + t + 2 sum_k rho_k arg(1 - w_k exp(-ix)), the lift of a circle map, from raw numbers [batch, n, 3K + 1]. */
class CircleMap {
public:
    CircleMap(const Tensor& raw, const Settings& settings) {
        const std::int64_t count = settings.components;
        weight = raw.narrow(-1, 0, count).softmax(-1);
        // Different gains: components that start equal would get equal gradients and stay equal.
        const Tensor gain = (at::arange(count, raw.options().requires_grad(false)) + 1) * (2.0 / (count + 1.0));
        const Tensor p = gain * raw.narrow(-1, count, count), q = gain * raw.narrow(-1, 2 * count, count);
        const Tensor scale = maxRadius / (1 + p * p + q * q).sqrt();
        re = scale * p;
        im = scale * q;
        offset = raw.select(-1, 3 * count);
    }
    [[nodiscard]] Evaluation evaluate(const Tensor& x) const {
        const Tensor cosine = x.cos().unsqueeze(-1), sine = x.sin().unsqueeze(-1);
        const Tensor along = re * cosine + im * sine, across = re * sine - im * cosine; // w exp(-ix) = along - i across
        const Tensor norm = re * re + im * im;
        return {x + offset + 2 * (weight * at::atan2(across, 1 - along)).sum(-1),
                (weight * (1 - norm) / (1 - 2 * along + norm)).sum(-1)};
    }
    [[nodiscard]] const Tensor& getOffset() const { return offset; }
    [[nodiscard]] Tensor getReach() const { return at::full_like(offset, M_PI); }

private:
    Tensor weight, re, im, offset;
};

/**
 * The x at which an increasing map is z; NaN where z is not finite. Newton steps, but halves of the bracket where a
 * step leaves it or the one before did not halve the residual. An element that is done stays as it is, whatever others
 * need.
 */
template <class Map>
Tensor findRoot(const Map& map, const Tensor& z) {
    constexpr double epsilon = std::numeric_limits<double>::epsilon();
    constexpr int maxIterations = 200; // each halves the bracket or the residual
    const Tensor reach = map.getReach();
    const Tensor tolerance = 4 * epsilon * (1 + z.abs() + map.getOffset().abs() + reach);
    Tensor x = z - map.getOffset(), low = x - reach, high = x + reach;
    Tensor before = at::full_like(x, std::numeric_limits<double>::infinity());
    Tensor done = at::zeros_like(x, at::kBool);
    for (int iteration = 0; iteration < maxIterations && !done.all().item<bool>(); iteration++) {
        const Evaluation map_x = map.evaluate(x);
        const Tensor residual = map_x.value - z, size = residual.abs();
        high = at::where(residual > 0, x, high);
        low = at::where(residual > 0, low, x);
        const Tensor newton = x - residual / map_x.slope;
        // Where the map is steep, the rounding error of x is what is left of the residual.
        const Tensor close = (size <= tolerance * map_x.slope.clamp_min(1)) | (high - low <= tolerance);
        const Tensor good = (newton >= low) & (newton <= high) & (2 * size <= before);
        x = at::where(done, x, at::where(close | good, newton, (low + high) / 2));
        done = done | close | residual.isnan();
        before = size;
    }
    return at::where(done & z.isfinite(), x, std::numeric_limits<double>::quiet_NaN());
}

/** findRoot as a function that autograd knows, to any order: backward is made of operations that it knows too. */
template <class Map>
struct RootFunction : torch::autograd::Function<RootFunction<Map>> {
    static Tensor forward(AutogradContext* context, const Tensor& z, const Tensor& raw, std::int64_t components,
                          double bound) {
        const Tensor x = findRoot(Map(raw, {components, bound}), z);
        context->save_for_backward({x, raw});
        context->saved_data["components"] = components;
        context->saved_data["bound"] = bound;
        return x;
    }

    static variable_list backward(AutogradContext* context, variable_list gradients) {
        const auto saved = context->get_saved_variables();
        const Settings settings{context->saved_data["components"].toInt(), context->saved_data["bound"].toDouble()};
        const bool again = at::GradMode::is_enabled(); // whether this gradient will be differentiated
        const at::AutoGradMode enable(true);
        const Tensor x = again ? saved[0] : saved[0].detach();
        // x depends on raw too; the partial derivative at constant x is the one by an alias of raw.
        const bool byRaw = saved[1].requires_grad();
        Tensor raw = saved[1].detach();
        if (byRaw)
            raw = again ? saved[1].view_as(saved[1]) : raw.requires_grad_(true);
        const Evaluation map = Map(raw, settings).evaluate(x);
        const Tensor gradZ = gradients[0] / map.slope;
        Tensor gradRaw;
        if (byRaw)
            gradRaw = torch::autograd::grad({map.value}, {raw}, {-gradZ}, true, again)[0];
        return {again ? gradZ : gradZ.detach(), gradRaw, Tensor(), Tensor()};
    }
};

template <class Map>
TransformResult applyMap(const Tensor& y, const Tensor& raw, const Settings& settings, bool inverse) {
    if (y.size(1) == 0) // no variable of this kind
        return {y, at::zeros({y.size(0)}, y.options().requires_grad(false))};
    const Tensor x = inverse ? y : RootFunction<Map>::apply(y, raw, settings.components, settings.bound);
    const Evaluation map = Map(raw, settings).evaluate(x);
    const Tensor logSlope = map.slope.log().sum(1);
    return inverse ? TransformResult{map.value, logSlope} : TransformResult{x, -logSlope};
}

/** Both directions; derivatives are those of the inverse, which is in closed form. */
template <class T>
struct SmoothMap : PointMap<T> {
    Settings settings;
    std::size_t numOpen; // of the active variables, which come first
    bool inverse;
    SmoothMap(const Settings& settings, std::size_t numOpen, bool inverse)
        : settings(settings), numOpen(numOpen), inverse(inverse) {}
    [[nodiscard]] int countOutputs() const override { return static_cast<int>(settings.countParameters()); }
    void evaluate(std::vector<Point<T>>& points, bool differentiate) override {
        for (auto& [variable, x, outputs, result] : points)
            result = evaluate(variable, x, outputs);
    }

private:
    PointResult evaluate(int variable, double x, PointOutputs<T>& outputs) const {
        const int count = countOutputs();
        outputs.read(variable * count, count);
        std::vector<double> numbers(3 * count, 0.0); // raw, onValue, onSlope
        std::copy_n(outputs.values, count, numbers.begin());
        SmoothDerivatives map{0, 1, 0, numbers.data() + count, numbers.data() + 2 * count};
        const bool open = static_cast<std::size_t>(variable) < numOpen;
        const auto place = [&](double y) { return open ? y : wrap(y); };
        if (!inverse) {
            const auto [solution, slope] = SmoothPoint(numbers.data(), settings, open).solve(x);
            return {place(solution), -std::log(slope), 0, 0};
        }
        (open ? differentiateOpen : differentiateCircle)(numbers.data(), settings, x, map);
        for (int k = 0; k < count; k++) {
            outputs.onValue[k] = static_cast<T>(map.onValue[k]);
            outputs.onLogDet[k] = static_cast<T>(map.onSlope[k] / map.slope);
        }
        return {place(map.value), std::log(map.slope), map.slope, map.curvature / map.slope};
    }
};

std::vector<int> openFirst(std::vector<int> active, const std::vector<int>& circular) {
    std::stable_partition(active.begin(), active.end(), [&](int variable) {
        return std::find(circular.begin(), circular.end(), variable) == circular.end();
    });
    return active;
}

} // namespace

SmoothCoupling::SmoothCoupling(int size, std::vector<int> active, std::vector<int> circularVariables,
                               const Options& newOptions)
    : split(size, openFirst(std::move(active), circularVariables)), circular(std::move(circularVariables)),
      options(newOptions),
      conditioner(static_cast<int>(split.getPassive().size()), split.findPassive(circular),
                  static_cast<int>(split.getActive().size()) * (3 * options.components + 1), options.conditioner) {
    require(options.components >= 1, "SmoothCoupling::SmoothCoupling", "components", options.components, "at least 1");
    require(options.bound > 0 && std::isfinite(options.bound), "SmoothCoupling::SmoothCoupling", "bound", options.bound,
            "positive and finite");
    require(options.conditioner.activation != Activation::ReLU, "SmoothCoupling::SmoothCoupling", "activation", "ReLU",
            "smooth: SiLU or Tanh");
    for (int variable : circular)
        require(variable >= 0 && variable < size, "SmoothCoupling::SmoothCoupling", "a circular variable", variable,
                "one of 0..size-1");
}

PulledResult SmoothCoupling::run(const Tensor& y, bool inverse, bool differentiate) const {
    const std::size_t numOpen = split.getActive().size() - split.findActive(circular).size();
    const Settings settings{options.components, options.bound};
    const auto makeMap = [&]<class T>(T) { return SmoothMap<T>(settings, numOpen, inverse); };
    return runCouplingOfAnyType(conditioner, split, makeMap, y, differentiate);
}

PulledResult SmoothCoupling::inverseWithPullBack(const Tensor& x) const {
    return suitsNetworkPass(conditioner, split.getSize(), x, maxRowsOfSmoothGradients)
               ? run(x.contiguous(), true, true)
               : Transform::inverseWithPullBack(x);
}

TransformResult SmoothCoupling::forward(const Tensor& z) const {
    if (suitsPlainPass(conditioner, split.getSize(), z))
        return run(z.contiguous(), false, false).result;
    return apply(z, false);
}

TransformResult SmoothCoupling::inverse(const Tensor& x) const {
    if (suitsPlainPass(conditioner, split.getSize(), x))
        return run(x.contiguous(), true, false).result;
    return apply(x, true);
}

TransformResult SmoothCoupling::apply(const Tensor& y, bool inverse) const {
    const Settings settings{options.components, options.bound};
    const Tensor passivePart = split.takePassive(y), activePart = split.takeActive(y);
    const Tensor raw =
        conditioner(passivePart).to(at::kDouble).view({y.size(0), activePart.size(1), settings.countParameters()});
    const auto numCircular = static_cast<std::int64_t>(split.findActive(circular).size());
    const std::int64_t numOpen = activePart.size(1) - numCircular;
    const TransformResult open =
        applyMap<OpenMap>(activePart.narrow(1, 0, numOpen), raw.narrow(1, 0, numOpen), settings, inverse);
    const TransformResult turned = applyMap<CircleMap>(activePart.narrow(1, numOpen, numCircular),
                                                       raw.narrow(1, numOpen, numCircular), settings, inverse);
    return {split.join(at::cat({open.value, wrapAngle(turned.value)}, 1), passivePart), open.logDet + turned.logDet};
}

std::vector<Tensor> SmoothCoupling::getConstants() const {
    std::vector<Tensor> all = conditioner.getConstants();
    appendTo(all, split.getConstants());
    return all;
}

nlohmann::json SmoothCoupling::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", split.getSize()},
            {"active", split.getActive()},
            {"circular", circular},
            {"components", options.components},
            {"bound", options.bound},
            {"conditioner", conditioner.getArchitecture()}};
}
