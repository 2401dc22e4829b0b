// SPDX-License-Identifier: MIT
// Lattices, and the flows that have their symmetries: convolutional couplings and LatticeVelocityField.

#include "contracts/ExpectMessage.h"
#include "contracts/FlowContract.h"
#include "openmmflow/flows/Architectures.h"
#include "openmmflow/flows/ContinuousFlow.h"
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/LatticeVelocityField.h"
#include "openmmflow/latent/Lattice.h"
#include <set>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

using Coordinates = std::vector<int>;

double largest(const Tensor& t) {
    return t.abs().max().item<double>();
}

Conditioner::Options convolutional(std::vector<int> extents, std::vector<int> channels = {4, 3}) {
    return {std::move(channels), Activation::SiLU, 5, std::move(extents)};
}

Tensor makeFields(int sites, int rows = 3) {
    Random random(31);
    return random.normal(rows, sites);
}

/** Fields moved by a map of coordinates: the result has at site map(x) what the argument has at x. */
Tensor move(const Tensor& fields, const Lattice& lattice, const std::function<Coordinates(Coordinates)>& map) {
    Tensor result = at::full_like(fields, NAN);
    for (int site = 0; site < lattice.getSize(); site++)
        result.select(1, lattice.getSite(map(lattice.getCoordinates(site)))).copy_(fields.select(1, site));
    return result;
}

Coordinates shift(Coordinates x, const Coordinates& by) {
    for (std::size_t i = 0; i < x.size(); i++)
        x[i] += by[i];
    return x;
}

/** The largest difference between f(Mz) and M f(z), in both directions, and of the log-dets. */
double asymmetry(const Transform& transform, const Tensor& z, const std::function<Tensor(const Tensor&)>& move) {
    double worst = 0;
    for (const bool inverse : {false, true}) {
        const TransformResult map = inverse ? transform.inverse(z) : transform.forward(z);
        const TransformResult moved = inverse ? transform.inverse(move(z)) : transform.forward(move(z));
        EXPECT_GT(largest(map.value - z), 0.05);
        worst = std::max({worst, largest(moved.value - move(map.value)), largest(moved.logDet - map.logDet)});
    }
    return worst;
}

std::shared_ptr<LatticeVelocityField> makeField(Coordinates extents, int frequencies = 3, int timeFunctions = 2) {
    return std::make_shared<LatticeVelocityField>(std::move(extents),
                                                  LatticeVelocityField::Options{frequencies, 3.0, timeFunctions});
}

std::shared_ptr<ContinuousFlow> makeContinuous(Coordinates extents, int steps = 40) {
    return std::make_shared<ContinuousFlow>(makeField(std::move(extents)), OdeOptions{OdeMethod::RungeKutta4, steps});
}

void randomise(const VelocityField& field, double scale) {
    Random random(17);
    for (const auto& [name, tensor] : field.getParameters())
        tensor.set_data((name == "kernel" ? 0.0 : 1.0) * tensor.detach().to(at::kDouble) +
                        scale * random.normal(1, tensor.numel()).reshape(tensor.sizes()));
}

std::vector<FlowContractCase> makeCases() {
    const Lattice line({5}), plane({4, 3}), cube({2, 3, 2});
    return {
        {"AdditiveCoupling on a plane",
         std::make_shared<AdditiveCoupling>(12, plane.getCheckerboard(true), convolutional({4, 3})), makeFields(12),
         true},
        {"odd AffineCoupling on a line",
         std::make_shared<AffineCoupling>(5, line.getCheckerboard(false), convolutional({5}), 2.0, true), makeFields(5),
         true},
        {"AffineCoupling on a cube",
         std::make_shared<AffineCoupling>(12, cube.getCheckerboard(true), convolutional({2, 3, 2}, {3})),
         makeFields(12), true},
        {"RealNVP on a plane", makeRealNVP(8, 1, {2.0, convolutional({2, 4}), true}), makeFields(8), true},
        {"ContinuousFlow on a plane", makeContinuous({3, 2}, 200), 0.7 * makeFields(6), true},
    };
}

class LatticeContract : public testing::TestWithParam<int> {};

} // namespace

TEST_P(LatticeContract, Holds) {
    checkFlowContract(makeCases()[GetParam()]);
}

INSTANTIATE_TEST_SUITE_P(Transforms, LatticeContract, testing::Range(0, 4));
INSTANTIATE_TEST_SUITE_P(SlowTransforms, LatticeContract, testing::Range(4, static_cast<int>(makeCases().size())));

TEST(Lattice, NumbersSitesWithTheLastCoordinateFastest) {
    const Lattice lattice({2, 3, 4});
    EXPECT_EQ(lattice.getSize(), 24);
    EXPECT_EQ(lattice.getCoordinates(23), (Coordinates{1, 2, 3}));
    EXPECT_EQ(lattice.getSite({1, 0, 2}), 14);
    EXPECT_EQ(lattice.getSite({-1, 3, -6}), 14);
    for (int site = 0; site < 24; site++)
        EXPECT_EQ(lattice.getSite(lattice.getCoordinates(site)), site);
}

