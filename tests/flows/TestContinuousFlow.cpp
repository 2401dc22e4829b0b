// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/ContinuousFlow.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/Sequence.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

NetworkVelocityField::Options makeField(std::vector<int> hiddenSizes, Activation activation = Activation::SiLU,
                                        bool odd = false) {
    return {{std::move(hiddenSizes), activation, 5}, 1, odd};
}

OdeOptions adaptive(double tolerance) {
    return {OdeMethod::DormandPrince, 1, tolerance, tolerance, 5000};
}

OdeOptions fixedSteps(int steps) {
    return {OdeMethod::RungeKutta4, steps};
}

// Five variables, of which 1 and 3 are circular.
Tensor makePoints(int rows = 6) {
    Random random(31);
    Tensor z = 1.5 * random.normal(rows, 5);
    for (const int i : {1, 3})
        z.select(1, i).copy_(2 * M_PI * random.uniform(1, rows)[0] - M_PI);
    return z;
}

double largest(const Tensor& t) {
    return t.abs().max().item<double>();
}

void setParameters(const NamedTensors& parameters, const std::vector<Tensor>& values) {
    const at::NoGradGuard noGrad;
    for (std::size_t i = 0; i < parameters.size(); i++)
        parameters[i].second.set_data(values[i].to(at::kDouble).reshape(parameters[i].second.sizes()));
}

void randomise(const VelocityField& field, double scale, std::uint64_t seed = 17) {
    Random random(seed);
    const NamedTensors parameters = field.getParameters();
    std::vector<Tensor> values;
    for (const auto& [name, tensor] : parameters)
        values.push_back(scale * random.normal(1, tensor.numel()));
    setParameters(parameters, values);
}

/**
 * A flow with dy/dt = A y + c t, exactly: silu(s) - silu(-s) = s, so that hidden units in pairs (s, -s) pass on
 * (y, t), and the last layer multiplies.
 */
std::shared_ptr<ContinuousFlow> makeLinearFlow(const Tensor& a, const Tensor& c, const OdeOptions& solver) {
    const std::int64_t d = a.size(0);
    auto flow = std::make_shared<ContinuousFlow>(
        static_cast<int>(d), std::vector<int>(),
        ContinuousFlow::Options{solver, {{{static_cast<int>(2 * d + 2)}, Activation::SiLU, 1}, 0, false}});
    const Tensor one = at::eye(d + 1, at::kDouble), last = at::cat({a, c.unsqueeze(1)}, 1);
    setParameters(flow->getParameters(),
                  {at::cat({one, -one}), at::zeros({2 * d + 2}), at::cat({last, -last}, 1), at::zeros({d})});
    return flow;
}

const Tensor generator = at::tensor({0.3, -1.1, 0.2, 0.9, -0.4, 0.5, -0.3, 0.1, 0.7}, at::kDouble).reshape({3, 3});

std::shared_ptr<ContinuousFlow> makeFlow(const OdeOptions& solver, const NetworkVelocityField::Options& field) {
    return std::make_shared<ContinuousFlow>(5, std::vector<int>{3, 1}, ContinuousFlow::Options{solver, field});
}

// Three variables, of which 1 is circular, and no more rows than it takes: at a tolerance of 1e-12 each gradient costs.
std::vector<FlowContractCase> makeCases() {
    const Tensor z = makePoints(3).narrow(1, 0, 3).contiguous();
    const auto make = [](const OdeOptions& solver, const NetworkVelocityField::Options& field,
                         std::vector<int> circular) {
        return std::make_shared<ContinuousFlow>(3, std::move(circular), ContinuousFlow::Options{solver, field});
    };
    const auto scaling = std::make_shared<Scaling>(std::vector<double>{0.1, 0, -2}, std::vector<double>{2, 1, -0.3});
    const OdeOptions tight = adaptive(1e-12);
    return {
        {"DormandPrince", make(tight, makeField({7, 6}), {1}), z, true},
        {"odd, tanh", make(tight, makeField({7}, Activation::Tanh, true), {1}), z, true},
        {"RungeKutta4", make(fixedSteps(120), makeField({6}), {1}), z, true},
        {"open variables only", make(tight, makeField({6}), {}), z, true},
        {"circular variables only", make(tight, makeField({6}), {2, 0, 1}), z.clamp(-3, 3), true},
        {"Sequence with a Scaling",
         std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{make(tight, makeField({6}), {1}), scaling}),
         z},
    };
}

