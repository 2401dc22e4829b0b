// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/training/FlowMatchingLoss.h"
#include "openmmflow/training/Trainer.h"
#include <numeric>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

std::shared_ptr<Transform> makeContinuous(int size, std::vector<int> circular, std::vector<int> hiddenSizes,
                                          double tolerance = 1e-5) {
    const OdeOptions solver{OdeMethod::DormandPrince, 1, tolerance, tolerance, 1000};
    return std::make_shared<ContinuousFlow>(
        size, std::move(circular), ContinuousFlow::Options{solver, {{std::move(hiddenSizes), Activation::SiLU, 3}}});
}

std::shared_ptr<Flow> makeFlow(std::vector<std::shared_ptr<Transform>> transforms,
                               std::shared_ptr<Prior> prior = std::make_shared<GaussianPrior>(2)) {
    return std::make_shared<Flow>(std::move(prior), std::make_shared<Sequence>(std::move(transforms)));
}

/** Two Gaussians of unequal weight, width and place: 0.7 N((-1.5, 0.5), 0.4^2) + 0.3 N((1, -1), 0.6^2). */
struct Mixture {
    static Tensor sample(int n, std::uint64_t seed) {
        Random random(seed);
        const Tensor noise = random.normal(n, 2), left = (random.uniform(1, n)[0] < 0.7).unsqueeze(1);
        return at::where(left, center(-1.5, 0.5) + 0.4 * noise, center(1.0, -1.0) + 0.6 * noise);
    }
    static Tensor logDensity(const Tensor& x) {
        const auto part = [&](double weight, const Tensor& middle, double sigma) {
            return std::log(weight / (2 * M_PI * sigma * sigma)) - 0.5 * ((x - middle) / sigma).square().sum(1);
        };
        return at::logaddexp(part(0.7, center(-1.5, 0.5), 0.4), part(0.3, center(1.0, -1.0), 0.6));
    }
    static Tensor center(double x, double y) { return at::tensor({x, y}, at::kDouble); }
};

double averageOf(const Tensor& values) {
    return values.mean().item<double>();
}

} // namespace

static void trainOnMixture(FlowMatchingCoupling coupling) {
    const bool independent = coupling == FlowMatchingCoupling::Independent;
    const auto flow =
        makeFlow({makeContinuous(2, {}, {64, 64}),
                  std::make_shared<Scaling>(std::vector<double>{-0.7, 0.0}, std::vector<double>{1.3, 0.8})});
    const auto loss =
        std::make_shared<FlowMatchingLoss>(flow, FlowMatchingLoss::Options{independent ? 256 : 128, 0.05, 1, coupling});
    loss->addData(Mixture::sample(20000, 7));
    Trainer::Options options;
    options.iterations = independent ? 2000 : 2500;
    options.learningRate = 5e-3;
    options.warmup = 10;
    options.seed = 4;
    Trainer trainer(flow, options);
    trainer.addLoss(loss);
    const double before = trainer.validate()[0];
    trainer.train(options.iterations);
    if (independent) { // the coupling that validate() has
        EXPECT_LT(trainer.validate()[0], 0.8 * before);
    }
    // KL(data | flow) from one set of samples: the entropy's own noise drops out.
    const at::NoGradGuard noGrad;
    const Tensor x = Mixture::sample(2000, 91);
    const Tensor difference = Mixture::logDensity(x) - flow->logQ(x);
    EXPECT_LT(averageOf(difference), 0.05);
    EXPECT_GT(averageOf(difference), -4 * difference.std().item<double>() / std::sqrt(2000.0));
    std::printf("KL %.4f nat\n", averageOf(difference));
}

TEST(FlowMatchingLoss, TrainsAFlowToTheEntropyOfAMixture) {
    trainOnMixture(FlowMatchingCoupling::Independent);
}

TEST(SlowFlowMatchingLoss, TrainsAFlowToTheEntropyOfAMixtureByOptimalTransport) {
    trainOnMixture(FlowMatchingCoupling::OptimalTransport);
}

