// SPDX-License-Identifier: MIT

#include "contracts/ExpectMessage.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include <ATen/ATen.h>
#include <functional>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <numbers>
#include <openmm/CustomBondForce.h>
#include <openmm/HarmonicBondForce.h>
#include <openmm/VirtualSite.h>
#include <torch/csrc/autograd/autograd.h>

using namespace OpenMMFlow;
using at::indexing::Slice;
using OpenMM::System;
using OpenMM::Vec3;
using std::numbers::pi;

namespace {

using Bonds = std::vector<std::pair<int, int>>;

/** A System with bonds, and positions for it. */
struct Case {
    System system;
    std::vector<Vec3> positions;
    OpenMM::HarmonicBondForce* bonds = new OpenMM::HarmonicBondForce();

    Case(const std::vector<double>& masses, const std::vector<Vec3>& positions) : positions(positions) {
        system.addForce(bonds);
        for (double mass : masses)
            system.addParticle(mass);
    }
    void bond(int a, int b) { bonds->addBond(a, b, 0.1, 1e5); }
    void constrain(int a, int b) {
        Vec3 d = positions[a] - positions[b];
        system.addConstraint(a, b, std::sqrt(d.dot(d)));
    }
    std::vector<int> allAtoms() const {
        std::vector<int> atoms;
        for (int i = 0; i < system.getNumParticles(); i++)
            atoms.push_back(i);
        return atoms;
    }
    std::shared_ptr<InternalCoordinates> chart() const {
        return InternalCoordinates::fromSystem(system, allAtoms(), positions);
    }
    at::Tensor x() const {
        return at::from_blob(const_cast<Vec3*>(positions.data()), {1, 3 * (int)positions.size()}, at::kDouble).clone();
    }
};

const Bonds alanineBonds = {{1, 2}, {1, 3},   {0, 1},   {10, 11}, {10, 12}, {10, 13}, {8, 9},
                            {6, 7}, {18, 19}, {18, 20}, {18, 21}, {16, 17}, {4, 5},   {4, 6},
                            {1, 4}, {14, 15}, {14, 16}, {8, 10},  {8, 14},  {6, 8},   {16, 18}};

/** Alanine dipeptide in the order of openmmtools, in a conformation from dynamics at 300 K. */
Case alanineDipeptide(bool constrainHydrogens = false) {
    const double H = 1.008, C = 12.01, N = 14.01, O = 16.0;
    Case c({H, C, H, H, C, O, N, H, C, H, C, H, H, H, C, O, N, H, C, H, H, H},
           {{0.0017, -0.3578, 0.1613},  {0.0075, -0.2870, 0.2491},   {0.0871, -0.3157, 0.3186},
            {-0.0918, -0.2721, 0.3013}, {0.0261, -0.1464, 0.2034},   {0.0925, -0.0639, 0.2659},
            {-0.0267, -0.1225, 0.0803}, {-0.0689, -0.1947, 0.0337},  {0.0000, 0.0000, 0.0000},
            {0.1071, 0.0244, 0.0164},   {-0.0232, -0.0357, -0.1526}, {-0.1266, -0.0618, -0.1717},
            {0.0084, 0.0504, -0.2096},  {0.0249, -0.1241, -0.1855},  {-0.0846, 0.1230, 0.0505},
            {-0.1852, 0.1613, -0.0098}, {-0.0606, 0.1697, 0.1756},   {0.0127, 0.1228, 0.2319},
            {-0.1571, 0.2603, 0.2521},  {-0.2567, 0.2186, 0.2369},   {-0.1241, 0.2583, 0.3565},
            {-0.1520, 0.3606, 0.2044}});
    for (auto [a, b] : alanineBonds) {
        bool hydrogen = std::min(c.system.getParticleMass(a), c.system.getParticleMass(b)) < 2;
        if (hydrogen && constrainHydrogens)
            c.constrain(a, b);
        else
            c.bond(a, b);
    }
    return c;
}

at::Tensor normal(at::IntArrayRef size, std::uint64_t seed) {
    at::Generator generator = at::globalContext().defaultGenerator(at::kCPU).clone();
    generator.set_current_seed(seed);
    return at::randn(size, generator, at::kDouble);
}

/** Coordinates about those of one structure: rotors anywhere, the others moved a little. */
at::Tensor spread(const InternalCoordinates& chart, const at::Tensor& x, int count, std::uint64_t seed) {
    at::Tensor noise = normal({count, chart.getInputSize()}, seed);
    at::Tensor xi = chart.inverse(x).value + 0.1 * noise;
    auto bonds = Slice(at::indexing::None, chart.getNumBonds());
    xi.index_put_({Slice(), bonds},
                  chart.inverse(x).value.index({Slice(), bonds}) * (1 + 0.05 * noise.index({Slice(), bonds})));
    for (int column : chart.getCircularIndices())
        xi.select(1, column) = at::remainder(xi.select(1, column) + 20 * noise.select(1, column), 2 * pi) - pi;
    return xi;
}

/** Moved and turned by some rigid motion. */
at::Tensor moveRigidly(const at::Tensor& x) {
    at::Tensor rotation = std::get<0>(at::linalg_qr(normal({3, 3}, 3)));
    rotation = rotation * at::det(rotation);
    at::Tensor shift = normal({x.size(0), 1, 3}, 4);
    return (at::matmul(x.view({x.size(0), -1, 3}), rotation) + shift).reshape(x.sizes());
}

at::Tensor atomOf(const at::Tensor& x, int atom) {
    return x.index({Slice(), Slice(3 * atom, 3 * atom + 3)});
}

at::Tensor rowDot(const at::Tensor& a, const at::Tensor& b) {
    return (a * b).sum(-1, true);
}

at::Tensor unit(const at::Tensor& v) {
    return v / rowDot(v, v).sqrt();
}

double maxDifference(const at::Tensor& a, const at::Tensor& b) {
    return (a - b).abs().max().item<double>();
}

/**
 * The specification of both directions in plain tensor operations (the placement of Parsons et al., and the IUPAC
 * torsion), with the length of the bond that places an atom given as a function of its number.
 */
using Lengths = std::function<at::Tensor(int atom)>;

Lengths lengthsOf(const InternalCoordinates& chart, const at::Tensor& xi) {
    std::vector<int> order = {chart.getFrame()[1], chart.getFrame()[2]};
    for (const ZMatrixRow& row : chart.getRows())
        order.push_back(row.atom);
    std::vector<at::Tensor> lengths(chart.getNumAtoms());
    int column = 0;
    for (int atom : order) {
        double fixed = chart.getConstrainedLength()[atom];
        lengths[atom] = fixed > 0 ? at::full({xi.size(0), 1}, fixed, xi.options()) : xi.narrow(1, column++, 1);
    }
    return [lengths](int atom) { return lengths[atom]; };
}

TransformResult specifiedForward(const InternalCoordinates& chart, const at::Tensor& xi) {
    Lengths length = lengthsOf(chart, xi);
    const std::vector<int>& frame = chart.getFrame();
    int firstAngle = chart.getNumBonds(), firstTorsion = firstAngle + chart.getNumAngles();
    at::Tensor a0 = xi.narrow(1, firstAngle, 1), zero = at::zeros_like(a0);
    std::vector<at::Tensor> atoms(chart.getNumAtoms());
    atoms[frame[0]] = at::cat({zero, zero, zero}, 1);
    atoms[frame[1]] = at::cat({length(frame[1]), zero, zero}, 1);
    atoms[frame[2]] = at::cat({length(frame[2]) * a0.cos(), length(frame[2]) * a0.sin(), zero}, 1);
    at::Tensor logDet = 2 * length(frame[1]).log() + 2 * length(frame[2]).log() + a0.sin().log();
    for (std::size_t i = 0; i < chart.getRows().size(); i++) {
        const ZMatrixRow& row = chart.getRows()[i];
        at::Tensor angle = xi.narrow(1, firstAngle + 1 + i, 1),
                   torsion = xi.narrow(1, firstTorsion + i, 1) + row.center;
        at::Tensor u = unit(atoms[row.bond] - atoms[row.angle]);
        at::Tensor n = unit(at::linalg_cross(atoms[row.angle] - atoms[row.torsion], u)), m = at::linalg_cross(n, u);
        atoms[row.atom] = atoms[row.bond] +
                          length(row.atom) * (-angle.cos() * u + angle.sin() * (torsion.cos() * m + torsion.sin() * n));
        logDet = logDet + 2 * length(row.atom).log() + angle.sin().log();
    }
    return {at::cat(atoms, 1), logDet.squeeze(1)};
}

at::Tensor angleOf(const at::Tensor& a, const at::Tensor& b) {
    return at::acos(rowDot(unit(a), unit(b)));
}

at::Tensor torsionOf(const at::Tensor& x, int a, int b, int c, int d) {
    at::Tensor b1 = atomOf(x, b) - atomOf(x, a), b2 = atomOf(x, c) - atomOf(x, b), b3 = atomOf(x, d) - atomOf(x, c);
    at::Tensor n1 = at::linalg_cross(b1, b2), n2 = at::linalg_cross(b2, b3);
    return at::atan2(rowDot(b2, b2).sqrt() * rowDot(b1, n2), rowDot(n1, n2));
}

TransformResult specifiedInverse(const InternalCoordinates& chart, const at::Tensor& x) {
    const std::vector<int>& frame = chart.getFrame();
    auto between = [&](int a, int b) { return atomOf(x, a) - atomOf(x, b); };
    std::vector<at::Tensor> bonds, angles = {angleOf(between(frame[1], frame[0]), between(frame[2], frame[0]))},
                                   torsions;
    at::Tensor logDet = -angles[0].sin().log();
    auto addBond = [&](int atom, int bond) {
        double fixed = chart.getConstrainedLength()[atom];
        at::Tensor length = rowDot(between(atom, bond), between(atom, bond)).sqrt();
        logDet = logDet - 2 * (fixed > 0 ? at::full_like(length, fixed) : length).log();
        if (fixed == 0)
            bonds.push_back(length);
    };
    addBond(frame[1], frame[0]);
    addBond(frame[2], frame[0]);
    for (const ZMatrixRow& row : chart.getRows()) {
        addBond(row.atom, row.bond);
        angles.push_back(angleOf(between(row.atom, row.bond), between(row.angle, row.bond)));
        logDet = logDet - angles.back().sin().log();
        at::Tensor torsion = torsionOf(x, row.torsion, row.angle, row.bond, row.atom) - row.center;
        torsions.push_back(at::remainder(torsion + pi, 2 * pi) - pi);
    }
    for (const auto* group : {&angles, &torsions})
        bonds.insert(bonds.end(), group->begin(), group->end());
    return {at::cat(bonds, 1), logDet.squeeze(1)};
}

/** Gradient of a fixed, unsymmetric function of both results of a map. */
template <class Map>
at::Tensor gradientOf(const Map& map, const at::Tensor& argument) {
    at::Tensor leaf = argument.detach().clone().requires_grad_();
    TransformResult result = map(leaf);
    at::Tensor weights = normal(result.value.sizes(), 7), logDetWeights = normal(result.logDet.sizes(), 8);
    at::Tensor loss = (weights * result.value).sum() + (logDetWeights * result.logDet).sum();
    return torch::autograd::grad({loss}, {leaf})[0];
}

/**
 * log|det| of dx/d(xi, rigid motions) from autograd's Jacobian and the generators of translations and rotations, for a
 * chart without constraints: knows nothing of the closed form.
 */
at::Tensor jacobianLogDet(const InternalCoordinates& chart, const at::Tensor& xi) {
    int size = chart.getOutputSize();
    at::Tensor leaf = xi.expand({size, xi.size(1)}).contiguous().requires_grad_();
    at::Tensor x = chart.forward(leaf).value;
    at::Tensor jacobian = torch::autograd::grad({x}, {leaf}, {at::eye(size, at::kDouble)})[0];
    at::Tensor atoms = x[0].detach().view({-1, 3}), axes = at::eye(3, at::kDouble);
    std::vector<at::Tensor> columns = {jacobian};
    for (int k = 0; k < 3; k++) {
        columns.push_back(axes[k].expand_as(atoms).reshape({size, 1}));
        columns.push_back(at::linalg_cross(axes[k].expand_as(atoms), atoms).reshape({size, 1}));
    }
    return std::get<1>(at::linalg_slogdet(at::cat(columns, 1)));
}

const double infinity = std::numeric_limits<double>::infinity();

} // namespace