class ContinuousFlowContract : public testing::TestWithParam<int> {};

} // namespace

TEST_P(ContinuousFlowContract, Holds) {
    checkFlowContract(makeCases()[GetParam()]);
}

INSTANTIATE_TEST_SUITE_P(Transforms, ContinuousFlowContract, testing::Values(0));
INSTANTIATE_TEST_SUITE_P(SlowTransforms, ContinuousFlowContract,
                         testing::Range(1, static_cast<int>(makeCases().size())));

TEST(NetworkVelocityField, DivergenceIsTheTraceOfTheJacobian) {
    const Tensor y = makePoints(3), t = at::tensor({0.0, 0.3, 0.9}, at::kDouble);
    for (const bool odd : {false, true})
        for (const auto& hidden : {std::vector<int>{6}, {6, 4}, {5, 7, 4}})
            for (const Activation activation : {Activation::SiLU, Activation::Tanh}) {
                const NetworkVelocityField field(5, {1, 3}, makeField(hidden, activation, odd));
                randomise(field, 0.7);
                const VelocityResult result = field.withDivergence(y, t);
                EXPECT_LE(largest(result.velocity - field(y, t)), 1e-13);
                // Unit vectors times sqrt(size) as probes make Hutchinson's estimate exact.
                const Tensor probes = (std::sqrt(5.0) * at::eye(5, at::kDouble)).expand({3, 5, 5});
                const VelocityResult estimate = field.withEstimatedDivergence(y, t, probes);
                EXPECT_LE(largest(estimate.divergence - result.divergence), 1e-12);
                for (int row = 0; row < 3; row++) {
                    double trace = 0;
                    for (int i = 0; i < 5; i++) {
                        const Tensor argument = y.clone().set_requires_grad(true);
                        trace +=
                            torch::autograd::grad({field(argument, t)[row][i]}, {argument})[0][row][i].item<double>();
                    }
                    EXPECT_NEAR(result.divergence[row].item<double>(), trace, 1e-12);
                }
            }
}

TEST(NetworkVelocityField, PullBackIsAutograds) {
    const Tensor y = makePoints(3), t = at::tensor({0.0, 0.3, 0.9}, at::kDouble);
    Random random(8);
    const Tensor onVelocity = random.normal(3, 5), onDivergence = random.normal(1, 3)[0];
    for (const bool odd : {false, true})
        for (const auto& circular : {std::vector<int>{1, 3}, {}, {0, 1, 2, 3, 4}})
            for (const auto& hidden : {std::vector<int>{6}, {5, 7, 4}})
                for (const Tensor& probes : {Tensor(), random.normal(6, 5).reshape({3, 2, 5})}) {
                    const NetworkVelocityField field(5, circular, makeField(hidden, Activation::SiLU, odd));
                    randomise(field, 0.7);
                    std::vector<Tensor> variables = {y.clone().set_requires_grad(true)};
                    for (const auto& [name, tensor] : field.getParameters())
                        variables.push_back(tensor);
                    const VelocityResult v = probes.defined() ? field.withEstimatedDivergence(variables[0], t, probes)
                                                              : field.withDivergence(variables[0], t);
                    const auto expected =
                        torch::autograd::grad({(v.velocity * onVelocity).sum() + (v.divergence * onDivergence).sum()},
                                              variables, {}, false, false, true);
                    const auto back = field.pullBack(y, t, probes, onVelocity, onDivergence,
                                                     VelocityField::Derivatives::ByArgumentAndParameters);
                    EXPECT_LE(largest(back.velocity - v.velocity), 1e-13);
                    EXPECT_LE(largest(back.onArgument - expected[0]), 1e-12);
                    ASSERT_EQ(back.onParameters.size() + 1, expected.size());
                    for (std::size_t i = 1; i < expected.size(); i++) // the last bias cancels in an odd field
                        EXPECT_LE(largest(back.onParameters[i - 1] - expected[i]), 1e-12) << i;
                }
}

TEST(NetworkVelocityField, IsOddWhereAskedFor) {
    const Tensor y = makePoints(3), t = at::tensor({0.0, 0.3, 0.9}, at::kDouble);
    const NetworkVelocityField odd(5, {1, 3}, makeField({6}, Activation::SiLU, true)), other(5, {1, 3}, makeField({6}));
    randomise(odd, 0.7);
    randomise(other, 0.7);
    EXPECT_LE(largest(odd(-y, t) + odd(y, t)), 1e-14);
    EXPECT_GT(largest(odd(y, t)), 0.1);
    EXPECT_GT(largest(other(-y, t) + other(y, t)), 0.1);
}

