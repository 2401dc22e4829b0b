// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/samplers/LambdaSpacing.h"
#include "openmmflow/samplers/ParameterPath.h"
#include "samplers/AnnealedTargets.h"
#include <OpenMM.h>
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr double unitKelvin = 1 / 0.00831446261815324; // kT = 1 kJ/mol

/** (k/2) |x - (a, 0, 0)|^2 with global parameters k and a. */
std::shared_ptr<ContextPotential> makeSpringContext() {
    OpenMM::System system;
    system.addParticle(1.0);
    auto* force = new OpenMM::CustomExternalForce("0.5*k*((x-a)^2+y^2+z^2)");
    force->addGlobalParameter("k", 7.0);
    force->addGlobalParameter("a", 0.5);
    force->addParticle(0, {});
    system.addForce(force);
    ContextPotential::Options options;
    options.platform = "Reference";
    options.numContexts = 1;
    return std::make_shared<ContextPotential>(system, unitKelvin, options);
}

// The gradient of log pi_lambda by central differences along a direction.
void expectGradient(AnnealedPath& path, const Tensor& x, double lambda) {
    const Tensor direction = Random(7).normal(x.size(0), x.size(1));
    const PathState state = path.evaluate(x, lambda, Gradient::Compute);
    const Tensor above = path.evaluate(x + 1e-5 * direction, lambda).logDensity;
    const Tensor below = path.evaluate(x - 1e-5 * direction, lambda).logDensity;
    EXPECT_TRUE(at::allclose((above - below) / 2e-5, (state.gradient * direction).sum(1), 1e-6, 1e-6)) << lambda;
}

} // namespace

TEST(FlowPath, EndsAreTheFlowAndThePowerOfTheTarget) {
    const auto flow =
        std::make_shared<Flow>(std::make_shared<GaussianPrior>(2),
                               std::make_shared<Scaling>(std::vector<double>{1, -2}, std::vector<double>{0.5, 2}));
    const Tensor x = Random(6).normal(5, 2);
    const Tensor logQ =
        -0.5 * (((x.select(1, 0) - 1) / 0.5).square() + ((x.select(1, 1) + 2) / 2).square()) - std::log(2 * M_PI);
    const Tensor u = 1.5 * (x - 0.7).square().sum(1);
    for (const double alpha : {1.0, 2.0}) {
        FlowPath path(flow, std::make_shared<Spring>(2, 3.0, 0.7), alpha);
        const PathState start = path.evaluate(x, 0.0);
        EXPECT_TRUE(at::allclose(start.logDensity, logQ, 1e-12));
        EXPECT_FALSE(start.gradient.defined());
        EXPECT_TRUE(at::allclose(path.atLambda(start, 1.0).logDensity, (1 - alpha) * logQ - alpha * u, 1e-12));
        EXPECT_TRUE(at::allclose(path.atLambda(start, 0.25).logDensity,
                                 0.75 * logQ + 0.25 * ((1 - alpha) * logQ - alpha * u), 1e-12));
        EXPECT_EQ(path.getNumEvaluations(), 5);
        EXPECT_EQ(path.getNumGradients(), 0);
        for (const double lambda : {0.0, 0.3, 1.0})
            expectGradient(path, x, lambda);
    }
}

// A gradient that was not computed costs an evaluation; one that was stays, at every lambda.
TEST(PotentialPath, AnotherLambdaIsFreeUnlessAGradientIsMissing) {
    PotentialPath path(std::make_shared<Spring>(2, 1.0), std::make_shared<Spring>(2, 4.0, 1.0));
    const Tensor x = Random(1).normal(3, 2);
    PathState state = path.evaluate(x, 0.2);
    EXPECT_EQ(path.getNumEvaluations(), 2 * 3);
    state = path.atLambda(state, 0.7, Gradient::Compute);
    EXPECT_EQ(path.getNumEvaluations(), 4 * 3);
    EXPECT_EQ(path.getNumGradients(), 2 * 3);
    state = path.atLambda(path.atLambda(state, 0.1), 0.9, Gradient::Compute);
    EXPECT_EQ(path.getNumEvaluations(), 4 * 3);
    EXPECT_TRUE(at::allclose(state.gradient, -0.1 * x - 0.9 * 4 * (x - 1.0)));
    expectGradient(path, x, 0.9);
}

TEST(TemperaturePath, ScalesTheEnergy) {
    TemperaturePath path(makeA1(), 0.25, 2.0);
    const Tensor x = Random(2).normal(4, 2), u = makeA1()->evaluate(x, Gradient::Omit).u;
    EXPECT_TRUE(at::allclose(path.evaluate(x, 0.0).logDensity, -0.25 * u));
    EXPECT_TRUE(at::allclose(path.evaluate(x, 1.0).logDensity, -2.0 * u));
    EXPECT_TRUE(at::allclose(path.evaluate(x, 0.4).logDensity, -(0.6 * 0.25 + 0.4 * 2.0) * u));
    expectGradient(path, x, 0.4);
    expectMessage([] { TemperaturePath(makeA1(), 0.0); }, "startScale is 0");
    expectMessage([] { TemperaturePath(makeA1(), 1.0, -1.0); }, "endScale is -1");
}

