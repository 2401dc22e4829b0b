// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/samplers/HamiltonianKernel.h"
#include "openmmflow/samplers/LambdaSpacing.h"
#include "openmmflow/samplers/LatentKernel.h"
#include "openmmflow/samplers/ReplicaExchange.h"
#include "openmmflow/samplers/SequentialSampler.h"
#include "openmmflow/samplers/StochasticFlow.h"
#include "samplers/AnnealedTargets.h"
#include <gtest/gtest.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** Where a path starts and ends, and what is known about it. */
struct Problem {
    std::shared_ptr<Spring> start;
    std::shared_ptr<ReducedPotential> end;
    double logZ; // of the end
    [[nodiscard]] std::shared_ptr<PotentialPath> path() const { return std::make_shared<PotentialPath>(start, end); }
    [[nodiscard]] double logRatio() const { return logZ - start->logNorm(); }
};

/** phi^4 on 2 x 8 sites, from independent sites to kappa = .3. */
struct LatticeProblem {
    std::shared_ptr<Lattice> start = std::make_shared<Lattice>(2, 8, 0.0, 0.022);
    [[nodiscard]] std::shared_ptr<PotentialPath> path() const {
        return std::make_shared<PotentialPath>(start, std::make_shared<Lattice>(2, 8, 0.3, 0.022));
    }
    double logRatio = 18.00726685 - 16 * .578277976857;
};

Problem doubleWellProblem() {
    return {std::make_shared<Spring>(2, 0.25), makeA1(), logZA1};
}
Problem manyWellProblem() {
    return {std::make_shared<Spring>(32, 0.7), makeManyWell(16), 16 * logZPair};
}

std::shared_ptr<HamiltonianKernel> hamiltonian(double step, int numSteps, int numMoves = 1) {
    return std::make_shared<HamiltonianKernel>(HamiltonianKernel::Options{step, numSteps, numMoves, 0.0});
}

// The truth within four standard errors, which are small enough to mean something.
void expectLogZ(const AnnealedResult& result, double exact, double largestError, const char* what) {
    EXPECT_NEAR(result.logZRatio, exact, 4 * result.logZRatioError) << what;
    EXPECT_LT(result.logZRatioError, largestError) << what;
    EXPECT_GT(result.logZRatioError, 0) << what;
    double sum = 0;
    for (const double increment : result.logZIncrements)
        sum += increment;
    EXPECT_NEAR(sum, result.logZRatio, 1e-9) << what;
}

// <x> and P(left) of A1 from weighted samples.
void expectA1Moments(const AnnealedResult& result, double tolerance) {
    const Tensor p = result.logWeight.softmax(0), x = result.x.select(1, 0);
    EXPECT_NEAR((p * x).sum().item<double>(), -2.44109667, tolerance);
    EXPECT_NEAR((p * (x < .167449)).sum().item<double>(), .99165366, tolerance / 3);
}

struct Scores {
    double mean = 0, sd = 0;
};

// z = (estimate - truth)/error over many seeds.
Scores scoreSeeds(int numSeeds, double exact, const std::function<AnnealedResult(Random&)>& run) {
    double sum = 0, squares = 0;
    for (int seed = 1; seed <= numSeeds; seed++) {
        Random random(seed);
        const AnnealedResult result = run(random);
        const double z = (result.logZRatio - exact) / result.logZRatioError;
        sum += z;
        squares += z * z;
    }
    const double mean = sum / numSeeds;
    return {mean, std::sqrt(squares / numSeeds - mean * mean)};
}

// A spring that moves and stiffens, 2-D: cheap, and no stage is a special one.
Problem cheapProblem() {
    const auto end = std::make_shared<Spring>(2, 3.0, 0.8);
    return {std::make_shared<Spring>(2, 1.0), end, end->logNorm()};
}

// Bounds are three standard errors of mean and sd at 400 seeds, over four at 1000. t of 19 degrees of freedom has
// sd 1.06.
void expectCalibrated(const Scores& scores, const char* what) {
    testing::Test::RecordProperty(std::string(what) + " mean of z", std::to_string(scores.mean));
    testing::Test::RecordProperty(std::string(what) + " sd of z", std::to_string(scores.sd));
    EXPECT_LT(std::abs(scores.mean), .15) << what;
    EXPECT_GT(scores.sd, .85) << what;
    EXPECT_LT(scores.sd, 1.15) << what;
}

