// SPDX-License-Identifier: MIT
// The contract of Transform.h for scalings, additive, odd, smooth and autoregressive layers, and what each promises
// beyond.

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Architectures.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/MaskedAutoregressive.h"
#include "openmmflow/flows/RationalQuadraticSpline.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/flows/SmoothCoupling.h"
#include "openmmflow/latent/ThreadGuard.h"
#include <complex>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

Conditioner::Options small() {
    return {{7}, Activation::SiLU, 5};
}

Conditioner::Options deep(Activation activation) {
    return {{7, 6}, activation, 5};
}

std::shared_ptr<SplineCoupling> makeSpline(const Conditioner::Options& conditioner) {
    return std::make_shared<SplineCoupling>(5, std::vector<int>{4, 1, 2}, std::vector<int>{1, 3},
                                            SplineCoupling::Options{8, 2.0, conditioner});
}

// Five variables, of which 1 and 3 may be taken as circular.
Tensor makePoints() {
    Random random(31);
    Tensor z = 1.5 * random.normal(6, 5);
    for (const int i : {1, 3})
        z.select(1, i).copy_(2 * M_PI * random.uniform(1, 6)[0] - M_PI);
    return z;
}

double largest(const Tensor& t) {
    return t.abs().max().item<double>();
}

std::shared_ptr<SmoothCoupling> makeSmooth(std::vector<int> active, int components) {
    return std::make_shared<SmoothCoupling>(5, std::move(active), std::vector<int>{1, 3},
                                            SmoothCoupling::Options{components, 2.0, small()});
}

std::shared_ptr<MaskedAutoregressive> makeAutoregressive(AutoregressiveMap map, std::vector<int> hiddenSizes = {9, 8}) {
    const bool spline = map == AutoregressiveMap::Spline;
    return std::make_shared<MaskedAutoregressive>(
        5, spline ? std::vector<int>{1, 3} : std::vector<int>{},
        MaskedAutoregressive::Options{map, 2.0, 4, 2.5, {std::move(hiddenSizes), Activation::SiLU, 5}});
}

// A coupling of variable 1 of two, whose raw numbers are the same for every z: weights 0, biases as given.
template <class Coupling>
std::shared_ptr<Coupling> fixParameters(std::shared_ptr<Coupling> coupling, const std::vector<double>& raw) {
    for (const auto& [name, tensor] : coupling->getParameters())
        tensor.set_data(at::zeros_like(tensor, at::kDouble));
    coupling->getParameters().back().second.set_data(at::tensor(raw));
    return coupling;
}

Tensor makeRows(const Tensor& secondColumn) {
    return at::stack({at::zeros_like(secondColumn), secondColumn}, 1);
}

std::vector<FlowContractCase> makeCases() {
    const Tensor z = makePoints();
    return {
        {"AdditiveCoupling", std::make_shared<AdditiveCoupling>(5, std::vector<int>{4, 0}, small()), z, true},
        {"odd AdditiveCoupling", std::make_shared<AdditiveCoupling>(5, std::vector<int>{4, 0}, small(), true), z, true},
        {"odd AffineCoupling", std::make_shared<AffineCoupling>(5, std::vector<int>{4, 0}, small(), 2.0, true), z,
         true},
        {"LearnedScaling", std::make_shared<LearnedScaling>(5), z, true},
        {"ExpScaling", std::make_shared<ExpScaling>(5), z, true},
        {"AffineCoupling with tanh",
         std::make_shared<AffineCoupling>(5, std::vector<int>{3, 1, 0}, deep(Activation::Tanh)), z, true},
        {"SplineCoupling with ReLU", makeSpline(deep(Activation::ReLU)), z, true},
        {"SplineCoupling without hidden layers", makeSpline({{}, Activation::SiLU, 5}), z, true},
        {"SmoothCoupling of open variables", makeSmooth({0, 2}, 8), z, true},
        {"SmoothCoupling of circular variables", makeSmooth({3, 1}, 4), z, true},
        {"SmoothCoupling of both, one component", makeSmooth({4, 1, 2}, 1), z, true},
        {"Inverse of a SmoothCoupling", std::make_shared<Inverse>(makeSmooth({1, 4, 2}, 3)), z, true},
        {"MaskedAutoregressive, affine", makeAutoregressive(AutoregressiveMap::Affine), z, true},
        {"MaskedAutoregressive, spline", makeAutoregressive(AutoregressiveMap::Spline), z, true},
        {"Inverse autoregressive", std::make_shared<Inverse>(makeAutoregressive(AutoregressiveMap::Affine)), z, true},
        {"NICER", makeNICER(5, {3, ScalingLayer::Learned, small()}), z, true},
        {"NICER with exponential scaling", makeNICER(5, {2, ScalingLayer::Exponential, small()}), z, true},
        {"RealNVP", makeRealNVP(5, 2, {3.0, small()}), z, true},
    };
}

class LayerContract : public testing::TestWithParam<int> {};

} // namespace

TEST_P(LayerContract, Holds) {
    checkFlowContract(makeCases()[GetParam()]);
}

INSTANTIATE_TEST_SUITE_P(Layers, LayerContract, testing::Range(0, static_cast<int>(makeCases().size())));

