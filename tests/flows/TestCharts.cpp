// SPDX-License-Identifier: MIT
// What stands between a flow's variables and Cartesian coordinates beside InternalCoordinates: principal components,
// the Eckart frame, one order of identical particles.

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Conditioned.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/EckartCoordinates.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/flows/MixedCoordinates.h"
#include "openmmflow/flows/OnColumns.h"
#include "openmmflow/flows/ParticleOrdering.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/flows/Whitening.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

double largest(const Tensor& t) {
    return t.abs().max().item<double>();
}

/** Correlated data of unequal variances, [frames, 4]. */
Tensor makeData(std::int64_t frames) {
    Random random(3);
    const Tensor mix = random.normal(4, 4) * at::tensor({3.0, 1.0, 0.3, 0.05}, at::kDouble);
    return at::matmul(random.normal(frames, 4), mix.t()) + at::tensor({1.0, -2.0, 0.0, 5.0}, at::kDouble);
}

/** A bent chain of five atoms, [5, 3]. */
Tensor makeReference() {
    return at::tensor({0.0, 0.0, 0.0, 0.15, 0.0, 0.0, 0.2, 0.14, 0.0, 0.34, 0.15, 0.06, 0.4, 0.2, -0.07}, at::kDouble)
        .reshape({5, 3});
}

/** Configurations near the reference, each turned and moved in its own way. */
Tensor makeConfigurations(std::int64_t count, double noise = 0.02) {
    Random random(5);
    const Tensor x = makeReference().unsqueeze(0) + noise * random.normal(count, 15).reshape({count, 5, 3});
    const auto [q, r] = at::linalg_qr(random.normal(count, 9).reshape({count, 3, 3}));
    const Tensor rotation = q * at::linalg_det(q).sign().reshape({-1, 1, 1});
    return (at::matmul(x, rotation) + random.normal(count, 3).unsqueeze(1)).reshape({count, 15});
}

/** The same five atoms as a Z-matrix. */
std::shared_ptr<InternalCoordinates> makeZMatrix() {
    return std::make_shared<InternalCoordinates>(std::vector<ZMatrixRow>{{0, 1, 2, 3}, {4, 3, 2, 1}},
                                                 std::vector<int>{2, 1, 3}, std::vector<double>(5, 0.0));
}

/** A chain of five atoms with a sixth at its second, [6, 3], and its Z-matrix. */
Tensor makeBranched() {
    return at::cat({makeReference(), at::tensor({0.2, -0.1, 0.08}, at::kDouble).unsqueeze(0)});
}

std::shared_ptr<InternalCoordinates> makeBranchedZMatrix(double constrainedLength = 0.0) {
    return std::make_shared<InternalCoordinates>(
        std::vector<ZMatrixRow>{{0, 1, 2, 3}, {4, 3, 2, 1}, {5, 1, 2, 0, TorsionRange::Turn, 2.0}},
        std::vector<int>{2, 1, 3}, std::vector<double>{constrainedLength, 0, 0, 0, 0, 0});
}

Tensor takeAtoms(const Tensor& x, const std::vector<int>& atoms) {
    return x.reshape({-1, 6, 3}).index_select(1, at::tensor(at::ArrayRef<int>(atoms), at::kLong));
}

const std::vector<int> cartesianAtoms = {4, 1, 2, 3};

std::shared_ptr<MixedCoordinates> makeMixed(double constrainedLength = 0.0) {
    return std::make_shared<MixedCoordinates>(makeBranchedZMatrix(constrainedLength), cartesianAtoms,
                                              takeAtoms(makeBranched(), cartesianAtoms)[0]);
}

/** Latent points of the mixed coordinates, from configurations. */
Tensor makeMixedPoints(double constrainedLength = 0.0) {
    const Tensor x = makeBranched().reshape({1, 18}) + 0.01 * Random(6).normal(5, 18);
    return makeMixed(constrainedLength)->inverse(makeBranchedZMatrix(constrainedLength)->inverse(x).value).value;
}