enum class Engine { Annealed, Sequential, Adaptive, Exchange, OneLadder };

AnnealedResult runCheap(Engine engine, Random& random) {
    const Problem problem = cheapProblem();
    const auto path = problem.path();
    const auto kernel = hamiltonian(0.6, 2);
    const auto start = [&](int n) { return problem.start->sample(n, random); };
    switch (engine) {
    case Engine::Annealed:
        return AnnealedSampler(path, kernel, powerLambdas(6, 1)).run(start(200), random);
    case Engine::Sequential:
        return SequentialSampler(path, kernel, powerLambdas(6, 1), {0.8, 20, 0.9, 1000}).run(start(400), random);
    case Engine::Adaptive:
        return SequentialSampler(path, kernel, {}, {0.8, 20, 0.8, 1000}).run(start(400), random);
    case Engine::Exchange:
        return ReplicaExchange(path, kernel, powerLambdas(3, 1), {5, 20, 1}).run(start(20), 20, random);
    case Engine::OneLadder:
        break;
    }
    return ReplicaExchange(path, kernel, powerLambdas(3, 1), {5, 200, 1}).run(start(1), 1, random);
}

// Two wells: Gaussian walkers that part, and weights that are less even.
AnnealedResult runDoubleWell(Engine engine, Random& random) {
    const Problem problem = doubleWellProblem();
    const auto path = problem.path();
    const auto kernel = hamiltonian(0.25, 4);
    const auto start = [&](int n) { return problem.start->sample(n, random); };
    if (engine == Engine::Annealed)
        return AnnealedSampler(path, kernel, powerLambdas(12, 2)).run(start(1000), random);
    if (engine == Engine::Sequential)
        return SequentialSampler(path, kernel, powerLambdas(8, 2), {}).run(start(1000), random);
    return ReplicaExchange(path, kernel, powerLambdas(5, 2), {50, 50, 1}).run(start(20), 20, random);
}

} // namespace

TEST(SequentialSampler, GivesTheFreeEnergyOfADoubleWell) {
    const Problem problem = doubleWellProblem();
    Random random(1);
    for (const auto& lambdas : {powerLambdas(20, 2), std::vector<double>{}}) {
        SequentialSampler sampler(problem.path(), hamiltonian(0.25, 4), lambdas, {});
        const AnnealedResult result = sampler.run(problem.start->sample(20000, random), random);
        expectLogZ(result, problem.logRatio(), 0.03, lambdas.empty() ? "adaptive" : "fixed");
        expectA1Moments(result, 0.05);
        EXPECT_EQ(result.lambdas.size(), result.cess.size() + 1);
        EXPECT_EQ(result.acceptance.size(), result.cess.size());
        for (std::size_t k = 0; lambdas.empty() && k + 1 < result.cess.size(); k++)
            EXPECT_NEAR(result.cess[k], 0.9, 0.006);
    }
}

TEST(SequentialSampler, WorksWithRandomWalksAndWithMomentaThatAreKept) {
    const Problem problem = doubleWellProblem();
    Random random(2);
    const auto walk = std::make_shared<RandomWalkKernel>(RandomWalkKernel::Options{0.7, 5, 0.0});
    const AnnealedResult result =
        SequentialSampler(problem.path(), walk, {}, {}).run(problem.start->sample(10000, random), random);
    expectLogZ(result, problem.logRatio(), 0.04, "random walk");
    EXPECT_EQ(result.numGradients, 0);
    EXPECT_FALSE(result.state.momentum.defined());
    const auto generalized =
        std::make_shared<GeneralizedHamiltonianKernel>(GeneralizedHamiltonianKernel::Options{0.3, 1, 5, 0.4, 0.0});
    const AnnealedResult other = SequentialSampler(problem.path(), generalized, powerLambdas(15, 2), {})
                                     .run(problem.start->sample(10000, random), random);
    expectLogZ(other, problem.logRatio(), 0.05, "momenta");
    EXPECT_TRUE(other.state.momentum.defined());
}

