// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/energies/ConstraintMetric.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/flows/RigidBodies.h"
#include "openmmflow/flows/Sequence.h"
#include "openmmflow/samplers/LatentJump.h"

using namespace OpenMMFlow;
using at::Tensor;

namespace {

double largest(const Tensor& t) {
    return t.abs().max().item<double>();
}

/** Two waters of TIP3P's geometry, turned towards each other somehow. O, H, H, nm. */
Tensor makeWaters() {
    const double length = 0.09572, angle = 104.52 * M_PI / 180;
    const Tensor water =
        at::tensor({0.0, 0.0, 0.0, length, 0.0, 0.0, length * std::cos(angle), length * std::sin(angle), 0.0},
                   at::kDouble)
            .reshape({3, 3});
    const Tensor turn = at::tensor({2.0, -1.0, 2.0, 2.0, 2.0, -1.0, -1.0, 2.0, 2.0}, at::kDouble).reshape({3, 3}) / 3;
    return at::cat({water, at::matmul(water, turn.t()) + at::tensor({0.1, 0.27, -0.08}, at::kDouble)});
}

/** A body of four atoms that is not planar, a free atom between two of its atoms, and a water. */
std::shared_ptr<RigidBodies> makeMixed() {
    const Tensor four =
        at::tensor({0.0, 0.1, 0.3, 0.2, 0.1, 0.25, 0.05, 0.32, 0.4, 0.1, 0.2, 0.1}, at::kDouble).reshape({4, 3});
    const Tensor x = at::cat({four.narrow(0, 0, 2), at::tensor({0.7, -0.3, 0.5}, at::kDouble).reshape({1, 3}),
                              four.narrow(0, 2, 2), makeWaters().narrow(0, 3, 3)});
    return std::make_shared<RigidBodies>(x, std::vector<std::vector<int>>{{6, 5, 7}, {0, 1, 3, 4}});
}

/** z anywhere within the domain. */
Tensor makePoints(const RigidBodies& bodies, std::int64_t count, std::uint64_t seed = 3) {
    Random random(seed);
    const int size = bodies.getInputSize(), circular = static_cast<int>(bodies.getCircularIndices().size());
    return at::cat({0.8 * random.normal(count, size - circular), 2 * M_PI * random.uniform(count, circular) - M_PI}, 1);
}

/** Rotations of one body, [batch, 3, 3]: where the frame of a reference with orthonormal arms goes. */
std::shared_ptr<RigidBodies> makeTripod() {
    // The centroid of four atoms at 0 and the unit vectors is not at 0.
    const Tensor x = at::cat({at::zeros({1, 3}, at::kDouble), at::eye(3, at::kDouble)});
    return std::make_shared<RigidBodies>(x, std::vector<std::vector<int>>{{0, 1, 2, 3}});
}
Tensor takeRotation(const Tensor& x) {
    const Tensor atoms = x.reshape({-1, 4, 3});
    return (atoms.slice(1, 1) - atoms.slice(1, 0, 1)).transpose(1, 2);
}

std::shared_ptr<Prior> makePrior(double sigma) {
    return std::make_shared<ProductPrior>(std::vector<std::shared_ptr<Prior>>{std::make_shared<GaussianPrior>(3, sigma),
                                                                              std::make_shared<GaussianPrior>(1),
                                                                              std::make_shared<UniformTorusPrior>(2)});
}

/** A dipole along the third arm of the tripod in a field k along z, held by a spring at 0. */
class Dipole : public ReducedPotential {
public:
    explicit Dipole(double k) : k(k) {}
    int getSize() const override { return 12; }
    EnergyResult evaluate(const Tensor& x, Gradient) override {
        const Tensor atoms = x.reshape({-1, 4, 3});
        return {-k * takeRotation(x).select(1, 2).select(1, 2) + 50 * atoms.mean(1).square().sum(1), {}};
    }

private:
    double k;
};

/** Mean and standard error of independent samples. */
std::pair<double, double> average(const Tensor& v) {
    return {v.mean().item<double>(), v.std().item<double>() / std::sqrt(static_cast<double>(v.size(0)))};
}

/** <cos theta> of a dipole in a field. */
double langevin(double k) {
    return 1 / std::tanh(k) - 1 / k;
}

/** The spring is about 0, where the reference's centroid is not. */
std::shared_ptr<Flow> makeDipoleFlow() {
    const Tensor x = makeTripod()->getReference() - makeTripod()->getReference().mean(0, true);
    const auto bodies = std::make_shared<RigidBodies>(x, std::vector<std::vector<int>>{{0, 1, 2, 3}});
    const auto coupling = std::make_shared<SplineCoupling>(6, std::vector<int>{3, 5}, bodies->getCircularIndices(),
                                                           SplineCoupling::Options{5, 4.0, {{6}, Activation::SiLU, 4}});
    randomiseParameters(*coupling, 0.2);
    const std::vector<std::shared_ptr<Transform>> transforms = {coupling, bodies};
    return std::make_shared<Flow>(makePrior(0.12), std::make_shared<Sequence>(transforms));
}

} // namespace