// Widths that fill the vectors of the kernels, that leave a rest and that are less than one.
TEST(Couplings, PullBackThroughNetworksOfAnyWidth) {
    const Tensor z = makePoints();
    for (const auto& widths : std::vector<std::vector<int>>{{1}, {8, 37}, {70, 16}, {128, 128, 3}})
        for (const Activation activation : {Activation::SiLU, Activation::Tanh}) {
            const Conditioner::Options options{widths, activation, 5};
            for (const std::shared_ptr<Transform>& coupling :
                 {std::shared_ptr<Transform>(makeSpline(options)),
                  std::shared_ptr<Transform>(std::make_shared<AffineCoupling>(5, std::vector<int>{3, 0}, options)),
                  std::shared_ptr<Transform>(
                      std::make_shared<SmoothCoupling>(5, std::vector<int>{4, 1, 2}, std::vector<int>{1, 3},
                                                       SmoothCoupling::Options{3, 2.0, options}))}) {
                SCOPED_TRACE(coupling->getTypeName() + " with a last layer of " + std::to_string(widths.back()));
                randomiseParameters(*coupling, 0.08);
                checkPullBack(*coupling, coupling->forward(z).value);
                for (const auto& [name, tensor] : coupling->getParameters())
                    tensor.set_data(tensor.detach().to(at::kFloat));
                checkPullBack(*coupling, coupling->forward(z).value);
            }
        }
}

namespace {

// A spline coupling of 7 variables with open and circular ones on both sides, and the same by plain tensor operations.
struct SplinePair {
    static constexpr int size = 7, bins = 8;
    static constexpr double bound = 2.0;
    std::vector<int> active{6, 1, 4, 2}, circular{1, 3, 6};
    SplineCoupling coupling;
    Split split{size, active};
    Conditioner conditioner;
    Tensor circularActive = at::tensor({1, 1, 0, 0}).to(at::kBool);

    /** @param dtype  of the coupling's network; the conditioner has the same numbers in plainType */
    SplinePair(at::ScalarType dtype, at::ScalarType plainType, Activation activation = Activation::SiLU)
        : coupling(size, active, circular, {bins, bound, {{24, 17}, activation, 5}}),
          conditioner(3, split.findPassive(circular), 4 * RationalQuadraticSpline::countParameters(bins),
                      {{24, 17}, activation, 5}) {
        randomiseParameters(coupling);
        const NamedTensors from = coupling.getParameters(), to = conditioner.getParameters();
        for (std::size_t i = 0; i < from.size(); i++) {
            from[i].second.set_data(from[i].second.detach().to(dtype));
            to[i].second.set_data(from[i].second.detach().to(plainType, false, true));
        }
    }
    [[nodiscard]] TransformResult apply(const Tensor& y, bool inverse) const {
        return inverse ? coupling.inverse(y) : coupling.forward(y);
    }
    [[nodiscard]] TransformResult applyPlain(const Tensor& y, bool inverse) const {
        const Tensor passive = split.takePassive(y);
        const TransformResult spline = RationalQuadraticSpline::applyReference(
            split.takeActive(y), conditioner(passive), circularActive, bins, bound, inverse);
        return {split.join(spline.value, passive), spline.logDet};
    }
    // Circular columns in [-pi, pi), others also outside of the interval and on its ends.
    [[nodiscard]] static Tensor makePoints(std::int64_t batch) {
        Random random(21);
        Tensor y = 1.5 * random.normal(batch, size);
        for (const int column : {1, 3, 6})
            y.select(1, column).copy_((2 * M_PI * random.uniform(batch, 1) - M_PI).squeeze(1));
        y.index_put_({0, 4}, bound);
        y.index_put_({batch / 2, 2}, -bound);
        return y;
    }
};

// value, logDet, and the gradients of a combination of them by y and by the parameters.
std::vector<Tensor> differentiate(const TransformResult& result, const Tensor& y, const NamedTensors& parameters) {
    Random random(2);
    const Tensor weight = random.normal(y.size(0), y.size(1)), logDetWeight = random.normal(1, y.size(0))[0];
    std::vector<Tensor> variables{y}, all{result.value.detach(), result.logDet.detach()};
    for (const auto& [name, tensor] : parameters)
        variables.push_back(tensor);
    for (const Tensor& gradient :
         torch::autograd::grad({(result.value * weight).sum() + (result.logDet * logDetWeight).sum()}, variables))
        all.push_back(gradient);
    return all;
}

} // namespace

