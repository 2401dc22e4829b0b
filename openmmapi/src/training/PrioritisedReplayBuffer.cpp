// SPDX-License-Identifier: MIT

#include "openmmflow/training/PrioritisedReplayBuffer.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <map>

using namespace OpenMMFlow;
using at::Tensor;

PrioritisedReplayBuffer::PrioritisedReplayBuffer(std::int64_t capacity) : capacity(capacity) {
    require(capacity >= 1, "PrioritisedReplayBuffer::PrioritisedReplayBuffer", "capacity", capacity, "at least 1");
}

std::int64_t PrioritisedReplayBuffer::getSize() const {
    return x.defined() ? x.size(0) : 0;
}

Tensor PrioritisedReplayBuffer::getLogWeights() const {
    return logWeight.defined() ? logWeight.clone() : at::empty({0}, at::kDouble);
}

NamedTensors PrioritisedReplayBuffer::getState() const {
    if (getSize() == 0)
        return {};
    return {{"x", x}, {"logWeight", logWeight}, {"logQ", logQ}, {"oldest", at::tensor({oldest}, at::kLong)}};
}

void PrioritisedReplayBuffer::setState(const NamedTensors& state) {
    const char* where = "PrioritisedReplayBuffer::setState";
    const std::map<std::string, Tensor> named(state.begin(), state.end());
    if (named.empty()) {
        x = logWeight = logQ = Tensor();
        oldest = 0;
        return;
    }
    const auto find = [&](const std::string& name, at::ScalarType type, std::int64_t dimensions) {
        const auto found = named.find(name);
        require(found != named.end() && found->second.scalar_type() == type && found->second.dim() == dimensions, where,
                name, found == named.end() ? "missing" : "of another shape or dtype", "that of a buffer");
        return found->second;
    };
    const Tensor newX = find("x", at::kDouble, 2), newLogWeight = find("logWeight", at::kDouble, 1),
                 newLogQ = find("logQ", at::kDouble, 1), newOldest = find("oldest", at::kLong, 1);
    const std::int64_t size = newX.size(0);
    require(size >= 1 && size <= capacity && newLogWeight.size(0) == size && newLogQ.size(0) == size, where,
            "number of points", size, "at least 1, that of weights and log q, and at most " + std::to_string(capacity));
    require(newOldest.size(0) == 1, where, "size of oldest", newOldest.size(0), "1");
    const auto row = newOldest.item<std::int64_t>();
    require(row >= 0 && row < (size == capacity ? capacity : 1), where, "oldest", row, "a row of a full buffer, or 0");
    x = newX.clone();
    logWeight = newLogWeight.clone();
    logQ = newLogQ.clone();
    oldest = row;
}

void PrioritisedReplayBuffer::add(const Tensor& newX, const Tensor& newLogWeight, const Tensor& newLogQ) {
    const char* where = "PrioritisedReplayBuffer::add";
    require(newX.dim() == 2 && (!x.defined() || newX.size(1) == x.size(1)), where, "shape of x", newX.sizes(),
            x.defined() ? "[points, " + std::to_string(x.size(1)) + "]" : "[points, size]");
    for (const auto& [name, tensor] : {std::pair("logWeight", newLogWeight), std::pair("logQ", newLogQ)})
        require(tensor.dim() == 1 && tensor.size(0) == newX.size(0), where, std::string("shape of ") + name,
                tensor.sizes(), "[points]");
    const at::NoGradGuard noGrad;
    Tensor rows = (newLogWeight.isfinite() & newLogQ.isfinite()).nonzero().squeeze(1);
    if (rows.size(0) > capacity)
        rows = rows.narrow(0, rows.size(0) - capacity, capacity);
    // First what there is room for, then in place of the oldest, around the end.
    const std::int64_t count = rows.size(0), room = std::min(count, capacity - getSize());
    const Tensor target = (at::arange(count - room, at::kLong) + oldest).remainder(capacity);
    const auto store = [&](Tensor& kept, const Tensor& all) {
        const Tensor added = all.detach().to(at::kDouble).index_select(0, rows);
        const Tensor first = added.narrow(0, 0, room), rest = added.narrow(0, room, count - room);
        kept = (kept.defined() ? at::cat({kept, first}) : first.clone()).index_copy(0, target, rest);
    };
    store(x, newX);
    store(logWeight, newLogWeight);
    store(logQ, newLogQ);
    oldest = (oldest + count - room) % capacity;
}

ReplayDraw PrioritisedReplayBuffer::draw(std::int64_t count, Random& random) const {
    const char* where = "PrioritisedReplayBuffer::draw";
    require(count >= 1, where, "count", count, "at least 1");
    require(getSize() > 0, where, "number of points", getSize(), "at least 1");
    const Tensor cumulative = (logWeight - logWeight.max()).exp().cumsum(0);
    const Tensor rows = at::searchsorted(cumulative, random.uniform(1, count).squeeze(0) * cumulative[-1]);
    return {rows, x.index_select(0, rows), logQ.index_select(0, rows)};
}

void PrioritisedReplayBuffer::update(const Tensor& rows, const Tensor& newLogQ) {
    require(rows.dim() == 1 && newLogQ.dim() == 1 && rows.size(0) == newLogQ.size(0), "PrioritisedReplayBuffer::update",
            "shape of logQ", newLogQ.sizes(), "that of rows");
    const at::NoGradGuard noGrad;
    const Tensor old = logQ.index_select(0, rows), given = newLogQ.detach().to(at::kDouble);
    const Tensor current = at::where(given.isfinite(), given, old);
    logWeight = logWeight.index_copy(0, rows, logWeight.index_select(0, rows) + old - current);
    logQ = logQ.index_copy(0, rows, current);
}