/** Three variables and, as column 1, a condition: couplings that never change it. */
std::shared_ptr<Sequence> makeConditional() {
    const auto spline = [](std::vector<int> active, std::uint64_t seed) {
        return std::make_shared<SplineCoupling>(4, std::move(active), std::vector<int>{},
                                                SplineCoupling::Options{6, 3.0, {{8}, Activation::Tanh, seed}});
    };
    return std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{spline({0, 2}, 1), spline({3}, 2)});
}

Tensor pairDistances(const Tensor& x) {
    const Tensor atoms = x.reshape({x.size(0), -1, 3});
    return (atoms.unsqueeze(1) - atoms.unsqueeze(2)).square().sum(3);
}

class Charts : public testing::TestWithParam<int> {};

std::vector<FlowContractCase> makeCases() {
    Random random(11);
    const Tensor places = 2 * random.normal(5, 2);
    return {{"Whitening", Whitening::fromData(makeData(100)), random.normal(6, 4)},
            {"ParticleOrdering",
             std::make_shared<ParticleOrdering>(places, std::vector<std::vector<int>>{{3, 0, 1}, {2, 4}}),
             places.reshape({1, 10}) + 1e-2 * random.normal(6, 10)},
            {"MixedCoordinates", makeMixed(), makeMixedPoints()},
            {"MixedCoordinates beside a constraint", makeMixed(0.15), makeMixedPoints(0.15)},
            {"OnColumns", std::make_shared<OnColumns>(makeConditional(), 6, std::vector<int>{4, 0, 1, 5}),
             random.normal(6, 6), true},
            {"Conditioned",
             std::make_shared<Conditioned>(makeConditional(), std::vector<int>{1}, std::vector<double>{0.7}),
             random.normal(6, 3), true}};
}

} // namespace

TEST_P(Charts, FulfilTheContract) {
    checkFlowContract(makeCases()[GetParam()]);
}

INSTANTIATE_TEST_SUITE_P(Transforms, Charts, testing::Range(0, static_cast<int>(makeCases().size())));

TEST(Whitening, GivesDataUnitCovariance) {
    const Tensor data = makeData(500);
    const auto whitening = Whitening::fromData(data);
    const Tensor z = whitening->inverse(data).value;
    EXPECT_LE(largest(z.mean(0)), 1e-12);
    EXPECT_LE(largest(at::matmul(z.t(), z) / 500 - at::eye(4, at::kDouble)), 1e-10);
    const Tensor norm = whitening->getMatrix().norm(2, 0);
    EXPECT_TRUE((norm.narrow(0, 0, 3) > norm.narrow(0, 1, 3)).all().item<bool>());
}

TEST(Whitening, WeighsFrames) {
    const Tensor data = makeData(60);
    const Tensor weight = at::ones({60}, at::kDouble);
    weight.narrow(0, 0, 20).fill_(3.0);
    const auto weighted = Whitening::fromData(data, weight.log() - 7.0);
    const auto repeated = Whitening::fromData(at::cat({data, data.narrow(0, 0, 20), data.narrow(0, 0, 20)}));
    EXPECT_LE(largest(weighted->getMean() - repeated->getMean()), 1e-12);
    EXPECT_LE(largest(weighted->forward(data).logDet - repeated->forward(data).logDet), 1e-10);
}

TEST(Whitening, RefusesDataWithoutVariance) {
    Tensor data = makeData(50);
    data.select(1, 2).copy_(data.select(1, 1));
    expectMessage([&] { (void)Whitening::fromData(data); }, "smallest variance of a direction is");
    expectMessage([&] { (void)Whitening::fromData(makeData(4)); }, "shape of x is [4, 4]");
    data[3][0] = NAN;
    expectMessage([&] { (void)Whitening::fromData(data); }, "x is not finite, but must be finite");
}

