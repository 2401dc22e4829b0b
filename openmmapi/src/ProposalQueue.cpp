// SPDX-License-Identifier: MIT

#include "ProposalQueue.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>
#include <optional>

using namespace OpenMMFlow;

namespace {

constexpr std::int64_t smallestBatch = 64;

std::int64_t batchSize(std::int64_t count) {
    return count * std::max<std::int64_t>(1, smallestBatch / count);
}

std::string fingerprint(const NamedTensors& tensors) {
    std::string text;
    for (const auto& [name, tensor] : tensors)
        text += std::to_string(reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr())) + ":" +
                std::to_string(tensor._version()) + ";";
    return text;
}

// All that a flow is made of. Throws where it has no description: then it can't be copied either.
std::string describe(const Flow& flow) {
    return flow.getPrior()->getArchitecture().dump() + flow.getTransform()->getArchitecture().dump() +
           fingerprint(flow.getTensors());
}

} // namespace

struct ProposalQueue::Task {
    std::uint64_t seed;
    Place place;
    std::shared_ptr<const Flow> flow;
    std::shared_ptr<const ConstraintMetric> metric;
    std::shared_ptr<ProposalEnergies> energies; // null where they are not wanted
    ProposalEnergies::Conditions conditions;
    std::string description; // of the flow that was copied
    std::optional<Batch> batch = std::nullopt;

    [[nodiscard]] bool isOf(std::uint64_t otherSeed, const Place& other) const {
        return seed == otherSeed && place.index == other.index && place.size == other.size;
    }
    void run() {
        try {
            Batch drawn = draw(*flow, *metric, seed, place);
            drawn.proposals.ahead = true;
            if (energies != nullptr) {
                drawn.proposals.energy = energies->evaluate(drawn.proposals.samples.x, conditions);
                drawn.conditions = conditions;
            }
            batch = std::move(drawn);
        } catch (...) { // drawn, and thrown, where it is needed
        }
    }
};

ProposalQueue::~ProposalQueue() = default;

// Stream 0 is the one that decides the jumps; batch i has stream i.
ProposalQueue::Batch ProposalQueue::draw(const Flow& flow, const ConstraintMetric& metric, std::uint64_t seed,
                                         const Place& place) {
    const at::NoGradGuard noGrad;
    Random random(seed, place.index);
    Batch drawn;
    drawn.proposals.samples = flow.sample(place.size, random);
    drawn.proposals.metric = metric.halfLogDet(drawn.proposals.samples.x);
    return drawn;
}

void ProposalQueue::setFlow(std::shared_ptr<const Flow> newFlow, std::shared_ptr<const ConstraintMetric> newMetric) {
    flow = std::move(newFlow);
    metric = std::move(newMetric);
    canCopy = true;
    if (isDrawn())
        discard();
}

void ProposalQueue::discardIfFlowChanged() {
    std::string now = fingerprint(flow->getParameters());
    if (now == parameters)
        return;
    parameters = std::move(now);
    canCopy = true;
    if (isDrawn())
        discard();
}

void ProposalQueue::restore(std::uint64_t newSeed, const Place& newPlace) {
    seed = newSeed;
    place = newPlace;
    batch = {};
}

void ProposalQueue::stop() {
    thread.reset();
    task.reset();
    energies.reset();
}

Proposals ProposalQueue::take(std::int64_t count, ProposalPreparation preparation) {
    if (thread != nullptr && thread->isLost()) { // in a forked process
        thread.reset();
        task.reset();
        invalidateEnergies(); // their Context may have been at work
    }
    if (place.used + count > place.size) {
        place = {place.index + 1, batchSize(count), 0};
        batch = {};
    }
    if (!isDrawn())
        batch = obtain();
    if (preparation != ProposalPreparation::WhenNeeded)
        prepare({place.index + 1, batchSize(count), 0}, preparation == ProposalPreparation::AheadWithEnergies);
    const auto next = [&](const at::Tensor& rows) { return rows.narrow(0, place.used, count); };
    const auto& [samples, metrics, energy, ahead] = batch.proposals;
    const bool hasEnergies = energy.defined() && energies != nullptr && energies->areValid(batch.conditions);
    Proposals taken{{next(samples.z), next(samples.x), next(samples.logDet), next(samples.logQ)},
                    next(metrics),
                    hasEnergies ? next(energy) : at::Tensor(),
                    ahead};
    place.used += count;
    return taken;
}

// The batch of the present place: from the thread if that has been at it, or drawn now.
ProposalQueue::Batch ProposalQueue::obtain() {
    if (task != nullptr && task->isOf(seed, place) && task->description == describe(*flow)) {
        thread->wait();
        const std::shared_ptr<Task> done = std::exchange(task, nullptr);
        if (done->batch.has_value())
            return std::move(*done->batch);
    }
    return draw(*flow, *metric, seed, place);
}

void ProposalQueue::prepare(const Place& next, bool withEnergies) {
    if ((task != nullptr && task->isOf(seed, next)) || !canCopy)
        return;
    try {
        if (thread == nullptr)
            thread = std::make_unique<BackgroundThread>();
        if (thread->isBusy()) // with a batch that is not wanted any more
            return;
        std::string now = describe(*flow);
        if (copy == nullptr || now != description)
            copy = flow->clone();
        description = std::move(now);
    } catch (const std::exception&) { // no copy, or no thread, to be had: WhenNeeded does without
        canCopy = false;
        return;
    }
    withEnergies =
        withEnergies && energies != nullptr && energies->isValid() && energies->getAtoms() == flow->getAtoms();
    task = std::make_shared<Task>(Task{seed, next, copy, metric, withEnergies ? energies : nullptr,
                                       withEnergies ? energies->getConditions() : ProposalEnergies::Conditions(),
                                       description});
    thread->start([work = task] { work->run(); });
}