// Nothing but finite numbers and -inf comes out, at the ends too, where one of the two densities is not asked.
TEST(AnnealedPath, PointsThatAreNotFiniteHaveNoDensity) {
    struct Broken : Spring {
        Broken() : Spring(1, 1.0) {}
        EnergyResult evaluate(const Tensor& x, Gradient gradient) override {
            EnergyResult result = Spring::evaluate(x, gradient);
            result.u = at::tensor({1.0, INFINITY, static_cast<double>(NAN), 1.0, -INFINITY}, at::kDouble);
            return result;
        }
    };
    PotentialPath path(std::make_shared<Spring>(1, 1.0), std::make_shared<Broken>());
    const Tensor x = at::tensor({1.0, 1.0, 1.0, static_cast<double>(NAN), 1.0}, at::kDouble).unsqueeze(1);
    const auto finite = [&](double lambda) {
        const PathState state = path.evaluate(x, lambda, Gradient::Compute);
        EXPECT_TRUE(state.gradient.isfinite().all().item<bool>());
        EXPECT_FALSE(state.logDensity.isnan().any().item<bool>());
        return state.logDensity.isfinite().sum().item<int>();
    };
    EXPECT_EQ(finite(0.0), 4);
    EXPECT_EQ(finite(0.5), 1);
    EXPECT_EQ(finite(1.0), 1);
    expectMessage([&] { (void)path.evaluate(x, 1.1); }, "lambda is 1.1");
    expectMessage([&] { (void)path.evaluate(at::zeros({2, 3}), 0.5); }, "shape of x is [2, 3]");
    expectMessage([&] { (void)path.atLambda(path.evaluate(x, 0.0), -1.0); }, "lambda is -1");
    expectMessage([&] { PotentialPath(std::make_shared<Spring>(1, 1.0), std::make_shared<Spring>(2, 1.0)); },
                  "size of end is 2");
}

TEST(ParameterPath, InterpolatesParametersAndScaleBetweenNodesAndRestoresThem) {
    const auto potential = makeSpringContext();
    ParameterPath path(potential, {0, 0.25, 1});
    path.addParameter("k", {1, 4, 2});
    path.addParameter("a", {0, 0, 3});
    path.setScale({0.5, 0.5, 1});
    const Tensor x = Random(3).normal(4, 3);
    const auto expected = [&x](double k, double a, double s) {
        return -s * 0.5 * k * ((x.select(1, 0) - a).square() + x.slice(1, 1).square().sum(1));
    };
    EXPECT_TRUE(at::allclose(path.evaluate(x, 0.0).logDensity, expected(1, 0, 0.5)));
    EXPECT_TRUE(at::allclose(path.evaluate(x, 0.125).logDensity, expected(2.5, 0, 0.5)));
    EXPECT_TRUE(at::allclose(path.evaluate(x, 0.25).logDensity, expected(4, 0, 0.5)));
    EXPECT_TRUE(at::allclose(path.evaluate(x, 0.5).logDensity, expected(4 - 2.0 / 3, 1, 0.5 + 0.5 / 3)));
    EXPECT_TRUE(at::allclose(path.evaluate(x, 1.0).logDensity, expected(2, 3, 1)));
    expectGradient(path, x, 0.6);
    EXPECT_EQ(potential->getParameters().at("k"), 7.0);
    EXPECT_EQ(potential->getParameters().at("a"), 0.5);
    EXPECT_ANY_THROW((void)path.evaluate(at::zeros({2, 4}), 1.0));
    // What goes wrong inside, after the parameters were set.
    struct Exposed : ParameterPath {
        using ParameterPath::compute;
        using ParameterPath::ParameterPath;
    } exposed(potential);
    exposed.addParameter("k", {1, 4});
    expectMessage([&] { (void)exposed.compute(at::zeros({2, 4}), 0.5, Gradient::Omit); }, "shape of x is [2, 4]");
    EXPECT_EQ(potential->getParameters().at("k"), 7.0);
}

