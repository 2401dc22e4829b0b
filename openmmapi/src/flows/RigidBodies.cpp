// SPDX-License-Identifier: MIT

#include "openmmflow/flows/RigidBodies.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <limits>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

constexpr double largestTilt = 30.0; // Phi(-30) is 5e-198

/** A matrix for each body from its elements, row by row. */
Tensor makeMatrix(const std::vector<Tensor>& elements) {
    return at::stack(elements, -1).unflatten(-1, {3, 3});
}

/** R of cosines and sines of the three angles, [batch, bodies, 3, 3]. */
Tensor rotate(const Tensor& alpha, const Tensor& s, const Tensor& gamma) {
    const Tensor zero = at::zeros_like(s), one = at::ones_like(s);
    const auto aboutZ = [&](const Tensor& angle) {
        const Tensor c = angle.cos(), d = angle.sin();
        return makeMatrix({c, -d, zero, d, c, zero, zero, zero, one});
    };
    const Tensor up = at::special_ndtr(-s), down = at::special_ndtr(s); // cos^2 and sin^2 of beta/2
    const Tensor c = up - down, d = 2 * (up * down).sqrt();
    // Ry(beta) Rz(gamma) Ry(-pi/2), where the first and the last do not commute.
    const Tensor aboutY = makeMatrix({c, zero, d, zero, one, zero, -d, zero, c});
    const Tensor back = makeMatrix({zero, zero, -one, zero, one, zero, one, zero, zero});
    return at::matmul(at::matmul(aboutZ(alpha), aboutY), at::matmul(aboutZ(gamma), back));
}

/** Three orthonormal columns from three points, [..., 3, 3]: along the first two, in their plane, normal to it. */
Tensor makeFrames(const Tensor& p, const Tensor& q, const Tensor& r) {
    const auto unit = [](const Tensor& v) { return v / v.norm(2, -1, true); };
    const Tensor first = unit(q - p), third = unit(at::linalg_cross(first, r - p));
    return at::stack({first, at::linalg_cross(third, first), third}, -1);
}

/** Of the atoms of a body those three with the largest triangle, and twice its area. @param atoms  [n, 3] */
std::pair<std::array<int, 3>, double> findTriangle(const Tensor& atoms) {
    std::array<int, 3> best{};
    double largest = -1;
    const int n = static_cast<int>(atoms.size(0));
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            const Tensor side = atoms[j] - atoms[i];
            const Tensor areas = at::linalg_cross(side.expand_as(atoms), atoms - atoms[i]).norm(2, 1);
            const double area = areas.max().item<double>();
            if (area > largest) {
                largest = area;
                best = {i, j, static_cast<int>(areas.argmax().item<std::int64_t>())};
            }
        }
    return {best, largest};
}

} // namespace