// The blocks of many rows against plain tensor operations, in one thread and in two; a batch of one block, of some and
// with rows left over; by both libraries of matrix products. With float32, both are compared with float64, and agree
// with it within an order of magnitude, as pull-backs do.
TEST(SplineCoupling, AgreesWithPlainTensorOperationsForManyRows) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
        for (const bool inverse : {false, true})
            for (const std::int64_t batch : {1, 9, 64, 300, 1000}) {
                SCOPED_TRACE(testing::Message()
                             << at::toString(dtype) << (inverse ? ", inverse, " : ", ") << batch << " rows");
                const Activation activation = batch == 64 ? Activation::Tanh : Activation::SiLU;
                const SplinePair pair(dtype, dtype, activation), precise(dtype, at::kDouble, activation);
                const Tensor y = SplinePair::makePoints(batch).set_requires_grad(true);
                const auto plainOf = [&](const SplinePair& p) {
                    return differentiate(p.applyPlain(y, inverse), y, p.conditioner.getParameters());
                };
                const auto plain = plainOf(pair), exact = plainOf(precise);
                const auto check = [&](const Tensor& found, std::size_t i) {
                    const double rounding = relativeDifference(plain[i], exact[i]); // 0 with float64
                    EXPECT_LE(relativeDifference(found, exact[i]), dtype == at::kDouble ? 1e-12 : 1e-6 + 10 * rounding)
                        << "number " << i << ", plain " << rounding;
                };
                for (const auto& [numThreads, oneDnn] : {std::pair(1, true), std::pair(2, true), std::pair(1, false)}) {
                    at::globalContext().setUserEnabledMkldnn(oneDnn);
                    const ThreadGuard threads(numThreads);
                    const auto fast = differentiate(pair.apply(y, inverse), y, pair.coupling.getParameters());
                    ASSERT_EQ(fast.size(), exact.size());
                    for (std::size_t i = 0; i < fast.size(); i++)
                        check(fast[i], i);
                    const at::NoGradGuard noGrad;
                    const TransformResult withoutGraph = pair.apply(y, inverse);
                    check(withoutGraph.value, 0);
                    check(withoutGraph.logDet, 1);
                }
                at::globalContext().setUserEnabledMkldnn(true);
            }
}

// Gradients of y alone (forces) and of the parameters alone (training), twice from one graph.
TEST(SplineCoupling, GivesTheGradientsThatAreAskedFor) {
    const SplinePair pair(at::kDouble, at::kDouble);
    const Tensor y = SplinePair::makePoints(40);
    const auto gradients = [&](const Tensor& argument, const std::vector<Tensor>& by) {
        const TransformResult result = pair.coupling.inverse(argument);
        const Tensor sum = (result.value * result.value).sum() + result.logDet.sum();
        const auto first = torch::autograd::grad({sum}, by, {}, true), second = torch::autograd::grad({sum}, by);
        for (std::size_t i = 0; i < by.size(); i++)
            EXPECT_TRUE(at::equal(first[i], second[i]));
        return first;
    };
    const Tensor leaf = y.clone().set_requires_grad(true), weight = pair.coupling.getParameters()[0].second;
    const auto both = gradients(leaf, {leaf, weight});
    EXPECT_TRUE(at::equal(gradients(leaf, {leaf})[0], both[0]));
    EXPECT_TRUE(at::equal(gradients(y, {weight})[0], both[1]));
}

TEST(SplineCoupling, RefusesSecondDerivatives) {
    const SplinePair pair(at::kDouble, at::kDouble);
    for (const std::int64_t batch : {3, 40}) {
        const Tensor y = SplinePair::makePoints(batch).set_requires_grad(true);
        expectMessage([&] { (void)torch::autograd::grad({pair.apply(y, false).logDet.sum()}, {y}, {}, true, true); },
                      "create_graph is true, but must be false: second derivatives are not available");
    }
}

// A number that is not finite stays in its row, in blocks as in passes of few rows; an open variable lets it through.
TEST(SplineCoupling, PropagatesNonFiniteRowsAloneInBlocks) {
    const SplinePair pair(at::kFloat, at::kFloat);
    const Tensor fine = SplinePair::makePoints(50);
    for (const int column : {0, 4, 1}) { // passive, open, circular
        Tensor y = fine.clone();
        y.index_put_({17, column}, std::numeric_limits<double>::quiet_NaN());
        const at::NoGradGuard noGrad;
        const TransformResult result = pair.coupling.forward(y), expected = pair.coupling.forward(fine);
        EXPECT_TRUE(result.value[17].isnan().any().item<bool>()) << "column " << column;
        const Tensor others = at::arange(50) != 17;
        EXPECT_TRUE(at::equal(result.value.index({others}), expected.value.index({others}))) << "column " << column;
        EXPECT_TRUE(at::equal(result.logDet.index({others}), expected.logDet.index({others}))) << "column " << column;
    }
}

TEST(AdditiveCoupling, KeepsVolumesAndPromisesIt) {
    const AdditiveCoupling coupling(5, {4, 0}, small());
    randomiseParameters(coupling);
    const Tensor z = makePoints();
    const TransformResult there = coupling.forward(z);
    EXPECT_TRUE(coupling.isConstantLogDet());
    EXPECT_EQ(largest(there.logDet), 0.0);
    EXPECT_GT(largest(there.value - z), 0.1);
    for (const int i : {1, 2, 3})
        EXPECT_TRUE(at::equal(there.value.select(1, i), z.select(1, i)));
}