TEST(InternalCoordinates, ChartsAlanineDipeptide) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    EXPECT_EQ(chart->getFrame(), (std::vector<int>{8, 6, 14}));
    EXPECT_EQ(chart->getInputSize(), 60);
    EXPECT_EQ(chart->getNumBonds(), 21);
    EXPECT_EQ(chart->getNumAngles(), 20);
    // phi, psi, two omegas, and the three methyl groups
    std::vector<int> rotors;
    for (auto [a, b] : Bonds{{8, 6}, {14, 8}, {4, 6}, {14, 16}, {10, 8}, {1, 4}, {18, 16}})
        rotors.push_back(chart->findTorsion(a, b));
    std::ranges::sort(rotors);
    EXPECT_EQ(chart->getCircularIndices(), rotors);
    EXPECT_EQ(chart->findTorsion(4, 5), -1);
    at::Tensor x = molecule.x(), xi = chart->inverse(x).value;
    EXPECT_NEAR(xi[0][chart->findTorsion(6, 8)].item<double>(), torsionOf(x, 4, 6, 8, 14).item<double>(), 1e-12);
    EXPECT_NEAR(xi[0][chart->findTorsion(8, 14)].item<double>(), torsionOf(x, 6, 8, 14, 16).item<double>(), 1e-12);
}