TEST(ContinuousFlow, SolvesALinearEquation) {
    Random random(3);
    const Tensor z = random.normal(4, 3);
    for (const OdeOptions& solver : {adaptive(1e-12), fixedSteps(200)}) {
        const auto flow = makeLinearFlow(generator, at::zeros({3}, at::kDouble), solver);
        const TransformResult there = flow->forward(z), back = flow->inverse(z);
        EXPECT_LE(largest(there.value - at::mm(z, at::matrix_exp(generator).t())), 1e-10);
        EXPECT_LE(largest(there.logDet - 0.6), 1e-11); // the trace
        EXPECT_LE(largest(back.value - at::mm(z, at::matrix_exp(-generator).t())), 1e-10);
        EXPECT_LE(largest(back.logDet + 0.6), 1e-11);
    }
}

// dy1/dt = 2 t, dy2/dt = y1: y1 = z1 + t^2, y2(1) = z2 + z1 + 1/3; with time reversed it would be 2/3.
TEST(ContinuousFlow, TimeRunsFromLatentToData) {
    const Tensor z = at::tensor({0.5, -1.0}, at::kDouble).reshape({1, 2});
    const auto flow = makeLinearFlow(at::tensor({0.0, 0.0, 1.0, 0.0}, at::kDouble).reshape({2, 2}),
                                     at::tensor({2.0, 0.0}, at::kDouble), adaptive(1e-10));
    const Tensor x = flow->forward(z).value;
    EXPECT_NEAR(x[0][0].item<double>(), 1.5, 1e-9);
    EXPECT_NEAR(x[0][1].item<double>(), -0.5 + 1.0 / 3, 1e-9);
    EXPECT_LE(largest(flow->inverse(x).value - z), 1e-9);
}

TEST(ContinuousFlow, RungeKuttaIsOfOrderFour) {
    Random random(3);
    const Tensor z = random.normal(4, 3), exact = at::mm(z, at::matrix_exp(generator).t());
    const auto error = [&](int steps) {
        return largest(makeLinearFlow(generator, at::zeros({3}, at::kDouble), fixedSteps(steps))->forward(z).value -
                       exact);
    };
    EXPECT_NEAR(error(20) / error(40), 16, 1.0);
}

// The bound that the header states: tol e^L, L the largest growth rate of (y, logDet) met on the way.
TEST(ContinuousFlow, ErrorsStayWithinTheToleranceTimesTheGrowth) {
    const at::NoGradGuard noGrad;
    const Tensor z = makePoints(20);
    const auto flow = makeFlow(adaptive(1e-13), makeField({16, 16}));
    randomise(flow->getField(), 0.45);
    const TransformResult exact = flow->forward(z);
    EXPECT_GT(largest(exact.logDet), 0.5); // no tame field
    double growth = 0;
    {
        const at::AutoGradMode grad(true);
        for (const double time : {0.0, 0.25, 0.5, 0.75, 1.0}) {
            const Tensor t = at::full({40}, time, at::kDouble);
            const Tensor y = at::cat({z, exact.value}).set_requires_grad(true);
            const VelocityResult v = flow->getField().withDivergence(y, t);
            std::vector<Tensor> rows = {torch::autograd::grad({v.divergence.sum()}, {y}, {}, true)[0]};
            for (int i = 0; i < 5; i++)
                rows.push_back(torch::autograd::grad({v.velocity.select(1, i).sum()}, {y}, {}, true)[0]);
            growth = std::max(growth, at::linalg_matrix_norm(at::stack(rows, 1), 2).max().item<double>());
        }
    }
    for (const double tolerance : {1e-4, 1e-6, 1e-8, 1e-10}) {
        flow->setSolver(adaptive(tolerance));
        const double bound = tolerance * std::exp(growth);
        const TransformResult there = flow->forward(z), back = flow->inverse(there.value);
        const double ofValue = largest(there.value - exact.value), ofLogDet = largest(there.logDet - exact.logDet);
        const double ofRoundTrip = std::max(largest(back.value - z), largest(back.logDet + there.logDet));
        EXPECT_LE(ofValue, bound);
        EXPECT_LE(ofLogDet, bound);
        EXPECT_LE(ofRoundTrip, 2 * bound);
        EXPECT_GT(ofRoundTrip, 1e-6 * tolerance); // an error there is, of the size that was asked for
        std::printf("tolerance %.0e: errors x %.1e, logDet %.1e, round trip %.1e; e^L = %.1f\n", tolerance, ofValue,
                    ofLogDet, ofRoundTrip, std::exp(growth));
    }
    const OdeOptions standard;
    EXPECT_EQ(standard.absoluteTolerance, 1e-8); // what the header says of accept decisions
}