// f(-z) = -f(z) and logDet(-z) = logDet(z), in both directions; not so without the option.
TEST(OddCouplings, CommuteWithTheChangeOfAllSigns) {
    const Tensor z = makePoints();
    const auto measure = [&](const Transform& transform) {
        randomiseParameters(transform);
        double worst = 0;
        for (const bool inverse : {false, true}) {
            const TransformResult plus = inverse ? transform.inverse(z) : transform.forward(z);
            const TransformResult minus = inverse ? transform.inverse(-z) : transform.forward(-z);
            EXPECT_GT(largest(plus.value - z), 0.05);
            worst = std::max({worst, largest(plus.value + minus.value), largest(plus.logDet - minus.logDet)});
        }
        return worst;
    };
    EXPECT_EQ(measure(AdditiveCoupling(5, {4, 0}, small(), true)), 0.0);
    EXPECT_EQ(measure(AffineCoupling(5, {4, 0}, small(), 3.0, true)), 0.0);
    EXPECT_EQ(measure(*makeNICER(5, {3, ScalingLayer::Learned, small(), true})), 0.0);
    EXPECT_EQ(measure(*makeRealNVP(5, 2, {3.0, small(), true})), 0.0);
    EXPECT_GT(measure(AdditiveCoupling(5, {4, 0}, small())), 0.01);
    EXPECT_GT(measure(AffineCoupling(5, {4, 0}, small())), 0.01);
}

TEST(OddCouplings, KeepAScaleThatDependsOnThePassiveVariables) {
    const AffineCoupling coupling(5, {4, 0}, small(), 3.0, true);
    randomiseParameters(coupling, 1.0);
    const Tensor logDet = coupling.forward(makePoints()).logDet;
    EXPECT_GT(largest(logDet - logDet[0]), 0.01);
}

TEST(OddCouplings, AreSavedAndDescriptionsWithoutTheKeyAreNotOdd) {
    for (const bool odd : {false, true})
        for (const std::shared_ptr<Transform>& coupling : std::vector<std::shared_ptr<Transform>>{
                 std::make_shared<AdditiveCoupling>(2, std::vector<int>{1}, small(), odd),
                 std::make_shared<AffineCoupling>(2, std::vector<int>{1}, small(), 3.0, odd)}) {
            auto description = coupling->getArchitecture();
            EXPECT_EQ(Transform::create(description)->getArchitecture()["odd"], odd);
            description.erase("odd");
            EXPECT_EQ(Transform::create(description)->getArchitecture()["odd"], false);
        }
}

TEST(Scalings, AreTheirFormulas) {
    const Tensor numbers = at::tensor({2.0, -0.5, 3.0}), z = at::tensor({1.0, 2.0, -1.0}).unsqueeze(0);
    const LearnedScaling learned(3);
    const ExpScaling exponential(3);
    learned.getParameters()[0].second.set_data(numbers.clone());
    exponential.getParameters()[0].second.set_data(numbers.clone());
    EXPECT_TRUE(at::equal(learned.forward(z).value, numbers * z));
    EXPECT_NEAR(learned.forward(z).logDet.item<double>(), std::log(3.0), 1e-14);
    EXPECT_TRUE(at::equal(exponential.forward(z).value, numbers.exp() * z));
    EXPECT_NEAR(exponential.forward(z).logDet.item<double>(), 4.5, 1e-14);
}

TEST(Scalings, ComputeInDoubleWithSinglePrecisionParameters) {
    const Tensor z = makePoints();
    for (const std::shared_ptr<Transform>& scaling : {std::shared_ptr<Transform>(std::make_shared<LearnedScaling>(5)),
                                                      std::shared_ptr<Transform>(std::make_shared<ExpScaling>(5))}) {
        const Tensor parameter = scaling->getParameters()[0].second;
        EXPECT_EQ(parameter.scalar_type(), at::kFloat);
        EXPECT_TRUE(parameter.requires_grad());
        parameter.set_data(parameter.detach() + 0.3f);
        const auto forward = [&](const Tensor& t) { return scaling->forward(t).value; };
        EXPECT_NEAR(scaling->forward(z).logDet[0].item<double>(), autogradLogDet(forward, z[0]), 1e-14);
        EXPECT_LE(largest(scaling->inverse(scaling->forward(z).value).value - z), 1e-14);
    }
}

TEST(Architectures, NICERIsThePapersFlow) {
    const auto flow = makeNICER(5);
    EXPECT_TRUE(flow->isConstantLogDet());
    const auto& transforms = flow->getTransforms();
    ASSERT_EQ(transforms.size(), 21u);
    EXPECT_EQ(transforms[0]->getTypeName(), "LearnedScaling");
    for (int i = 0; i < 20; i++) {
        const auto description = transforms[i + 1]->getArchitecture();
        EXPECT_EQ(description["type"], "AdditiveCoupling");
        EXPECT_EQ(description["active"], i % 2 == 0 ? std::vector<int>({0, 2, 4}) : std::vector<int>({1, 3}));
        EXPECT_EQ(description["conditioner"]["hiddenSizes"], std::vector<int>{100});
        EXPECT_EQ(description["conditioner"]["activation"], "ReLU");
    }
    EXPECT_EQ(makeNICER(5, {10, ScalingLayer::Exponential})->getTransforms()[0]->getTypeName(), "ExpScaling");
    EXPECT_FALSE(makeRealNVP(5, 2)->isConstantLogDet());
    EXPECT_EQ(makeRealNVP(5, 2)->getTransforms().size(), 4u);
}

