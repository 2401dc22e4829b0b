// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/estimators/FreeEnergy.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/samplers/TransformedPotential.h"
#include "openmmflow/training/Trainer.h"
#include "openmmflow/training/WorkLoss.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** u = sum_i K_i (x_i - m_i)^2/2, and no energy where x_0 > wall. */
struct Springs : ReducedPotential {
    Springs(std::vector<double> newK, std::vector<double> newMiddle, double newWall = INFINITY)
        : k(at::tensor(newK, at::kDouble)), middle(at::tensor(newMiddle, at::kDouble)), wall(newWall) {}
    [[nodiscard]] int getSize() const override { return static_cast<int>(k.size(0)); }
    [[nodiscard]] EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
        const Tensor y = x.detach() - middle, inside = x.detach().select(1, 0) <= wall;
        const Tensor u = at::where(inside, 0.5 * (k * y.square()).sum(1), at::full({x.size(0)}, INFINITY, at::kDouble));
        EnergyResult result{u, {}, 0, 0};
        if (gradient == Gradient::Compute)
            result.gradient = k * y * inside.unsqueeze(1);
        return result;
    }
    [[nodiscard]] Tensor sample(std::int64_t count, Random& random) const {
        return middle + random.normal(count, getSize()) / k.sqrt();
    }
    /** F = -ln Z */
    [[nodiscard]] double freeEnergy() const { return 0.5 * (k / (2 * M_PI)).log().sum().item<double>(); }
    Tensor k, middle;
    double wall;
};

std::shared_ptr<Springs> makeA() {
    return std::make_shared<Springs>(std::vector<double>{1.0, 2.0}, std::vector<double>{0.3, -0.5});
}
std::shared_ptr<Springs> makeB() {
    return std::make_shared<Springs>(std::vector<double>{3.0, 0.5}, std::vector<double>{-0.7, 1.1});
}

/** The map that carries A to B: x -> m_B + sqrt(K_A/K_B) (x - m_A). */
std::shared_ptr<Transform> makeExactMap(const Springs& a, const Springs& b) {
    const Tensor scale = (a.k / b.k).sqrt(), shift = b.middle - scale * a.middle;
    const auto list = [](const Tensor& t) { return std::vector<double>{t[0].item<double>(), t[1].item<double>()}; };
    return std::make_shared<Scaling>(list(shift), list(scale));
}

/** A flow for its transform: the prior is not used. */
std::shared_ptr<Flow> asFlow(std::shared_ptr<Transform> map) {
    return std::make_shared<Flow>(std::make_shared<GaussianPrior>(2), std::move(map));
}

std::shared_ptr<Flow> makeCouplings(int layers) {
    std::vector<std::shared_ptr<Transform>> transforms;
    for (int i = 0; i < layers; i++)
        transforms.push_back(std::make_shared<AffineCoupling>(
            2, std::vector<int>{i % 2},
            Conditioner::Options{{16}, Activation::SiLU, static_cast<std::uint64_t>(i + 1)}));
    return asFlow(std::make_shared<Sequence>(transforms));
}

std::vector<double> toVector(const Tensor& t) {
    return {t.const_data_ptr<double>(), t.const_data_ptr<double>() + t.numel()};
}

} // namespace

TEST(WorkLoss, IsZeroForTheMapThatCarriesOneStateToTheOther) {
    const auto a = makeA(), b = makeB();
    Random random(1);
    WorkLoss loss(a, b, a->sample(50, random), b->sample(70, random), {.batchSize = 20, .validationFraction = 0.2});
    const auto map = asFlow(makeExactMap(*a, *b));
    EXPECT_NEAR(loss.evaluate(*map, random).item<double>(), 0.0, 1e-12);
    EXPECT_NEAR(loss.validate(*map), 0.0, 1e-12);
}

TEST(WorkLoss, OfTheIdentityIsTheSumOfBothDivergences) {
    // KL(A|B) + KL(B|A) of normal densities: sum of (r + 1/r)/2 - 1 + (K_A + K_B) d^2/2, r = K_B/K_A.
    const auto a = makeA(), b = makeB();
    const Tensor r = b->k / a->k, d = b->middle - a->middle;
    const double exact = (0.5 * (r + 1 / r) - 1 + 0.5 * (a->k + b->k) * d.square()).sum().item<double>();
    Random random(2);
    const std::int64_t count = 200000;
    const Tensor x = a->sample(count, random), y = b->sample(count, random);
    WorkLoss loss(a, b, x, y, {.validationFraction = 0.9});
    const auto identity = asFlow(std::make_shared<Scaling>(std::vector<double>{0, 0}, std::vector<double>{1, 1}));
    const double error = std::sqrt(((b->evaluate(x, Gradient::Omit).u - a->evaluate(x, Gradient::Omit).u).var() +
                                    (a->evaluate(y, Gradient::Omit).u - b->evaluate(y, Gradient::Omit).u).var())
                                       .item<double>() /
                                   (0.9 * count));
    EXPECT_NEAR(loss.validate(*identity), exact, 4 * error);
}