TEST(EckartCoordinates, ComeBackOnTheirFrame) {
    const EckartCoordinates chart(makeReference());
    const Tensor x = makeConfigurations(20);
    const TransformResult latent = chart.inverse(x), back = chart.forward(latent.value);
    EXPECT_LE(largest(back.logDet + latent.logDet), 1e-10);
    EXPECT_LE(largest(pairDistances(back.value) - pairDistances(x)), 1e-12);
    EXPECT_LE(largest(chart.place(back.value, x) - x), 1e-10);
    EXPECT_LE(largest(chart.inverse(back.value).value - latent.value), 1e-10);
    // Eckart's conditions, in words of mechanics: no displacement of the centroid, no angular momentum.
    const Tensor d = back.value.reshape({-1, 5, 3}) - chart.getReference();
    EXPECT_LE(largest(d.sum(1)), 1e-12);
    EXPECT_LE(largest(at::linalg_cross(chart.getReference().expand_as(d), d).sum(1)), 1e-12);
}

TEST(EckartCoordinates, KeepHandedness) {
    const EckartCoordinates chart(makeReference());
    const Tensor mirrored = makeConfigurations(5) * at::tensor({1.0, 1.0, -1.0}, at::kDouble).repeat({5});
    const Tensor x = chart.forward(chart.inverse(mirrored).value).value;
    EXPECT_LE(largest(chart.place(x, mirrored) - mirrored), 1e-10);
}

// Two charts of one molecule: the map from one to the other has the Jacobian that their log-dets say.
TEST(EckartCoordinates, HaveTheVolumeElementOfInternalCoordinates) {
    const EckartCoordinates chart(makeReference());
    const auto zMatrix = makeZMatrix();
    const Tensor y = chart.inverse(makeConfigurations(4)).value;
    const Tensor logDet = chart.forward(y).logDet;
    for (std::int64_t i = 0; i < y.size(0); i++) {
        const auto between = [&](const Tensor& row) { return zMatrix->inverse(chart.forward(row).value).value; };
        const double onwards = zMatrix->inverse(chart.forward(y).value).logDet[i].item<double>();
        EXPECT_NEAR(logDet[i].item<double>() + onwards, autogradLogDet(between, y[i]), 1e-9);
    }
}

// Three particles on springs of no length: Z = V 3^(3/2) (2 pi / 3k)^3, and a chart sees it without V and 8 pi^2.
TEST(EckartCoordinates, IntegrateToAnExactPartitionFunction) {
    const double k = 4.0;
    const Tensor reference = at::tensor({0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.1, 0.7, 0.0}, at::kDouble).reshape({3, 3});
    const EckartCoordinates chart(reference);
    const int n = 64;
    const double width = 4.0, spacing = width / n;
    const Tensor line = spacing * (at::arange(n, at::kDouble) + 0.5) - width / 2;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const auto grid = at::meshgrid({line.narrow(0, i, 1), line, line}, "ij");
        const Tensor y = at::stack({grid[0].reshape({-1}), grid[1].reshape({-1}), grid[2].reshape({-1})}, 1);
        const TransformResult there = chart.forward(y);
        const Tensor u = 0.25 * k * pairDistances(there.value).sum({1, 2});
        sum += at::nan_to_num((there.logDet - u).exp(), 0.0).sum().item<double>();
    }
    const double exact = std::pow(3.0, 1.5) * std::pow(2 * M_PI / (3 * k), 3) / (8 * M_PI * M_PI);
    EXPECT_NEAR(std::log(sum * spacing * spacing * spacing), std::log(exact), 2e-3);
}

