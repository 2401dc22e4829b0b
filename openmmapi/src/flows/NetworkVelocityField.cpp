// SPDX-License-Identifier: MIT

#include "openmmflow/flows/NetworkVelocityField.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** phi(s) with its first and second derivative. */
struct Activated {
    Tensor value, slope, curvature;
};

Activated activate(const Tensor& s, Activation activation) {
    if (activation == Activation::Tanh) {
        const Tensor value = s.tanh(), slope = 1 - value.square();
        return {value, slope, -2 * value * slope};
    }
    const Tensor sigma = s.sigmoid(), derivative = sigma * (1 - sigma);
    return {s * sigma, sigma + s * derivative, derivative * (2 + s * (1 - 2 * sigma))};
}

/** sum over batch and probes of a^T b, for a [batch, probes, m] and b [batch or 1, probes, n]. */
Tensor sumOfOuterProducts(const Tensor& a, const Tensor& b) {
    const Tensor left = a.size(0) == b.size(0) ? a : a.sum(0, true);
    return at::mm(left.flatten(0, 1).t(), b.flatten(0, 1));
}

// A field that is odd is run at y and at -y.
Tensor mirrored(const Tensor& y, double sign) {
    return at::cat({y, sign * y});
}

} // namespace

/**
 * The layers' values x_l = phi(s_l), and the tangents U_l = W_l T_{l-1}, T_l = phi'(s_l) U_l along the probes. A tensor
 * that is the same for each row has a first dimension of 1.
 */
struct NetworkVelocityField::Pass {
    Tensor sines, cosines; // of the circular variables, [batch, 1, circular]
    Tensor probes;         // [batch or 1, probes, size]
    double weight = 1.0;   // of each probe's term
    std::vector<Tensor> weights;
    std::vector<Tensor> values, slopes, curvatures, raised, tangents;
    Tensor readout; // e^T W of the last layer, [batch or 1, probes, hidden]
    VelocityResult result;
};

NetworkVelocityField::NetworkVelocityField(int size, std::vector<int> circularVariables, const Options& newOptions)
    : size(size), circular(std::move(circularVariables)), options(newOptions),
      network(size + 1 + 2 * std::max(0, newOptions.frequencies), circular, size, newOptions.network) {
    const char* where = "NetworkVelocityField::NetworkVelocityField";
    require(size >= 1, where, "size", size, "at least 1");
    require(options.frequencies >= 0, where, "frequencies", options.frequencies, "at least 0");
    require(options.network.activation != Activation::ReLU, where, "activation", "ReLU", "SiLU or Tanh");
    require(!options.network.hiddenSizes.empty(), where, "number of hidden layers", 0, "at least 1");
    std::vector<int> open;
    for (int variable : circular)
        require(variable >= 0 && variable < size, where, "a circular variable", variable, "one of 0..size-1");
    for (int i = 0; i < size; i++)
        if (std::find(circular.begin(), circular.end(), i) == circular.end())
            open.push_back(i);
    circularIndex = indexTensor(circular);
    openIndex = indexTensor(open);
    phases = M_PI * at::arange(1, options.frequencies + 1, at::kDouble);
    unitVectors = at::eye(size, at::kDouble).unsqueeze(0);
    for (const auto& [name, tensor] : network.getParameters())
        parameters.push_back(tensor);
}

std::shared_ptr<VelocityField> NetworkVelocityField::withParameters(std::vector<Tensor> tensors) const {
    auto other = std::make_shared<NetworkVelocityField>(*this);
    other->parameters = std::move(tensors);
    return other;
}

std::int64_t NetworkVelocityField::countIntermediates(std::int64_t probes) const {
    std::int64_t count = size;
    for (int hidden : options.network.hiddenSizes)
        count += 4 * hidden;
    return (options.odd ? 2 : 1) * count * (probes > 0 ? probes : size);
}

// In the order in which a Conditioner takes them: time counts as open variables.
Tensor NetworkVelocityField::makeFeatures(const Tensor& y, const Tensor& t) const {
    const Tensor angles = y.index_select(1, circularIndex), time = t.unsqueeze(1);
    const Tensor phase = time * phases;
    return at::cat({y.index_select(1, openIndex), time, phase.cos(), phase.sin(), angles.cos(), angles.sin()}, 1);
}