// x to z by hand: z2 = x2 + P(x1), z1 = x1 + Q(z2), and then the scale.
TEST(Architectures, NICERLayerIsThePapersFormula) {
    const auto flow = makeNICER(4, {1, ScalingLayer::Learned, small()});
    randomiseParameters(*flow);
    const auto shift = [&](int coupling, const Tensor& passive, int even) {
        Tensor z = at::zeros({passive.size(0), 4}, at::kDouble);
        z.slice(1, even, 4, 2).copy_(passive);
        return flow->getTransforms()[coupling]->forward(z).value.slice(1, 1 - even, 4, 2);
    };
    const Tensor x = makePoints().narrow(1, 0, 4), x1 = x.slice(1, 0, 4, 2), x2 = x.slice(1, 1, 4, 2);
    const Tensor z2 = x2 - shift(2, x1, 0), z1 = x1 - shift(1, z2, 1);
    const Tensor s = flow->getTransforms()[0]->getParameters()[0].second;
    const Tensor z = at::stack({z1, z2}, 2).flatten(1) / s;
    EXPECT_LE(largest(flow->inverse(x).value - z), 1e-12);
}

TEST(Architectures, CouplingsHaveDifferentWeightsThatTheSeedFixes) {
    const auto weights = [](const Sequence& flow, int coupling) {
        return flow.getTransforms()[coupling]->getParameters()[0].second;
    };
    const auto first = makeRealNVP(4, 1, {3.0, small()}), second = makeRealNVP(4, 1, {3.0, small()});
    EXPECT_TRUE(at::equal(weights(*first, 0), weights(*second, 0)));
    EXPECT_FALSE(at::equal(weights(*first, 0), weights(*first, 1)));
}

TEST(SmoothCoupling, IsItsFormulaForOpenVariables) {
    const std::vector<double> raw = {0.7, -2.0, -0.4, 0.3, 0.9, -1.1, 0.25};
    const auto coupling = fixParameters(std::make_shared<SmoothCoupling>(2, std::vector<int>{1}, std::vector<int>{},
                                                                         SmoothCoupling::Options{2, 3.0, small()}),
                                        raw);
    const auto softplus = [](double y) { return std::log1p(std::exp(y)); };
    const auto inverseSoftplus = [](double y) { return std::log(std::expm1(y)); };
    for (const double x : {-40.0, -2.0, -0.1, 0.0, 1.3, 4.0}) {
        double z = x + raw[6], slope = 1;
        for (int k = 0; k < 2; k++) {
            const double height = softplus(raw[k] + inverseSoftplus(0.475)) - 0.475; // a_k/c_k > -0.95/2
            const double b = 3.0 * (k + 0.5) - 3.0 + 3.0 * raw[2 + k];
            const double c = 3.0 * (0.05 + softplus(raw[4 + k] + inverseSoftplus(0.95)));
            z += height * c * std::tanh((x - b) / c);
            slope += height / std::pow(std::cosh((x - b) / c), 2);
        }
        const TransformResult result = coupling->inverse(makeRows(at::tensor({x})));
        EXPECT_NEAR(result.value[0][1].item<double>(), z, 1e-13 * (1 + std::abs(x)));
        EXPECT_NEAR(result.logDet.item<double>(), std::log(slope), 1e-13);
    }
}

// Against the Moebius map (1 - |w|^2)/|z - w|^2 (z - w) - w of Rezende et al., from which ours differs by a rotation.
TEST(SmoothCoupling, IsAMoebiusMapOfTheCircle) {
    const double p = 0.8, q = -0.5;
    const auto coupling = fixParameters(std::make_shared<SmoothCoupling>(2, std::vector<int>{1}, std::vector<int>{1},
                                                                         SmoothCoupling::Options{1, 3.0, small()}),
                                        {0.4, p, q, 0.6});
    const std::complex<double> w = 0.99 / std::sqrt(1 + p * p + q * q) * std::complex<double>(p, q);
    const auto ratio = [&](double angle) { // of our point to theirs, on the circle
        const std::complex<double> point = std::polar(1.0, angle);
        const std::complex<double> theirs = (1 - std::norm(w)) / std::norm(point - w) * (point - w) - w;
        const TransformResult ours = coupling->inverse(makeRows(at::tensor({angle})));
        EXPECT_NEAR(ours.logDet.item<double>(), std::log((1 - std::norm(w)) / std::norm(point - w)), 1e-13);
        return std::polar(1.0, ours.value[0][1].item<double>()) / theirs;
    };
    for (const double angle : {-3.1, -1.0, 0.2, 2.5})
        EXPECT_NEAR(std::abs(ratio(angle) - ratio(1.0)), 0, 1e-13);
}

TEST(SmoothCoupling, TurnsTheCircleOnce) {
    const auto coupling = makeSmooth({3}, 5);
    randomiseParameters(*coupling, 1.0);
    constexpr int n = 4000;
    Tensor x = makePoints().narrow(0, 0, 1).repeat({n, 1});
    x.select(1, 3).copy_(-M_PI + 2 * M_PI * at::arange(n, at::kDouble) / n);
    const TransformResult there = coupling->inverse(x);
    EXPECT_NEAR(there.logDet.exp().mean().item<double>(), 1.0, 1e-10); // of dz/dx, over a period
    EXPECT_LE(there.value.select(1, 3).max().item<double>(), M_PI);
    EXPECT_GE(there.value.select(1, 3).min().item<double>(), -M_PI);
    EXPECT_GT(largest(there.logDet), 0.1);
}