TEST(Lattice, CheckerboardSeparatesNeighbours) {
    const Lattice lattice({4, 6});
    const auto even = lattice.getCheckerboard(false), odd = lattice.getCheckerboard(true);
    EXPECT_EQ(even.size(), 12u);
    EXPECT_EQ(odd.size(), 12u);
    const std::set<int> members(odd.begin(), odd.end());
    for (const int site : even)
        for (const Coordinates& step : {Coordinates{1, 0}, {-1, 0}, {0, 1}, {0, -1}})
            EXPECT_EQ(members.count(lattice.getSite(shift(lattice.getCoordinates(site), step))), 1u);
}

TEST(Lattice, OrbitsAreThoseOfThePointGroup) {
    const auto orbits = [](const Coordinates& extents) { return Lattice(extents).getOrbits(); };
    // By hand: distances 0, 1, 2, 1 along each dimension; exchanged where the extents are equal.
    EXPECT_TRUE(at::equal(orbits({4, 4}).reshape({4, 4}),
                          at::tensor({0, 1, 2, 1, 1, 3, 4, 3, 2, 4, 5, 4, 1, 3, 4, 3}, at::kLong).reshape({4, 4})));
    EXPECT_TRUE(at::equal(orbits({3, 2}), at::tensor({0, 1, 2, 3, 2, 3}, at::kLong)));
    EXPECT_EQ(orbits({12, 12}).max().item<int>() + 1, 28); // 7 * 8 / 2
}

TEST(ConvolutionalCouplings, CommuteWithEvenTranslations) {
    const Lattice lattice({4, 6});
    const Tensor z = makeFields(24);
    const auto flow = makeRealNVP(24, 2, {3.0, convolutional({4, 6})});
    randomiseParameters(*flow);
    const auto by = [&](const Coordinates& step) {
        return asymmetry(*flow, z, [&](const Tensor& y) {
            return move(y, lattice, [&](const Coordinates& x) { return shift(x, step); });
        });
    };
    EXPECT_LE(by({1, 1}), 1e-12);
    EXPECT_LE(by({2, -4}), 1e-12);
    EXPECT_LE(by({0, 2}), 1e-12);
    EXPECT_GT(by({0, 1}), 0.01);
}

TEST(ConvolutionalCouplings, CommuteWithTheChangeOfSignWhereOdd) {
    const Tensor z = makeFields(24);
    const auto measure = [&](const Transform& flow) {
        randomiseParameters(flow);
        return asymmetry(flow, z, [](const Tensor& y) { return -y; });
    };
    EXPECT_EQ(measure(*makeRealNVP(24, 2, {3.0, convolutional({4, 6}), true})), 0.0);
    EXPECT_EQ(measure(*makeNICER(24, {2, ScalingLayer::Exponential, convolutional({24}), true})), 0.0);
    EXPECT_GT(measure(*makeRealNVP(24, 2, {3.0, convolutional({4, 6})})), 0.01);
}

// A convolution by hand: one layer, so that t_x = b + sum_d w_d phi_{x+d} over the passive neighbours.
TEST(ConvolutionalCouplings, AreTheirFormula) {
    const Lattice lattice({4, 6});
    const std::vector<int> active = lattice.getCheckerboard(true);
    const AdditiveCoupling coupling(24, active, convolutional({4, 6}, {}));
    randomiseParameters(coupling);
    const Tensor w = coupling.getParameters()[0].second, b = coupling.getParameters()[1].second;
    ASSERT_EQ(w.sizes(), (at::IntArrayRef{1, 9}));
    const Tensor z = makeFields(24), x = coupling.forward(z).value;
    const std::set<int> changed(active.begin(), active.end());
    for (int site = 0; site < 24; site++) {
        Tensor expected = z.select(1, site).clone();
        if (changed.count(site) == 1) {
            expected += b[0];
            for (int d = 0; d < 9; d++) {
                const int other = lattice.getSite(shift(lattice.getCoordinates(site), {d / 3 - 1, d % 3 - 1}));
                if (changed.count(other) == 0)
                    expected += w[0][d] * z.select(1, other);
            }
        }
        EXPECT_LE(largest(x.select(1, site) - expected), 1e-13);
    }
}

