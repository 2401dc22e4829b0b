// SPDX-License-Identifier: MIT
// Walkers on a device, with a flow there and energies by OpenMM, against the same on the processor.

#include "contracts/DeviceCases.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "openmmflow/samplers/LatentJump.h"
#include "openmmflow/samplers/LatentKernel.h"
#include "openmmflow/samplers/ReplicaExchange.h"
#include "openmmflow/samplers/SequentialSampler.h"
#include "openmmflow/samplers/StochasticFlow.h"
#include <ATen/ATen.h>
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr int numWalkers = 24;

std::shared_ptr<Flow> makeFlow(const std::string& device) {
    const auto coupling = [](int active) {
        return std::make_shared<SplineCoupling>(2, std::vector<int>{active}, std::vector<int>{},
                                                SplineCoupling::Options{6, 4.0, {{8}, Activation::SiLU, 3}});
    };
    Flow flow(std::make_shared<GaussianPrior>(2),
              std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
                  coupling(0), coupling(1),
                  std::make_shared<Scaling>(std::vector<double>{-0.5, 0.1}, std::vector<double>{1.8, 1.1})}));
    flow.setParameterType(at::kDouble);
    return flow.to(device);
}

/** A layer between stages. */
std::shared_ptr<Transform> makeLayer(const std::string& device) {
    const auto layer =
        std::make_shared<AffineCoupling>(2, std::vector<int>{0}, Conditioner::Options{{6}, Activation::SiLU, 4});
    Flow flow(std::make_shared<GaussianPrior>(2), layer);
    flow.setParameterType(at::kDouble);
    return flow.to(device)->getTransform();
}

using MakeKernel = std::function<std::shared_ptr<AnnealedKernel>(const std::shared_ptr<Flow>&)>;

const std::map<std::string, MakeKernel>& getKernels() {
    static const std::map<std::string, MakeKernel> kernels = {
        {"RandomWalk",
         [](const auto&) {
             return std::make_shared<RandomWalkKernel>(RandomWalkKernel::Options{0.4, 2, 0.3});
         }},
        {"Langevin",
         [](const auto&) {
             return std::make_shared<LangevinKernel>(LangevinKernel::Options{0.4, 2, 0.5});
         }},
        {"Hamiltonian",
         [](const auto&) {
             return std::make_shared<HamiltonianKernel>(HamiltonianKernel::Options{0.3, 3, 2, 0.6});
         }},
        {"GeneralizedHamiltonian",
         [](const auto&) {
             return std::make_shared<GeneralizedHamiltonianKernel>(
                 GeneralizedHamiltonianKernel::Options{0.3, 3, 2, 0.5, 0.6});
         }},
        {"Latent",
         [](const std::shared_ptr<Flow>& flow) {
             return std::make_shared<LatentKernel>(flow, LatentKernel::Options{JumpKind::PriorPreserving, 0.4, 2, 0.3});
         }},
    };
    return kernels;
}

void expectSame(const Tensor& found, const Tensor& expected) {
    EXPECT_EQ(found.device().type(), at::Device(getTestDevice()).type());
    EXPECT_TRUE(at::allclose(found.to(at::kCPU), expected, 1e-8, 1e-9));
}

class WalkersOnDevice : public testing::TestWithParam<std::string> {
public:
    /** The samples of each engine, moved by the kernel. */
    static std::map<std::string, AnnealedResult> run(const std::string& device) {
        const auto flow = makeFlow(device);
        const auto kernel = getKernels().at(GetParam())(flow);
        const auto path = std::make_shared<FlowPath>(flow, makeDevicePotential());
        Random random(7);
        const at::NoGradGuard noGrad;
        const Tensor start = flow->sample(numWalkers, random).x;
        std::map<std::string, AnnealedResult> results;
        results["importance"] = AnnealedSampler(path, kernel, AnnealedSampler::equalSteps(3)).run(start, random);
        SequentialSampler::Options options;
        options.numGroups = 2;
        options.resampleBelow = 1;
        results["sequential"] = SequentialSampler(path, kernel, {0, 0.5, 1}, options).run(start, random);
        results["sequential, stages at run time"] = SequentialSampler(path, kernel, {}, options).run(start, random);
        SequentialSampler transport(path, kernel, {0, 0.5, 1}, options);
        transport.setLayers({makeLayer(device), makeLayer(device)});
        results["transport"] = transport.run(start, random);
        results["exchange"] =
            ReplicaExchange(path, kernel, {0, 0.5, 1}, {1, 4, 2}).run(start.narrow(0, 0, 20), 20, random);
        StochasticFlow stochastic(path);
        stochastic.addTransform(makeLayer(device));
        stochastic.addMoves(kernel, 0.5, 1);
        results["stochastic"] = stochastic.run(start, random);
        return results;
    }
};

} // namespace

TEST_P(WalkersOnDevice, AreThoseOnTheProcessor) {
    const auto host = run("cpu"), device = run(getTestDevice());
    for (const auto& [name, expected] : host) {
        SCOPED_TRACE(name);
        const AnnealedResult& found = device.at(name);
        expectSame(found.x, expected.x);
        expectSame(found.logWeight, expected.logWeight);
        EXPECT_NEAR(found.logZRatio, expected.logZRatio, 1e-8);
        EXPECT_NEAR(found.logZRatioError, expected.logZRatioError, 1e-8);
        EXPECT_EQ(found.acceptance, expected.acceptance);
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, WalkersOnDevice, nameEach(getKernels()), [](const auto& info) { return info.param; });

TEST(LatentJumpOnDevice, IsThatOnTheProcessor) {
    const auto run = [](JumpKind kind, const std::string& device) {
        const auto flow = makeFlow(device);
        LatentJump::Options options;
        options.kind = kind;
        options.stepSize = 0.5;
        options.seed = 3;
        LatentJump jump(flow, makeDevicePotential(), options);
        Random random(5);
        JumpState state = jump.start(makeDeviceWell().sample(numWalkers, random).to(at::Device(device)));
        std::int64_t accepted = 0;
        for (int i = 0; i < 10; i++)
            accepted += jump.step(state).numAccepted;
        return std::pair(state, accepted);
    };
    for (const JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving, JumpKind::RandomWalk}) {
        const auto [expected, accepted] = run(kind, "cpu");
        const auto [found, acceptedThere] = run(kind, getTestDevice());
        EXPECT_EQ(acceptedThere, accepted);
        EXPECT_GT(accepted, 20);
        expectSame(found.x, expected.x);
        expectSame(found.u, expected.u);
        expectSame(found.logQ, expected.logQ);
    }
}