TEST(SmoothCoupling, IsInvertedFarOutAndWithLargeParameters) {
    for (const int variable : {4, 1}) { // open and circular
        const auto coupling = makeSmooth({variable}, 8);
        for (const double scale : {1.0, 5.0, 30.0})
            for (const double stretch : {1.0, 1e3, 1e8}) {
                randomiseParameters(*coupling, scale);
                Tensor z = makePoints();
                z.select(1, 4).mul_(stretch);
                const TransformResult there = coupling->forward(z);
                const Tensor back = coupling->inverse(there.value).value;
                const Tensor turned = at::remainder(back - z + M_PI, 2 * M_PI) - M_PI;
                const Tensor error = (variable == 1 ? turned : back - z).abs().amax(1);
                // x has a rounding error, which dz/dx magnifies.
                const Tensor magnitude = 1 + z.abs().amax(1) + there.value.abs().amax(1);
                EXPECT_LE(largest(error / (magnitude * (1 + there.logDet.neg().exp()))), 1e-13)
                    << "variable " << variable << ", scale " << scale << ", stretch " << stretch;
            }
    }
}

// Second differences of the gradient of a log-density: in proportion to the square of the step where the map is smooth,
// while at a knot of a spline the gradient jumps by as much however small the step.
TEST(SmoothCoupling, HasContinuousForcesWhereSplinesHaveKnots) {
    const auto largestJump = [](const Transform& transform, int variable, int points) {
        Tensor x = makePoints().narrow(0, 0, 1).repeat({points, 1});
        x.select(1, variable).copy_(-3 + 6 * at::arange(points, at::kDouble) / points);
        x.set_requires_grad(true);
        const TransformResult result = transform.inverse(x);
        const Tensor logQ = result.logDet + result.value.cos().sum(1);
        return largest(torch::autograd::grad({logQ.sum()}, {x})[0].select(1, variable).diff(2));
    };
    for (const int variable : {0, 1}) { // open and circular
        const auto smooth = makeSmooth({variable}, 4);
        const SplineCoupling spline(5, {variable}, {1}, {4, 2.0, small()});
        randomiseParameters(*smooth, 0.5);
        randomiseParameters(spline, 0.2); // knots far enough from each other for this grid
        EXPECT_NEAR(largestJump(*smooth, variable, 4000) / largestJump(*smooth, variable, 8000), 4.0, 0.1);
        EXPECT_LT(largestJump(spline, variable, 4000) / largestJump(spline, variable, 8000), 1.1);
    }
}

// Gradients of gradients, by the argument and the parameters, meet central differences of gradients in both directions.
TEST(SmoothCoupling, IsDifferentiableTwice) {
    const auto coupling = makeSmooth({4, 1}, 3);
    randomiseParameters(*coupling);
    Random random(3);
    const Tensor z = makePoints(), weight = random.normal(6, 5), logDetWeight = random.normal(1, 6)[0];
    for (const bool inverse : {false, true}) {
        std::vector<Tensor> variables = {z.clone().set_requires_grad(true)}, directions;
        for (const auto& [name, tensor] : coupling->getParameters())
            variables.push_back(tensor);
        for (const Tensor& variable : variables)
            directions.push_back(random.normal(1, variable.numel()).reshape(variable.sizes()));
        // The derivative of a loss along the directions.
        const auto slope = [&](bool createGraph) {
            const TransformResult result = inverse ? coupling->inverse(variables[0]) : coupling->forward(variables[0]);
            const Tensor loss = (result.value * weight).square().sum() + (result.logDet * logDetWeight).sum();
            const auto gradients = torch::autograd::grad({loss}, variables, {}, true, createGraph);
            Tensor sum = at::zeros({}, at::kDouble);
            for (std::size_t i = 0; i < gradients.size(); i++)
                sum = sum + (gradients[i] * directions[i]).sum();
            return sum;
        };
        const auto second = torch::autograd::grad({slope(true)}, variables);
        for (std::size_t i = 0; i < variables.size(); i++) {
            const Tensor step = random.normal(1, variables[i].numel()).reshape(variables[i].sizes());
            const Tensor saved = variables[i].detach().clone();
            const auto along = [&](double h) {
                variables[i].set_data(saved + h * step);
                return slope(false).item<double>();
            };
            const double h = 1e-6, difference = (along(h) - along(-h)) / (2 * h);
            variables[i].set_data(saved);
            const double expected = (second[i] * step).sum().item<double>();
            EXPECT_NEAR(difference, expected, 1e-6 * (1 + std::abs(expected)))
                << "variable " << i << (inverse ? ", inverse" : "");
        }
    }
}

