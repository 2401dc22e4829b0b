// SPDX-License-Identifier: MIT
// The contract of Transform.h for scalings, additive, odd, smooth and autoregressive layers, and what each promises
// beyond.

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Architectures.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Sequence.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

Conditioner::Options small() {
    return {{7}, Activation::SiLU, 5};
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

std::vector<FlowContractCase> makeCases() {
    const Tensor z = makePoints();
    return {
        {"AdditiveCoupling", std::make_shared<AdditiveCoupling>(5, std::vector<int>{4, 0}, small()), z, true},
        {"odd AdditiveCoupling", std::make_shared<AdditiveCoupling>(5, std::vector<int>{4, 0}, small(), true), z, true},
        {"odd AffineCoupling", std::make_shared<AffineCoupling>(5, std::vector<int>{4, 0}, small(), 2.0, true), z,
         true},
        {"LearnedScaling", std::make_shared<LearnedScaling>(5), z, true},
        {"ExpScaling", std::make_shared<ExpScaling>(5), z, true},
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
    EXPECT_LE(measure(AdditiveCoupling(5, {4, 0}, small(), true)), 1e-12);
    EXPECT_LE(measure(AffineCoupling(5, {4, 0}, small(), 3.0, true)), 1e-12);
    EXPECT_LE(measure(*makeNICER(5, {3, ScalingLayer::Learned, small(), true})), 1e-12);
    EXPECT_LE(measure(*makeRealNVP(5, 2, {3.0, small(), true})), 1e-12);
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

TEST(Layers, RefuseBadArguments) {
    expectMessage([] { AdditiveCoupling(2, {0, 1}, small()); }, "number of active variables is 2");
    expectMessage([] { (void)makeNICER(1); }, "makeNICER: size is 1, but must be at least 2");
    expectMessage([] { (void)makeRealNVP(3, 0); }, "makeRealNVP: layers is 0, but must be at least 1");
    expectMessage([] { LearnedScaling(0); }, "LearnedScaling::LearnedScaling: size is 0, but must be at least 1");
    expectMessage([] { ExpScaling(0); }, "ExpScaling::ExpScaling: size is 0, but must be at least 1");
}