// Without resampling it is annealed importance sampling, number for number but for the moves at the last stage.
TEST(SequentialSampler, WithoutResamplingIsAnnealedImportanceSampling) {
    const Problem problem = doubleWellProblem();
    Random one(3), two(3);
    const auto lambdas = powerLambdas(5, 1);
    SequentialSampler sequential(problem.path(), hamiltonian(0.3, 3), lambdas, {0.0, 1, 0.9, 1000});
    AnnealedSampler annealed(problem.path(), hamiltonian(0.3, 3), lambdas);
    const AnnealedResult a = sequential.run(problem.start->sample(200, one), one);
    const AnnealedResult b = annealed.run(problem.start->sample(200, two), two);
    EXPECT_TRUE(at::allclose(a.logWeight, b.logWeight, 1e-12));
    EXPECT_EQ(a.cess, b.cess);
    EXPECT_EQ(a.ess, b.ess);
    EXPECT_TRUE(std::isnan(a.logZRatioError));
    EXPECT_GT(b.logZRatioError, 0);
    EXPECT_EQ(b.numEvaluations, 2 * 200 * (1 + 4 * 3));
    EXPECT_EQ(a.numEvaluations, 2 * 200 * (1 + 5 * 3));
}

TEST(SequentialSampler, ResamplesInProportionToTheWeightsWithinGroups) {
    struct Still : AnnealedKernel {
        double move(AnnealedPath&, int, double, PathState&, Random&) override { return 0; }
    };
    // Walkers 0, 1, 2, 3 | 10, 11, 12, 13 with weights by their place in the group.
    struct Tilt : Spring {
        Tilt() : Spring(1, 1.0) {}
        EnergyResult evaluate(const Tensor& x, Gradient) override {
            const Tensor place = x.select(1, 0).remainder(10.0);
            const Tensor weight = at::tensor({0.0, 0.5, 0.5, 3.0}, at::kDouble).index_select(0, place.to(at::kLong));
            return {-weight.log(), {}, 0, 0};
        }
    };
    struct Flat : Spring {
        Flat() : Spring(1, 1.0) {}
        EnergyResult evaluate(const Tensor& x, Gradient) override {
            return {at::zeros({x.size(0)}, at::kDouble), {}, 0, 0};
        }
    };
    const auto path = std::make_shared<PotentialPath>(std::make_shared<Flat>(), std::make_shared<Tilt>());
    const Tensor start = at::tensor({0, 1, 2, 3, 10, 11, 12, 13}, at::kDouble).unsqueeze(1);
    Tensor counts = at::zeros({8}, at::kDouble);
    constexpr int repeats = 400;
    for (int i = 1; i <= repeats; i++) {
        Random random(i);
        SequentialSampler sampler(path, std::make_shared<Still>(), {0, 1}, {1.0, 2, 0.9, 10});
        const AnnealedResult result = sampler.run(start, random);
        EXPECT_NEAR(result.logZRatio, 0, 1e-12); // weights of mean 1
        EXPECT_TRUE(at::allclose(result.logWeight, at::zeros_like(result.logWeight)));
        for (int j = 0; j < 8; j++) {
            const auto value = static_cast<int>(result.x[j][0].item<double>());
            EXPECT_EQ(value / 10, j / 4); // from its own group
            counts[value / 10 * 4 + value % 10] += 1.0 / repeats;
        }
    }
    EXPECT_EQ(counts[0].item<double>(), 0);
    EXPECT_NEAR(counts[3].item<double>(), 3, 1e-9); // systematic: always three of the weight 3
    EXPECT_NEAR(counts[1].item<double>(), 0.5, 4 * 0.5 / std::sqrt(1.0 * repeats));
    EXPECT_NEAR(counts[6].item<double>(), 0.5, 4 * 0.5 / std::sqrt(1.0 * repeats));
}

// A transform between stages, right or wrong, leaves the weights exact.
TEST(SequentialSampler, LayersKeepWeightsExact) {
    const Problem problem = doubleWellProblem();
    Random random(4);
    SequentialSampler sampler(problem.path(), hamiltonian(0.25, 4), powerLambdas(8, 1), {});
    std::vector<std::shared_ptr<Transform>> layers;
    for (int k = 0; k < 8; k++)
        layers.push_back(std::make_shared<Scaling>(std::vector<double>{k == 3 ? -0.2 : 0.1, 0.0},
                                                   std::vector<double>{1.1, 0.9 + 0.02 * k}));
    sampler.setLayers(layers);
    const AnnealedResult result = sampler.run(problem.start->sample(20000, random), random);
    expectLogZ(result, problem.logRatio(), 0.05, "layers");
    expectA1Moments(result, 0.08);
    // The layer whose log-det is dropped is noticed.
    layers[2] = std::make_shared<WrongLogDet>(layers[2], 0.0);
    sampler.setLayers(layers);
    const AnnealedResult wrong = sampler.run(problem.start->sample(20000, random), random);
    EXPECT_NEAR(wrong.logZRatio - problem.logRatio(), -std::log(1.1 * 0.94), 5 * wrong.logZRatioError + 0.01);
}