TEST(EckartCoordinates, HaveFirstAndSecondDerivatives) {
    const EckartCoordinates chart(makeReference());
    const Tensor x = makeConfigurations(3), weight = Random(9).normal(3, 9);
    const auto value = [&](const Tensor& at) {
        const TransformResult latent = chart.inverse(at);
        return (weight * latent.value).sum() + 0.3 * latent.logDet.sum();
    };
    const Tensor direction = Random(10).normal(3, 15), point = x.clone().set_requires_grad(true);
    const Tensor gradient = torch::autograd::grad({value(point)}, {point}, {}, true, true)[0];
    const Tensor second = torch::autograd::grad({(gradient * direction).sum()}, {point})[0];
    const double h = 1e-5;
    const auto along = [&](double step) { return value(x + step * direction).item<double>(); };
    const double slope = (along(h) - along(-h)) / (2 * h);
    EXPECT_NEAR((gradient * direction).sum().item<double>(), slope, 1e-7 * (1 + std::abs(slope)));
    const double curvature = (along(1e-4) - 2 * along(0) + along(-1e-4)) / 1e-8;
    EXPECT_NEAR((second * direction).sum().item<double>(), curvature, 1e-3 * (1 + std::abs(curvature)));

    const Tensor y = chart.inverse(x).value, latent = y.clone().set_requires_grad(true),
                 along9 = Random(12).normal(3, 9);
    const Tensor onLatent = torch::autograd::grad({chart.forward(latent).logDet.sum()}, {latent})[0];
    const double up = chart.forward(y + h * along9).logDet.sum().item<double>();
    const double down = chart.forward(y - h * along9).logDet.sum().item<double>();
    EXPECT_NEAR((onLatent * along9).sum().item<double>(), (up - down) / (2 * h), 1e-6 * std::abs(up - down) / h);
}

TEST(EckartCoordinates, EndWhereTheSuperpositionDoes) {
    const EckartCoordinates chart(makeReference());
    // Turned by half a turn about an axis, atoms obey Eckart's conditions as well: not in their best superposition.
    const Tensor turned = chart.getReference() * at::tensor({-1.0, -1.0, 1.0}, at::kDouble);
    const TransformResult latent = chart.inverse(turned.reshape({1, 15}));
    EXPECT_LE(largest(latent.value), 1e-10); // superposed: the reference itself
    Tensor y = 40 * Random(1).normal(200, 9);
    const TransformResult there = chart.forward(y);
    const Tensor inside = at::isfinite(there.logDet);
    const std::int64_t count = inside.sum().item<std::int64_t>();
    EXPECT_GT(count, 5);
    EXPECT_LT(count, 195);
    EXPECT_TRUE(at::isnan(there.value.index({inside.logical_not()})).all().item<bool>());
    // What is inside comes back as it was; so the chart is one to one.
    EXPECT_LE(largest((chart.inverse(there.value).value - y).index({inside})), 1e-8);
    Tensor bad = makeConfigurations(3);
    bad[1][4] = NAN;
    const TransformResult result = chart.inverse(bad);
    EXPECT_EQ(result.logDet[1].item<double>(), -INFINITY);
    EXPECT_TRUE(at::isfinite(result.logDet[0] + result.logDet[2]).item<bool>());
    EXPECT_EQ(largest(result.value[1]), 0.0);
}

TEST(EckartCoordinates, RefuseBadReferences) {
    expectMessage([] { EckartCoordinates(at::zeros({2, 3}, at::kDouble)); }, "shape of the reference is [2, 3]");
    const Tensor line = at::arange(4, at::kDouble).unsqueeze(1) * at::tensor({1.0, 2.0, 3.0}, at::kDouble);
    expectMessage([&] { EckartCoordinates{line}; }, "the reference is on one line");
    expectMessage([&] { EckartCoordinates{line * NAN}; }, "the reference is not finite");
}

// The chosen atoms are where EckartCoordinates puts them, in the frame of the chart that follows.
TEST(MixedCoordinates, AreCartesianWhereAsked) {
    const auto mixed = makeMixed();
    const Tensor z = makeMixedPoints();
    const Tensor columns = at::tensor(at::ArrayRef<int>(mixed->getCartesianIndices()), at::kLong);
    EXPECT_EQ(columns.size(0), 6); // of four atoms
    const Tensor x = makeBranchedZMatrix()->forward(mixed->forward(z).value).value;
    const EckartCoordinates eckart(takeAtoms(makeBranched(), cartesianAtoms)[0]);
    const Tensor expected = eckart.forward(z.index_select(1, columns)).value;
    EXPECT_LE(largest(pairDistances(expected) - pairDistances(takeAtoms(x, cartesianAtoms).reshape({-1, 12}))), 1e-12);
}