TEST(RigidBodies, AreWhereTheReferenceIsAtZero) {
    const auto bodies = makeMixed();
    EXPECT_EQ(bodies->getInputSize(), 15);
    EXPECT_EQ(bodies->getOutputSize(), 24);
    EXPECT_EQ(bodies->getCircularIndices(), (std::vector<int>{11, 12, 13, 14}));
    const TransformResult x = bodies->forward(at::zeros({1, 15}, at::kDouble));
    EXPECT_LE(largest(x.value - bodies->getReference().reshape({1, 24})), 1e-15);
    EXPECT_NEAR(x.logDet.item<double>(), 2 * std::log(2 / std::sqrt(2 * M_PI)), 1e-14);
    EXPECT_LE(largest(bodies->inverse(x.value).value), 1e-14);
}

TEST(RigidBodies, ComeBackAndKeepTheirShape) {
    const auto bodies = makeMixed();
    const Tensor z = makePoints(*bodies, 200);
    const TransformResult there = bodies->forward(z), back = bodies->inverse(there.value);
    EXPECT_LE(largest(back.value - z), 1e-10);
    EXPECT_LE(largest(there.logDet + back.logDet), 1e-10);
    const auto shape = [&](const Tensor& x, const std::vector<std::int64_t>& atoms) {
        const Tensor part = x.reshape({-1, 8, 3}).index_select(1, at::tensor(atoms, at::kLong));
        const Tensor first = part.select(1, 1) - part.select(1, 0), second = part.select(1, 2) - part.select(1, 0);
        return std::pair{(part.unsqueeze(1) - part.unsqueeze(2)).norm(2, 3),
                         (at::linalg_cross(first, second) * (part.select(1, -1) - part.select(1, 0))).sum(1)};
    };
    for (const std::vector<std::int64_t>& atoms : {std::vector<std::int64_t>{5, 6, 7}, {0, 1, 3, 4}}) {
        const auto [distances, volume] = shape(there.value, atoms);
        const auto [expected, handedness] = shape(bodies->getReference().reshape({1, 24}), atoms);
        EXPECT_LE(largest(distances - expected), 1e-14);
        EXPECT_LE(largest(volume - handedness), 1e-14);
    }
    // The centroids and the free atom are where z says.
    const Tensor moved = (there.value.reshape({-1, 8, 3}) - bodies->getReference());
    EXPECT_LE(largest(moved.slice(1, 5, 8).mean(1) - z.slice(1, 0, 3)), 1e-14);
    EXPECT_LE(largest(moved.select(1, 2) - z.slice(1, 6, 9)), 1e-14);
}

