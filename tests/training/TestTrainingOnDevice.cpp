// SPDX-License-Identifier: MIT
// Training of a flow that is on a device, with energies by OpenMM, against the same on the processor.

#include "contracts/DeviceCases.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/ContinuousFlow.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "openmmflow/training/AlphaDivergenceLoss.h"
#include "openmmflow/training/AnnealedFlowTransport.h"
#include "openmmflow/training/FlowMatchingLoss.h"
#include "openmmflow/training/LatentAcceptanceLoss.h"
#include "openmmflow/training/PathGradientLoss.h"
#include "openmmflow/training/ReactionCoordinateEntropyLoss.h"
#include "openmmflow/training/ReweightedForwardKLLoss.h"
#include "openmmflow/training/SymmetricAcceptanceLoss.h"
#include "openmmflow/training/Trainer.h"
#include "openmmflow/training/WorkLoss.h"
#include <filesystem>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

Tensor makeFrames(std::uint64_t seed = 8) {
    Random random(seed);
    return makeDeviceWell().sample(60, random);
}

std::shared_ptr<Flow> makeFlow() {
    std::vector<std::shared_ptr<Transform>> transforms;
    for (int i = 0; i < 2; i++)
        transforms.push_back(std::make_shared<AffineCoupling>(
            2, std::vector<int>{i}, Conditioner::Options{{6}, Activation::SiLU, static_cast<std::uint64_t>(i + 1)}));
    transforms.push_back(std::make_shared<Scaling>(std::vector<double>{0.3, 0}, std::vector<double>{1.7, 1}));
    const auto flow =
        std::make_shared<Flow>(std::make_shared<GaussianPrior>(2), std::make_shared<Sequence>(transforms));
    randomiseParameters(*flow->getTransform(), 0.3);
    return flow;
}

/** A neural ODE. */
std::shared_ptr<Flow> makeContinuousFlow() {
    ContinuousFlow::Options options;
    options.field.network = {{6}, Activation::SiLU, 2};
    options.solver.method = OdeMethod::RungeKutta4;
    options.solver.steps = 3;
    const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(2),
                                             std::make_shared<ContinuousFlow>(2, std::vector<int>{}, options));
    randomiseParameters(*flow->getTransform(), 0.3);
    return flow;
}

std::shared_ptr<Flow> makeFlowFor(const std::string& loss) {
    return loss == "FlowMatching" || loss == "Hutchinson" ? makeContinuousFlow() : makeFlow();
}

template <class AcceptanceLoss>
std::shared_ptr<Loss> makeAcceptanceLoss(const std::shared_ptr<Flow>&) {
    typename AcceptanceLoss::Options options;
    options.batchSize = 20;
    auto loss = std::make_shared<AcceptanceLoss>(makeDevicePotential(), options);
    loss->addData(makeFrames());
    return loss;
}

using MakeLoss = std::function<std::shared_ptr<Loss>(const std::shared_ptr<Flow>&)>;

const std::map<std::string, MakeLoss>& getLosses() {
    static const std::map<std::string, MakeLoss> losses = {
        {"MaximumLikelihood",
         [](const std::shared_ptr<Flow>& flow) {
             auto loss = std::make_shared<MaximumLikelihoodLoss>(flow, MaximumLikelihoodLoss::Options{20, 0.2, 1});
             loss->addData(makeFrames());
             return loss;
         }},
        {"Hutchinson",
         [](const std::shared_ptr<Flow>& flow) {
             auto loss = std::make_shared<MaximumLikelihoodLoss>(flow, MaximumLikelihoodLoss::Options{20, 0.2, 1, 2});
             loss->addData(makeFrames());
             return loss;
         }},
        {"FlowMatching",
         [](const std::shared_ptr<Flow>& flow) {
             FlowMatchingLoss::Options options;
             options.batchSize = 20;
             options.coupling = FlowMatchingCoupling::OptimalTransport;
             auto loss = std::make_shared<FlowMatchingLoss>(flow, options);
             loss->addData(makeFrames());
             return loss;
         }},
        {"ReverseKL",
         [](const auto&) {
             return std::make_shared<ReverseKLLoss>(makeDevicePotential(), ReverseKLLoss::Options{20});
         }},
        {"PathGradient",
         [](const auto&) {
             return std::make_shared<PathGradientLoss>(makeDevicePotential(), ReverseKLLoss::Options{20});
         }},
        {"ReweightedForwardKL",
         [](const auto&) {
             return std::make_shared<ReweightedForwardKLLoss>(makeDevicePotential(),
                                                              ReweightedForwardKLLoss::Options{20, 0.2});
         }},
        {"ReactionCoordinateEntropy",
         [](const auto&) {
             return std::make_shared<ReactionCoordinateEntropyLoss>([](const Tensor& x) { return x.select(1, 0); },
                                                                    ReactionCoordinateEntropyLoss::Options{20, 0.3, 0});
         }},
        {"LatentAcceptance", makeAcceptanceLoss<LatentAcceptanceLoss>},
        {"SymmetricAcceptance", makeAcceptanceLoss<SymmetricAcceptanceLoss>},
        {"AlphaDivergence",
         [](const auto&) {
             AlphaDivergenceLoss::Options options;
             options.batchSize = 20;
             options.numStages = 2;
             options.kernel = {0.3, 3, 1, 0.65};
             options.bufferCapacity = 100;
             options.minimumPoints = 40;
             return std::make_shared<AlphaDivergenceLoss>(makeDevicePotential(), options);
         }},
        {"Work",
         [](const auto&) {
             WorkLoss::Options options;
             options.batchSize = 20;
             return std::make_shared<WorkLoss>(makeDevicePotential(), makeDevicePotential(), makeFrames(1),
                                               makeFrames(2), options);
         }},
    };
    return losses;
}