// An easy row is the same to the last bit beside a row that takes many more steps.
TEST(SmoothCoupling, SolvesRowsIndependently) {
    const auto coupling = fixParameters(std::make_shared<SmoothCoupling>(2, std::vector<int>{1}, std::vector<int>{1},
                                                                         SmoothCoupling::Options{1, 3.0, small()}),
                                        {0.0, 0.1, 12.0, 0.6});
    constexpr int n = 400;
    Tensor column = -1.5 + at::arange(n, at::kDouble) / n;
    const Tensor easy = coupling->forward(makeRows(column)).value.narrow(0, 1, n - 1);
    for (const double hard : {0.242, 1.241, 1.242, 3.083, 3.084}) {
        column[0] = hard;
        EXPECT_TRUE(at::equal(coupling->forward(makeRows(column)).value.narrow(0, 1, n - 1), easy)) << hard;
    }
}

TEST(SmoothCoupling, PropagatesNonFiniteRowsAlone) {
    const auto coupling = makeSmooth({4, 1}, 4);
    randomiseParameters(*coupling);
    const Tensor clean = makePoints();
    const TransformResult expected[] = {coupling->forward(clean), coupling->inverse(clean)};
    for (const double bad : {std::nan(""), HUGE_VAL})
        for (const int column : {0, 1, 4}) {
            Tensor y = clean.clone();
            y[2][column] = bad;
            const TransformResult results[] = {coupling->forward(y), coupling->inverse(y)};
            for (int i = 0; i < 2; i++) {
                EXPECT_FALSE(results[i].value[2].isfinite().all().item<bool>());
                const Tensor others = at::tensor({0L, 1L, 3L, 4L, 5L});
                EXPECT_TRUE(
                    at::equal(results[i].value.index_select(0, others), expected[i].value.index_select(0, others)));
                EXPECT_TRUE(
                    at::equal(results[i].logDet.index_select(0, others), expected[i].logDet.index_select(0, others)));
            }
        }
}

// From the identity, gradient descent makes the components of a circle map different: it fits two peaks. Were they to
// stay equal, the map would have one peak.
TEST(SmoothCoupling, LearnsTwoPeaksOnACircle) {
    const SmoothCoupling coupling(2, {1}, {1}, {4, 3.0, {{4}, Activation::Tanh, 5}});
    constexpr int n = 200;
    const Tensor x = makeRows(-M_PI + 2 * M_PI * at::arange(n, at::kDouble) / n), angle = x.select(1, 1);
    Tensor density = (5 * (angle - 2).cos()).exp() + (5 * (angle + 0.5).cos()).exp();
    density = density / density.sum();
    std::vector<Tensor> variables;
    for (const auto& [name, tensor] : coupling.getParameters())
        variables.push_back(tensor);
    const auto loss = [&] { return -(density * (coupling.inverse(x).logDet - std::log(n))).sum(); };
    const double entropy = -(density * density.log()).sum().item<double>();
    EXPECT_GT(loss().item<double>() - entropy, 0.2);
    for (int step = 0; step < 400; step++) {
        const auto gradients = torch::autograd::grad({loss()}, variables);
        const at::NoGradGuard noGrad;
        for (std::size_t i = 0; i < variables.size(); i++)
            variables[i].sub_(0.5 * gradients[i]);
    }
    EXPECT_LT(loss().item<double>() - entropy, 0.1);
}

// z_i depends on x_0..x_i and on no other: every entry of the Jacobian above the diagonal is exactly 0, and no masks
// cut an entry on or below it. The same the other way round.
TEST(MaskedAutoregressive, HasATriangularJacobian) {
    for (const AutoregressiveMap map : {AutoregressiveMap::Affine, AutoregressiveMap::Spline})
        for (const std::vector<int>& hiddenSizes : {std::vector<int>{}, std::vector<int>{9}, std::vector<int>{9, 8}})
            for (const bool inverse : {false, true}) {
                const auto transform = makeAutoregressive(map, hiddenSizes);
                randomiseParameters(*transform, 1.0);
                const Tensor y = makePoints().narrow(0, 0, 1).mul(0.5).set_requires_grad(true);
                const Tensor value = inverse ? transform->inverse(y).value : transform->forward(y).value;
                for (int i = 0; i < 5; i++) {
                    const Tensor row = torch::autograd::grad({value[0][i]}, {y}, {}, true)[0][0];
                    for (int j = 0; j < 5; j++)
                        EXPECT_EQ(row[j].item<double>() != 0, j <= i)
                            << i << " by " << j << ", " << hiddenSizes.size() << " hidden layers";
                }
            }
}

// The parameters of variable i depend on each of the variables 0..i-1, of which some enter as cosine and sine, and on
// no other.
TEST(MaskedAutoregressive, HasANetworkThatLooksBackOnly) {
    for (const std::vector<int>& hiddenSizes : {std::vector<int>{}, std::vector<int>{9}, std::vector<int>{9, 8}}) {
        const Conditioner network = Conditioner::makeAutoregressive(5, {1, 3}, 3, {hiddenSizes, Activation::SiLU, 5});
        Random random(3);
        for (const auto& [name, tensor] : network.getParameters())
            tensor.set_data(random.normal(1, tensor.numel()).reshape(tensor.sizes()));
        const Tensor y = makePoints().narrow(0, 0, 1).set_requires_grad(true), raw = network(y);
        ASSERT_EQ(raw.size(1), 15);
        for (int output = 0; output < 15; output++) {
            const Tensor row = torch::autograd::grad({raw[0][output]}, {y}, {}, true)[0][0];
            for (int j = 0; j < 5; j++)
                EXPECT_EQ(row[j].item<double>() != 0, j < output / 3)
                    << output << " by " << j << ", " << hiddenSizes.size() << " hidden layers";
        }
    }
}

