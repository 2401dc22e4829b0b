#ifndef OPENMMFLOW_TRAINING_LOSSTOOLS_H_
#define OPENMMFLOW_TRAINING_LOSSTOOLS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ContextPotential.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/training/Loss.h"
#include <ATen/ATen.h>
#include <future>

namespace OpenMMFlow {

/** u, and cut + ln(u - cut + 1) above the cut. */
inline at::Tensor softenEnergy(const at::Tensor& u, double cut) {
    return at::where(u > cut, cut + at::log1p(at::clamp_min(u - cut, 0.0)), u);
}

/** The mean of those values that are finite. Throws if there is none. */
inline at::Tensor meanOfFinite(const at::Tensor& values, const char* where) {
    const at::Tensor rows = values.isfinite().nonzero().squeeze(1);
    require(rows.size(0) > 0, where, "number of samples with a finite energy", 0, "larger: train on data first");
    return values.index_select(0, rows).mean();
}

/**
 * Begin to evaluate energies, without a graph, beside what the caller does meanwhile with the flow. Those of a System,
 * that is: another potential may have parts in common with the flow, and waits until it is asked for.
 */
inline std::future<EnergyResult> startEnergies(ReducedPotential& potential, const at::Tensor& x) {
    const bool apart = dynamic_cast<const ContextPotential*>(&potential) != nullptr;
    return std::async(apart ? std::launch::async | std::launch::deferred : std::launch::deferred, [&potential, x] {
        const at::NoGradGuard noGrad;
        return potential.evaluate(x);
    });
}

/** Evaluate frames and add those that have an energy, on the processor. */
inline void addFrames(ReducedPotential& potential, const at::Tensor& x, const char* where, at::Tensor& frames,
                      at::Tensor& energies) {
    require(x.dim() == 2 && x.size(1) == potential.getSize() && x.size(0) > 0, where, "shape of x", x.sizes(),
            "[frames, " + std::to_string(potential.getSize()) + "]");
    const at::Tensor added = x.detach().to(at::kCPU, at::kDouble), u = potential.evaluate(added).u;
    const at::Tensor rows = u.isfinite().nonzero().squeeze(1);
    require(rows.size(0) > 0, where, "number of frames with a finite energy", 0, "at least 1");
    const auto join = [&rows](const at::Tensor& old, const at::Tensor& all) {
        const at::Tensor fine = all.index_select(0, rows);
        return old.defined() ? at::cat({old, fine}) : fine;
    };
    frames = join(frames, added);
    energies = join(energies, u);
}

/** Rows of frames for a batch, uniformly. @return int64 [count] */
inline at::Tensor drawRows(std::int64_t count, std::int64_t numFrames, Random& random) {
    return (random.uniform(1, count).squeeze(0) * static_cast<double>(numFrames)).to(at::kLong);
}

/** Some rows, on the device of a flow. @param rows  int64, on that of the tensor */
inline at::Tensor takeRows(const at::Tensor& tensor, const at::Tensor& rows, const Flow& flow) {
    return tensor.index_select(0, rows).to(at::Device(flow.getDevice()));
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TRAINING_LOSSTOOLS_H_*/
