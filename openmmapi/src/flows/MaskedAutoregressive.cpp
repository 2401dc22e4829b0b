// SPDX-License-Identifier: MIT

#include "openmmflow/flows/MaskedAutoregressive.h"
#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

MaskedAutoregressive::MaskedAutoregressive(int size, std::vector<int> circularVariables, const Options& newOptions)
    : size(size), circular(std::move(circularVariables)), options(newOptions),
      isCircular(at::zeros({std::max(size, 0)}, at::kBool)),
      conditioner(Conditioner::makeAutoregressive(size, circular, countParameters(), options.conditioner)) {
    const char* where = "MaskedAutoregressive::MaskedAutoregressive";
    for (int variable : circular) // in 0..size-1, or there would be no conditioner
        isCircular[variable] = true;
    if (options.map == AutoregressiveMap::Affine) {
        require(circular.empty(), where, "number of circular variables", circular.size(), "0 where the map is affine");
        require(options.scaleBound > 0 && std::isfinite(options.scaleBound), where, "scaleBound", options.scaleBound,
                "positive and finite");
    } else {
        require(options.bins >= 2, where, "bins", options.bins, "at least 2");
        require(options.bound > 0 && std::isfinite(options.bound), where, "bound", options.bound,
                "positive and finite");
    }
}

int MaskedAutoregressive::countParameters() const {
    return options.map == AutoregressiveMap::Affine ? 2 : RationalQuadraticSpline::countParameters(options.bins);
}

TransformResult MaskedAutoregressive::forward(const Tensor& z) const {
    // Variable by variable: what the network says of the next one needs the x so far, whatever stands in for the rest.
    Tensor x = at::zeros_like(z), logDet = at::zeros({z.size(0)}, z.options().dtype(at::kDouble));
    std::vector<Tensor> columns;
    const int count = countParameters();
    for (int i = 0; i < size; i++) {
        const Tensor raw = conditioner(x).narrow(1, i * count, count);
        const TransformResult next = apply(z.narrow(1, i, 1), raw, isCircular.narrow(0, i, 1), false);
        columns.push_back(next.value);
        logDet = logDet + next.logDet;
        x = at::constant_pad_nd(at::cat(columns, 1), {0, size - i - 1});
    }
    return {x, logDet};
}

TransformResult MaskedAutoregressive::inverse(const Tensor& x) const {
    return apply(x, conditioner(x), isCircular, true);
}

TransformResult MaskedAutoregressive::apply(const Tensor& y, const Tensor& raw, const Tensor& isCircular,
                                            bool inverse) const {
    if (options.map == AutoregressiveMap::Spline)
        return RationalQuadraticSpline::apply(y, raw, isCircular, options.bins, options.bound, inverse);
    const Tensor parameters = raw.to(at::kDouble).view({y.size(0), y.size(1), 2});
    const Tensor s = options.scaleBound * at::tanh(parameters.select(2, 0) / options.scaleBound);
    const Tensor t = parameters.select(2, 1);
    return inverse ? TransformResult{(y - t) * (-s).exp(), -s.sum(1)} : TransformResult{y * s.exp() + t, s.sum(1)};
}

std::vector<Tensor> MaskedAutoregressive::getConstants() const {
    std::vector<Tensor> all = conditioner.getConstants();
    all.push_back(isCircular);
    return all;
}

nlohmann::json MaskedAutoregressive::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", size},
            {"circular", circular},
            {"map", options.map == AutoregressiveMap::Affine ? "Affine" : "Spline"},
            {"scaleBound", options.scaleBound},
            {"bins", options.bins},
            {"bound", options.bound},
            {"conditioner", conditioner.getArchitecture()}};
}