RigidBodies::RigidBodies(const Tensor& newReference, std::vector<std::vector<int>> newBodies, double tolerance)
    : bodies(std::move(newBodies)), tolerance(tolerance) {
    const char* where = "RigidBodies::RigidBodies";
    require(newReference.dim() <= 2 && newReference.numel() % 3 == 0 && newReference.numel() > 0 &&
                (newReference.dim() == 1 || newReference.size(1) == 3),
            where, "shape of the reference", newReference.sizes(), "[n, 3] or [3n]");
    reference = newReference.detach().to(at::kDouble).reshape({-1, 3}).contiguous().clone();
    require(at::isfinite(reference).all().item<bool>(), where, "the reference", "not finite", "finite");
    require(!bodies.empty(), where, "number of bodies", bodies.size(), "at least 1");
    require(tolerance > 0 && std::isfinite(tolerance), where, "tolerance", tolerance, "positive and finite");
    const int numAtoms = static_cast<int>(reference.size(0));
    std::vector<bool> taken(numAtoms, false);
    std::vector<int> all, bodyOfAll, others;
    std::vector<Tensor> parts, middles;
    std::array<std::vector<int>, 3> corners;
    for (std::size_t b = 0; b < bodies.size(); b++) {
        const std::string name = "body " + std::to_string(b);
        require(bodies[b].size() >= 3, where, "number of atoms of " + name, bodies[b].size(), "at least 3");
        for (const int atom : bodies[b]) {
            require(atom >= 0 && atom < numAtoms && !taken[atom], where, "an atom of " + name, atom,
                    "one of those of the reference, in one body only");
            taken[atom] = true;
        }
        const Tensor atoms = reference.index_select(0, indexTensor(bodies[b]));
        const auto [triangle, area] = findTriangle(atoms);
        const double extent = (atoms - atoms[0]).square().sum(1).max().item<double>();
        require(area > 1e-6 * extent, where, name, "on one line", "atoms that span a plane at least");
        for (int corner = 0; corner < 3; corner++)
            corners[corner].push_back(static_cast<int>(all.size()) + triangle[corner]);
        all.insert(all.end(), bodies[b].begin(), bodies[b].end());
        bodyOfAll.insert(bodyOfAll.end(), bodies[b].size(), static_cast<int>(b));
        middles.push_back(atoms.mean(0));
        parts.push_back(atoms - middles.back());
    }
    for (int atom = 0; atom < numAtoms; atom++)
        if (!taken[atom])
            others.push_back(atom);
    bound = indexTensor(all);
    bodyOf = indexTensor(bodyOfAll);
    free = indexTensor(others);
    local = at::cat(parts, 0);
    centers = at::stack(middles);
    triples = at::stack({indexTensor(corners[0]), indexTensor(corners[1]), indexTensor(corners[2])});
    const auto corner = [&](int i) { return local.index_select(0, triples[i]).unsqueeze(0); };
    frames = makeFrames(corner(0), corner(1), corner(2));
}

int RigidBodies::getInputSize() const {
    return 6 * getNumBodies() + 3 * static_cast<int>(free.numel());
}

std::vector<int> RigidBodies::getCircularIndices() const {
    std::vector<int> indices;
    for (int column = getInputSize() - 2 * getNumBodies(); column < getInputSize(); column++)
        indices.push_back(column);
    return indices;
}

// The atoms of the bodies, [batch, bound, 3].
Tensor RigidBodies::build(const Pose& pose) const {
    const Tensor turned = at::matmul(pose.rotation.index_select(1, bodyOf), local.unsqueeze(-1)).squeeze(-1);
    return (centers + pose.shift).index_select(1, bodyOf) + turned;
}

// Where three atoms of each body say that it is.
RigidBodies::Pose RigidBodies::measure(const Tensor& atoms) const {
    const auto corner = [&](int i) { return atoms.index_select(1, triples[i]); };
    const Tensor rotation = at::matmul(makeFrames(corner(0), corner(1), corner(2)), frames.transpose(2, 3));
    const Tensor first = local.index_select(0, triples[0]).unsqueeze(-1);
    return {corner(0) - at::matmul(rotation, first).squeeze(-1) - centers, rotation};
}

// Whether every atom of a row is where its body has it, bool [batch].
Tensor RigidBodies::findValid(const Tensor& atoms) const {
    const at::NoGradGuard noGrad;
    const Pose pose = measure(atoms);
    const Tensor rigid = ((build(pose) - atoms).norm(2, 2) <= tolerance).all(1); // false for NaN
    const Tensor sinSquare = pose.rotation.select(3, 0).slice(2, 0, 2).square().sum(2);
    return rigid & (sinSquare >= 2 * std::erfc(largestTilt / std::sqrt(2.0))).all(1);
}

