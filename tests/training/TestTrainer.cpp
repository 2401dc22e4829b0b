// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/training/Trainer.h"
#include <filesystem>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** A curved, off-centre density of two variables whose entropy is known: x ~ N(1, 0.5^2), y ~ N(x^2, 0.3^2). */
struct Banana : ReducedPotential {
    [[nodiscard]] int getSize() const override { return 2; }
    [[nodiscard]] EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
        const at::AutoGradMode grad(true);
        const Tensor y = x.detach().clone().set_requires_grad(true);
        const Tensor a = (y.select(1, 0) - 1) / 0.5, b = (y.select(1, 1) - y.select(1, 0).square()) / 0.3;
        const Tensor u = 0.5 * (a.square() + b.square());
        EnergyResult result{u.detach(), {}, 0, 0};
        if (gradient == Gradient::Compute)
            result.gradient = torch::autograd::grad({u.sum()}, {y})[0];
        return result;
    }
    static Tensor sample(int n, std::uint64_t seed) {
        Random random(seed);
        const Tensor noise = random.normal(n, 2), x = 1 + 0.5 * noise.select(1, 0);
        return at::stack({x, x.square() + 0.3 * noise.select(1, 1)}, 1);
    }
    static double logZ() { return std::log(2 * M_PI * 0.5 * 0.3); }
    static double entropy() { return logZ() + 1; }
};

std::shared_ptr<Flow> makeFlow() {
    const auto spline = [](int active, std::uint64_t seed) {
        return std::make_shared<SplineCoupling>(2, std::vector<int>{active}, std::vector<int>{},
                                                SplineCoupling::Options{8, 5.0, {{32}, Activation::SiLU, seed}});
    };
    return std::make_shared<Flow>(
        std::make_shared<GaussianPrior>(2),
        std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
            spline(0, 1), spline(1, 2), spline(0, 3), spline(1, 4),
            std::make_shared<Scaling>(std::vector<double>{1, 1.25}, std::vector<double>{0.5, 1.1})}));
}

// KL(p|q) and KL(q|p), from exact samples of either side.
double forwardKL(const Flow& flow) {
    const at::NoGradGuard noGrad;
    return -Banana::entropy() - flow.logQ(Banana::sample(20000, 91)).mean().item<double>();
}

double reverseKL(const Flow& flow) {
    const at::NoGradGuard noGrad;
    Random random(92);
    const FlowSample sample = flow.sample(20000, random);
    return (Banana().evaluate(sample.x, Gradient::Omit).u + sample.logQ).mean().item<double>() + Banana::logZ();
}

Trainer::Options makeOptions(int iterations) {
    Trainer::Options options;
    options.iterations = iterations;
    options.learningRate = 5e-3;
    options.warmup = 10;
    options.seed = 4;
    return options;
}

std::shared_ptr<MaximumLikelihoodLoss> makeLikelihood(const std::shared_ptr<Flow>& flow) {
    auto loss = std::make_shared<MaximumLikelihoodLoss>(flow, MaximumLikelihoodLoss::Options{256, 0.1, 1});
    loss->addData(Banana::sample(20000, 7));
    return loss;
}

} // namespace

TEST(Trainer, MaximumLikelihoodReachesTheEntropy) {
    const auto flow = makeFlow();
    EXPECT_GT(forwardKL(*flow), 0.3);
    Trainer trainer(flow, makeOptions(600));
    trainer.addLoss(makeLikelihood(flow));
    const TrainingProgress progress = trainer.train(1000);
    EXPECT_EQ(progress.iteration, 600);
    EXPECT_LT(forwardKL(*flow), 0.02);
    EXPECT_NEAR(trainer.validate()[0], Banana::entropy(), 0.1); // 2,000 frames: standard error 0.022
}

TEST(Trainer, ReverseKLFindsTheDensityFromItsEnergy) {
    const auto flow = makeFlow();
    Trainer trainer(flow, makeOptions(600));
    trainer.addLoss(std::make_shared<ReverseKLLoss>(std::make_shared<Banana>(), ReverseKLLoss::Options{256, 1e3, 0.0}));
    trainer.train(600);
    EXPECT_LT(reverseKL(*flow), 0.02);
    EXPECT_TRUE(std::isnan(trainer.validate()[0]));
}

// Frames from a broader density, weighted to the target: the flow must learn the target, not the frames.
TEST(Trainer, WeightsMoveDataToTheTarget) {
    Random random(3);
    const Tensor noise = random.normal(60000, 2), x = 1 + 0.8 * noise.select(1, 0);
    const Tensor data = at::stack({x, x.square() + 0.5 * noise.select(1, 1)}, 1);
    const Tensor logWeight = -Banana().evaluate(data, Gradient::Omit).u + 0.5 * noise.square().sum(1);
    const auto flow = makeFlow();
    auto loss = std::make_shared<MaximumLikelihoodLoss>(flow, MaximumLikelihoodLoss::Options{256, 0.1, 1});
    loss->addData(data, logWeight);
    Trainer trainer(flow, makeOptions(600));
    trainer.addLoss(loss);
    trainer.train(600);
    EXPECT_LT(forwardKL(*flow), 0.03);
}