TEST(AnnealedEngines, AgreeOnThePhi4Lattice) {
    const LatticeProblem problem;
    Random random(5);
    const auto kernel = hamiltonian(0.25, 6);
    const auto start = [&](int n) { return problem.start->sampleSites(n, random); };
    const AnnealedResult pilot = SequentialSampler(problem.path(), kernel, {}, {}).run(start(1000), random);
    const AnnealedResult ais =
        AnnealedSampler(problem.path(), kernel, equalCessLambdas(pilot, 50)).run(start(2500), random);
    expectLogZ(ais, problem.logRatio, 0.3, "AIS");
    const AnnealedResult smc =
        SequentialSampler(problem.path(), kernel, powerLambdas(25, 1), {}).run(start(4000), random);
    expectLogZ(smc, problem.logRatio, 0.15, "SMC");
    const ReplicaExchangeResult exchange =
        ReplicaExchange(problem.path(), kernel, powerLambdas(8, 1), {100, 300, 5}).run(start(40), 40, random);
    expectLogZ(exchange, problem.logRatio, 0.1, "RE");
    EXPECT_EQ(exchange.x.sizes(), (at::IntArrayRef{300 / 5 * 40, 16}));
    EXPECT_EQ(exchange.swapAcceptance.size(), 8u);
    EXPECT_EQ(exchange.acceptance.size(), 9u);
    EXPECT_GT(exchange.tripsPerSweep, 0);
    for (const double overlap : exchange.overlap)
        EXPECT_GT(overlap, 0.1);
    EXPECT_NEAR(smc.logZRatio, exchange.logZRatio, 4 * std::hypot(smc.logZRatioError, exchange.logZRatioError));
}

TEST(AnnealedEngines, AgreeOnTheDoubleWell) {
    const Problem problem = doubleWellProblem();
    Random random(6);
    const AnnealedResult ais = AnnealedSampler(problem.path(), hamiltonian(0.25, 4), powerLambdas(20, 2))
                                   .run(problem.start->sample(10000, random), random);
    expectLogZ(ais, problem.logRatio(), 0.05, "AIS");
    expectA1Moments(ais, 0.05);
    const ReplicaExchangeResult exchange =
        ReplicaExchange(problem.path(), hamiltonian(0.3, 4), powerLambdas(8, 2), {100, 300, 2})
            .run(problem.start->sample(200, random), 200, random);
    expectLogZ(exchange, problem.logRatio(), 0.03, "RE");
    expectA1Moments(exchange, 0.05);
    // The ladder's swaps carry walkers across, although its last stage does not cross by itself.
    EXPECT_GT(exchange.tripsPerSweep, 0.005);
}

// Every stage keeps its own distribution, swaps included.
TEST(ReplicaExchange, LeavesAllStagesInvariant) {
    constexpr int ladders = 20000;
    const Problem problem = cheapProblem();
    const auto lambdas = powerLambdas(2, 1);
    Random random(7);
    std::vector<Tensor> start;
    for (const double lambda : lambdas) {
        const double k = 1 + 2 * lambda;
        start.push_back(Spring(2, k, lambda * 3 * 0.8 / k).sample(ladders, random));
    }
    const ReplicaExchangeResult result =
        ReplicaExchange(problem.path(), hamiltonian(0.5, 2), lambdas, {0, 3, 3}).run(at::cat(start), ladders, random);
    const Tensor x = std::sqrt(3.0) * (result.x - 0.8);
    EXPECT_NEAR(x.mean().item<double>(), 0, 4 / std::sqrt(2.0 * ladders));
    EXPECT_NEAR(x.square().mean().item<double>(), 1, 4 * std::sqrt(2 / (2.0 * ladders)));
    expectLogZ(result, problem.logRatio(), 0.01, "RE");
    // E[min(1, exp(-w_F - w_R))] between neighbours, by sampling both exactly.
    for (int k = 0; k < 2; k++) {
        const auto path = problem.path();
        const auto at = [&](const Tensor& y, double lambda) { return path->evaluate(y, lambda).logDensity; };
        const Tensor a = start[k], b = start[k + 1];
        const Tensor ratio = at(b, lambdas[k]) + at(a, lambdas[k + 1]) - at(a, lambdas[k]) - at(b, lambdas[k + 1]);
        EXPECT_NEAR(result.swapAcceptance[k], ratio.exp().clamp_max(1.0).mean().item<double>(), 0.015);
    }
}

