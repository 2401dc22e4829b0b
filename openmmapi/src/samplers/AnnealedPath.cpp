// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedPath.h"
#include "WeightTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// NaN may come with a density that is not defined; a product with 0 would keep it.
Tensor zeroUnlessFinite(const Tensor& gradient, const Tensor& value) {
    const Tensor fine = value.isfinite() & gradient.isfinite().all(1);
    return at::where(fine.unsqueeze(1), gradient, at::zeros_like(gradient));
}

// (1 - lambda) a + lambda b, and just the end at an end: 0 times infinity would be NaN.
Tensor mix(const Tensor& a, const Tensor& b, double lambda) {
    return lambda == 0 ? a : lambda == 1 ? b : (1 - lambda) * a + lambda * b;
}

PathState makeFinite(PathState state) {
    state.logDensity =
        finiteOrMinusInfinity(state.logDensity.masked_fill(state.x.isfinite().all(1).logical_not(), -INFINITY));
    if (state.gradient.defined())
        state.gradient = zeroUnlessFinite(state.gradient, state.logDensity);
    return state;
}

void requireLambda(const char* where, double lambda) {
    require(lambda >= 0 && lambda <= 1, where, "lambda", lambda, "in [0, 1]");
}

} // namespace

PathState OpenMMFlow::choose(const Tensor& accepted, const PathState& proposed, const PathState& current) {
    const auto pick = [&accepted](const Tensor& a, const Tensor& b) {
        if (!a.defined() || !b.defined())
            return Tensor();
        return at::where(a.dim() == 2 ? accepted.unsqueeze(1) : accepted, a, b);
    };
    PathState chosen{pick(proposed.x, current.x),
                     pick(proposed.logDensity, current.logDensity),
                     pick(proposed.gradient, current.gradient),
                     pick(proposed.momentum, current.momentum),
                     {},
                     proposed.lambda};
    for (std::size_t i = 0; i < std::min(proposed.kept.size(), current.kept.size()); i++)
        chosen.kept.push_back(pick(proposed.kept[i], current.kept[i]));
    return chosen;
}

PathState OpenMMFlow::selectRows(const PathState& state, const Tensor& rows) {
    const auto pick = [&rows](const Tensor& all) { return all.defined() ? all.index_select(0, rows) : Tensor(); };
    PathState chosen{pick(state.x), pick(state.logDensity), pick(state.gradient), pick(state.momentum), {},
                     state.lambda};
    for (const Tensor& kept : state.kept)
        chosen.kept.push_back(pick(kept));
    return chosen;
}

PathState AnnealedPath::evaluate(const Tensor& x, double lambda, Gradient gradient) {
    const char* where = "AnnealedPath::evaluate";
    require(x.dim() == 2 && x.size(1) == getSize(), where, "shape of x", x.sizes(),
            "[batch, " + std::to_string(getSize()) + "]");
    requireLambda(where, lambda);
    const at::NoGradGuard noGrad;
    PathState state = compute(x.detach().to(at::kDouble), lambda, gradient);
    state.lambda = lambda;
    return makeFinite(std::move(state));
}

PathState AnnealedPath::atLambda(const PathState& state, double lambda, Gradient gradient) {
    requireLambda("AnnealedPath::atLambda", lambda);
    const at::NoGradGuard noGrad;
    PathState moved;
    if (gradient == Gradient::Omit || state.gradient.defined()) {
        if (lambda == state.lambda)
            return state;
        moved = reuse(state, lambda);
    }
    moved = moved.x.defined() ? makeFinite(std::move(moved)) : evaluate(state.x, lambda, gradient);
    moved.momentum = state.momentum;
    moved.lambda = lambda;
    return moved;
}

void AnnealedPath::count(std::int64_t evaluations, Gradient gradient) {
    numEvaluations += evaluations;
    numGradients += gradient == Gradient::Compute ? evaluations : 0;
}

PathState GeometricPath::compute(const Tensor& x, double lambda, Gradient gradient) {
    const Ends ends = evaluateEnds(x, gradient);
    PathState state;
    state.x = x;
    state.kept = {ends.log0, ends.log1};
    if (gradient == Gradient::Compute)
        state.kept.insert(state.kept.end(),
                          {zeroUnlessFinite(ends.gradient0, ends.log0), zeroUnlessFinite(ends.gradient1, ends.log1)});
    return reuse(state, lambda);
}