TEST(Loss, GradientsMeetFiniteDifferences) {
    const auto flow = makeFlow();
    randomiseParameters(*flow->getTransform(), 0.1);
    const std::vector<std::shared_ptr<Loss>> losses = {
        makeLikelihood(flow),
        std::make_shared<ReverseKLLoss>(std::make_shared<Banana>(), ReverseKLLoss::Options{64, 2.0, 0.1})};
    for (const auto& loss : losses) {
        const auto value = [&] {
            Random random(5); // the same batch each time
            return loss->evaluate(*flow, random);
        };
        std::vector<Tensor> parameters;
        for (const auto& [name, tensor] : flow->getParameters())
            parameters.push_back(tensor);
        const auto gradients = torch::autograd::grad({value()}, parameters);
        Random random(6);
        for (std::size_t i = 0; i < parameters.size(); i++) {
            const at::NoGradGuard noGrad;
            const Tensor direction = random.normal(1, parameters[i].numel()).reshape(parameters[i].sizes());
            const Tensor saved = parameters[i].clone();
            double sides[2];
            for (int side = 0; side < 2; side++) {
                parameters[i].copy_(saved + (side == 0 ? -1e-6 : 1e-6) * direction);
                const at::AutoGradMode grad(true); // energies differentiate
                sides[side] = value().item<double>();
            }
            parameters[i].copy_(saved);
            const double expected = (gradients[i] * direction).sum().item<double>();
            EXPECT_NEAR((sides[1] - sides[0]) / 2e-6, expected, 1e-5 * (1 + std::abs(expected)))
                << loss->getName() << " " << i;
        }
    }
}

TEST(Trainer, GoesOnFromACheckpointAsIfItHadNotStopped) {
    const std::string path = (std::filesystem::temp_directory_path() / "openmmflow-test-trainer.ckpt").string();
    const auto flow = makeFlow();
    Trainer whole(flow, makeOptions(40));
    whole.addLoss(makeLikelihood(flow));
    whole.train(20);
    whole.saveCheckpoint(path);
    whole.train(20);

    const auto other = makeFlow();
    Trainer rest(other, makeOptions(40));
    rest.addLoss(makeLikelihood(other));
    rest.loadCheckpoint(path);
    EXPECT_EQ(rest.getProgress().iteration, 20);
    rest.train(20);
    const NamedTensors a = flow->getParameters(), b = other->getParameters();
    for (std::size_t i = 0; i < a.size(); i++)
        EXPECT_TRUE(at::equal(a[i].second, b[i].second)) << a[i].first;

    Trainer different(makeFlow(), makeOptions(41));
    expectMessage([&] { different.loadCheckpoint(path); }, "iterations is 40, but must be those of this training, 41");
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    EXPECT_THROW(rest.loadCheckpoint(path), OpenMM::OpenMMException);
    std::filesystem::remove(path);
}

TEST(Trainer, FailsLoudlyWhenNothingIsFinite) {
    const auto flow = makeFlow();
    {
        const at::NoGradGuard noGrad;
        flow->getParameters()[0].second.fill_(NAN);
    }
    Trainer trainer(flow, makeOptions(40));
    trainer.addLoss(makeLikelihood(flow));
    expectMessage([&] { trainer.train(40); }, "number of steps in a row without a finite gradient is 10");
    EXPECT_EQ(trainer.getProgress().skipped, 10);
}

TEST(MaximumLikelihoodLoss, LeavesOutFramesThatCannotBeLearnt) {
    const auto flow = makeFlow();
    MaximumLikelihoodLoss loss(flow, {256, 0.1, 1});
    Tensor data = Banana::sample(100, 1);
    data[3][0] = NAN;
    data[50][1] = INFINITY;
    loss.addData(data);
    EXPECT_EQ(loss.getNumLeftOut(), 2);
    EXPECT_EQ(loss.getNumTraining() + loss.getNumValidation(), 98);
    loss.addData(Banana::sample(50, 2));
    EXPECT_EQ(loss.getNumTraining() + loss.getNumValidation(), 148);
    loss.clearData();
    Random random(1);
    expectMessage([&] { (void)loss.evaluate(*flow, random); },
                  "number of frames is 0, but must be at least 1: call addData");
}

TEST(Trainer, RefusesBadArguments) {
    const auto flow = makeFlow();
    const auto with = [&](auto change) {
        return [&flow, change] {
            Trainer::Options options;
            change(options);
            Trainer(flow, options);
        };
    };
    expectMessage(with([](auto& o) { o.iterations = 0; }), "iterations is 0");
    expectMessage(with([](auto& o) { o.learningRate = -1; }), "learningRate is -1");
    expectMessage(with([](auto& o) { o.gradientClip = 0; }), "gradientClip is 0");
    expectMessage([&] { Trainer(flow, {}).train(1); }, "number of losses is 0");
    expectMessage([&] { Trainer(flow, {}).addLoss(nullptr); }, "loss is null");
    expectMessage([&] { MaximumLikelihoodLoss(flow, {256, 1.0, 1}); }, "validationFraction is 1");
    expectMessage(
        [&] {
            MaximumLikelihoodLoss(flow, {256, 0.1, 1}).addData(at::zeros({3, 5}, at::kDouble));
        },
        "shape of x is [3, 5]");
    expectMessage([&] { ReverseKLLoss(nullptr, {}); }, "potential is null");
}
