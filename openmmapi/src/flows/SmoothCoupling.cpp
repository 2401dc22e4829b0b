// SPDX-License-Identifier: MIT

#include "openmmflow/flows/SmoothCoupling.h"
#include "../latent/TensorTools.h"
#include "CouplingPass.h"
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

constexpr double slopeMargin = 0.95, minWidth = 0.05, maxRadius = 0.99;

struct Settings {
    std::int64_t components;
    double bound;
    [[nodiscard]] std::int64_t countParameters() const { return 3 * components + 1; }
};

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

/** A map of the line or circle at one point: value, slope, the slope's slope, and what raw numbers do to the first two.
 */
struct PointEvaluation {
    double value, slope = 1, curvature = 0;
    double* onValue; // [3K + 1], both filled
    double* onSlope;
};

struct SoftPlus {
    double value, slope;
    SoftPlus(double raw, double neutral) {
        const double argument = raw + std::log(std::expm1(neutral));
        value = argument > 40 ? argument : std::log1p(std::exp(argument));
        slope = argument > 40 ? 1 : 1 / (1 + std::exp(-argument));
    }
};

/** OpenMap of one variable. */
void evaluateOpen(const double* raw, const Settings& settings, double x, PointEvaluation& result) {
    const auto count = settings.components;
    const double spacing = 2 * settings.bound / static_cast<double>(count);
    const double floor = slopeMargin / static_cast<double>(count);
    result.value = x + raw[3 * count];
    for (std::int64_t k = 0; k < count; k++) {
        const SoftPlus height(raw[k], floor), width(raw[2 * count + k], 1 - minWidth);
        const double h = height.value - floor, w = spacing * (minWidth + width.value);
        const double center = spacing * (raw[count + k] + static_cast<double>(k) + 0.5) - settings.bound;
        const double u = (x - center) / w, t = std::tanh(u), q = 1 - t * t;
        result.value += h * w * t;
        result.slope += h * q;
        result.curvature -= 2 * h * t * q / w;
        result.onValue[k] = w * t * height.slope;
        result.onSlope[k] = q * height.slope;
        result.onValue[count + k] = -h * q * spacing;
        result.onSlope[count + k] = 2 * h * t * q / w * spacing;
        result.onValue[2 * count + k] = h * (t - q * u) * spacing * width.slope;
        result.onSlope[2 * count + k] = 2 * h * t * q * u / w * spacing * width.slope;
    }
}

/** CircleMap of one variable. */
void evaluateCircle(const double* raw, const Settings& settings, double x, PointEvaluation& result) {
    const auto count = settings.components;
    const double cosine = std::cos(x), sine = std::sin(x), largest = *std::max_element(raw, raw + count);
    double total = 0, turn = 0;
    for (std::int64_t k = 0; k < count; k++)
        total += std::exp(raw[k] - largest);
    result.slope = 0;
    for (std::int64_t k = 0; k < count; k++) {
        const double weight = std::exp(raw[k] - largest) / total;
        const double gain = static_cast<double>(k + 1) * (2.0 / (static_cast<double>(count) + 1.0));
        const double p = gain * raw[count + k], q = gain * raw[2 * count + k], root = std::sqrt(1 + p * p + q * q);
        const double scale = maxRadius / root, re = scale * p, im = scale * q, norm = re * re + im * im;
        const double along = re * cosine + im * sine, across = re * sine - im * cosine;
        const double distance = 1 - 2 * along + norm, s = (1 - norm) / distance, turned = std::atan2(across, 1 - along);
        turn += 2 * weight * turned;
        result.slope += weight * s;
        result.curvature -= 2 * weight * s * across / distance;
        result.onValue[k] = 2 * weight * turned; // to be completed below, as softmax needs the sums
        result.onSlope[k] = weight * s;
        const double valueByRe = 2 * weight * ((1 - along) * sine + across * cosine) / distance;
        const double valueByIm = 2 * weight * (across * sine - (1 - along) * cosine) / distance;
        const double slopeByRe = -2 * weight * (re + s * (re - cosine)) / distance;
        const double slopeByIm = -2 * weight * (im + s * (im - sine)) / distance;
        // re = R p/sqrt(1 + p^2 + q^2), im = R q/sqrt(...)
        const double cube = scale / (root * root), reByP = scale - cube * p * p, reByQ = -cube * p * q,
                     imByQ = scale - cube * q * q;
        result.onValue[count + k] = gain * (valueByRe * reByP + valueByIm * reByQ);
        result.onSlope[count + k] = gain * (slopeByRe * reByP + slopeByIm * reByQ);
        result.onValue[2 * count + k] = gain * (valueByRe * reByQ + valueByIm * imByQ);
        result.onSlope[2 * count + k] = gain * (slopeByRe * reByQ + slopeByIm * imByQ);
    }
    for (std::int64_t k = 0; k < count; k++) {
        const double weight = std::exp(raw[k] - largest) / total;
        result.onValue[k] -= weight * turn;
        result.onSlope[k] -= weight * result.slope;
    }
    result.value = x + raw[3 * count] + turn;
}