TEST(InternalCoordinates, RangesFollowTheReference) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    int half = 0, turns = 0;
    for (const ZMatrixRow& row : chart->getRows()) {
        half += row.range == TorsionRange::Positive || row.range == TorsionRange::Negative;
        turns += row.range == TorsionRange::Turn;
        if (row.range == TorsionRange::Turn) {
            EXPECT_NEAR(std::abs(row.center), pi, 0.5) << "planar centre " << row.bond;
        }
    }
    EXPECT_EQ(half, 8);  // two offsets on each of CA and three methyl carbons
    EXPECT_EQ(turns, 4); // O or H of each peptide group
}

TEST(InternalCoordinates, HalfRangesAreForTetrahedralOffsets) {
    // a centre with arms at these azimuths about its first arm, counted from its second
    const std::vector<double> degrees = {55, 65, 145, 155, 179, -179, -155, -145, -65, -55};
    std::vector<Vec3> positions = {{0, 0, 0}, {-0.1, 0, 0}, {0.02, 0.1, 0}};
    for (double azimuth : degrees)
        positions.emplace_back(0.03, 0.1 * std::cos(azimuth * pi / 180), 0.1 * std::sin(azimuth * pi / 180));
    Case star(std::vector<double>(positions.size(), 12.0), positions);
    for (std::size_t i = 1; i < positions.size(); i++)
        star.bond(0, static_cast<int>(i));
    auto rows = star.chart()->getRows();
    for (std::size_t i = 0; i < degrees.size(); i++) {
        bool half = 60 < std::abs(degrees[i]) && std::abs(degrees[i]) < 150;
        TorsionRange side = degrees[i] > 0 ? TorsionRange::Positive : TorsionRange::Negative;
        EXPECT_EQ(rows[i].range, half ? side : TorsionRange::Turn) << degrees[i];
        EXPECT_NEAR(rows[i].center, half ? 0 : degrees[i] * pi / 180, 1e-12) << degrees[i];
    }
    // An amine's nitrogen inverts: its hydrogens are not held on one side.
    Case amine({14, 1, 1, 12, 12},
               {{0, 0, 0}, {0.09, 0, 0.04}, {-0.05, 0.08, 0.04}, {-0.06, -0.13, 0.04}, {-0.06, -0.15, 0.19}});
    for (auto [a, b] : Bonds{{0, 1}, {0, 2}, {0, 3}, {3, 4}})
        amine.bond(a, b);
    for (const ZMatrixRow& row : amine.chart()->getRows())
        EXPECT_TRUE(row.range == TorsionRange::Circle || row.range == TorsionRange::Turn);
}

TEST(InternalCoordinates, RoundTrips) {
    for (bool constrained : {false, true}) {
        Case molecule = alanineDipeptide(constrained);
        auto chart = molecule.chart();
        at::Tensor xi = spread(*chart, molecule.x(), 64, 1);
        TransformResult built = chart->forward(xi);
        at::Tensor moved = moveRigidly(built.value);
        TransformResult measured = chart->inverse(moved);
        EXPECT_LE(maxDifference(measured.value, xi), 1e-10);
        EXPECT_LE(maxDifference(measured.logDet, -built.logDet), 1e-10);
        EXPECT_LE(maxDifference(chart->place(chart->forward(measured.value).value, moved), moved), 1e-10);
    }
}

