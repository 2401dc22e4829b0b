// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Architectures.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/Lattice.h"
#include "openmmflow/latent/Random.h"
#include <functional>
#include <limits>

using namespace OpenMMFlow;

namespace {

using MakeCoupling =
    std::function<std::shared_ptr<Transform>(std::vector<int> active, const Conditioner::Options& options)>;

// Couplings of the even- and of the odd-numbered variables or sites in turn, each with a seed of its own.
void appendCouplings(std::vector<std::shared_ptr<Transform>>& transforms, int size, int layers,
                     Conditioner::Options options, const MakeCoupling& make) {
    const Lattice lattice(options.extents.empty() ? std::vector<int>{size} : options.extents);
    const std::vector<int> even = lattice.getCheckerboard(false), odd = lattice.getCheckerboard(true);
    Random random(options.seed);
    for (int layer = 0; layer < layers; layer++)
        for (const auto& active : {even, odd}) {
            options.seed = 1 + static_cast<std::uint64_t>(random.integer(std::numeric_limits<std::int64_t>::max()));
            transforms.push_back(make(active, options));
        }
}

} // namespace

std::shared_ptr<Sequence> OpenMMFlow::makeNICER(int size, const NICEROptions& options) {
    require(size >= 2, "makeNICER", "size", size, "at least 2");
    require(options.layers >= 1, "makeNICER", "layers", options.layers, "at least 1");
    std::vector<std::shared_ptr<Transform>> transforms;
    if (options.scaling == ScalingLayer::Learned)
        transforms.push_back(std::make_shared<LearnedScaling>(size));
    else
        transforms.push_back(std::make_shared<ExpScaling>(size));
    appendCouplings(transforms, size, options.layers, options.conditioner, [&](auto active, const auto& conditioner) {
        return std::make_shared<AdditiveCoupling>(size, active, conditioner, options.odd);
    });
    return std::make_shared<Sequence>(transforms);
}

std::shared_ptr<Sequence> OpenMMFlow::makeRealNVP(int size, int layers, const RealNVPOptions& options) {
    require(size >= 2, "makeRealNVP", "size", size, "at least 2");
    require(layers >= 1, "makeRealNVP", "layers", layers, "at least 1");
    std::vector<std::shared_ptr<Transform>> transforms;
    appendCouplings(transforms, size, layers, options.conditioner, [&](auto active, const auto& conditioner) {
        return std::make_shared<AffineCoupling>(size, active, conditioner, options.scaleBound, options.odd);
    });
    return std::make_shared<Sequence>(transforms);
}