// A row has its own steps: next to a harder one it comes out the same, and the harder one is as exact as asked for.
TEST(ContinuousFlow, RowsHaveTheirOwnSteps) {
    const at::NoGradGuard noGrad;
    const auto flow = makeFlow(adaptive(1e-5), makeField({16}, Activation::Tanh));
    randomise(flow->getField(), 1.0);
    Tensor z = makePoints(3);
    z[0] = 30 * at::ones({5}, at::kDouble); // tanh saturates: the field hardly varies
    z[2] *= 0.1;
    const TransformResult together = flow->forward(z);
    for (int i = 0; i < 3; i++) {
        const TransformResult alone = flow->forward(z.narrow(0, i, 1));
        EXPECT_LE(largest(alone.value[0] - together.value[i]), 1e-12);
        EXPECT_LE(largest(alone.logDet[0] - together.logDet[i]), 1e-12);
    }
    flow->setSolver(adaptive(1e-10));
    EXPECT_LE(largest(flow->forward(z).value - together.value), 1e-3);
    EXPECT_GT(largest(flow->forward(z).value - together.value), 1e-9);
}

TEST(ContinuousFlow, GradientsDoNotDependOnOtherRows) {
    const auto flow = makeFlow(adaptive(1e-6), makeField({8}));
    randomise(flow->getField(), 0.6);
    const Tensor z = makePoints(4);
    const auto gradient = [&](const Tensor& rows) {
        const Tensor argument = rows.clone().set_requires_grad(true);
        const TransformResult result = flow->forward(argument);
        return torch::autograd::grad({(result.value.square().sum(1) + result.logDet).sum()}, {argument})[0];
    };
    EXPECT_LE(largest(gradient(z).narrow(0, 2, 1) - gradient(z.narrow(0, 2, 1))), 1e-12);
}

TEST(ContinuousFlow, WrapsCircularVariables) {
    const ContinuousFlow flow(2, {1}, {adaptive(1e-10), makeField({3})});
    const NamedTensors parameters = flow.getParameters();
    {
        const at::NoGradGuard noGrad;
        parameters.back().second.fill_(4.0); // v = 4
    }
    const Tensor z = at::tensor({1.0, -3.0, 2.0, 3.0}, at::kDouble).reshape({2, 2});
    const Tensor x = flow.forward(z).value;
    const Tensor expected = at::tensor({5.0, 1.0, 6.0, 7.0 - 2 * M_PI}, at::kDouble).reshape({2, 2});
    EXPECT_LE(largest(x - expected), 1e-9);
    EXPECT_LE(largest(flow.inverse(x).value - z), 1e-9);
}

TEST(ContinuousFlow, RowsThatFailFailAlone) {
    // dy/dt = 300 y: e^300 in 4 steps is too much to ask; y = 0 stays.
    const auto flow = makeLinearFlow(at::tensor({300.0}, at::kDouble).reshape({1, 1}), at::zeros({1}, at::kDouble),
                                     {OdeMethod::DormandPrince, 1, 1e-3, 1e-3, 12});
    const Tensor y = at::tensor({0.0, 1.0, NAN, 0.0}, at::kDouble).reshape({4, 1});
    const Tensor good = at::tensor({0L, 3L}), bad = at::tensor({1L, 2L});
    const TransformResult there = flow->forward(y), back = flow->inverse(y);
    EXPECT_LE(largest(there.logDet.index_select(0, good) - 300), 1.0);
    EXPECT_TRUE(at::isnan(there.logDet.index_select(0, bad)).all().item<bool>());
    EXPECT_TRUE(at::isnan(there.value.index_select(0, bad)).all().item<bool>());
    EXPECT_LE(largest(back.logDet.index_select(0, good) + 300), 1.0);
    EXPECT_TRUE(at::equal(back.logDet.index_select(0, bad), at::full({2}, -INFINITY, at::kDouble)));
    const Flow whole(std::make_shared<GaussianPrior>(1), flow);
    EXPECT_EQ(whole.logQ(y)[1].item<double>(), -INFINITY);

    // What depends on the good rows only has a gradient; what depends on a bad one has none.
    std::vector<Tensor> variables = {y.clone().set_requires_grad(true)};
    for (const auto& [name, tensor] : flow->getParameters())
        variables.push_back(tensor);
    const Tensor logDet = flow->forward(variables[0]).logDet;
    for (const Tensor& gradient :
         torch::autograd::grad({logDet.index_select(0, good).sum()}, variables, {}, true, false, true))
        EXPECT_TRUE(at::isfinite(gradient).all().item<bool>());
    EXPECT_TRUE(
        at::isnan(torch::autograd::grad({logDet.sum()}, variables, {}, false, false, true)[1]).any().item<bool>());
}

