// SPDX-License-Identifier: MIT
// Calls for callgrind to count, at batch 1, where what a call costs beside its arithmetic shows. Run by
// instructions.py.
//
// The flow is that of spline_flow.py: 60 variables, 8 spline couplings of 8 bins, networks of two layers of 128.

#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <cstdio>

using namespace OpenMMFlow;

namespace {

constexpr int size = 60, layers = 8, warmups = 3, calls = 10;

std::shared_ptr<Flow> makeFlow() {
    std::vector<std::shared_ptr<Transform>> transforms;
    for (int layer = 0; layer < layers; layer++) {
        std::vector<int> active;
        for (int i = layer % 2; i < size; i += 2)
            active.push_back(i);
        transforms.push_back(std::make_shared<SplineCoupling>(
            size, active, std::vector<int>{},
            SplineCoupling::Options{8, 5.0, {{128, 128}, Activation::SiLU, static_cast<std::uint64_t>(layer + 1)}}));
    }
    return std::make_shared<Flow>(std::make_shared<GaussianPrior>(size), std::make_shared<Sequence>(transforms));
}

} // namespace

// Their names tell callgrind what to count.
extern "C" {
__attribute__((noinline)) void measured_logQ(const Flow& flow, const at::Tensor& x) {
    for (int i = 0; i < calls; i++)
        (void)flow.logQ(x);
}
__attribute__((noinline)) void measured_gradient(const Flow& flow, const at::Tensor& x) {
    for (int i = 0; i < calls; i++)
        (void)flow.logQWithGradient(x);
}
__attribute__((noinline)) void measured_sample(const Flow& flow, Random& random) {
    for (int i = 0; i < calls; i++)
        (void)flow.sample(1, random);
}
}

int main() {
    at::set_num_threads(1);
    const at::NoGradGuard noGrad;
    Random random(1);
    const auto flow = makeFlow();
    const at::Tensor x = random.normal(1, size);
    for (int i = 0; i < warmups; i++) {
        (void)flow->logQ(x);
        (void)flow->logQWithGradient(x);
        (void)flow->sample(1, random);
    }
    measured_logQ(*flow, x);
    measured_gradient(*flow, x);
    measured_sample(*flow, random);
    std::printf("%d\n", calls);
    return 0;
}
