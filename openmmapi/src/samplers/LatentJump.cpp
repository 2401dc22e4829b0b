// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/LatentJump.h"
#include "WeightTools.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// A point that is not finite has no energy, whatever a potential says about it.
Tensor energyWhereFinite(ReducedPotential& potential, const Tensor& x) {
    const Tensor u = potential.evaluate(x).u;
    return at::where(at::isfinite(x).all(1), u, at::full_like(u, INFINITY));
}

Tensor choose(const Tensor& accepted, const Tensor& proposed, const Tensor& current) {
    const Tensor rows = accepted.to(current.device());
    return at::where(current.dim() == 2 ? rows.unsqueeze(1) : rows, proposed, current);
}

JumpInfo decide(const LatentJump::Options& options, const JumpState& current, const JumpState& proposed,
                Random& random) {
    const std::int64_t count = current.u.size(0);
    JumpInfo info{at::empty({count}, at::kDouble), random.uniform(count, 1).squeeze(1), at::empty({count}, at::kBool)};
    const auto u = toVector(current.u), logQ = toVector(current.logQ), logDet = toVector(current.logDet);
    const auto uNew = toVector(proposed.u), logQNew = toVector(proposed.logQ), logDetNew = toVector(proposed.logDet);
    auto logAlpha = info.logAlpha.accessor<double, 1>(), uniform = info.uniform.accessor<double, 1>();
    auto accepted = info.accepted.accessor<bool, 1>();
    for (std::int64_t i = 0; i < count; i++) {
        logAlpha[i] = jumpLogAlpha(options.kind, u[i], uNew[i], logQ[i], logQNew[i], logDet[i], logDetNew[i]);
        accepted[i] = accept(options.test, logAlpha[i], uniform[i]);
        info.numAccepted += accepted[i];
        info.nonFinite += !std::isfinite(logAlpha[i]);
    }
    return info;
}

} // namespace

Tensor OpenMMFlow::proposeLatent(const Prior& prior, JumpKind kind, double stepSize, const Tensor& z, Random& random) {
    switch (kind) {
    case JumpKind::Independence:
        return prior.sample(z.size(0), random).to(z.device());
    case JumpKind::PriorPreserving:
        return prior.perturb(z, stepSize, random);
    case JumpKind::RandomWalk:
        break;
    }
    const auto circular = prior.getCircularIndices();
    const CircularShift wrap(prior.getSize(), circular, std::vector<double>(circular.size(), 0.0));
    const Tensor moved = z.to(at::kCPU) + stepSize * random.normal(z.size(0), z.size(1));
    return wrap.forward(moved).value.to(z.device());
}

LatentJump::LatentJump(std::shared_ptr<Flow> newFlow, std::shared_ptr<ReducedPotential> newPotential,
                       const Options& options)
    : flow(std::move(newFlow)), potential(std::move(newPotential)),
      augmented(std::dynamic_pointer_cast<AugmentedPotential>(potential)), options(options), random(options.seed) {
    require(flow != nullptr, "LatentJump::LatentJump", "flow", "null", "a Flow");
    require(potential != nullptr, "LatentJump::LatentJump", "potential", "null", "a ReducedPotential");
    require(flow->getSize() == potential->getSize(), "LatentJump::LatentJump", "size of the flow", flow->getSize(),
            "that of the potential, " + std::to_string(potential->getSize()));
    const double step = options.stepSize;
    if (options.kind == JumpKind::PriorPreserving)
        require(step > 0 && step <= 1, "LatentJump::LatentJump", "stepSize", step, "in (0, 1]");
    if (options.kind == JumpKind::RandomWalk)
        require(step > 0 && std::isfinite(step), "LatentJump::LatentJump", "stepSize", step, "positive and finite");
}

JumpState LatentJump::start(const Tensor& x) {
    const at::NoGradGuard noGrad;
    const FlowSample sample = flow->toLatent(x);
    const Tensor u = energyWhereFinite(*potential, sample.x);
    const auto bad = at::isfinite(u).logical_not().sum().item<std::int64_t>();
    require(bad == 0, "LatentJump::start", "number of configurations whose energy is not finite", bad, "0");
    return {sample.x, sample.z, u, sample.logQ, sample.logDet};
}

// a ~ N(0, I) for every walker. u(x) stays; the place in latent space moves with a.
JumpState LatentJump::refresh(const JumpState& state) {
    const FlowSample sample = flow->toLatent(augmented->augment(augmented->takePhysical(state.x), random));
    const Tensor u = state.u - augmented->augmentedPart(state.x) + augmented->augmentedPart(sample.x);
    return {sample.x, sample.z, u, sample.logQ, sample.logDet};
}

JumpInfo LatentJump::step(JumpState& state) {
    const at::NoGradGuard noGrad;
    if (augmented != nullptr)
        state = refresh(state);
    const Tensor z = proposeLatent(*flow->getPrior(), options.kind, options.stepSize, state.z, random);
    const FlowSample sample = flow->fromLatent(z);
    const Tensor x = flow->place(sample.x, state.x);
    const JumpState proposed{x, z, energyWhereFinite(*potential, x), sample.logQ, sample.logDet};
    const JumpInfo info = decide(options, state, proposed, random);
    state = {choose(info.accepted, proposed.x, state.x), choose(info.accepted, proposed.z, state.z),
             choose(info.accepted, proposed.u, state.u), choose(info.accepted, proposed.logQ, state.logQ),
             choose(info.accepted, proposed.logDet, state.logDet)};
    return info;
}
