// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/ContinuousFlow.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/training/PathGradientLoss.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** An energy given as a formula. */
class FormulaPotential : public ReducedPotential {
public:
    explicit FormulaPotential(std::function<Tensor(const Tensor&)> formula) : formula(std::move(formula)) {}
    [[nodiscard]] int getSize() const override { return 2; }
    [[nodiscard]] EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
        const at::AutoGradMode grad(true);
        const Tensor y = x.detach().clone().set_requires_grad(true), u = formula(y);
        EnergyResult result{u.detach(), {}, 0, 0};
        if (gradient == Gradient::Compute)
            result.gradient = torch::autograd::grad({u.sum()}, {y})[0];
        return result;
    }

private:
    std::function<Tensor(const Tensor&)> formula;
};

std::shared_ptr<ReducedPotential> makeGaussian() {
    return std::make_shared<FormulaPotential>([](const Tensor& x) {
        const Tensor a = (x.select(1, 0) - 0.5) / 0.7, b = (x.select(1, 1) + 0.3 - 0.6 * x.select(1, 0)) / 0.5;
        return 0.5 * (a.square() + b.square());
    });
}

std::shared_ptr<Flow> makeFlow(const std::shared_ptr<Transform>& transform, double scale) {
    randomiseParameters(*transform, scale);
    return std::make_shared<Flow>(std::make_shared<GaussianPrior>(2), transform);
}

std::shared_ptr<Flow> makeAffineFlow() {
    const Conditioner::Options small{{6}, Activation::Tanh, 5};
    return makeFlow(std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
                        std::make_shared<AffineCoupling>(2, std::vector<int>{0}, small),
                        std::make_shared<AffineCoupling>(2, std::vector<int>{1}, small),
                        std::make_shared<Scaling>(std::vector<double>{0.2, 0}, std::vector<double>{1, -0.8})}),
                    0.3);
}

std::shared_ptr<Flow> makeContinuousFlow(double tolerance) {
    const OdeOptions solver{OdeMethod::DormandPrince, 1, tolerance, tolerance, 1000};
    return makeFlow(std::make_shared<ContinuousFlow>(2, std::vector<int>(),
                                                     ContinuousFlow::Options{solver, {{{8}, Activation::SiLU, 3}, 1}}),
                    0.4);
}

/** The gradient by all parameters, as one row. */
Tensor findGradient(ReverseKLLoss& loss, const Flow& flow, std::uint64_t seed) {
    Random random(seed);
    std::vector<Tensor> parameters, flat;
    for (const auto& [name, tensor] : flow.getParameters())
        parameters.push_back(tensor);
    for (const Tensor& gradient :
         torch::autograd::grad({loss.evaluate(flow, random)}, parameters, {}, std::nullopt, false, true))
        flat.push_back(gradient.reshape({-1}));
    return at::cat(flat);
}

double largest(const Tensor& t) {
    return t.abs().max().item<double>();
}

constexpr ReverseKLLoss::Options plain(int batchSize) {
    return {batchSize, 1e3, 0.0};
}

} // namespace

TEST(PathGradientLoss, ExpectedGradientIsThatOfTheReverseKL) {
    for (const auto& flow : {makeAffineFlow(), makeContinuousFlow(1e-5)}) {
        PathGradientLoss path(makeGaussian(), plain(500));
        ReverseKLLoss ordinary(makeGaussian(), plain(500));
        std::vector<Tensor> differences, gradients;
        for (std::uint64_t seed = 1; seed <= 30; seed++) {
            gradients.push_back(findGradient(path, *flow, seed));
            differences.push_back(gradients.back() - findGradient(ordinary, *flow, seed));
        }
        // Along random directions, so that no one parameter's noise hides another's error.
        Random random(8);
        const Tensor directions = random.normal(20, gradients[0].size(0));
        const Tensor along = at::mm(at::stack(differences), directions.t());
        const Tensor average = along.mean(0), standardError = along.std(0) / std::sqrt(30.0);
        EXPECT_LT(largest(average / standardError), 4.0);
        const Tensor size = at::mm(at::stack(gradients), directions.t()).mean(0).abs();
        EXPECT_GT((size / standardError).max().item<double>(), 20.0); // the test can tell the gradient from none
    }
}

// "Sticking the landing": u = -log q of the flow itself.
TEST(PathGradientLoss, VanishesInEverySampleWhereTheFlowIsExact) {
    for (const auto& flow : {makeAffineFlow(), makeContinuousFlow(1e-8)}) {
        const auto target =
            std::make_shared<FormulaPotential>([twin = flow->clone()](const Tensor& x) { return -twin->logQ(x); });
        PathGradientLoss path(target, plain(1));
        ReverseKLLoss ordinary(target, plain(1));
        for (std::uint64_t seed = 1; seed <= 10; seed++) {
            EXPECT_LE(largest(findGradient(path, *flow, seed)), 1e-10);
            EXPECT_GT(largest(findGradient(ordinary, *flow, seed)), 1e-2);
        }
    }
}

TEST(PathGradientLoss, ValueAndRegularisationAreThoseOfReverseKL) {
    const auto flow = makeAffineFlow();
    for (const auto& options : {plain(200), ReverseKLLoss::Options{200, 1.5, 0.1}}) {
        PathGradientLoss path(makeGaussian(), options);
        ReverseKLLoss ordinary(makeGaussian(), options);
        Random random(3), same(3);
        EXPECT_NEAR(path.evaluate(*flow, random).item<double>(), ordinary.evaluate(*flow, same).item<double>(), 1e-10);
    }
}

TEST(PathGradientLoss, LeavesOutSamplesWithoutAnEnergy) {
    const auto flow = makeAffineFlow();
    const auto target = std::make_shared<FormulaPotential>([](const Tensor& x) {
        return at::where(x.select(1, 0) > 0.3, at::full({x.size(0)}, INFINITY, at::kDouble), x.square().sum(1));
    });
    PathGradientLoss path(target, plain(200));
    EXPECT_TRUE(at::isfinite(findGradient(path, *flow, 3)).all().item<bool>());
    const auto nothing = std::make_shared<FormulaPotential>([](const Tensor& x) { return x.sum(1) + INFINITY; });
    PathGradientLoss none(nothing, plain(10));
    expectMessage([&] { (void)findGradient(none, *flow, 3); }, "number of samples with a finite energy is 0");
    expectMessage([] { PathGradientLoss(nullptr, {}); }, "potential is null");
}