NetworkVelocityField::Pass NetworkVelocityField::run(const Tensor& y, const Tensor& t, const Tensor& probes) const {
    Pass pass;
    const Tensor angles = y.index_select(1, circularIndex).unsqueeze(1);
    pass.cosines = angles.cos();
    pass.sines = angles.sin();
    // The exact divergence is the estimate with the unit vectors as probes, summed instead of averaged.
    pass.probes = probes.defined() ? probes : unitVectors;
    pass.weight = probes.defined() ? 1.0 / static_cast<double>(probes.size(1)) : 1.0;
    for (std::size_t i = 0; i < parameters.size(); i += 2)
        pass.weights.push_back(parameters[i].to(at::kDouble));

    const std::int64_t numOpen = openIndex.size(0), numCircular = circularIndex.size(0);
    const Tensor& first = pass.weights.front();
    pass.values.push_back(makeFeatures(y, t));
    Tensor raised = at::linear(pass.probes.index_select(2, openIndex), first.narrow(1, 0, numOpen));
    if (numCircular > 0) {
        const Tensor turning = pass.probes.index_select(2, circularIndex);
        raised = raised + at::linear(at::cat({-turning * pass.sines, turning * pass.cosines}, 2),
                                     first.narrow(1, first.size(1) - 2 * numCircular, 2 * numCircular));
    }
    const std::size_t last = pass.weights.size() - 1;
    for (std::size_t i = 0; i < last; i++) {
        if (i > 0)
            raised = at::linear(pass.tangents.back(), pass.weights[i]);
        const Tensor s = at::linear(pass.values.back(), pass.weights[i], parameters[2 * i + 1].to(at::kDouble));
        const Activated h = activate(s, options.network.activation);
        pass.values.push_back(h.value);
        pass.slopes.push_back(h.slope);
        pass.curvatures.push_back(h.curvature);
        pass.raised.push_back(raised);
        pass.tangents.push_back(h.slope.unsqueeze(1) * raised);
    }
    pass.readout = probes.defined() ? at::matmul(probes, pass.weights[last]) : pass.weights[last].unsqueeze(0);
    pass.result.velocity = at::linear(pass.values.back(), pass.weights[last], parameters[2 * last + 1].to(at::kDouble));
    pass.result.divergence = pass.weight * (pass.readout * pass.tangents.back()).sum({1, 2});
    return pass;
}

Tensor NetworkVelocityField::operator()(const Tensor& y, const Tensor& t) const {
    const auto apply = [&](const Tensor& argument, const Tensor& time) {
        Tensor h = makeFeatures(argument, time);
        for (std::size_t i = 0; i < parameters.size(); i += 2) {
            h = at::linear(h, parameters[i].to(at::kDouble), parameters[i + 1].to(at::kDouble));
            if (i + 2 < parameters.size())
                h = options.network.activation == Activation::Tanh ? at::tanh(h) : at::silu(h);
        }
        return h;
    };
    if (!options.odd)
        return apply(y, t);
    const auto sides = apply(mirrored(y, -1), at::cat({t, t})).chunk(2);
    return 0.5 * (sides[0] - sides[1]);
}

VelocityResult NetworkVelocityField::evaluate(const Tensor& y, const Tensor& t, const Tensor& probes) const {
    if (!options.odd)
        return run(y, t, probes).result;
    const VelocityResult both =
        run(mirrored(y, -1), at::cat({t, t}), probes.defined() ? mirrored(probes, 1) : Tensor()).result;
    const auto velocity = both.velocity.chunk(2), divergence = both.divergence.chunk(2);
    return {0.5 * (velocity[0] - velocity[1]), 0.5 * (divergence[0] + divergence[1])};
}

VelocityField::PullBack NetworkVelocityField::pullBack(const Tensor& y, const Tensor& t, const Tensor& probes,
                                                       const Tensor& onVelocity, const Tensor& onDivergence,
                                                       Derivatives derivatives) const {
    const at::NoGradGuard noGrad;
    if (!options.odd)
        return reverse(run(y, t, probes), onVelocity, onDivergence, derivatives);
    const Pass pass = run(mirrored(y, -1), at::cat({t, t}), probes.defined() ? mirrored(probes, 1) : Tensor());
    PullBack both = reverse(pass, 0.5 * mirrored(onVelocity, -1), 0.5 * mirrored(onDivergence, 1), derivatives);
    const auto velocity = both.velocity.chunk(2), onArgument = both.onArgument.chunk(2);
    return {0.5 * (velocity[0] - velocity[1]), onArgument[0] - onArgument[1], std::move(both.onParameters)};
}