/** OpenMap or CircleMap of one variable, made ready for many points: per component a, b, c; value and slope follow. */
class PreparedPoint {
public:
    PreparedPoint(const double* raw, const Settings& settings, bool open)
        : open(open), components(settings.components), offset(raw[3 * settings.components]), reach(open ? 0 : M_PI) {
        const auto count = settings.components;
        const double spacing = 2 * settings.bound / static_cast<double>(count);
        const double floor = slopeMargin / static_cast<double>(count);
        double total = 0;
        for (std::int64_t k = 0; k < count; k++) {
            auto& [a, b, c] = components[k];
            if (open) { // height, center, width
                a = SoftPlus(raw[k], floor).value - floor;
                b = spacing * (raw[count + k] + static_cast<double>(k) + 0.5) - settings.bound;
                c = spacing * (minWidth + SoftPlus(raw[2 * count + k], 1 - minWidth).value);
                reach += std::abs(a * c);
            } else { // weight, re, im
                const double gain = static_cast<double>(k + 1) * (2.0 / (static_cast<double>(count) + 1.0));
                const double p = gain * raw[count + k], q = gain * raw[2 * count + k];
                const double scale = maxRadius / std::sqrt(1 + p * p + q * q);
                a = std::exp(raw[k] - *std::max_element(raw, raw + count));
                b = scale * p;
                c = scale * q;
                total += a;
            }
        }
        if (!open)
            for (auto& component : components)
                component.a /= total;
    }
    /** @return value and slope */
    [[nodiscard]] std::pair<double, double> evaluate(double x) const {
        double value = x + offset, slope = open ? 1 : 0;
        const double cosine = open ? 0 : std::cos(x), sine = open ? 0 : std::sin(x);
        for (const auto& [a, b, c] : components)
            if (open) {
                const double t = std::tanh((x - b) / c);
                value += a * c * t;
                slope += a * (1 - t * t);
            } else {
                const double along = b * cosine + c * sine, across = b * sine - c * cosine, norm = b * b + c * c;
                value += 2 * a * std::atan2(across, 1 - along);
                slope += a * (1 - norm) / (1 - 2 * along + norm);
            }
        return {value, slope};
    }
    /** findRoot() of one number. @return x and the slope there */
    [[nodiscard]] std::pair<double, double> solve(double z) const {
        const double invalid = std::numeric_limits<double>::quiet_NaN();
        const double tolerance =
            4 * std::numeric_limits<double>::epsilon() * (1 + std::abs(z) + std::abs(offset) + reach);
        double x = z - offset, low = x - reach, high = x + reach, before = std::numeric_limits<double>::infinity();
        for (int iteration = 0; iteration < 200 && std::isfinite(z); iteration++) {
            const auto [value, slope] = evaluate(x);
            const double residual = value - z, size = std::abs(residual), newton = x - residual / slope;
            (residual > 0 ? high : low) = x;
            const bool close = size <= tolerance * std::max(slope, 1.0) || high - low <= tolerance;
            const bool good = newton >= low && newton <= high && 2 * size <= before;
            x = close || good ? newton : (low + high) / 2;
            if (close)
                return {x, evaluate(x).second};
            before = size;
        }
        return {invalid, invalid};
    }

private:
    struct Component {
        double a, b, c;
    };
    bool open;
    std::vector<Component> components;
    double offset, reach; // reach: how far z - x - offset can be from 0
};

/** Both directions; derivatives are those of the inverse, which is in closed form. */
template <class T>
struct SmoothMap : PointMap<T> {
    Settings settings;
    std::size_t numOpen; // of the active variables, which come first
    bool inverse;
    SmoothMap(const Settings& settings, std::size_t numOpen, bool inverse)
        : settings(settings), numOpen(numOpen), inverse(inverse) {}
    [[nodiscard]] int countOutputs() const override { return static_cast<int>(settings.countParameters()); }
    PointResult evaluate(int variable, double x, PointOutputs<T>& outputs, bool differentiate) const override {
        const int count = countOutputs();
        outputs.read(variable * count, count);
        std::vector<double> numbers(3 * count, 0.0); // raw, onValue, onSlope
        std::copy_n(outputs.values.begin(), count, numbers.begin());
        PointEvaluation map{0, 1, 0, numbers.data() + count, numbers.data() + 2 * count};
        const bool open = static_cast<std::size_t>(variable) < numOpen;
        const auto wrap = [&](double y) { return open ? y : y - 2 * M_PI * std::floor((y + M_PI) / (2 * M_PI)); };
        if (!inverse) {
            const auto [solution, slope] = PreparedPoint(numbers.data(), settings, open).solve(x);
            return {wrap(solution), -std::log(slope), 0, 0};
        }
        (open ? evaluateOpen : evaluateCircle)(numbers.data(), settings, x, map);
        map.onValue[count - 1] = 1;
        for (int k = 0; k < count; k++) {
            outputs.onValue[k] = static_cast<T>(map.onValue[k]);
            outputs.onLogDet[k] = static_cast<T>(map.onSlope[k] / map.slope);
        }
        return {wrap(map.value), std::log(map.slope), map.slope, map.curvature / map.slope};
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
    return suitsNetworkPass(conditioner, split.getSize(), x, maxRowsOfGradients) ? run(x.contiguous(), true, true)
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

nlohmann::json SmoothCoupling::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", split.getSize()},
            {"active", split.getActive()},
            {"circular", circular},
            {"components", options.components},
            {"bound", options.bound},
            {"conditioner", conditioner.getArchitecture()}};
}