TEST(InternalCoordinates, MatchesSpecification) {
    for (bool constrained : {false, true}) {
        Case molecule = alanineDipeptide(constrained);
        auto chart = molecule.chart();
        at::Tensor xi = spread(*chart, molecule.x(), 16, 2);
        auto forward = [&](const at::Tensor& y) { return chart->forward(y); };
        auto forwardSpecified = [&](const at::Tensor& y) { return specifiedForward(*chart, y); };
        EXPECT_LE(maxDifference(forward(xi).value, forwardSpecified(xi).value), 1e-12);
        EXPECT_LE(maxDifference(forward(xi).logDet, forwardSpecified(xi).logDet), 1e-11);
        EXPECT_LE(maxDifference(gradientOf(forward, xi), gradientOf(forwardSpecified, xi)), 1e-10);
        at::Tensor x = moveRigidly(forward(xi).value) + 1e-3 * normal({16, 66}, 5);
        auto inverse = [&](const at::Tensor& y) { return chart->inverse(y); };
        auto inverseSpecified = [&](const at::Tensor& y) { return specifiedInverse(*chart, y); };
        EXPECT_LE(maxDifference(inverse(x).value, inverseSpecified(x).value), 1e-10);
        EXPECT_LE(maxDifference(inverse(x).logDet, inverseSpecified(x).logDet), 1e-10);
        at::Tensor expected = gradientOf(inverseSpecified, x);
        EXPECT_LE(maxDifference(gradientOf(inverse, x), expected), 1e-9 * expected.abs().max().item<double>());
    }
}

TEST(InternalCoordinates, GradientsMatchFiniteDifferences) {
    Case molecule = alanineDipeptide(true);
    auto chart = molecule.chart();
    auto check = [](const auto& map, const at::Tensor& argument) {
        at::Tensor gradient = gradientOf(map, argument);
        TransformResult at0 = map(argument);
        at::Tensor weights = normal(at0.value.sizes(), 7), logDetWeights = normal(at0.logDet.sizes(), 8);
        auto loss = [&](const at::Tensor& y) {
            TransformResult result = map(y);
            return ((weights * result.value).sum() + (logDetWeights * result.logDet).sum()).template item<double>();
        };
        double h = 1e-6, scale = gradient.abs().max().item<double>();
        for (std::int64_t i = 0; i < argument.size(1); i++) {
            at::Tensor step = at::zeros_like(argument);
            step[0][i] = h;
            double difference = (loss(argument + step) - loss(argument - step)) / (2 * h);
            EXPECT_NEAR(gradient[0][i].item<double>(), difference, 1e-7 * scale) << i;
        }
    };
    at::Tensor xi = spread(*chart, molecule.x(), 1, 6);
    check([&](const at::Tensor& y) { return chart->forward(y); }, xi);
    check([&](const at::Tensor& y) { return chart->inverse(y); }, molecule.x());
}

TEST(InternalCoordinates, LogDetIsThatOfTheJacobian) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    at::Tensor xi = spread(*chart, molecule.x(), 4, 9);
    for (int i = 0; i < 4; i++)
        EXPECT_NEAR(chart->forward(xi).logDet[i].item<double>(),
                    jacobianLogDet(*chart, xi.narrow(0, i, 1)).item<double>(), 1e-9);
}

TEST(InternalCoordinates, ChartsAnyConnectedGraph) {
    const std::map<std::string, Bonds> graphs = {
        {"chain", {{4, 1}, {1, 0}, {0, 5}, {5, 2}, {2, 3}}},
        {"star", {{2, 0}, {2, 1}, {2, 3}, {2, 4}, {2, 5}}},
        {"branches", {{0, 1}, {1, 2}, {1, 3}, {3, 4}, {3, 5}, {3, 6}, {6, 7}}},
        {"ring", {{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 0}}},
        {"two rings", {{0, 1}, {1, 2}, {2, 3}, {3, 0}, {3, 4}, {4, 5}, {5, 6}, {6, 3}, {6, 7}}},
        {"all bonded", {{0, 1}, {0, 2}, {0, 3}, {0, 4}, {1, 2}, {1, 3}, {1, 4}, {2, 3}, {2, 4}, {3, 4}}},
        {"three atoms", {{0, 1}, {0, 2}}}};
    for (const auto& [name, bonds] : graphs)
        for (int seed = 0; seed < 5; seed++) {
            int size = 0;
            for (auto [a, b] : bonds)
                size = std::max({size, a + 1, b + 1});
            at::Tensor x = 0.1 * normal({1, 3 * size}, 100 + seed);
            std::vector<Vec3> positions(size);
            for (int i = 0; i < 3 * size; i++)
                positions[i / 3][i % 3] = x[0][i].item<double>();
            Case molecule(std::vector<double>(size, 12.0), positions);
            for (auto [a, b] : bonds)
                molecule.bond(a, b);
            auto chart = molecule.chart();
            ASSERT_EQ(chart->getInputSize(), 3 * size - 6) << name;
            TransformResult measured = chart->inverse(x);
            EXPECT_LE(maxDifference(chart->place(chart->forward(measured.value).value, x), x), 1e-10) << name;
            EXPECT_NEAR(-measured.logDet.item<double>(), jacobianLogDet(*chart, measured.value).item<double>(), 1e-9)
                << name;
        }
}

TEST(InternalCoordinates, HoldsConstrainedBonds) {
    Case molecule = alanineDipeptide(true);
    auto chart = molecule.chart(), freeChart = alanineDipeptide().chart();
    EXPECT_EQ(chart->getInputSize(), 48);
    EXPECT_EQ(chart->getNumBonds(), 9);
    EXPECT_EQ(chart->getFrame(), freeChart->getFrame());
    at::Tensor x = molecule.x(), xi = chart->inverse(x).value;
    EXPECT_NEAR(chart->inverse(x).logDet.item<double>(), freeChart->inverse(x).logDet.item<double>(), 1e-10);
    // the constraint tolerance leaves a bond a little long: it moves along itself, and nothing else changes
    at::Tensor stretched = x.clone();
    atomOf(stretched, 9).add_(1e-4 * (atomOf(x, 9) - atomOf(x, 8)));
    EXPECT_LE(maxDifference(chart->inverse(stretched).value, xi), 1e-12);
    EXPECT_LE(maxDifference(chart->inverse(stretched).logDet, chart->inverse(x).logDet), 1e-12);
    at::Tensor built = chart->forward(spread(*chart, x, 8, 11)).value;
    for (int i = 0; i < molecule.system.getNumConstraints(); i++) {
        int a, b;
        double length;
        molecule.system.getConstraintParameters(i, a, b, length);
        at::Tensor d = atomOf(built, a) - atomOf(built, b);
        EXPECT_LE(maxDifference(rowDot(d, d).sqrt(), at::full({8, 1}, length, at::kDouble)), 1e-14);
    }
}