// A body moved by velocities v and w has sum |dx|^2 = n |v|^2 + w I w, I its inertia about the centroid for unit
// masses: the volume element of x on the manifold of rigid configurations is n^(3/2) sqrt(det I) times that of
// positions and rotations, whatever the parameters of the rotations.
TEST(RigidBodies, HaveTheVolumeElementOfPositionsAndRotations) {
    const auto bodies = makeMixed();
    const Tensor z = makePoints(*bodies, 5);
    double constant = 0;
    for (const auto& body : bodies->getBodies()) {
        std::vector<std::int64_t> members(body.begin(), body.end());
        Tensor a = bodies->getReference().index_select(0, at::tensor(members, at::kLong));
        a = a - a.mean(0, true);
        const Tensor inertia = a.square().sum() * at::eye(3, at::kDouble) - at::matmul(a.t(), a);
        constant +=
            1.5 * std::log(static_cast<double>(body.size())) + 0.5 * at::linalg_det(inertia).log().item<double>();
    }
    const Tensor logDet = bodies->forward(z).logDet;
    for (std::int64_t i = 0; i < z.size(0); i++) {
        const Tensor argument = z.narrow(0, i, 1).clone().set_requires_grad(true);
        const Tensor x = bodies->forward(argument).value;
        std::vector<Tensor> rows;
        for (int column = 0; column < 24; column++)
            rows.push_back(torch::autograd::grad({x[0][column]}, {argument}, {}, true)[0][0]);
        const Tensor jacobian = at::stack(rows);
        const double volume = 0.5 * at::linalg_det(at::matmul(jacobian.t(), jacobian)).log().item<double>();
        EXPECT_NEAR(volume, constant + logDet[i].item<double>(), 1e-9);
    }
}

// The other direction, and both gradients, the reference itself included, where two branches meet.
TEST(RigidBodies, HaveGradients) {
    const auto bodies = makeMixed();
    Tensor z = makePoints(*bodies, 4);
    z[3].zero_();
    for (std::int64_t i = 0; i < 4; i++) {
        const auto around = [&](const Tensor& row) { return bodies->inverse(bodies->forward(row).value).value; };
        EXPECT_NEAR(autogradLogDet(around, z[i]), 0.0, 1e-9);
    }
    Random random(6);
    const Tensor weight = random.normal(4, 15), direction = random.normal(4, 15), onX = random.normal(4, 24);
    const auto check = [](const std::function<Tensor(const Tensor&)>& f, const Tensor& at, const Tensor& along) {
        const Tensor point = at.clone().set_requires_grad(true);
        const Tensor gradient = torch::autograd::grad({f(point)}, {point})[0];
        const double h = 1e-6, slope = (f(at + h * along) - f(at - h * along)).item<double>() / (2 * h);
        EXPECT_NEAR((gradient * along).sum().item<double>(), slope, 1e-6 * (1 + std::abs(slope)));
    };
    check(
        [&](const Tensor& y) {
            const TransformResult result = bodies->forward(y);
            return (result.value * onX).sum() + result.logDet.sum();
        },
        z, direction);
    // x has to stay rigid: along forward.
    check(
        [&](const Tensor& y) {
            const TransformResult result = bodies->inverse(bodies->forward(y).value);
            return (result.value * weight).sum() + result.logDet.sum();
        },
        z, direction);
}

TEST(RigidBodies, EndWhereTheirDomainDoes) {
    const auto bodies = makeMixed();
    const int tilt = 9, turn = 12;
    for (const auto& [column, value] : std::vector<std::pair<int, double>>{
             {tilt, 31.0}, {tilt, -31.0}, {turn, M_PI}, {turn, -3.2}, {0, NAN}, {turn, NAN}, {tilt, INFINITY}}) {
        Tensor z = makePoints(*bodies, 3).set_requires_grad(true);
        Tensor changed = z.clone();
        changed[1][column].fill_(value);
        const TransformResult x = bodies->forward(changed);
        EXPECT_TRUE(at::isnan(x.value[1]).all().item<bool>() && at::isnan(x.logDet[1]).item<bool>()) << column;
        EXPECT_TRUE(at::isfinite(x.value[0]).all().item<bool>() && at::isfinite(x.logDet[2]).item<bool>());
    }
    // Far tilts come back.
    Tensor far = makePoints(*bodies, 2);
    far[0][tilt] = 7.0;
    far[1][tilt] = -7.0;
    EXPECT_LE(largest(bodies->inverse(bodies->forward(far).value).value - far), 1e-3);
}