TransformResult RigidBodies::forward(const Tensor& z) const {
    const int n = getNumBodies(), numFree = static_cast<int>(free.numel());
    const Tensor tilt = z.narrow(1, 3 * (n + numFree), n), turns = z.narrow(1, 3 * (n + numFree) + n, 2 * n);
    const Tensor inside =
        (tilt.abs() <= largestTilt).all(1) & ((turns >= -M_PI) & (turns < M_PI)).all(1) & at::isfinite(z).all(1);
    const auto atoms = [&](int first, int count) { return z.narrow(1, 3 * first, 3 * count).unflatten(1, {count, 3}); };
    const Tensor s = whereRows(inside, tilt, 0.0), angles = turns.unflatten(1, {n, 2});
    const Tensor placed = build({atoms(0, n), rotate(angles.select(2, 0), s, angles.select(2, 1))});
    Tensor x = at::zeros({z.size(0), reference.size(0), 3}, placed.options().requires_grad(false));
    x = x.index_copy(1, bound, placed);
    if (numFree > 0)
        x = x.index_copy(1, free, atoms(n, numFree) + reference.index_select(0, free));
    const Tensor logDet = (std::log(2.0) - 0.5 * std::log(2 * M_PI) - 0.5 * s.square()).sum(1);
    return {whereRows(inside, x.flatten(1), NAN), whereRows(inside, logDet, NAN)};
}

TransformResult RigidBodies::inverse(const Tensor& x) const {
    const int numFree = static_cast<int>(free.numel());
    const Tensor all = x.unflatten(1, {reference.size(0), 3});
    const Tensor valid = findValid(all.index_select(1, bound)) & at::isfinite(x).all(1);
    const Tensor atoms = at::where(valid.reshape({-1, 1, 1}), all, reference);
    const Pose pose = measure(atoms.index_select(1, bound));
    // R Ry(pi/2) = Rz(alpha) Ry(beta) Rz(gamma), an element of which is its row and column.
    const auto element = [&](int row, int column) { return pose.rotation.select(2, row).select(2, column); };
    const Tensor sinAlpha = element(1, 0), cosAlpha = element(0, 0), cosBeta = element(2, 0);
    const Tensor alpha = wrapAngle(at::atan2(sinAlpha, cosAlpha)),
                 gamma = wrapAngle(at::atan2(element(2, 1), element(2, 2)));
    // The smaller of sin^2(beta/2) and cos^2(beta/2), without cancellation.
    const Tensor side = at::where(cosBeta >= 0, 1.0, -1.0);
    const Tensor smaller = (sinAlpha.square() + cosAlpha.square()) / (2 * (1 + side * cosBeta));
    const Tensor s = side * at::special_ndtri(smaller);
    const Tensor turns = at::stack({alpha, gamma}, 2).flatten(1);
    const Tensor moved = numFree > 0 ? (atoms - reference).index_select(1, free).flatten(1) : x.narrow(1, 0, 0);
    const Tensor z = at::cat({pose.shift.flatten(1), moved, s, turns}, 1);
    const Tensor logDet = (0.5 * s.square() + 0.5 * std::log(2 * M_PI) - std::log(2.0)).sum(1);
    return {whereRows(valid, z, 0.0), whereRows(valid, logDet, -std::numeric_limits<double>::infinity())};
}

nlohmann::json RigidBodies::getArchitecture() const {
    return {{"type", getTypeName()}, {"reference", toVector(reference)}, {"bodies", bodies}, {"tolerance", tolerance}};
}

std::shared_ptr<RigidBodies> RigidBodies::fromArchitecture(const nlohmann::json& architecture) {
    return std::make_shared<RigidBodies>(
        at::tensor(architecture.at("reference").get<std::vector<double>>(), at::kDouble),
        architecture.at("bodies").get<std::vector<std::vector<int>>>(), architecture.at("tolerance").get<double>());
}

// All distances within each body.
std::vector<HeldDistance> RigidBodies::getHeldDistances() const {
    std::vector<HeldDistance> held;
    for (const auto& body : bodies)
        for (std::size_t i = 0; i < body.size(); i++)
            for (std::size_t j = 0; j < i; j++)
                held.push_back({body[i], body[j], (reference[body[i]] - reference[body[j]]).norm().item<double>()});
    return held;
}