TEST(MaskedAutoregressive, OfOneVariableIsAnAffineMap) {
    const MaskedAutoregressive transform(1, {}, {AutoregressiveMap::Affine, 3.0, 8, 5.0, small()});
    randomiseParameters(transform);
    const Tensor biases = transform.getParameters().back().second, z = at::tensor({0.5, -2.0}).unsqueeze(1);
    const Tensor s = 3 * at::tanh(biases[0] / 3), t = biases[1];
    EXPECT_LE(largest(transform.forward(z).value - (z * s.exp() + t)), 1e-14);
    EXPECT_LE(largest(transform.forward(z).logDet - s), 1e-14);
}

TEST(MaskedAutoregressive, GivesEachVariableFromThoseBeforeIt) {
    const auto transform = makeAutoregressive(AutoregressiveMap::Spline);
    randomiseParameters(*transform);
    const Tensor z = makePoints(), x = transform->forward(z).value;
    Tensor other = z.clone();
    other.narrow(1, 3, 2).fill_(0.1);
    EXPECT_TRUE(at::equal(transform->forward(other).value.narrow(1, 0, 3), x.narrow(1, 0, 3)));
    EXPECT_GT(largest(transform->forward(other).value.narrow(1, 3, 2) - x.narrow(1, 3, 2)), 0.05);
}

TEST(MaskedAutoregressive, PropagatesNonFiniteRowsAlone) {
    for (const AutoregressiveMap map : {AutoregressiveMap::Affine, AutoregressiveMap::Spline}) {
        const auto transform = makeAutoregressive(map);
        randomiseParameters(*transform);
        Tensor y = makePoints();
        y[2][1] = NAN;
        const Tensor others = at::tensor({0L, 1L, 3L, 4L, 5L});
        for (const TransformResult& result : {transform->forward(y), transform->inverse(y)}) {
            EXPECT_TRUE(result.value[2].isnan().any().item<bool>());
            EXPECT_TRUE(result.value.index_select(0, others).isfinite().all().item<bool>());
            EXPECT_TRUE(result.logDet.index_select(0, others).isfinite().all().item<bool>());
        }
    }
}

TEST(Layers, RefuseBadArguments) {
    expectMessage([] { AdditiveCoupling(2, {0, 1}, small()); }, "number of active variables is 2");
    expectMessage([] { (void)makeNICER(1); }, "makeNICER: size is 1, but must be at least 2");
    expectMessage([] { (void)makeRealNVP(3, 0); }, "makeRealNVP: layers is 0, but must be at least 1");
    expectMessage([] { SmoothCoupling(2, {0}, {}, {0, 2.0, small()}); }, "components is 0, but must be at least 1");
    expectMessage([] { SmoothCoupling(2, {0}, {}, {4, 0.0, small()}); }, "bound is 0, but must be positive and finite");
    expectMessage([] { SmoothCoupling(2, {0}, {5}, {4, 2.0, small()}); }, "a circular variable is 5");
    expectMessage([] { SmoothCoupling(2, {0}, {}, {4, 2.0, {{7}, Activation::ReLU, 1}}); }, "activation is ReLU");
    const auto autoregressive = [](int size, std::vector<int> circular, AutoregressiveMap map, double scaleBound,
                                   int bins, double bound) {
        MaskedAutoregressive(size, std::move(circular), {map, scaleBound, bins, bound, small()});
    };
    expectMessage([&] { autoregressive(0, {}, AutoregressiveMap::Affine, 3, 8, 5); },
                  "inputSize is 0, but must be at least 1");
    expectMessage([&] { autoregressive(2, {0}, AutoregressiveMap::Affine, 3, 8, 5); },
                  "number of circular variables is 1, but must be 0 where the map is affine");
    expectMessage([&] { autoregressive(2, {2}, AutoregressiveMap::Spline, 3, 8, 5); },
                  "number of circular variables is 1, but must be different indices");
    expectMessage([&] { autoregressive(2, {}, AutoregressiveMap::Affine, 0, 8, 5); }, "scaleBound is 0");
    expectMessage([&] { autoregressive(2, {}, AutoregressiveMap::Spline, 3, 1, 5); }, "bins is 1");
    expectMessage([&] { autoregressive(2, {}, AutoregressiveMap::Spline, 3, 8, -1); }, "bound is -1");
    auto wrongMap = makeAutoregressive(AutoregressiveMap::Affine)->getArchitecture();
    wrongMap["map"] = "Cubic";
    expectMessage([&] { Transform::create(wrongMap); }, "map is \"Cubic\", but must be Affine or Spline");
    expectMessage([] { LearnedScaling(0); }, "LearnedScaling::LearnedScaling: size is 0, but must be at least 1");
    expectMessage([] { ExpScaling(0); }, "ExpScaling::ExpScaling: size is 0, but must be at least 1");
}