TEST(WorkLoss, IsItsFormulaAndItsGradientThatOfFiniteDifferences) {
    const auto a = makeA(), b = makeB();
    Random random(3);
    const Tensor x = a->sample(1, random), y = b->sample(1, random);
    WorkLoss loss(a, b, x, y, {.batchSize = 1});
    const auto flow = makeCouplings(2);
    const auto& map = flow->getTransform();
    randomiseParameters(*map, 0.4);
    const auto u = [](Springs& state, const Tensor& at) { return state.evaluate(at, Gradient::Omit).u.item<double>(); };
    const auto forward = [&](const Tensor& at) { return map->forward(at).value; };
    const auto inverse = [&](const Tensor& at) { return map->inverse(at).value; };
    const double exact = u(*b, forward(x)) - u(*a, x) - autogradLogDet(forward, x[0]) + u(*a, inverse(y)) - u(*b, y) -
                         autogradLogDet(inverse, y[0]);
    EXPECT_NEAR(loss.evaluate(*flow, random).item<double>(), exact, 1e-10);
    std::vector<Tensor> parameters;
    for (const auto& [name, tensor] : flow->getParameters())
        parameters.push_back(tensor.set_requires_grad(true));
    const auto gradients = torch::autograd::grad({loss.evaluate(*flow, random)}, parameters);
    const at::NoGradGuard noGrad;
    double largest = 0;
    for (std::size_t i = 0; i < parameters.size(); i++) {
        const Tensor saved = parameters[i].clone();
        const Tensor direction = random.normal(1, saved.numel()).reshape(saved.sizes());
        double sides[2];
        for (const int side : {0, 1}) {
            parameters[i].copy_(saved + (side == 0 ? -1e-5 : 1e-5) * direction);
            sides[side] = loss.evaluate(*flow, random).item<double>();
        }
        parameters[i].copy_(saved);
        const double expected = (gradients[i] * direction).sum().item<double>();
        largest = std::max(largest, std::abs(expected));
        EXPECT_NEAR((sides[1] - sides[0]) / 2e-5, expected, 1e-5 * (0.01 + std::abs(expected))) << "parameter " << i;
    }
    EXPECT_GT(largest, 0.1);
}

TEST(WorkLoss, TrainsAMapWhoseWorksAreTheFreeEnergyDifference) {
    const auto a = makeA(), b = makeB();
    Random random(4);
    const auto flow = makeCouplings(4);
    Trainer trainer(flow, {.iterations = 250, .learningRate = 0.02, .warmup = 20, .seed = 5});
    trainer.addLoss(std::make_shared<WorkLoss>(a, b, a->sample(20000, random), b->sample(20000, random),
                                               WorkLoss::Options{.batchSize = 128}));
    trainer.train(250);
    const at::NoGradGuard noGrad;
    const Tensor x = a->sample(2000, random), y = b->sample(2000, random);
    const auto works = [&](bool mapped) {
        const TransformResult toB = mapped ? flow->getTransform()->forward(x) : TransformResult{x, at::zeros({2000})};
        const TransformResult toA = mapped ? flow->getTransform()->inverse(y) : TransformResult{y, at::zeros({2000})};
        return bar(toVector(b->evaluate(toB.value, Gradient::Omit).u - a->evaluate(x, Gradient::Omit).u - toB.logDet),
                   toVector(a->evaluate(toA.value, Gradient::Omit).u - b->evaluate(y, Gradient::Omit).u - toA.logDet));
    };
    const double exact = b->freeEnergy() - a->freeEnergy();
    const BarResult plain = works(false), targeted = works(true);
    EXPECT_NEAR(plain.deltaF, exact, 4 * plain.standardError);
    EXPECT_NEAR(targeted.deltaF, exact, 4 * targeted.standardError);
    EXPECT_LT(targeted.standardError, 0.1 * plain.standardError);
    EXPECT_GT(targeted.overlap, 0.99);
}

TEST(WorkLoss, LeavesOutFramesAndImagesWithoutAnEnergy) {
    const auto a = makeA();
    const auto walled = std::make_shared<Springs>(std::vector<double>{1.0, 1.0}, std::vector<double>{0.0, 0.0}, 0.5);
    const Tensor framesA = at::tensor({0.2, 0.0, 0.9, 0.0}, at::kDouble).reshape({2, 2});
    const Tensor framesB = at::tensor({0.1, 0.0, 0.7, 0.0}, at::kDouble).reshape({2, 2}); // the second has no energy
    const auto identity = asFlow(std::make_shared<Scaling>(std::vector<double>{0, 0}, std::vector<double>{1, 1}));
    WorkLoss loss(a, walled, framesA, framesB, {.batchSize = 40});
    Random random(6);
    const auto work = [&](double x) { return 0.5 * x * x - 0.5 * (x - 0.3) * (x - 0.3) - 0.25; };
    EXPECT_NEAR(loss.evaluate(*identity, random).item<double>(), work(0.2) - work(0.1), 1e-12);
    expectMessage([&] { WorkLoss(a, walled, framesA, framesB.slice(0, 1), {}); },
                  "WorkLoss::WorkLoss: number of frames with a finite energy is 0, but must be at least 1");
}