TEST(InternalCoordinates, ChartsRigidBondTrimer) {
    Case trimer({20, 20, 20}, {{0.1, 0, 0}, {0, 0, 0}, {0, 0.15, 0.02}});
    trimer.constrain(0, 1);
    trimer.constrain(1, 2);
    auto chart = trimer.chart();
    EXPECT_EQ(chart->getFrame()[0], 1);
    EXPECT_EQ(chart->getInputSize(), 1);
    at::Tensor theta = at::tensor({0.4, 2.5}, at::kDouble).unsqueeze(1);
    at::Tensor ratio = chart->forward(theta).logDet[1] - chart->forward(theta).logDet[0];
    EXPECT_NEAR(ratio.item<double>(), std::log(std::sin(2.5) / std::sin(0.4)), 1e-14);
}

TEST(InternalCoordinates, TreePrefersConstrainedBonds) {
    // a ring of four with one constraint opposite of where a breadth-first search would close it
    for (int first = 0; first < 4; first++) {
        Case ring({12, 12, 12, 12}, {{0, 0, 0}, {0.15, 0, 0}, {0.16, 0.15, 0.01}, {0, 0.14, 0.03}});
        for (int i = 0; i < 4; i++)
            ring.bond(i, (i + 1) % 4);
        ring.constrain(first, (first + 1) % 4);
        auto chart = ring.chart();
        EXPECT_EQ(chart->getInputSize(), 5) << first;
        at::Tensor xi = chart->inverse(ring.x()).value;
        EXPECT_LE(maxDifference(chart->place(chart->forward(xi).value, ring.x()), ring.x()), 1e-12);
    }
}

TEST(InternalCoordinates, KeepsChirality) {
    for (bool constrained : {false, true}) {
        Case molecule = alanineDipeptide(constrained);
        auto chart = molecule.chart();
        at::Tensor x = molecule.x();
        auto logDetWith = [&](const std::vector<int>& from, const std::vector<int>& to) {
            at::Tensor changed = x.clone();
            for (std::size_t i = 0; i < from.size(); i++)
                atomOf(changed, to[i]).copy_(atomOf(x, from[i]));
            return chart->inverse(changed).logDet.item<double>();
        };
        EXPECT_TRUE(std::isfinite(chart->inverse(x).logDet.item<double>()));
        EXPECT_EQ(chart->inverse(-x).logDet.item<double>(), -infinity) << "mirror image";
        EXPECT_EQ(logDetWith({9, 10}, {10, 9}), -infinity) << "HA and CB swapped";
        for (int first : {0, 11, 19}) {
            std::vector<int> methyl = first == 0 ? std::vector{0, 2, 3} : std::vector{first, first + 1, first + 2};
            int a = methyl[0], b = methyl[1], c = methyl[2];
            EXPECT_EQ(logDetWith({a, b}, {b, a}), -infinity);
            EXPECT_EQ(logDetWith({b, c}, {c, b}), -infinity);
            EXPECT_TRUE(std::isfinite(logDetWith({a, b, c}, {b, c, a}))) << "a turned methyl group";
        }
        for (double side : {-0.03, 0.03}) {
            at::Tensor bent = x.clone(),
                       up = at::linalg_cross(atomOf(x, 1) - atomOf(x, 4), atomOf(x, 6) - atomOf(x, 4));
            atomOf(bent, 5).add_(side * unit(up));
            EXPECT_TRUE(std::isfinite(chart->inverse(bent).logDet.item<double>())) << "a planar centre has no hand";
        }
    }
}

TEST(InternalCoordinates, InvalidRowsOfForwardStayAlone) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    int firstAngle = chart->getNumBonds(), firstTorsion = firstAngle + chart->getNumAngles();
    std::map<TorsionRange, int> column; // of one torsion of each range
    for (std::size_t i = 0; i < chart->getRows().size(); i++)
        column[chart->getRows()[i].range] = firstTorsion + static_cast<int>(i);
    std::vector<std::pair<int, double>> faults;
    for (int bond : {0, 1, 4})
        for (double value : {-0.1, 0.0, std::nan(""), infinity, -infinity})
            faults.emplace_back(bond, value);
    for (int angle : {firstAngle, firstAngle + 3})
        for (double value : {0.0, -0.5, pi + 0.1, -2 * pi + 1, 2 * pi + 1, std::nan(""), infinity})
            faults.emplace_back(angle, value);
    for (auto [range, index] : column)
        for (double value : {-3.2, 3.2, std::nan(""), infinity})
            faults.emplace_back(index, value);
    for (double value : {0.0, 0.1}) {
        faults.emplace_back(column.at(TorsionRange::Positive), -value);
        faults.emplace_back(column.at(TorsionRange::Negative), value);
    }
    at::Tensor good = spread(*chart, molecule.x(), 2, 12);
    TransformResult expected = chart->forward(good);
    for (auto [index, value] : faults) {
        SCOPED_TRACE(testing::Message() << "column " << index << " = " << value);
        at::Tensor xi = at::cat({good, good.narrow(0, 0, 1)});
        xi[2][index] = value;
        at::Tensor leaf = xi.requires_grad_();
        TransformResult result = chart->forward(leaf);
        EXPECT_TRUE(std::isnan(result.logDet[2].item<double>()));
        EXPECT_TRUE(result.value[2].isnan().all().item<bool>());
        EXPECT_TRUE(at::equal(result.value.narrow(0, 0, 2), expected.value));
        EXPECT_TRUE(at::equal(result.logDet.narrow(0, 0, 2), expected.logDet));
        at::Tensor valid = at::isfinite(result.logDet).unsqueeze(1), logDet = result.logDet.unsqueeze(1);
        at::Tensor loss = at::where(valid, result.value, 0.0).sum() + at::where(valid, logDet, 0.0).sum();
        at::Tensor gradient = torch::autograd::grad({loss}, {leaf})[0];
        EXPECT_TRUE(at::isfinite(gradient).all().item<bool>());
        EXPECT_EQ(gradient[2].abs().max().item<double>(), 0.0);
    }
}