class TrainingOnDevice : public testing::TestWithParam<std::string> {};

} // namespace

// On the device, it goes on from a checkpoint on the way.
TEST_P(TrainingOnDevice, IsThatOnTheProcessor) {
    const std::string file = (std::filesystem::temp_directory_path() / ("openmmflow-device-" + GetParam())).string();
    const auto makeTrainer = [](const std::shared_ptr<Flow>& flow) {
        Trainer::Options options;
        options.iterations = 5;
        options.learningRate = 0.01;
        options.warmup = 0;
        options.seed = 4;
        auto trainer = std::make_unique<Trainer>(flow, options);
        trainer->addLoss(getLosses().at(GetParam())(flow));
        return trainer;
    };
    const auto host = makeFlowFor(GetParam()), first = host->to(getTestDevice()), device = host->to(getTestDevice());
    makeTrainer(host)->train(5);
    const auto interrupted = makeTrainer(first), trainer = makeTrainer(device);
    const double heldOut = interrupted->validate()[0],
                 heldOutHere = makeTrainer(makeFlowFor(GetParam()))->validate()[0];
    EXPECT_TRUE(std::isnan(heldOut) ? std::isnan(heldOutHere) : std::abs(heldOut - heldOutHere) < 1e-9);
    interrupted->train(2);
    interrupted->saveCheckpoint(file);
    trainer->loadCheckpoint(file);
    trainer->train(5);
    std::filesystem::remove(file);
    const NamedTensors start = makeFlowFor(GetParam())->getParameters(), expected = host->getParameters(),
                       found = device->getParameters();
    double change = 0;
    for (std::size_t i = 0; i < found.size(); i++) {
        EXPECT_EQ(found[i].second.device().type(), at::Device(getTestDevice()).type());
        EXPECT_LE(relativeDifference(found[i].second.to(at::kCPU), expected[i].second), 1e-9) << found[i].first;
        change = std::max(change, relativeDifference(expected[i].second, start[i].second));
    }
    EXPECT_GT(change, 0.01);
}

TEST(TransportOnDevice, IsTrainedAsOnTheProcessor) {
    const auto train = [](const std::string& device) {
        const auto flow = makeFlow()->to(device);
        const auto sampler = std::make_shared<SequentialSampler>(
            std::make_shared<FlowPath>(flow, makeDevicePotential()),
            std::make_shared<HamiltonianKernel>(HamiltonianKernel::Options{0.2, 3, 1, 0.65}),
            std::vector<double>{0, 0.5, 1}, SequentialSampler::Options{0.5, 2, 0.9, 100});
        sampler->setLayers({makeFlow()->to(device)->getTransform(), makeFlow()->to(device)->getTransform()});
        AnnealedFlowTransport training(sampler, std::make_shared<GaussianPrior>(2), {20, 0.01, 100, 1, 3});
        return training.train(3);
    };
    const TransportProgress expected = train("cpu"), found = train(getTestDevice());
    EXPECT_EQ(found.skipped, 0);
    for (std::size_t i = 0; i < 2; i++)
        EXPECT_NEAR(found.losses[i], expected.losses[i], 1e-8 * (1 + std::abs(expected.losses[i])));
}

INSTANTIATE_TEST_SUITE_P(Losses, TrainingOnDevice, nameEach(getLosses()), [](const auto& info) { return info.param; });