TEST(MixedCoordinates, EndWhereTheirChartsDo) {
    const auto mixed = makeMixed();
    Tensor z = makeMixedPoints();
    Tensor xi = mixed->forward(z).value;
    z[1].fill_(50.0);
    const TransformResult there = mixed->forward(z);
    EXPECT_TRUE(at::isnan(there.logDet[1]).item<bool>() && at::isnan(there.value[1]).all().item<bool>());
    EXPECT_TRUE(at::isfinite(there.logDet[0]).item<bool>());
    xi[2][0] = -0.1; // the length of a bond
    const TransformResult back = mixed->inverse(xi);
    EXPECT_EQ(back.logDet[2].item<double>(), -INFINITY);
    EXPECT_EQ(largest(back.value[2]), 0.0);
}

TEST(MixedCoordinates, RefuseAtomsWithoutTheirReferences) {
    const auto make = [](std::vector<int> atoms, double length = 0.0) {
        return [atoms, length] {
            MixedCoordinates(makeBranchedZMatrix(length), atoms, takeAtoms(makeBranched(), atoms)[0]);
        };
    };
    expectMessage(make({1, 2, 4}), "frame atom 3 is not listed, but must be listed");
    expectMessage(make({1, 2, 3, 5}), "atom 0 is not listed, but must be listed with atom 5");
    expectMessage(make({0, 1, 2, 3}, 0.15), "the bond that places atom 0 is constrained, but must be free");
    expectMessage(make({1, 2, 3, 3}), "an atom is 3");
}

TEST(Conditioned, IsTheConditionalFlowAtOneValue) {
    const auto joint = makeConditional();
    randomiseParameters(*joint);
    const auto one = std::make_shared<Conditioned>(joint, std::vector<int>{1}, std::vector<double>{0.7});
    const auto other = one->withValues({-0.4});
    const Tensor z = Random(4).normal(5, 3);
    for (const auto& view : {one, other}) {
        const Tensor condition = at::full({5, 1}, view->getValues()[0], at::kDouble);
        const TransformResult expected = joint->forward(at::cat({z.narrow(1, 0, 1), condition, z.narrow(1, 1, 2)}, 1));
        const TransformResult found = view->forward(z);
        EXPECT_TRUE(at::equal(found.logDet, expected.logDet));
        EXPECT_TRUE(at::equal(found.value.select(1, 0), expected.value.select(1, 0)));
        EXPECT_TRUE(at::equal(found.value.narrow(1, 1, 2), expected.value.narrow(1, 2, 2)));
    }
    EXPECT_GT(largest(one->forward(z).value - other->forward(z).value), 1e-2);
}

TEST(Conditioned, RefusesWhatChangesConditions) {
    const auto scaling = std::make_shared<Scaling>(std::vector<double>{0, 0}, std::vector<double>{2, 2});
    const Conditioned wrong(scaling, {1}, {0.5});
    expectMessage(
        [&] {
            (void)wrong.forward(at::zeros({2, 1}, at::kDouble));
        },
        "a condition is changed by the transform, but must be passive");
    expectMessage([&] { Conditioned(scaling, {2}, {0.5}); }, "indices[0] is 2");
    expectMessage([&] { Conditioned(scaling, {0}, {NAN}); }, "values[0] is nan");
    expectMessage([&] { Conditioned(scaling, {0, 1}, {0, 0}); }, "number of indices is 2");
}