TEST(WorkLoss, RefusesWhatDoesNotFit) {
    const auto a = makeA();
    const auto three = std::make_shared<Springs>(std::vector<double>{1, 1, 1}, std::vector<double>{0, 0, 0});
    const Tensor frames = at::zeros({4, 2}, at::kDouble);
    expectMessage([&] { WorkLoss(a, three, frames, frames, {}); },
                  "size of potential B is 3, but must be that of potential A, 2");
    expectMessage([&] { WorkLoss(a, nullptr, frames, frames, {}); }, "a potential is null");
    expectMessage([&] { WorkLoss(a, a, frames, frames, {.batchSize = 0}); }, "batchSize is 0, but must be at least 1");
    expectMessage([&] { WorkLoss(a, a, frames, frames, {.energyCut = 0}); }, "energyCut is 0, but must be positive");
    expectMessage([&] { WorkLoss(a, a, frames, frames, {.validationFraction = 1}); }, "but must be in [0, 1)");
}

TEST(TransformedPotential, HasTheGradientOfFiniteDifferencesAndKeepsLnZ) {
    const auto b = makeB();
    const auto flow = makeCouplings(2);
    randomiseParameters(*flow->getTransform(), 0.4);
    TransformedPotential potential(b, flow->getTransform());
    Random random(7);
    const Tensor z = random.normal(5, 2);
    const Tensor gradient = potential.evaluate(z, Gradient::Compute).gradient;
    EXPECT_FALSE(gradient.requires_grad());
    for (const int column : {0, 1}) {
        const Tensor step = at::zeros({1, 2}, at::kDouble);
        step[0][column] = 1e-5;
        const Tensor difference = (potential.evaluate(z + step).u - potential.evaluate(z - step).u) / 2e-5;
        EXPECT_LT((difference - gradient.select(1, column)).abs().max().item<double>(), 1e-7);
    }
    // ln Z by importance sampling from a wide normal density.
    const std::int64_t count = 100000;
    const Tensor wide = 4.0 * random.normal(count, 2);
    const Tensor logQ = -wide.square().sum(1) / 32 - std::log(2 * M_PI * 16);
    const FreeEnergyResult found = zwanzig(toVector(potential.evaluate(wide).u + logQ));
    EXPECT_NEAR(found.deltaF, b->freeEnergy(), 4 * found.standardError);
    EXPECT_LT(found.standardError, 0.05);
}

TEST(TransformedPotential, OfAnInverseMapIsTheStateCarriedAlong) {
    const auto a = makeA(), b = makeB();
    TransformedPotential image(a, std::make_shared<Inverse>(makeExactMap(*a, *b)));
    Random random(8);
    const Tensor y = b->sample(20, random);
    const Tensor difference = image.evaluate(y).u - b->evaluate(y, Gradient::Omit).u;
    EXPECT_LT((difference - (a->freeEnergy() - b->freeEnergy())).abs().max().item<double>(), 1e-12);
}

TEST(TransformedPotential, HasNoEnergyOutsideTheDomain) {
    const auto walled = std::make_shared<Springs>(std::vector<double>{1.0, 1.0}, std::vector<double>{0.0, 0.0}, 0.5);
    TransformedPotential potential(walled,
                                   std::make_shared<Scaling>(std::vector<double>{0, 0}, std::vector<double>{2, 1}));
    const Tensor z = at::tensor({0.2, 0.0, 0.3, 0.0, NAN, 0.0}, at::kDouble).reshape({3, 2});
    const EnergyResult result = potential.evaluate(z, Gradient::Compute);
    EXPECT_NEAR(result.u[0].item<double>(), 0.08 - std::log(2.0), 1e-14);
    for (const int row : {1, 2}) {
        EXPECT_EQ(result.u[row].item<double>(), INFINITY);
        EXPECT_EQ(result.gradient[row].abs().max().item<double>(), 0.0);
    }
    expectMessage([&] { potential.evaluate(at::zeros({3, 1})); }, "TransformedPotential::evaluate: shape of z is");
    expectMessage([&] { TransformedPotential(walled, makeCouplings(2)->getTransform(), {0.0}); },
                  "size of reference is 1, but must be that of the potential, 2");
}