TEST(RigidBodies, RefuseWhatIsNotTheirShape) {
    const auto bodies = makeMixed();
    const Tensor x = bodies->forward(makePoints(*bodies, 6)).value;
    Tensor bad = x.clone();
    bad[0][0] += 2e-4;            // an atom of a body of four
    bad[1].slice(0, 6, 9) += 1.0; // the free atom may be anywhere
    bad[2][20] = NAN;
    bad[3][6] = INFINITY;                                                           // the free atom
    bad[4] = (bad[4].reshape({8, 3}) * at::tensor({1.0, 1.0, -1.0})).reshape({24}); // the mirror image
    bad[5][0] += 2e-5;                                                              // within the tolerance
    bad.set_requires_grad(true);
    const TransformResult result = bodies->inverse(bad);
    for (const int row : {0, 2, 3, 4}) {
        EXPECT_EQ(result.logDet[row].item<double>(), -INFINITY) << row;
        EXPECT_EQ(largest(result.value[row]), 0.0);
    }
    for (const int row : {1, 5})
        EXPECT_TRUE(std::isfinite(result.logDet[row].item<double>())) << row;
    const Tensor gradient = torch::autograd::grad({result.value.sum()}, {bad})[0];
    EXPECT_TRUE(at::isfinite(gradient).all().item<bool>());
    // Turned by beta = 0: z is not unique.
    const Tensor arms = at::cat({at::zeros({1, 3}, at::kDouble), at::eye(3, at::kDouble).narrow(0, 0, 2)});
    const RigidBodies corner(arms, {{0, 1, 2}});
    const Tensor a = corner.getReference();
    const Tensor turned = at::stack({-a.select(1, 2), a.select(1, 1), a.select(1, 0)}, 1).reshape({1, 9});
    EXPECT_EQ(corner.inverse(turned).logDet.item<double>(), -INFINITY);
}

TEST(RigidBodies, AreSavedAndRowsAreIndependent) {
    const auto bodies = makeMixed();
    const Tensor z = makePoints(*bodies, 5);
    const auto twin = Transform::create(nlohmann::json::parse(bodies->getArchitecture().dump()));
    EXPECT_TRUE(at::equal(twin->forward(z).value, bodies->forward(z).value));
    EXPECT_EQ(twin->getArchitecture(), bodies->getArchitecture());
    EXPECT_LE(largest(bodies->forward(z.narrow(0, 2, 1)).value - bodies->forward(z).value.narrow(0, 2, 1)), 1e-15);
    const auto waters =
        std::make_shared<RigidBodies>(makeWaters(), std::vector<std::vector<int>>{{0, 1, 2}, {3, 4, 5}});
    EXPECT_EQ(waters->getInputSize(), 12); // no free atoms
    const Tensor y = makePoints(*waters, 5);
    EXPECT_LE(largest(waters->inverse(waters->forward(y).value).value - y), 1e-10);
    checkOnDevice(bodies, z);
    checkOnDevice(waters, y);
}

// The chart of both waters by bonds, angles and torsions, whose log-det is that of all coordinates: where bonds and
// angles within the waters are held, as constraints do, it differs from this one's by a constant. The first water
// stays.
TEST(RigidBodies, WeighConstrainedWatersAsInternalCoordinatesDo) {
    const RigidBodies bodies(makeWaters(), {{0, 1, 2}, {3, 4, 5}});
    const std::vector<ZMatrixRow> rows = {{3, 0, 1, 2}, {4, 3, 0, 1}, {5, 3, 4, 0}};
    const double length = 0.09572;
    const InternalCoordinates chart(rows, {0, 1, 2}, {0, length, length, 0, length, length});
    ASSERT_EQ(chart.getInputSize(), 8);
    // Of xi: one bond, the angles of the first water, at 3, at 4 and of the second water, three torsions.
    const Tensor freeColumns = at::tensor(std::vector<std::int64_t>{0, 2, 3, 5, 6, 7}, at::kLong);
    const Tensor ofSecond = at::tensor(std::vector<std::int64_t>{3, 4, 5, 7, 10, 11}, at::kLong);
    Tensor z = at::zeros({8, 12}, at::kDouble);
    const Tensor points = makePoints(bodies, 8);
    z.index_copy_(1, ofSecond, points.index_select(1, ofSecond));
    std::vector<double> differences;
    for (std::int64_t i = 0; i < z.size(0); i++) {
        const auto between = [&](const Tensor& second) {
            const Tensor whole = at::zeros({1, 12}, at::kDouble).index_copy(1, ofSecond, second);
            return chart.inverse(bodies.forward(whole).value).value.index_select(1, freeColumns);
        };
        const TransformResult xi = chart.inverse(bodies.forward(z.narrow(0, i, 1)).value);
        EXPECT_NEAR(xi.value[0][4].item<double>(), 104.52 * M_PI / 180, 1e-12);
        const double toXi = autogradLogDet(between, z[i].index_select(0, ofSecond));
        differences.push_back(toXi - xi.logDet.item<double>() -
                              bodies.forward(z.narrow(0, i, 1)).logDet.item<double>());
    }
    for (const double difference : differences)
        EXPECT_NEAR(difference, differences[0], 1e-9);
    EXPECT_GT(largest(bodies.forward(z).logDet - bodies.forward(z).logDet[0]), 0.1);
}