TEST(OnColumns, TransformsTheseAndLeavesTheOthers) {
    const auto inner = makeConditional();
    randomiseParameters(*inner);
    const OnColumns whole(inner, 6, {4, 0, 1, 5});
    const Tensor z = Random(4).normal(5, 6), index = at::tensor({4, 0, 1, 5}, at::kLong);
    const TransformResult expected = inner->forward(z.index_select(1, index)), found = whole.forward(z);
    EXPECT_TRUE(at::equal(found.value.index_select(1, index), expected.value));
    EXPECT_TRUE(at::equal(found.value.narrow(1, 2, 2), z.narrow(1, 2, 2)));
    EXPECT_TRUE(at::equal(found.logDet, expected.logDet));
    expectMessage([&] { OnColumns(nullptr, 3, {0, 1}); }, "transform is null");
    expectMessage([&] { OnColumns(inner, 6, {0, 1}); }, "size of the transform is 4 and 4");
    expectMessage([&] { OnColumns(inner, 6, {0, 1, 2, 6}); }, "active[3] is 6");
}

TEST(ParticleOrdering, FindsTheNearestOrder) {
    Random random(21);
    const Tensor places = random.normal(6, 2);
    const std::vector<int> group = {5, 0, 2, 3};
    const ParticleOrdering ordering(places, {group});
    const Tensor x = random.normal(30, 12);
    const Tensor y = ordering.inverse(x).value;
    const auto distance = [&](const Tensor& particles) { return (particles - places).square().sum().item<double>(); };
    for (std::int64_t row = 0; row < x.size(0); row++) {
        // Truth: all 24 orders.
        std::vector<int> order = {0, 1, 2, 3};
        double least = INFINITY;
        do {
            Tensor particles = x[row].reshape({6, 2}).clone();
            for (int i = 0; i < 4; i++)
                particles[group[i]] = x[row].reshape({6, 2})[group[order[i]]];
            least = std::min(least, distance(particles));
        } while (std::next_permutation(order.begin(), order.end()));
        EXPECT_NEAR(distance(y[row].reshape({6, 2})), least, 1e-12);
        for (const int other : {1, 4})
            EXPECT_TRUE(at::equal(y[row].reshape({6, 2})[other], x[row].reshape({6, 2})[other]));
    }
    // y is in order, x most often not: forward takes the one and refuses the other.
    EXPECT_TRUE(at::equal(ordering.forward(y).value, y));
    const Tensor refused = at::isnan(ordering.forward(x).logDet);
    EXPECT_TRUE(at::equal(refused, (x != y).any(1)));
    EXPECT_GT(refused.sum().item<std::int64_t>(), 20);
}

// Squared distances of such particles overflow: there is no nearest order, but there is one.
TEST(ParticleOrdering, OrdersParticlesOfAnyFiniteDistance) {
    Random random(22);
    const Tensor places = random.normal(6, 2);
    const ParticleOrdering ordering(places, {{0, 1, 2, 3, 4, 5}});
    for (const double size : {1e120, 1e200, 1e307}) {
        Tensor x = random.normal(20, 12);
        x.narrow(0, 0, 10) *= size;
        x.narrow(0, 10, 10).narrow(1, 0, 3) *= size;
        const TransformResult y = ordering.inverse(x);
        EXPECT_TRUE(at::equal(std::get<0>(y.value.sort(1)), std::get<0>(x.sort(1)))) << size;
        EXPECT_TRUE(at::isfinite(y.logDet).all().item<bool>());
    }
}

TEST(ParticleOrdering, RefusesBadGroups) {
    const Tensor places = at::zeros({3, 2}, at::kDouble);
    expectMessage([&] { ParticleOrdering(places, {{0, 3}}); }, "a particle of a group is 3");
    expectMessage([&] { ParticleOrdering(places, {{0, 1}, {1, 2}}); }, "a particle of a group is 1");
    expectMessage([&] { ParticleOrdering(places, {{0}}); }, "size of a group is 1");
    expectMessage([&] { ParticleOrdering(places, {}); }, "number of groups is 0");
}