TEST(ReplicaExchange, FreshSamplesOfAFlowComeInAtTheBottom) {
    const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(2), std::make_shared<TwoWellMap>());
    const auto path = std::make_shared<FlowPath>(flow, makeA1());
    const auto latent = std::make_shared<LatentKernel>(flow, LatentKernel::Options{JumpKind::Independence, 1, 1, 0});
    KernelSequence both(std::vector<std::shared_ptr<AnnealedKernel>>{latent, hamiltonian(0.3, 3)});
    Random random(8);
    PathState state = path->evaluate(flow->sample(1000, random).x, 0.0);
    EXPECT_EQ(latent->move(*path, 0, 0.0, state, random), 1.0); // all accepted at lambda = 0
    const auto kernel = std::make_shared<KernelSequence>(both);
    const ReplicaExchangeResult result =
        ReplicaExchange(path, kernel, powerLambdas(3, 1), {20, 100, 1}).run(flow->sample(100, random).x, 100, random);
    expectLogZ(result, logZA1, 0.05, "flow");
    expectA1Moments(result, 0.05);
}

// log w of transforms and moves in any order: known Z and moments, however poor the blocks are.
TEST(StochasticFlow, WeightsAreExactWhateverTheBlocks) {
    const Problem problem = doubleWellProblem();
    const auto shift = [](double middle, double scale) {
        return std::make_shared<Scaling>(std::vector<double>{middle, 0.1}, std::vector<double>{scale, 0.8});
    };
    const auto build = [&](const std::shared_ptr<Transform>& last) {
        StochasticFlow flow(problem.path());
        flow.addMoves(std::make_shared<RandomWalkKernel>(RandomWalkKernel::Options{1.0, 2, 0.0}), 0.05);
        flow.addTransform(shift(-0.3, 1.2));
        flow.addTransform(shift(0.1, -0.9));
        flow.addMoves(hamiltonian(0.3, 4), 0.3, 2);
        flow.addMoves(hamiltonian(0.3, 4), 0.8, 2);
        flow.addTransform(last);
        flow.addMoves(
            std::make_shared<GeneralizedHamiltonianKernel>(GeneralizedHamiltonianKernel::Options{0.2, 1, 6, 0.5, 0.0}),
            1.0);
        return flow;
    };
    Random random(9);
    StochasticFlow flow = build(shift(0.05, 1.05));
    EXPECT_EQ(flow.getNumBlocks(), 7);
    const AnnealedResult result = flow.run(problem.start->sample(100000, random), random);
    expectLogZ(result, problem.logRatio(), 0.05, "blocks");
    expectA1Moments(result, 0.1);
    EXPECT_EQ(result.acceptance.size(), 4u);
    const AnnealedResult wrong = build(std::make_shared<WrongLogDet>(shift(0.05, 1.05), -1.0))
                                     .run(problem.start->sample(100000, random), random);
    EXPECT_GT(std::abs(wrong.logZRatio - problem.logRatio()), 5 * wrong.logZRatioError);
}

// Walkers that have no density at a stage stay where they are, and a transform may bring them back.
TEST(StochasticFlow, ForgetsNoWalkerThatAStageForbids) {
    const auto start = std::make_shared<Spring>(2, 1.0);
    StochasticFlow flow(std::make_shared<PotentialPath>(start, std::make_shared<Wall>()));
    flow.addMoves(std::make_shared<RandomWalkKernel>(RandomWalkKernel::Options{0.5, 1, 0}), 0.5);
    flow.addTransform(std::make_shared<Scaling>(std::vector{1.5, 0.0}, std::vector{1.0, 1.0}));
    Random random(5);
    const AnnealedResult result = flow.run(start->sample(50000, random), random);
    EXPECT_NEAR(result.logZRatio, std::log(0.5), 4 * result.logZRatioError);
    EXPECT_LT(result.logZRatioError, 0.03);
}