// The mass metric of rigid water, three constraints in a ring, is the same for all positions and orientations.
TEST(RigidBodies, HaveAConstantMassMetric) {
    const RigidBodies bodies(makeWaters(), {{0, 1, 2}, {3, 4, 5}});
    OpenMM::System system;
    for (int water = 0; water < 2; water++) {
        for (const double mass : {15.999, 1.008, 1.008})
            system.addParticle(mass);
        for (const auto& [a, b] : std::vector<std::pair<int, int>>{{0, 1}, {0, 2}, {1, 2}})
            system.addConstraint(3 * water + a, 3 * water + b, 0.1);
    }
    const Tensor metric =
        ConstraintMetric(system, {0, 1, 2, 3, 4, 5}).halfLogDet(bodies.forward(makePoints(bodies, 20)).value);
    EXPECT_LE(largest(metric - metric[0]), 1e-12);
}

// Haar's measure: for a fixed g, R g and R are equally distributed. Moments to fourth order that tell.
TEST(RigidBodies, TurnUniformlyFromTheirPrior) {
    const Flow flow(makePrior(0.5), makeTripod());
    Random random(11);
    const FlowSample sample = flow.sample(200000, random);
    const Tensor R = takeRotation(sample.x);
    const auto check = [](const Tensor& v, double expected) {
        const auto [mean, error] = average(v);
        EXPECT_NEAR(mean, expected, 4.5 * error);
    };
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const Tensor element = R.select(1, i).select(1, j);
            check(element, 0);
            check(element.square(), 1.0 / 3);
            check(element.pow(4), 1.0 / 5);
            check(element * R.select(1, (i + 1) % 3).select(1, j), 0);
            check(element * R.select(1, (i + 1) % 3).select(1, (j + 1) % 3), 0);
            // e R' with the cross product's signs: <R_ij R_kl R_mn> = 1/6 for even cofactors.
            check(element * R.select(1, (i + 1) % 3).select(1, (j + 1) % 3) *
                      R.select(1, (i + 2) % 3).select(1, (j + 2) % 3),
                  1.0 / 6);
        }
    // The angle of the rotation has the density (1 - cos w)/pi: <tr R> = 0, <(tr R)^2> = 1, <(tr R)^4> = 3.
    const Tensor trace = R.diagonal(0, 1, 2).sum(1);
    check(trace, 0);
    check(trace.square(), 1);
    check(trace.pow(4), 3);
    // log q is that of the normal position and 1/(8 pi^2).
    const Tensor expected = GaussianPrior(3, 0.5).logDensity(sample.z.slice(1, 0, 3)) - std::log(8 * M_PI * M_PI);
    EXPECT_LE(largest(sample.logQ - expected), 1e-12);
    EXPECT_LE(largest(flow.logQ(sample.x) - expected), 1e-6);
}

TEST(RigidBodies, ReweightADipoleInAField) {
    const auto flow = makeDipoleFlow();
    for (const double k : {0.7, 3.0}) {
        Dipole dipole(k);
        Random random(7);
        const at::NoGradGuard noGrad;
        const FlowSample sample = flow->sample(200000, random);
        const Tensor weight = (-dipole.evaluate(sample.x, Gradient::Omit).u - sample.logQ).exp();
        const Tensor cosine = takeRotation(sample.x).select(1, 2).select(1, 2);
        const auto [z, zError] = average(weight);
        EXPECT_NEAR(average(weight * (cosine - langevin(k))).first / z, 0,
                    4 * average(weight * (cosine - langevin(k))).second / z);
        // Z = (pi/50)^(3/2) 8 pi^2 sinh(k)/k
        const double exact = std::pow(M_PI / 50, 1.5) * 8 * M_PI * M_PI * std::sinh(k) / k;
        EXPECT_NEAR(z, exact, 4 * zError);
        EXPECT_LT(zError, 0.02 * z);
    }
}