// Two steps are far too few for this field; going back along the equation would give the gradient of something else.
TEST(ContinuousFlow, GradientsOfRungeKuttaAreThoseOfItsStepsHoweverLong) {
    const auto flow = makeFlow(fixedSteps(2), makeField({8}));
    randomise(flow->getField(), 1.0);
    const Tensor weight = flow->getParameters()[0].second, points = makePoints(4);
    for (const bool inverse : {false, true}) {
        const auto loss = [&](const Tensor& y) {
            const TransformResult result = inverse ? flow->inverse(y) : flow->forward(y);
            return (0.1 * result.value.square().sum(1) + result.logDet).narrow(0, 0, 3).sum(); // the last row left out
        };
        const Tensor argument = points.clone().set_requires_grad(true);
        const auto gradients = torch::autograd::grad({loss(argument)}, {argument, weight});
        EXPECT_EQ(largest(gradients[0][3]), 0.0);
        const at::NoGradGuard noGrad;
        Random random(4);
        const Tensor direction = random.normal(4, 5), turn = random.normal(1, weight.numel()).reshape(weight.sizes());
        const Tensor saved = weight.clone();
        const auto along = [&](double step) {
            weight.copy_(saved + step * turn);
            return loss(points + step * direction).item<double>();
        };
        const double expected = ((gradients[0] * direction).sum() + (gradients[1] * turn).sum()).item<double>();
        EXPECT_NEAR((along(1e-6) - along(-1e-6)) / 2e-6, expected, 1e-6 * (1 + std::abs(expected)));
        weight.copy_(saved);
    }
}

// A row that starts outside the domain passes nothing on to the others.
TEST(ContinuousFlow, GradientsOfRungeKuttaLeaveFailedRowsOut) {
    const auto flow = makeFlow(fixedSteps(3), makeField({8}));
    randomise(flow->getField(), 0.5);
    Tensor z = makePoints(3);
    const Tensor good = at::cat({z.narrow(0, 0, 1), z.narrow(0, 2, 1)}), weight = flow->getParameters()[0].second;
    z[1][2] = NAN;
    const Tensor logDet = flow->forward(z).logDet;
    EXPECT_TRUE(at::isnan(logDet[1]).item<bool>());
    const Tensor gradient = torch::autograd::grad({logDet[0] + logDet[2]}, {weight})[0];
    const Tensor expected = torch::autograd::grad({flow->forward(good).logDet.sum()}, {weight})[0];
    EXPECT_LE(largest(gradient - expected), 1e-12);
}

TEST(ContinuousFlow, GradientsOutliveTheFlowAndHaveItsType) {
    auto flow = makeFlow({}, makeField({6}));
    const Tensor z = makePoints().set_requires_grad(true);
    const Tensor weight = flow->getParameters()[0].second, last = flow->getParameters()[2].second;
    const Tensor logDet = flow->forward(z).logDet.sum();
    flow.reset();
    const auto gradients = torch::autograd::grad({logDet}, {z, weight, last});
    EXPECT_EQ(gradients[0].scalar_type(), at::kDouble);
    EXPECT_EQ(gradients[1].scalar_type(), at::kFloat);
    EXPECT_GT(largest(gradients[2]), 0.01);
}

TEST(ContinuousFlow, RefusesSecondDerivatives) {
    const auto flow = makeFlow({}, makeField({6}));
    randomise(flow->getField(), 0.3);
    const Tensor z = makePoints().set_requires_grad(true);
    expectMessage([&] { (void)torch::autograd::grad({flow->forward(z).logDet.sum()}, {z}, {}, true, true); },
                  "create_graph is true, but must be false: second derivatives are not available");
}