TEST(FlowMatchingLoss, GradientMeetsFiniteDifferences) {
    const auto prior = std::make_shared<ProductPrior>(std::vector<std::shared_ptr<Prior>>{
        std::make_shared<GaussianPrior>(1), std::make_shared<UniformTorusPrior>(1)});
    for (const auto coupling : {FlowMatchingCoupling::Independent, FlowMatchingCoupling::OptimalTransport}) {
        const auto flow = makeFlow({makeContinuous(2, {1}, {5})}, prior);
        randomiseParameters(*flow->getTransform(), 0.5);
        FlowMatchingLoss loss(flow, {32, 0.1, 1, coupling});
        loss.addData(Mixture::sample(100, 7));
        const auto value = [&] {
            Random random(5);
            return loss.evaluate(*flow, random);
        };
        std::vector<Tensor> parameters;
        for (const auto& [name, tensor] : flow->getParameters())
            parameters.push_back(tensor);
        const auto gradients = torch::autograd::grad({value()}, parameters);
        Random random(6);
        const at::NoGradGuard noGrad;
        for (std::size_t i = 0; i < parameters.size(); i++) {
            const Tensor direction = random.normal(1, parameters[i].numel()).reshape(parameters[i].sizes());
            const Tensor saved = parameters[i].clone();
            parameters[i].copy_(saved + 1e-6 * direction);
            const double above = value().item<double>();
            parameters[i].copy_(saved - 1e-6 * direction);
            const double below = value().item<double>(), expected = (gradients[i] * direction).sum().item<double>();
            parameters[i].copy_(saved);
            EXPECT_NEAR((above - below) / 2e-6, expected, 1e-5 * (1 + std::abs(expected))) << i;
        }
    }
}

// The field is zero at the start: J_FM = E|d|^2. With a uniform prior on the circle, d to any point is uniform too:
// pi^2 / 3, wherever the data are.
TEST(FlowMatchingLoss, PathsOnACircleTakeTheShorterWay) {
    const auto flow = makeFlow({makeContinuous(1, {0}, {3})}, std::make_shared<UniformTorusPrior>(1));
    FlowMatchingLoss loss(flow, {40000, 0.0, 1});
    loss.addData(at::full({10, 1}, 2.5, at::kDouble));
    Random random(5);
    const double standardError = M_PI * M_PI * std::sqrt(1.0 / 5 - 1.0 / 9) / std::sqrt(40000.0);
    EXPECT_NEAR(loss.evaluate(*flow, random).item<double>(), M_PI * M_PI / 3, 4 * standardError);
}

// Behind a Scaling, d = (x - shift)/scale - z; frames are drawn by their weights: E|d|^2 = 1 + (3 a^2 + b^2)/4.
TEST(FlowMatchingLoss, InvertsFixedTransformsAndWeighsFrames) {
    const auto flow = makeFlow(
        {makeContinuous(1, {}, {3}), std::make_shared<Scaling>(std::vector<double>{5.0}, std::vector<double>{-2.0})},
        std::make_shared<GaussianPrior>(1));
    FlowMatchingLoss loss(flow, {40000, 0.0, 1});
    const double a = -1, b = 2; // the frames, in front of the Scaling
    loss.addData(at::tensor({5 - 2 * a, 5 - 2 * b}, at::kDouble).unsqueeze(1),
                 at::tensor({std::log(3.0), 0.0}, at::kDouble));
    EXPECT_TRUE(std::isnan(loss.validate(*flow)));
    Random random(5);
    // The variance of d^2 for normal d of mean m is 2 + 4 m^2; the mean over the frames adds the variance of a^2 and
    // b^2.
    const double variance = 2 + 4 * (3 * a * a + b * b) / 4 + 9.0 * 3 / 16;
    EXPECT_NEAR(loss.evaluate(*flow, random).item<double>(), 1 + (3 * a * a + b * b) / 4,
                4 * std::sqrt(variance / 40000));
}

TEST(FlowMatchingLoss, ValidatesAtFixedTimesAndLatentVariables) {
    const auto flow = makeFlow({makeContinuous(1, {}, {3})}, std::make_shared<GaussianPrior>(1));
    FlowMatchingLoss loss(flow, {256, 0.5, 1});
    loss.addData(at::full({8000, 1}, 1.5, at::kDouble));
    EXPECT_EQ(loss.getNumValidation(), 4000);
    const double value = loss.validate(*flow);
    EXPECT_EQ(loss.validate(*flow), value);
    EXPECT_NEAR(value, 1 + 1.5 * 1.5, 4 * std::sqrt((2 + 4 * 1.5 * 1.5) / 4000));
}