// Walkers that start from the exact ensemble stay in it.
TEST(RigidBodies, JumpWithADipoleInAField) {
    const double k = 2.0;
    constexpr std::int64_t numWalkers = 100000;
    const auto flow = makeDipoleFlow();
    const auto bodies = std::dynamic_pointer_cast<Sequence>(flow->getTransform())->getTransforms().back();
    for (JumpKind kind : {JumpKind::Independence, JumpKind::PriorPreserving, JumpKind::RandomWalk}) {
        Random random(21);
        // cos(theta) by inverse CDF, the dipole's azimuth and the turn about it uniform, by another chart than z.
        const Tensor c = 1 + (random.uniform(numWalkers, 1) * (1 - std::exp(-2 * k)) + std::exp(-2 * k)).log() / k;
        const Tensor azimuth = 2 * M_PI * random.uniform(numWalkers, 1),
                     turn = 2 * M_PI * random.uniform(numWalkers, 1);
        const Tensor s = (1 - c.square()).sqrt(), zero = at::zeros_like(c);
        const Tensor third = at::cat({s * azimuth.cos(), s * azimuth.sin(), c}, 1);
        const Tensor east = at::cat({-azimuth.sin(), azimuth.cos(), zero}, 1), south = at::linalg_cross(east, third);
        const Tensor first = turn.cos() * east + turn.sin() * south, second = at::linalg_cross(third, first);
        const Tensor arms = at::stack({at::zeros_like(first), first, second, third}, 1);
        const Tensor x = arms - arms.mean(1, true) + (0.1 * random.normal(numWalkers, 3)).unsqueeze(1);
        LatentJump jump(flow, std::make_shared<Dipole>(k), {kind, AcceptanceTest::Metropolis, 0.3, 5});
        JumpState state = jump.start(x.flatten(1));
        ASSERT_TRUE(at::isfinite(state.logQ).all().item<bool>());
        for (int i = 0; i < 4; i++)
            EXPECT_GT(jump.step(state).numAccepted, numWalkers / 20);
        const Tensor R = takeRotation(state.x), cosine = R.select(1, 2).select(1, 2);
        const Tensor position = state.x.reshape({-1, 4, 3}).mean(1);
        const auto check = [&](const Tensor& v, double expected) {
            const auto [mean, error] = average(v);
            EXPECT_NEAR(mean, expected, 4 * error) << static_cast<int>(kind);
        };
        check(cosine, langevin(k));
        check(cosine.square(), 1 - 2 * langevin(k) / k);
        check(R.select(1, 0).select(1, 2), 0);
        check(R.select(1, 2).select(1, 0), 0);
        check(R.select(1, 2).select(1, 0).square(), langevin(k) / k);
        check(position.square().sum(1), 0.03);
        check(position.select(1, 0) * cosine, 0);
    }
}

TEST(RigidBodies, RefuseBadArguments) {
    const Tensor x = makeWaters();
    expectMessage([&] { RigidBodies(x, {}); }, "number of bodies is 0");
    expectMessage([&] { RigidBodies(x, {{0, 1}}); }, "number of atoms of body 0 is 2, but must be at least 3");
    expectMessage([&] { RigidBodies(x, {{0, 1, 2}, {2, 3, 4}}); }, "an atom of body 1 is 2");
    expectMessage([&] { RigidBodies(x, {{0, 1, 6}}); }, "an atom of body 0 is 6");
    expectMessage([&] { RigidBodies(x, {{0, 1, 2}}, 0.0); }, "tolerance is 0");
    expectMessage([&] { RigidBodies(x * NAN, {{0, 1, 2}}); }, "the reference is not finite");
    expectMessage([&] { RigidBodies(x.reshape({9, 2}), {{0, 1, 2}}); }, "shape of the reference is [9, 2]");
    const Tensor line = at::arange(3, at::kDouble).unsqueeze(1) * at::tensor({0.1, 0.2, 0.3}, at::kDouble);
    expectMessage([&] { RigidBodies(line, {{0, 1, 2}}); }, "body 0 is on one line");
}