TEST(StochasticFlow, OfMovesAloneIsAnnealedImportanceSamplingAndOfTransformsAloneAFlow) {
    const Problem problem = doubleWellProblem();
    const auto lambdas = powerLambdas(4, 1);
    StochasticFlow moves(problem.path());
    for (int k = 1; k < 4; k++)
        moves.addMoves(hamiltonian(0.3, 3), lambdas[k]);
    Random one(10), two(10);
    const AnnealedResult a = moves.run(problem.start->sample(100, one), one);
    const AnnealedResult b =
        AnnealedSampler(problem.path(), hamiltonian(0.3, 3), lambdas).run(problem.start->sample(100, two), two);
    EXPECT_TRUE(at::allclose(a.logWeight, b.logWeight, 1e-10, 1e-10));
    EXPECT_TRUE(at::equal(a.x, b.x));

    const auto map = std::make_shared<TwoWellMap>();
    const auto normal = std::make_shared<Spring>(2, 1.0);
    StochasticFlow transform(std::make_shared<PotentialPath>(normal, makeA1()));
    transform.addTransform(map);
    const Tensor z = one.normal(50, 2);
    const AnnealedResult c = transform.run(z, one);
    const Flow flow(std::make_shared<GaussianPrior>(2), map);
    const FlowSample sample = flow.fromLatent(z);
    const Tensor expected = -makeA1()->evaluate(sample.x, Gradient::Omit).u - sample.logQ - normal->logNorm();
    EXPECT_TRUE(at::allclose(c.logWeight, expected));
    EXPECT_TRUE(at::equal(c.x, sample.x));
}

// A pilot run tells where stages are needed: at equal steps afterwards.
TEST(LambdaSpacing, StagesOfAPilotRunHaveEqualConditionalEffectiveSizes) {
    const Problem problem = doubleWellProblem();
    Random random(11);
    const auto run = [&](const std::vector<double>& lambdas) {
        return SequentialSampler(problem.path(), hamiltonian(0.25, 4), lambdas, {})
            .run(problem.start->sample(4000, random), random);
    };
    const AnnealedResult even = run(powerLambdas(12, 1)), adapted = run(equalCessLambdas(run({}), 12));
    const auto range = [](const std::vector<double>& values) {
        const auto [low, high] = std::minmax_element(values.begin(), values.end());
        return *high - *low;
    };
    EXPECT_LT(range(adapted.cess), 0.5 * range(even.cess));
    EXPECT_LT(adapted.logZRatioError, even.logZRatioError);
}

TEST(AnnealedEngines, ErrorsAreCalibrated) {
    const double exact = cheapProblem().logRatio();
    for (const auto& [engine, name] : {std::pair{Engine::Annealed, "AIS"}, std::pair{Engine::Sequential, "SMC"}})
        expectCalibrated(scoreSeeds(400, exact, [&](Random& random) { return runCheap(engine, random); }), name);
}

// Groups whose estimates are log-normal: one walker each, weighed once, with a shift of a Gaussian that makes ln w
// normal. A mean of so few is skew, so that the mean of z is not zero: what counts is the root mean square, which would
// be 1.4, 4 and 43 by the scatter of the weights.
TEST(AnnealedEngines, GroupsThatScatterWidelyHaveAnErrorToMatch) {
    for (const double deviation : {1.0, 3.0, 10.0}) {
        const auto start = std::make_shared<Spring>(2, 1.0);
        const auto end = std::make_shared<Spring>(2, 1.0, deviation / std::sqrt(2));
        const auto path = std::make_shared<PotentialPath>(start, end);
        SequentialSampler sampler(path, hamiltonian(0.1, 1), {0, 1}, {0, 20, 0.9, 1000});
        const Scores scores =
            scoreSeeds(400, 0, [&](Random& random) { return sampler.run(start->sample(20, random), random); });
        EXPECT_LT(std::hypot(scores.mean, scores.sd), 1.35) << deviation;
        EXPECT_GT(std::hypot(scores.mean, scores.sd), .9) << deviation;
    }
}

