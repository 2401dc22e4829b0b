// SPDX-License-Identifier: MIT

#include "openmmflow/training/ReactionCoordinateEntropyLoss.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

ReactionCoordinateEntropyLoss::ReactionCoordinateEntropyLoss(ReactionCoordinate newCoordinate,
                                                             const Options& newOptions)
    : coordinate(std::move(newCoordinate)), options(newOptions) {
    const char* where = "ReactionCoordinateEntropyLoss::ReactionCoordinateEntropyLoss";
    require(coordinate != nullptr, where, "coordinate", "null", "a function");
    require(options.batchSize >= 2, where, "batchSize", options.batchSize, "at least 2");
    require(options.bandwidth > 0 && std::isfinite(options.bandwidth), where, "bandwidth", options.bandwidth,
            "positive and finite");
    require(options.period >= 0 && std::isfinite(options.period), where, "period", options.period,
            "positive and finite, or 0 for none");
}

Tensor ReactionCoordinateEntropyLoss::evaluate(const Flow& flow, Random& random) {
    const char* where = "ReactionCoordinateEntropyLoss::evaluate";
    const Tensor all = coordinate(flow.sample(options.batchSize, random).x);
    require(all.defined() && all.dim() == 1 && all.size(0) == options.batchSize, where,
            "shape of the reaction coordinate", all.defined() ? all.sizes() : at::IntArrayRef(),
            "[batch], of batch " + std::to_string(options.batchSize));
    const Tensor rows = all.isfinite().nonzero().squeeze(1);
    const std::int64_t count = rows.size(0);
    require(count >= 2, where, "number of samples with a finite reaction coordinate", count, "at least 2");

    const Tensor r = all.index_select(0, rows).to(at::kDouble);
    Tensor difference = r.unsqueeze(1) - r.unsqueeze(0);
    if (options.period > 0)
        difference = difference - options.period * (difference / options.period).detach().round();
    const double logNorm = std::log(static_cast<double>(count - 1)) + std::log(std::sqrt(2 * M_PI) * options.bandwidth);
    const Tensor self = at::eye(count, r.options().dtype(at::kBool).requires_grad(false));
    const Tensor exponent = (-0.5 * (difference / options.bandwidth).square()).masked_fill(self, -INFINITY);
    return (exponent.logsumexp(1) - logNorm).mean();
}
