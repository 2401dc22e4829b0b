// SPDX-License-Identifier: MIT

#include "ProposalQueue.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;

namespace {

constexpr std::int64_t smallestBatch = 64;

std::string fingerprintParameters(const Flow& flow) {
    std::string text;
    for (const auto& [name, tensor] : flow.getParameters())
        text += std::to_string(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr())) + ":" +
                std::to_string(tensor._version()) + ";";
    return text;
}

} // namespace

void ProposalQueue::setFlow(std::shared_ptr<const Flow> newFlow, std::shared_ptr<const ConstraintMetric> newMetric) {
    flow = std::move(newFlow);
    metric = std::move(newMetric);
    if (isDrawn())
        discard();
}

void ProposalQueue::discardIfFlowChanged() {
    if (isDrawn() && fingerprintParameters(*flow) != fingerprint)
        discard();
}

Proposals ProposalQueue::take(std::int64_t count) {
    if (place.used + count > place.size) {
        place = {place.index + 1, count * std::max<std::int64_t>(1, smallestBatch / count), 0};
        batch = {};
    }
    if (!isDrawn())
        draw();
    const auto next = [&](const at::Tensor& rows) { return rows.narrow(0, place.used, count); };
    const FlowSample& all = batch.samples;
    Proposals taken{{next(all.z), next(all.x), next(all.logDet), next(all.logQ)}, next(batch.metric)};
    place.used += count;
    return taken;
}

// Stream 0 is the one that decides the jumps; batch i has stream i.
void ProposalQueue::draw() {
    Random ahead(seed, place.index);
    batch.samples = flow->sample(place.size, ahead);
    batch.metric = metric->halfLogDet(batch.samples.x);
    fingerprint = fingerprintParameters(*flow);
}

void ProposalQueue::restore(std::uint64_t newSeed, const Place& newPlace) {
    seed = newSeed;
    place = newPlace;
    batch = {};
}