TEST(SlowAnnealedEngines, ErrorsAreCalibrated) {
    const double exact = cheapProblem().logRatio();
    for (const auto& [engine, name, numSeeds] :
         {std::tuple{Engine::Annealed, "AIS", 1000}, std::tuple{Engine::Sequential, "SMC", 1000},
          std::tuple{Engine::Adaptive, "adaptive SMC", 1000}, std::tuple{Engine::Exchange, "RE", 1000},
          std::tuple{Engine::OneLadder, "one ladder", 300}})
        expectCalibrated(scoreSeeds(numSeeds, exact, [&](Random& random) { return runCheap(engine, random); }), name);
}

TEST(SlowAnnealedEngines, ErrorsAreCalibratedOnTheDoubleWell) {
    const double exact = doubleWellProblem().logRatio();
    for (const auto& [engine, name] :
         {std::pair{Engine::Annealed, "AIS"}, std::pair{Engine::Sequential, "SMC"}, std::pair{Engine::Exchange, "RE"}})
        expectCalibrated(scoreSeeds(400, exact, [&](Random& random) { return runDoubleWell(engine, random); }), name);
}

TEST(SlowAnnealedEngines, AgreeOnManyWells) {
    const Problem problem = manyWellProblem();
    Random random(12);
    const auto kernel = hamiltonian(0.12, 6);
    const auto start = [&](int n) { return problem.start->sample(n, random); };
    const AnnealedResult pilot =
        SequentialSampler(problem.path(), kernel, {}, {0.5, 20, 0.8, 1000}).run(start(2000), random);
    const AnnealedResult smc =
        SequentialSampler(problem.path(), kernel, equalCessLambdas(pilot, 40), {}).run(start(8000), random);
    expectLogZ(smc, problem.logRatio(), 0.25, "SMC");
    const AnnealedResult ais =
        AnnealedSampler(problem.path(), kernel, equalCessLambdas(pilot, 150)).run(start(4000), random);
    expectLogZ(ais, problem.logRatio(), 0.25, "AIS");
    // Wells are not crossed but at the bottom of the ladders: from anywhere else than equilibrium they take long to
    // settle. All stages are products over pairs, and start with exact samples of their own.
    const auto lambdas = equalCessLambdas(pilot, 24);
    std::vector<Tensor> starts;
    for (const double lambda : lambdas) {
        const GridDensity pair(-8, 8, [lambda](double x) {
            return (1 - lambda) * 0.35 * x * x + lambda * (x * x * x * x - 6 * x * x - 0.5 * x);
        });
        Tensor x = random.uniform(100 * 16, 2);
        double* values = x.mutable_data_ptr<double>();
        for (int row = 0; row < 100 * 16; row++) {
            values[2 * row] = pair.quantile(values[2 * row]);
            values[2 * row + 1] = random.normal() / std::sqrt((1 - lambda) * 0.7 + lambda);
        }
        starts.push_back(x.view({100, 32}));
    }
    const ReplicaExchangeResult exchange =
        ReplicaExchange(problem.path(), kernel, lambdas, {0, 200, 10}).run(at::cat(starts), 100, random);
    expectLogZ(exchange, problem.logRatio(), 0.25, "RE");
    EXPECT_NEAR(smc.logZRatio, exchange.logZRatio, 4 * std::hypot(smc.logZRatioError, exchange.logZRatioError));
}

TEST(AnnealedEngines, WalkersOutsideTheTargetHaveNoWeight) {
    const Problem problem{std::make_shared<Spring>(2, 1.0), std::make_shared<Wall>(), 0};
    Random random(13);
    const AnnealedResult smc = SequentialSampler(problem.path(), hamiltonian(0.5, 2), powerLambdas(3, 1), {})
                                   .run(problem.start->sample(2000, random), random);
    EXPECT_NEAR(smc.logZRatio, std::log(0.5), 4 * smc.logZRatioError);
    EXPECT_TRUE((smc.x.select(1, 0) > 0).index({smc.logWeight.isfinite()}).all().item<bool>());
    // Groups of one walker: some have nothing left.
    const AnnealedResult single =
        SequentialSampler(problem.path(), hamiltonian(0.5, 2), powerLambdas(3, 1), {0.5, 2000, 0.9, 10})
            .run(problem.start->sample(2000, random), random);
    EXPECT_NEAR(single.logZRatio, std::log(0.5), 4 * single.logZRatioError);
    EXPECT_LT(single.logZRatioError, 0.03); // 1/sqrt(2000), by the part that has weight
    const Tensor left = -problem.start->sample(20, random).abs();
    const AnnealedResult none = AnnealedSampler(problem.path(), hamiltonian(0.5, 2), {0, 1}).run(left, random);
    EXPECT_EQ(none.logZRatio, -INFINITY);
    EXPECT_TRUE(std::isnan(none.logZRatioError));
}