TEST(InternalCoordinates, InvalidRowsOfInverseStayAlone) {
    for (bool constrained : {false, true}) {
        Case molecule = alanineDipeptide(constrained);
        auto chart = molecule.chart();
        at::Tensor x = chart->forward(spread(*chart, molecule.x(), 2, 12)).value;
        TransformResult expected = chart->inverse(x);
        for (int index = 0; index < 66; index++)
            for (double value : {std::nan(""), infinity, -infinity}) {
                SCOPED_TRACE(testing::Message() << "column " << index << " = " << value);
                at::Tensor broken = at::cat({x, x.narrow(0, 0, 1)});
                broken[2][index] = value;
                TransformResult result = chart->inverse(broken);
                EXPECT_EQ(result.logDet[2].item<double>(), -infinity);
                EXPECT_EQ(result.value[2].abs().max().item<double>(), 0.0);
                EXPECT_TRUE(at::equal(result.value.narrow(0, 0, 2), expected.value));
                at::Tensor gradient = gradientOf([&](const at::Tensor& y) { return chart->inverse(y); }, broken);
                EXPECT_TRUE(at::isfinite(gradient).all().item<bool>());
                EXPECT_EQ(gradient[2].abs().max().item<double>(), 0.0);
            }
        at::Tensor collapsed = x.clone();
        atomOf(collapsed, 21).copy_(atomOf(x, 18));
        EXPECT_EQ(chart->inverse(collapsed).logDet[0].item<double>(), -infinity) << "a bond of length 0";
    }
}

TEST(InternalCoordinates, PullsBackWithoutAGraph) {
    for (bool constrained : {false, true}) {
        Case molecule = alanineDipeptide(constrained);
        auto chart = molecule.chart();
        at::Tensor x = chart->forward(spread(*chart, molecule.x(), 5, 12)).value;
        x[2][7] = std::nan("");
        at::Tensor onValue = normal({5, chart->getInputSize()}, 3);
        PulledResult pulled = chart->inverseWithPullBack(x), expected = chart->Transform::inverseWithPullBack(x);
        EXPECT_TRUE(at::equal(pulled.result.value, expected.result.value));
        EXPECT_EQ(pulled.result.logDet[2].item<double>(), -infinity);
        at::Tensor gradient = pulled.pullBack(onValue);
        EXPECT_TRUE(at::equal(gradient, expected.pullBack(onValue)));
        EXPECT_EQ(gradient[2].abs().max().item<double>(), 0.0);
        EXPECT_GT(gradient[1].abs().max().item<double>(), 1.0);
    }
}

TEST(InternalCoordinates, AcceptsRoundedPiOfPeriodicFlows) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    at::Tensor xi = chart->inverse(molecule.x()).value;
    xi[0][chart->getCircularIndices()[0]] = -std::nextafter(pi, 4);
    EXPECT_TRUE(std::isfinite(chart->forward(xi).logDet.item<double>()));
}

TEST(InternalCoordinates, PlacesOntoTheFrame) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    at::Tensor reference = moveRigidly(molecule.x()), x = chart->forward(spread(*chart, reference, 5, 13)).value;
    at::Tensor placed = chart->place(x, reference);
    auto vectorTo = [&](const at::Tensor& y, int k) {
        return atomOf(y, chart->getFrame()[k]) - atomOf(y, chart->getFrame()[0]);
    };
    EXPECT_TRUE(at::equal(atomOf(placed, 8), atomOf(reference, 8).expand({5, 3})));
    EXPECT_LE(maxDifference(unit(vectorTo(placed, 1)), unit(vectorTo(reference, 1)).expand({5, 3})), 1e-14);
    at::Tensor normal0 = unit(at::linalg_cross(vectorTo(reference, 1), vectorTo(reference, 2)));
    EXPECT_LE(maxDifference(unit(at::linalg_cross(vectorTo(placed, 1), vectorTo(placed, 2))), normal0.expand({5, 3})),
              1e-13);
    EXPECT_LE(maxDifference(chart->inverse(placed).value, chart->inverse(x).value), 1e-12);
    at::Tensor several = moveRigidly(at::cat({reference, reference, reference, reference, reference}));
    EXPECT_LE(maxDifference(chart->place(several, several), several), 1e-13);
    expectMessage(
        [&] { (void)chart->place(x, several.narrow(0, 0, 2)); },
        "InternalCoordinates::place: the shape of reference is [2, 66], but must be that of x, or [1, 3 atoms]");
}

TEST(InternalCoordinates, ChartsPartOfASystem) {
    // alanine dipeptide after a water, its atoms numbered from the end
    Case alone = alanineDipeptide();
    Case both({16, 1, 1}, {{5, 5, 5}, {5.1, 5, 5}, {5, 5.1, 5}});
    both.bond(0, 1);
    both.bond(0, 2);
    std::vector<int> atoms;
    for (int i = 0; i < 22; i++) {
        both.system.addParticle(alone.system.getParticleMass(i));
        both.positions.push_back(alone.positions[i]);
        atoms.push_back(3 + i);
    }
    for (auto [a, b] : alanineBonds)
        both.bond(3 + a, 3 + b);
    auto whole = InternalCoordinates::fromSystem(both.system, atoms, both.positions);
    EXPECT_EQ(whole->getArchitecture(), alone.chart()->getArchitecture());
    // the alanine side alone: CA and its methyl group keep their hands although N, C are not charted
    auto part =
        InternalCoordinates::fromSystem(both.system, {3 + 10, 3 + 8, 3 + 9, 3 + 11, 3 + 12, 3 + 13}, both.positions);
    EXPECT_EQ(part->getInputSize(), 12);
    int half = 0;
    for (const ZMatrixRow& row : part->getRows())
        half += row.range == TorsionRange::Positive || row.range == TorsionRange::Negative;
    EXPECT_EQ(half, 2);
}