TEST(FlowMatchingLoss, OptimalTransportIsTheBestOfAllPermutations) {
    Random random(11);
    for (int repeat = 0; repeat < 20; repeat++) {
        const Tensor z = 2 * random.normal(6, 2), y = 2 * random.normal(6, 2);
        const auto cost = [&](const std::vector<std::int64_t>& order) {
            const Tensor d = y.index_select(0, at::tensor(order, at::kLong)) - z;
            const Tensor turned = d.select(1, 1).sin().atan2(d.select(1, 1).cos());
            return (d.select(1, 0).square() + turned.square()).sum().item<double>();
        };
        std::vector<std::int64_t> order(6);
        std::iota(order.begin(), order.end(), 0);
        double best = INFINITY;
        do
            best = std::min(best, cost(order));
        while (std::next_permutation(order.begin(), order.end()));
        const Tensor found = FlowMatchingLoss::findOptimalTransport(z, y, {1});
        EXPECT_TRUE(at::equal(std::get<0>(found.sort()), at::arange(6)));
        EXPECT_NEAR(cost({found.const_data_ptr<std::int64_t>(), found.const_data_ptr<std::int64_t>() + 6}), best,
                    1e-12);
    }
}

TEST(MaximumLikelihoodLoss, HutchinsonsEstimateIsForTrainingOnly) {
    const auto flow = makeFlow({makeContinuous(2, {}, {8}, 1e-6)});
    randomiseParameters(*flow->getTransform(), 0.6);
    const Tensor data = Mixture::sample(1, 3).expand({64, 2});
    const auto make = [&](int probes) {
        MaximumLikelihoodLoss loss(flow, {64, 0.5, 1, probes});
        loss.addData(data);
        return loss;
    };
    MaximumLikelihoodLoss exact = make(0), estimated = make(1);
    Random random(5);
    const at::NoGradGuard noGrad;
    const double value = exact.evaluate(*flow, random).item<double>();
    std::vector<double> estimates;
    for (int i = 0; i < 100; i++)
        estimates.push_back(estimated.evaluate(*flow, random).item<double>());
    const Tensor all = at::tensor(estimates, at::kDouble);
    const double standardError = all.std().item<double>() / 10;
    EXPECT_GT(standardError, 1e-5); // a random estimate it is
    EXPECT_NEAR(averageOf(all), value, 4 * standardError);
    EXPECT_EQ(estimated.validate(*flow), exact.validate(*flow));
}

TEST(FlowMatchingLoss, RefusesBadArguments) {
    const auto continuous = makeContinuous(2, {}, {3});
    const auto coupling = std::make_shared<AffineCoupling>(2, std::vector<int>{0});
    expectMessage([] { FlowMatchingLoss(nullptr, {}); }, "FlowMatchingLoss::FlowMatchingLoss: flow is null");
    expectMessage([&] { FlowMatchingLoss(makeFlow({continuous}), {0}); }, "batchSize is 0");
    expectMessage([&] { FlowMatchingLoss(makeFlow({coupling}), {}); },
                  "the first transform is AffineCoupling, but must be a ContinuousFlow");
    expectMessage(
        [&] {
            FlowMatchingLoss(makeFlow({continuous, coupling}), {});
        },
        "number of transforms up to the last one with parameters is 2, but must be 1");
    expectMessage([&] { FlowMatchingLoss(makeFlow({makeContinuous(2, {1}, {3})}), {}); },
                  "number of circular variables of the ContinuousFlow is 1, but must be those of the prior");
    Random random(1);
    const auto flow = makeFlow({continuous});
    expectMessage([&] { (void)FlowMatchingLoss(flow, {}).evaluate(*flow, random); },
                  "FlowMatchingLoss::evaluate: number of frames is 0");
    expectMessage(
        [&] {
            FlowMatchingLoss(flow, {}).addData(at::zeros({3, 5}, at::kDouble));
        },
        "FlowMatchingLoss::addData: shape of x is [3, 5]");
    expectMessage(
        [&] {
            MaximumLikelihoodLoss(makeFlow({coupling}), {256, 0.1, 1, 2});
        },
        "divergenceProbes is 2, but must be 0 for a flow without a ContinuousFlow");
}