TEST(ConvolutionalCouplings, HaveParametersThatDoNotDependOnTheLattice) {
    const auto small = makeRealNVP(16, 1, {3.0, convolutional({4, 4})});
    const auto large = makeRealNVP(64, 1, {3.0, convolutional({8, 8})});
    randomiseParameters(*small);
    const NamedTensors from = small->getParameters(), to = large->getParameters();
    for (std::size_t i = 0; i < from.size(); i++)
        to[i].second.set_data(from[i].second.detach());
    // A field that repeats is mapped to one that repeats.
    const Tensor z = makeFields(16), repeated = z.reshape({3, 4, 4}).repeat({1, 2, 2}).flatten(1);
    const TransformResult once = small->forward(z), four = large->forward(repeated);
    EXPECT_LE(largest(four.value - once.value.reshape({3, 4, 4}).repeat({1, 2, 2}).flatten(1)), 1e-12);
    EXPECT_LE(largest(four.logDet - 4 * once.logDet), 1e-11);
}

TEST(ConvolutionalCouplings, RefuseOtherLattices) {
    expectMessage(
        [] {
            AffineCoupling(6, {0}, convolutional({2, 4}));
        },
        "Conditioner::makeForCoupling: number of sites of the lattice is 8, but must be the number of "
        "variables, 6");
    expectMessage([] { AdditiveCoupling(6, {0}, convolutional({2, 0})); }, "Lattice::Lattice: an extent is 0");
    expectMessage(
        [] {
            SplineCoupling(6, {0}, {}, {8, 5.0, convolutional({2, 3})});
        },
        "Conditioner::Conditioner: number of extents is 2, but must be 0");
}

TEST(LatticeVelocityField, IsItsFormula) {
    const Lattice lattice({4, 3});
    const auto field = makeField({4, 3});
    randomise(*field, 0.5);
    const Tensor w = field->getParameters()[0].second.detach(), omega = field->getParameters()[1].second.detach();
    const Tensor y = makeFields(12), t = at::tensor({0.0, 0.3, 0.9}, at::kDouble), orbits = lattice.getOrbits();
    const Tensor v = (*field)(y, t);
    for (int x = 0; x < 12; x++) {
        Tensor expected = at::zeros({3}, at::kDouble);
        for (int other = 0; other < 12; other++) {
            Coordinates d = lattice.getCoordinates(x);
            for (int i = 0; i < 2; i++)
                d[i] -= lattice.getCoordinates(other)[i];
            const auto orbit = orbits[lattice.getSite(d)].item<std::int64_t>();
            const Tensor phi = y.select(1, other);
            for (int k = 0; k < 2; k++)
                for (int f = 0; f < 4; f++)
                    expected += at::cos(M_PI * k * t) * w[k][f][orbit] * (f == 0 ? phi : at::sin(omega[f - 1] * phi));
        }
        EXPECT_LE(largest(v.select(1, x) - expected), 1e-13);
    }
}

TEST(LatticeVelocityField, DivergenceIsTheTraceOfTheJacobian) {
    const Tensor t = at::tensor({0.0, 0.3, 0.9}, at::kDouble);
    for (const Coordinates& extents : {Coordinates{5}, {3, 4}, {2, 2, 3}, {1, 4}}) {
        const auto field = makeField(extents);
        randomise(*field, 0.5);
        const int size = field->getSize();
        const Tensor y = makeFields(size);
        const VelocityResult result = field->withDivergence(y, t);
        EXPECT_LE(largest(result.velocity - (*field)(y, t)), 1e-14);
        for (int row = 0; row < 3; row++) {
            double trace = 0;
            for (int i = 0; i < size; i++) {
                const Tensor argument = y.clone().set_requires_grad(true);
                trace += torch::autograd::grad({(*field)(argument, t)[row][i]}, {argument})[0][row][i].item<double>();
            }
            EXPECT_NEAR(result.divergence[row].item<double>(), trace, 1e-12);
        }
    }
}

TEST(LatticeVelocityField, PullBackIsAutograds) {
    const Tensor t = at::tensor({0.0, 0.3, 0.9}, at::kDouble);
    Random random(8);
    for (const Coordinates& extents : {Coordinates{5}, {3, 4}, {4, 3}, {2, 2, 3}})
        for (const int frequencies : {0, 3}) {
            const auto field = makeField(extents, frequencies);
            randomise(*field, 0.5);
            const Tensor y = makeFields(field->getSize()), onVelocity = random.normal(3, field->getSize());
            const Tensor onDivergence = random.normal(1, 3)[0];
            std::vector<Tensor> variables = {y.clone().set_requires_grad(true)};
            for (const auto& [name, tensor] : field->getParameters())
                variables.push_back(tensor);
            const VelocityResult v = field->withDivergence(variables[0], t);
            const auto expected = torch::autograd::grad(
                {(v.velocity * onVelocity).sum() + (v.divergence * onDivergence).sum()}, variables);
            const auto back = field->pullBack(y, t, {}, onVelocity, onDivergence,
                                              VelocityField::Derivatives::ByArgumentAndParameters);
            EXPECT_LE(largest(back.velocity - v.velocity), 1e-13);
            EXPECT_LE(largest(back.onArgument - expected[0]), 1e-12);
            for (std::size_t i = 0; i < back.onParameters.size(); i++) {
                const Tensor difference = back.onParameters[i] - expected[i + 1];
                EXPECT_LE(difference.abs().sum().item<double>(), 1e-10) << i;
            }
            EXPECT_TRUE(field->pullBack(y, t, {}, onVelocity, onDivergence, VelocityField::Derivatives::ByArgument)
                            .onParameters.empty());
        }
}