TEST(ContinuousFlow, EstimatedLogDetIsUnbiasedAndDifferentiable) {
    const auto flow = makeFlow(adaptive(1e-6), makeField({8}));
    randomise(flow->getField(), 0.5);
    const Tensor x = makePoints(1).expand({2000, 5}).contiguous();
    Random random(9);
    const TransformResult exact = flow->inverse(x.narrow(0, 0, 1));
    {
        const at::NoGradGuard noGrad;
        const TransformResult estimate = flow->estimateInverse(x, 2, random);
        EXPECT_LE(largest(estimate.value - exact.value), 1e-4); // the step sizes differ
        const double standardError = estimate.logDet.std().item<double>() / std::sqrt(2000.0);
        EXPECT_GT(standardError, 1e-4);
        EXPECT_NEAR(estimate.logDet.mean().item<double>(), exact.logDet.item<double>(), 4 * standardError);
    }
    // Its own gradient, by the parameters, with the probes fixed.
    const Tensor rows = makePoints();
    const auto loss = [&] {
        Random same(4);
        const TransformResult result = flow->estimateInverse(rows, 3, same);
        return result.logDet.sum() + result.value.square().sum();
    };
    flow->setSolver(adaptive(1e-12));
    const Tensor weight = flow->getParameters()[0].second;
    const Tensor gradient = torch::autograd::grad({loss()}, {weight})[0];
    const at::NoGradGuard noGrad;
    const Tensor direction = random.normal(1, weight.numel()).reshape(weight.sizes()), saved = weight.clone();
    weight.copy_(saved + 1e-6 * direction);
    const double above = loss().item<double>();
    weight.copy_(saved - 1e-6 * direction);
    const double below = loss().item<double>(), expected = (gradient * direction).sum().item<double>();
    EXPECT_NEAR((above - below) / 2e-6, expected, 1e-5 * (1 + std::abs(expected)));
}

TEST(ContinuousFlow, IsSavedWithItsSolver) {
    const auto transform =
        makeFlow({OdeMethod::RungeKutta4, 7, 1e-5, 1e-6, 33}, makeField({6, 3}, Activation::Tanh, true));
    randomise(transform->getField(), 0.5);
    const Flow flow(std::make_shared<ProductPrior>(std::vector<std::shared_ptr<Prior>>{
                        std::make_shared<GaussianPrior>(1), std::make_shared<UniformTorusPrior>(1),
                        std::make_shared<GaussianPrior>(1), std::make_shared<UniformTorusPrior>(1),
                        std::make_shared<GaussianPrior>(1)}),
                    transform);
    const auto twin = flow.clone();
    EXPECT_EQ(twin->getTransform()->getArchitecture(), transform->getArchitecture());
    EXPECT_TRUE(at::equal(twin->logQ(makePoints()), flow.logQ(makePoints())));
}

TEST(ContinuousFlow, RefusesBadArguments) {
    const auto with = [](auto change) {
        return [change] {
            ContinuousFlow::Options options;
            change(options);
            ContinuousFlow(2, {0}, options);
        };
    };
    expectMessage(with([](auto& o) { o.solver.steps = 0; }), "ContinuousFlow::ContinuousFlow: steps is 0");
    expectMessage(with([](auto& o) { o.solver.maxSteps = 0; }), "maxSteps is 0");
    expectMessage(with([](auto& o) { o.solver.absoluteTolerance = 0; }), "absoluteTolerance is 0");
    expectMessage(with([](auto& o) { o.solver.relativeTolerance = -1; }), "relativeTolerance is -1");
    expectMessage(with([](auto& o) { o.field.network.activation = Activation::ReLU; }), "activation is ReLU");
    expectMessage(with([](auto& o) { o.field.network.hiddenSizes = {}; }), "number of hidden layers is 0");
    expectMessage(with([](auto& o) { o.field.frequencies = -1; }), "frequencies is -1");
    expectMessage([] { ContinuousFlow(2, {2}, {}); },
                  "NetworkVelocityField::NetworkVelocityField: a circular variable is 2");
    Random random(1);
    expectMessage([&] { (void)makeFlow({}, makeField({3}))->estimateInverse(makePoints(), 0, random); }, "probes is 0");
    auto architecture = makeFlow({}, makeField({3}))->getArchitecture();
    architecture["method"] = "Euler";
    expectMessage([&] { (void)Transform::create(architecture); }, "method is \"Euler\"");
}