TEST(InternalCoordinates, TellsBondsFromOtherPairs) {
    Case molecule = alanineDipeptide();
    auto plain = molecule.chart()->getArchitecture();
    for (auto [a, b] : Bonds{{0, 2}, {4, 8}, {14, 18}, {9, 10}}) // Urey-Bradley
        molecule.bond(a, b);
    auto custom = new OpenMM::CustomBondForce("r^2");
    molecule.system.addForce(custom);
    custom->addBond(7, 21); // a restraint
    EXPECT_EQ(molecule.chart()->getArchitecture(), plain);

    Case amoeba = alanineDipeptide();
    auto bonds = new OpenMM::CustomBondForce("k*(r-r0)^2");
    for (auto [a, b] : alanineBonds)
        bonds->addBond(a, b);
    amoeba.system.removeForce(0);
    amoeba.system.addForce(bonds);
    EXPECT_EQ(amoeba.chart()->getArchitecture(), plain);

    Case bare = alanineDipeptide();
    bare.system.removeForce(0);
    EXPECT_EQ(
        InternalCoordinates::fromSystem(bare.system, bare.allAtoms(), bare.positions, alanineBonds)->getArchitecture(),
        plain);
    // the sides of a three-membered ring are bonds, although one is a little longer
    Case ring({12, 12, 32, 1}, {{0, 0, 0}, {0.15, 0, 0}, {0.0923, 0.1545, 0}, {-0.05, -0.03, 0.09}});
    for (auto [a, b] : Bonds{{0, 1}, {1, 2}, {2, 0}, {0, 3}})
        ring.bond(a, b);
    EXPECT_EQ(ring.chart()->getFrame(), (std::vector<int>{0, 2, 1}));
    // what the user calls a bond is one, however long
    Case chain({12, 12, 12, 12}, {{0, 0, 0}, {0.15, 0, 0}, {0.2, 0.14, 0}, {0.35, 0.14, 0.02}});
    for (auto [a, b] : Bonds{{0, 1}, {1, 2}, {2, 3}})
        chain.bond(a, b);
    EXPECT_EQ(chain.chart()->getFrame()[0], 1);
    EXPECT_EQ(InternalCoordinates::fromSystem(chain.system, {0, 1, 2, 3}, chain.positions, {{0, 2}})->getFrame()[0], 2);
}

TEST(InternalCoordinates, FramePrefersHeavyAtoms) {
    // the centre of this chain is a hydrogen of repartitioned mass
    Case chain({4, 4, 4, 12, 12, 12},
               {{0, 0, 0}, {0.1, 0, 0}, {0.1, 0.1, 0}, {0.2, 0.1, 0}, {0.2, 0.2, 0.02}, {0.3, 0.2, 0.05}});
    for (int i = 0; i < 5; i++)
        chain.bond(i, i + 1);
    EXPECT_EQ(chain.chart()->getFrame(), (std::vector<int>{4, 3, 5}));
}

TEST(InternalCoordinates, FrameAvoidsLinearArms) {
    // acetonitrile: of the two carbons, the one with two heavy neighbours is linear
    Case molecule(
        {1, 1, 1, 12, 12, 14},
        {{0.10, 0, -0.036}, {-0.05, 0.087, -0.036}, {-0.05, -0.087, -0.036}, {0, 0, 0}, {0, 0, 0.146}, {0, 0, 0.262}});
    for (auto [a, b] : Bonds{{0, 3}, {1, 3}, {2, 3}, {3, 4}, {4, 5}})
        molecule.bond(a, b);
    EXPECT_EQ(molecule.chart()->getFrame()[0], 3);
    Case carbonDioxide({16, 12, 16}, {{0, 0, 0}, {0, 0, 0.116}, {0, 0, 0.232}});
    carbonDioxide.bond(0, 1);
    carbonDioxide.bond(1, 2);
    expectMessage([&] { carbonDioxide.chart(); },
                  "InternalCoordinates::fromSystem: the set of atoms is linear, but must be bent somewhere");
}

TEST(InternalCoordinates, RefusesWhatItCannotChart) {
    const std::string who = "InternalCoordinates::fromSystem: ";
    Case water({16, 1, 1, 16}, {{0, 0, 0}, {0.1, 0, 0}, {0, 0.1, 0}, {0.3, 0, 0}});
    for (auto [a, b] : Bonds{{0, 1}, {0, 2}, {1, 2}})
        water.constrain(a, b);
    auto build = [&](Case& c, const std::vector<int>& atoms) {
        (void)InternalCoordinates::fromSystem(c.system, atoms, c.positions);
    };
    expectMessage(
        [&] {
            build(water, {0, 1, 2});
        },
        who + "the constraint of particles 1 and 2 is in a ring of constraints, but must be a bond of a tree: rigid "
              "water and constrained angles can't be charted");
    Case molecule = alanineDipeptide(true);
    std::vector<int> withoutHydrogen = molecule.allAtoms();
    withoutHydrogen.erase(withoutHydrogen.begin() + 9);
    expectMessage(
        [&] { build(molecule, withoutHydrogen); },
        who + "the constraint of particles 8 and 9 is between a charted and another atom, but must be among charted "
              "atoms, or among others");
    expectMessage(
        [&] {
            build(molecule, {0, 1, 2, 3, 18, 19, 20, 21});
        },
        who + "the set of atoms is not connected: no bonds lead from particle 0 to 18, but must be connected by bonds "
              "(see extraBonds)");
    expectMessage([&] { build(molecule, {1, 4}); }, who + "the number of atoms is 2, but must be at least 3");
    expectMessage([&] { build(molecule, {1, 4, 5, 4}); }, who + "an atom is 4 twice, but must be listed once");
    expectMessage([&] { build(molecule, {1, 4, 22}); }, who + "an atom is 22, but must be a particle of the System");
    expectMessage([&] { build(molecule, {-1, 4, 5}); }, who + "an atom is -1, but must be a particle of the System");
    std::vector<Vec3> waterPositions = water.positions;
    water.positions.pop_back();
    expectMessage(
        [&] {
            build(water, {0, 1, 2});
        },
        who + "the number of reference positions is 3, but must be the number of particles of the System");
    Case free = alanineDipeptide();
    free.system.setParticleMass(5, 0.0);
    expectMessage([&] { build(free, free.allAtoms()); }, who + "the mass of particle 5 is 0, but must be > 0");
    free.system.setVirtualSite(5, new OpenMM::TwoParticleAverageSite(4, 6, 0.5, 0.5));
    expectMessage([&] { build(free, free.allAtoms()); },
                  who + "particle 5 is a virtual site, but must be a particle that moves by itself");
    Case broken = alanineDipeptide();
    broken.positions[3][1] = infinity;
    expectMessage([&] { build(broken, broken.allAtoms()); },
                  who + "the reference position of particle 3 is [-0.0918, inf, 0.3013], but must be finite");
    expectMessage(
        [&] {
            (void)InternalCoordinates::fromSystem(water.system, {0, 1, 2}, waterPositions, {{2, 99}});
        },
        who + "an extra bond's particles is 2 and 99, but must be two particles of the System");
}