PathState GeometricPath::reuse(const PathState& state, double lambda) const {
    PathState moved;
    if (state.kept.size() < 2)
        return moved;
    moved.x = state.x;
    moved.kept = state.kept;
    moved.logDensity = mix(state.kept[0], state.kept[1], lambda);
    if (state.kept.size() == 4)
        moved.gradient = mix(state.kept[2], state.kept[3], lambda);
    return moved;
}

PotentialPath::PotentialPath(std::shared_ptr<ReducedPotential> newStart, std::shared_ptr<ReducedPotential> newEnd)
    : start(std::move(newStart)), end(std::move(newEnd)) {
    require(start != nullptr, "PotentialPath::PotentialPath", "start", "null", "a ReducedPotential");
    require(end != nullptr, "PotentialPath::PotentialPath", "end", "null", "a ReducedPotential");
    require(start->getSize() == end->getSize(), "PotentialPath::PotentialPath", "size of end", end->getSize(),
            "that of start, " + std::to_string(start->getSize()));
}

GeometricPath::Ends PotentialPath::evaluateEnds(const Tensor& x, Gradient gradient) {
    const EnergyResult from = start->evaluate(x, gradient), to = end->evaluate(x, gradient);
    count(2 * x.size(0), gradient);
    if (gradient == Gradient::Omit)
        return {-from.u, -to.u, {}, {}};
    return {-from.u, -to.u, -from.gradient, -to.gradient};
}

FlowPath::FlowPath(std::shared_ptr<const Flow> newFlow, std::shared_ptr<ReducedPotential> newPotential, double alpha)
    : flow(std::move(newFlow)), potential(std::move(newPotential)), alpha(alpha) {
    require(flow != nullptr, "FlowPath::FlowPath", "flow", "null", "a Flow");
    require(potential != nullptr, "FlowPath::FlowPath", "potential", "null", "a ReducedPotential");
    require(flow->getSize() == potential->getSize(), "FlowPath::FlowPath", "size of the flow", flow->getSize(),
            "that of the potential, " + std::to_string(potential->getSize()));
    require(alpha > 0 && std::isfinite(alpha), "FlowPath::FlowPath", "alpha", alpha, "positive and finite");
}

// The target itself at alpha = 1, also where the flow has no density.
Tensor FlowPath::logEnd(const Tensor& logQ, const Tensor& u) const {
    return alpha == 1 ? -u : (1 - alpha) * logQ - alpha * u;
}

GeometricPath::Ends FlowPath::evaluateEnds(const Tensor& x, Gradient gradient) {
    const EnergyResult energy = potential->evaluate(x, gradient);
    count(x.size(0), gradient);
    if (gradient == Gradient::Omit) {
        const Tensor logQ = flow->logQ(x);
        return {logQ, logEnd(logQ, energy.u), {}, {}};
    }
    const auto [logQ, gradientOfLogQ] = flow->logQWithGradient(x);
    const Tensor gradientQ = zeroUnlessFinite(gradientOfLogQ, logQ);
    return {logQ, logEnd(logQ, energy.u), gradientQ, (1 - alpha) * gradientQ - alpha * energy.gradient};
}

TemperaturePath::TemperaturePath(std::shared_ptr<ReducedPotential> newPotential, double startScale, double endScale)
    : potential(std::move(newPotential)), startScale(startScale), endScale(endScale) {
    const char* where = "TemperaturePath::TemperaturePath";
    require(potential != nullptr, where, "potential", "null", "a ReducedPotential");
    require(startScale > 0 && std::isfinite(startScale), where, "startScale", startScale, "positive and finite");
    require(endScale > 0 && std::isfinite(endScale), where, "endScale", endScale, "positive and finite");
}

GeometricPath::Ends TemperaturePath::evaluateEnds(const Tensor& x, Gradient gradient) {
    const EnergyResult energy = potential->evaluate(x, gradient);
    count(x.size(0), gradient);
    if (gradient == Gradient::Omit)
        return {-startScale * energy.u, -endScale * energy.u, {}, {}};
    return {-startScale * energy.u, -endScale * energy.u, -startScale * energy.gradient, -endScale * energy.gradient};
}