TEST(LatticeVelocityField, MakesFlowsThatCommuteWithTheSymmetriesOfTheLattice) {
    const Lattice square({4, 4}), oblong({4, 3});
    const auto measure = [](const Lattice& lattice, const std::function<Coordinates(Coordinates)>& map) {
        const auto flow = makeContinuous(lattice.getExtents(), 4);
        randomise(flow->getField(), 0.3);
        return asymmetry(*flow, makeFields(lattice.getSize()), [&](const Tensor& y) { return move(y, lattice, map); });
    };
    for (const Lattice& lattice : {square, oblong}) {
        EXPECT_LE(measure(lattice, [](auto x) { return shift(x, {1, 2}); }), 1e-12);
        EXPECT_LE(measure(lattice, [](auto x) { return Coordinates{-x[0], x[1]}; }), 1e-12);
        EXPECT_LE(measure(lattice, [](auto x) { return Coordinates{x[0], 1 - x[1]}; }), 1e-12);
    }
    EXPECT_LE(measure(square, [](auto x) { return Coordinates{x[1], x[0]}; }), 1e-12);
    EXPECT_LE(measure(square, [](auto x) { return Coordinates{-x[1], x[0]}; }), 1e-12);
    EXPECT_GT(measure(square, [](auto x) { return Coordinates{x[0], x[0] + x[1]}; }), 0.01); // a shear is no symmetry
    const auto flow = makeContinuous({4, 3}, 4);
    randomise(flow->getField(), 0.3);
    EXPECT_LE(asymmetry(*flow, makeFields(12), [](const Tensor& y) { return -y; }), 1e-13);
}

// Without sines the flow is linear: a free field, whose momenta q are scaled by exp(K(q)).
TEST(LatticeVelocityField, SolvesTheFreeField) {
    const Lattice lattice({4, 3});
    const auto flow = std::make_shared<ContinuousFlow>(makeField({4, 3}, 0, 1), OdeOptions{});
    randomise(flow->getField(), 0.2);
    const Tensor w = flow->getParameters()[0].second.detach().flatten(), z = makeFields(12);
    Tensor matrix = at::zeros({12, 12}, at::kDouble);
    for (int x = 0; x < 12; x++)
        for (int y = 0; y < 12; y++) {
            const Coordinates a = lattice.getCoordinates(x), b = lattice.getCoordinates(y);
            matrix[x][y] = w[lattice.getOrbits()[lattice.getSite({a[0] - b[0], a[1] - b[1]})].item<std::int64_t>()];
        }
    const TransformResult there = flow->forward(z);
    EXPECT_LE(largest(there.value - at::mm(z, at::matrix_exp(matrix).t())), 1e-7);
    EXPECT_LE(largest(there.logDet - 12 * w[0]), 1e-7);
}

TEST(LatticeVelocityField, IsSavedWithItsFlow) {
    const auto transform = makeContinuous({4, 3}, 5);
    randomise(transform->getField(), 0.3);
    const Flow flow(std::make_shared<GaussianPrior>(12), transform);
    const auto twin = flow.clone();
    EXPECT_EQ(twin->getTransform()->getArchitecture(), transform->getArchitecture());
    EXPECT_TRUE(at::equal(twin->logQ(makeFields(12)), flow.logQ(makeFields(12))));
    auto other = transform->getArchitecture();
    other["field"]["extents"] = Coordinates{4, 4};
    expectMessage([&] { (void)Transform::create(other); },
                  "VelocityField::create: number of sites is 16, but must be the size, 12");
    other["field"]["type"] = "Torus";
    expectMessage([&] { (void)Transform::create(other); }, "VelocityField::create: type is Torus");
}

TEST(LatticeVelocityField, RefusesBadArguments) {
    expectMessage(
        [] {
            LatticeVelocityField({4}, {-1, 5.0, 4});
        },
        "LatticeVelocityField::LatticeVelocityField: frequencies is -1");
    expectMessage([] { LatticeVelocityField({4}, {8, 0.0, 4}); }, "maxFrequency is 0");
    expectMessage([] { LatticeVelocityField({4}, {8, 5.0, 0}); }, "timeFunctions is 0");
    expectMessage([] { LatticeVelocityField({}, {8, 5.0, 4}); }, "number of extents is 0");
}