TEST(ParameterPath, AScaleAloneIsFree) {
    ParameterPath path(makeSpringContext());
    path.setScale({0.25, 1});
    const Tensor x = Random(4).normal(4, 3);
    const PathState start = path.evaluate(x, 0.0, Gradient::Compute), end = path.atLambda(start, 1.0);
    EXPECT_EQ(path.getNumEvaluations(), 4);
    EXPECT_TRUE(at::allclose(end.logDensity, 4 * start.logDensity));
    EXPECT_TRUE(at::allclose(end.gradient, 4 * start.gradient));
    path.addParameter("k", {1, 2});
    EXPECT_TRUE(at::allclose(path.atLambda(path.evaluate(x, 0.0), 1.0).logDensity, path.evaluate(x, 1.0).logDensity));
    EXPECT_EQ(path.getNumEvaluations(), 4 * 4);
}

TEST(ParameterPath, RefusesBadArguments) {
    const auto potential = makeSpringContext();
    expectMessage([] { ParameterPath(nullptr); }, "potential is null");
    expectMessage([&] { ParameterPath(potential, {0}); }, "number of nodes is 1");
    expectMessage([&] { ParameterPath(potential, {0.1, 1}); }, "the first node is 0.1");
    expectMessage([&] { ParameterPath(potential, {0, 0.9}); }, "the last node is 0.9");
    expectMessage([&] { ParameterPath(potential, {0, 0.5, 0.5, 1}); }, "a node is 0.5");
    ParameterPath path(potential);
    expectMessage([&] { path.addParameter("q", {0, 1}); }, "name is q");
    expectMessage([&] { path.addParameter("k", {0, 1, 2}); }, "number of values is 3");
    expectMessage([&] { path.addParameter("k", {0, NAN}); }, "a value is nan");
    path.addParameter("k", {0, 1});
    expectMessage([&] { path.addParameter("k", {0, 1}); }, "name is k, but must be added once");
    expectMessage([&] { path.setScale({1}); }, "number of values is 1");
    expectMessage([&] { path.setScale({1, 0}); }, "a value is 0");
    expectMessage([&] { (void)path.getScale(1.5); }, "lambda is 1.5");
}

// A step dK of a spring K has <v>^2/<v^2> = sqrt(K (K + 2 dK)) / (K + dK) in each dimension.
TEST(LambdaSpacing, FindsTheStepOfAWantedConditionalEffectiveSize) {
    constexpr int n = 200000;
    PotentialPath path(std::make_shared<Spring>(1, 1.0), std::make_shared<Spring>(1, 4.0));
    const PathState state = path.evaluate(Spring(1, 1.0).sample(n, *std::make_unique<Random>(5)), 0.0);
    const auto exact = [](double step) { return std::sqrt(1 + 2 * step) / (1 + step); };
    EXPECT_NEAR(conditionalEss(path, state, 0.5), exact(1.5), 0.01);
    EXPECT_DOUBLE_EQ(conditionalEss(path, state, 0.0), 1.0);
    const double lambda = nextLambda(path, state, 0.9);
    EXPECT_NEAR(exact(3 * lambda), 0.9, 0.05 * 0.1 + 0.005);
    EXPECT_EQ(nextLambda(path, state, 0.5), 1.0); // all of the way keeps 0.66
    EXPECT_EQ(path.getNumEvaluations(), 2 * n);
    // Walkers without weight do not count.
    const Tensor none = at::full({n}, -INFINITY, at::kDouble);
    EXPECT_EQ(conditionalEss(path, state, 0.5, none), 0.0);
    expectMessage([&] { (void)nextLambda(path, state, 1.0); }, "target is 1");
    expectMessage([&] { (void)conditionalEss(path, state, 0.5, at::zeros({3})); }, "shape of logWeight is [3]");
}

TEST(LambdaSpacing, SpacesByPowersAndByThePilotsLengths) {
    EXPECT_EQ(powerLambdas(4, 1.0), (std::vector<double>{0, 0.25, 0.5, 0.75, 1}));
    EXPECT_EQ(powerLambdas(2, 2.0), (std::vector<double>{0, 0.25, 1}));
    AnnealedResult pilot;
    pilot.lambdas = {0, 0.5, 1};
    pilot.cess = {std::exp(-0.09), std::exp(-0.01)}; // lengths .3 and .1
    const auto lambdas = equalCessLambdas(pilot, 4);
    ASSERT_EQ(lambdas.size(), 5u);
    EXPECT_NEAR(lambdas[1], 0.5 / 3, 1e-12);
    EXPECT_NEAR(lambdas[2], 1.0 / 3, 1e-12);
    EXPECT_NEAR(lambdas[3], 0.5, 1e-12);
    EXPECT_EQ(lambdas[4], 1.0);
    expectMessage([] { (void)powerLambdas(0, 1); }, "numStages is 0");
    expectMessage([] { (void)powerLambdas(2, 0); }, "power is 0");
    expectMessage([&] { (void)equalCessLambdas(pilot, 0); }, "numStages is 0");
    pilot.cess[1] = 0;
    expectMessage([&] { (void)equalCessLambdas(pilot, 2); }, "a cess of the pilot is 0");
}