TEST(AnnealedEngines, RefuseBadArguments) {
    const auto path = cheapProblem().path();
    const auto kernel = hamiltonian(0.5, 1);
    const std::vector<double> lambdas{0, 1};
    Random random(1);
    const Tensor x = at::zeros({40, 2}, at::kDouble);
    expectMessage([&] { SequentialSampler(nullptr, kernel, lambdas, {}); }, "path is null");
    expectMessage([&] { SequentialSampler(path, nullptr, lambdas, {}); }, "kernel is null");
    expectMessage([&] { SequentialSampler(path, kernel, {0, 0.5}, {}); }, "the last lambda is 0.5");
    expectMessage([&] { SequentialSampler(path, kernel, lambdas, {1.5, 1, 0.9, 10}); }, "resampleBelow is 1.5");
    expectMessage([&] { SequentialSampler(path, kernel, lambdas, {0.5, 0, 0.9, 10}); }, "numGroups is 0");
    expectMessage([&] { SequentialSampler(path, kernel, lambdas, {0.5, 1, 1, 10}); }, "targetCess is 1");
    expectMessage([&] { SequentialSampler(path, kernel, lambdas, {0.5, 1, 0.9, 0}); }, "maxStages is 0");
    SequentialSampler sampler(path, kernel, {}, {0.5, 20, 0.999, 1});
    expectMessage([&] { (void)sampler.run(at::zeros({41, 2}), random); }, "number of walkers is 41");
    expectMessage([&] { (void)sampler.run(at::zeros({40, 3}), random); }, "shape of start is [40, 3]");
    expectMessage([&] { (void)sampler.run(random.normal(40, 2), random); }, "number of stages is 2");
    const auto layer = std::make_shared<Scaling>(std::vector<double>{0, 0}, std::vector<double>{1, 1});
    expectMessage([&] { sampler.setLayers({layer}); }, "number of lambdas is 0");
    SequentialSampler fixed(path, kernel, lambdas, {});
    expectMessage([&] { fixed.setLayers({layer, layer}); }, "number of layers is 2");
    expectMessage([&] { fixed.setLayers({nullptr}); }, "a layer is null");
    const auto wide = std::make_shared<Scaling>(std::vector<double>(3, 0), std::vector<double>(3, 1));
    expectMessage([&] { fixed.setLayers({wide}); }, "input size of a layer is 3");

    expectMessage([&] { ReplicaExchange(nullptr, kernel, lambdas, {}); }, "path is null");
    expectMessage([&] { ReplicaExchange(path, nullptr, lambdas, {}); }, "kernel is null");
    expectMessage([&] { ReplicaExchange(path, kernel, {0}, {}); }, "number of lambdas is 1");
    expectMessage([&] { ReplicaExchange(path, kernel, lambdas, {-1, 100, 1}); }, "numEquilibration is -1");
    expectMessage([&] { ReplicaExchange(path, kernel, lambdas, {0, 1, 1}); }, "numSweeps is 1");
    expectMessage([&] { ReplicaExchange(path, kernel, lambdas, {0, 10, 11}); }, "sampleInterval is 11");
    ReplicaExchange exchange(path, kernel, lambdas, {0, 10, 1});
    expectMessage([&] { (void)exchange.run(x, 0, random); }, "numLadders is 0");
    expectMessage([&] { (void)exchange.run(x, 39, random); }, "rows of start is 40");
    expectMessage([&] { (void)exchange.run(x.slice(0, 0, 5), 5, random); }, "numSweeps is 10");

    StochasticFlow flow(path);
    expectMessage([] { StochasticFlow(nullptr); }, "path is null");
    expectMessage([&] { flow.addTransform(nullptr); }, "transform is null");
    expectMessage([&] { flow.addTransform(wide); }, "input size is 3");
    expectMessage([&] { flow.addMoves(nullptr, 0.5); }, "kernel is null");
    expectMessage([&] { flow.addMoves(kernel, 1.5); }, "lambda is 1.5");
    expectMessage([&] { flow.addMoves(kernel, 0.5, 0); }, "numMoves is 0");
    expectMessage([&] { (void)flow.run(at::zeros({3}), random); }, "shape of start is [3]");
}