/*
 * With a bar for the derivative of the scalar by a quantity, from the last layer to the first:
 *
 *     barT_L = onDivergence * readout          barx_L = onVelocity W_out
 *     bars_l = phi' barx_l + phi'' sum(barT_l U_l)    barU_l = phi' barT_l
 *     barx_{l-1} = bars_l W_l                   barT_{l-1} = barU_l W_l
 *     barW_l = bars_l^T x_{l-1} + barU_l^T T_{l-1}    barb_l = bars_l
 */
VelocityField::PullBack NetworkVelocityField::reverse(const Pass& pass, const Tensor& onVelocity,
                                                      const Tensor& onDivergence, Derivatives derivatives) const {
    const bool all = derivatives == Derivatives::ByArgumentAndParameters;
    const std::size_t last = pass.weights.size() - 1;
    const std::int64_t numOpen = openIndex.size(0), numCircular = circularIndex.size(0);
    PullBack back{pass.result.velocity, {}, std::vector<Tensor>(all ? parameters.size() : 0)};
    const Tensor scale = (pass.weight * onDivergence).reshape({-1, 1, 1});
    if (all) {
        back.onParameters[2 * last] = at::mm(onVelocity.t(), pass.values[last]) +
                                      sumOfOuterProducts(scale * pass.tangents.back(), pass.probes).t();
        back.onParameters[2 * last + 1] = onVelocity.sum(0);
    }
    const Tensor turning = pass.probes.index_select(2, circularIndex);
    const Tensor turned = at::cat({-turning * pass.sines, turning * pass.cosines}, 2); // d(cos, sin) along the probes
    Tensor onValue = at::mm(onVelocity, pass.weights[last]), onTangent = scale * pass.readout, onRaised;
    for (std::size_t i = last; i-- > 0;) {
        const Tensor onSum = pass.slopes[i] * onValue + pass.curvatures[i] * (onTangent * pass.raised[i]).sum(1);
        onRaised = pass.slopes[i].unsqueeze(1) * onTangent;
        if (all) {
            Tensor onWeight = at::mm(onSum.t(), pass.values[i]);
            if (i > 0)
                onWeight += sumOfOuterProducts(onRaised, pass.tangents[i - 1]);
            else {
                onWeight.narrow(1, 0, numOpen) += sumOfOuterProducts(onRaised, pass.probes.index_select(2, openIndex));
                if (numCircular > 0)
                    onWeight.narrow(1, onWeight.size(1) - 2 * numCircular, 2 * numCircular) +=
                        sumOfOuterProducts(onRaised, turned);
            }
            back.onParameters[2 * i] = onWeight;
            back.onParameters[2 * i + 1] = onSum.sum(0);
        }
        onValue = at::mm(onSum, pass.weights[i]);
        if (i > 0)
            onTangent = at::matmul(onRaised, pass.weights[i]);
    }

    // The features: values of the open variables; cos and sin of the circular ones, and their tangents.
    back.onArgument = at::zeros_like(onVelocity);
    back.onArgument.index_copy_(1, openIndex, onValue.narrow(1, 0, numOpen));
    if (numCircular > 0) {
        const Tensor& first = pass.weights.front();
        const std::int64_t start = first.size(1) - 2 * numCircular;
        const auto onTurned = at::matmul(onRaised, first.narrow(1, start, 2 * numCircular)).chunk(2, 2);
        const auto onCircle = onValue.narrow(1, start, 2 * numCircular).chunk(2, 1);
        const Tensor cosine = pass.cosines.squeeze(1), sine = pass.sines.squeeze(1);
        const Tensor onAngle = onCircle[1] * cosine - onCircle[0] * sine -
                               (turning * (pass.cosines * onTurned[0] + pass.sines * onTurned[1])).sum(1);
        back.onArgument.index_copy_(1, circularIndex, onAngle);
    }
    return back;
}

nlohmann::json NetworkVelocityField::getArchitecture() const {
    return {{"type", "NetworkVelocityField"},
            {"network", network.getArchitecture()},
            {"frequencies", options.frequencies},
            {"odd", options.odd}};
}

NetworkVelocityField::Options NetworkVelocityField::readOptions(const nlohmann::json& architecture) {
    return {Conditioner::readOptions(architecture.at("network")), architecture.at("frequencies").get<int>(),
            architecture.at("odd").get<bool>()};
}