TEST(InternalCoordinates, RefusesWrongRows) {
    auto make = [](ZMatrixRow row, std::vector<int> frame = {0, 1, 2}, std::vector<double> lengths = {0, 0, 0, 0}) {
        return [=] { InternalCoordinates({row}, frame, lengths); };
    };
    EXPECT_NO_THROW(make({3, 1, 0, 2})());
    expectMessage(
        make({2, 1, 0, 2}),
        "InternalCoordinates: row 0's atom is 2, but must be one of the charted atoms that is not placed yet");
    expectMessage(make({3, 4, 0, 2}),
                  "InternalCoordinates: row 0's reference is 4, but must be an atom that is placed earlier");
    expectMessage(make({3, 1, 1, 2}),
                  "InternalCoordinates: row 0's references is the same atom twice, but must be three different atoms");
    expectMessage(
        make({3, 1, 0, 2, TorsionRange::Turn, 4.0}),
        "InternalCoordinates: row 0's center is 4, but must be within [-pi, pi], and 0 unless the range is a Turn");
    expectMessage(
        make({3, 1, 0, 2, TorsionRange::Positive, 1.0}),
        "InternalCoordinates: row 0's center is 1, but must be within [-pi, pi], and 0 unless the range is a Turn");
    expectMessage(make({3, 1, 0, 2}, {0, 1, 1}),
                  "InternalCoordinates: a frame atom is 1, but must be one of the charted atoms, each once");
    expectMessage(make({3, 1, 0, 2}, {0, 1}), "InternalCoordinates: the number of frame atoms is 2, but must be 3");
    expectMessage(make({3, 1, 0, 2}, {0, 1, 2}, {0, 0, 0}),
                  "InternalCoordinates: the number of rows is 1, but must be the number of atoms - 3");
    expectMessage(make({3, 1, 0, 2}, {0, 1, 2}, {0, 0, 0, -0.1}),
                  "InternalCoordinates: a constrained length is -0.1, but must be finite and >= 0");
    expectMessage(make({3, 1, 0, 2}, {0, 1, 2}, {0.1, 0, 0, 0}),
                  "InternalCoordinates: the origin's constrained length is 0.1, but must be 0: no bond places it");
}

TEST(InternalCoordinates, RefusesWrongShapesAndSecondDerivatives) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    expectMessage([&] { (void)chart->forward(molecule.x()); },
                  "InternalCoordinates::forward: the argument's shape is [1, 66], but must be [batch, 60]");
    expectMessage([&] { (void)chart->inverse(molecule.x()[0]); },
                  "InternalCoordinates::inverse: the argument's shape is [66], but must be [batch, 66]");
    at::Tensor leaf = molecule.x().requires_grad_();
    expectMessage([&] { (void)torch::autograd::grad({chart->inverse(leaf).logDet.sum()}, {leaf}, {}, true, true); },
                  "InternalCoordinates: create_graph is true, but must be false: second derivatives are not available");
    EXPECT_EQ(chart->inverse(at::empty({0, 66}, at::kDouble)).value.sizes(), (std::vector<std::int64_t>{0, 60}));
}

TEST(InternalCoordinates, GraphOutlivesTheChart) {
    Case molecule = alanineDipeptide();
    auto chart = molecule.chart();
    at::Tensor leaf = molecule.x().requires_grad_(),
               expected = gradientOf([&](const at::Tensor&y) { return chart->inverse(y); }, leaf);
    TransformResult result = chart->inverse(leaf);
    chart.reset();
    at::Tensor loss = (normal(result.value.sizes(), 7) * result.value).sum() +
                      (normal(result.logDet.sizes(), 8) * result.logDet).sum();
    EXPECT_TRUE(at::equal(torch::autograd::grad({loss}, {leaf})[0], expected));
}

TEST(InternalCoordinates, RestoresFromItsArchitecture) {
    Case molecule = alanineDipeptide(true);
    auto chart = molecule.chart();
    nlohmann::json architecture = nlohmann::json::parse(chart->getArchitecture().dump());
    auto restored = InternalCoordinates::fromArchitecture(architecture);
    EXPECT_EQ(architecture["type"], "InternalCoordinates");
    at::Tensor xi = spread(*chart, molecule.x(), 3, 14);
    EXPECT_TRUE(at::equal(restored->forward(xi).value, chart->forward(xi).value));
    EXPECT_EQ(restored->getCircularIndices(), chart->getCircularIndices());
    architecture["rows"][0]["range"] = 4;
    expectMessage([&] { InternalCoordinates::fromArchitecture(architecture); },
                  "InternalCoordinates::fromArchitecture: range is 4, but must be 0 to 3");
    architecture["rows"][0].erase("range");
    EXPECT_THROW(InternalCoordinates::fromArchitecture(architecture), OpenMM::OpenMMException);
}
