// SPDX-License-Identifier: MIT
// InternalCoordinates::fromSystem: from the bonds of a System to the rows of a Z-matrix.
//
//     bonds and constraints -> graph -> spanning tree that holds every constraint -> frame -> rows, breadth first

#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/latent/Check.h"
#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
#include <openmm/CustomBondForce.h>
#include <openmm/HarmonicBondForce.h>
#include <optional>
#include <set>

using namespace OpenMMFlow;
using OpenMM::System;
using OpenMM::Vec3;
using std::numbers::pi;

namespace {

const char* const where = "InternalCoordinates::fromSystem";

using Pair = std::pair<int, int>;

Pair ordered(int a, int b) {
    return {std::min(a, b), std::max(a, b)};
}

double distance(const Vec3& a, const Vec3& b) {
    return std::sqrt((a - b).dot(a - b));
}

std::string name(const std::vector<int>& particles) {
    std::string text;
    for (std::size_t i = 0; i < particles.size(); i++)
        text += (i == 0 ? "" : i + 1 == particles.size() ? " and " : ", ") + std::to_string(particles[i]);
    return text;
}

/** The charted atoms and what is bonded to them. Atoms are numbered by their place in the list, particles as in the
 * System. */
struct Molecule {
    const System& system;
    const std::vector<int>& particles;
    std::vector<Vec3> positions;
    std::map<int, int> atomOf;
    std::vector<std::set<int>> neighbors; // [atom]: the charted ones
    std::vector<int> degree;              // [atom]: with those that are not charted
    std::map<Pair, double> constraints;   // between charted atoms: length

    Molecule(const System& system, const std::vector<int>& particles, const std::vector<Vec3>& positions);
    int getSize() const { return static_cast<int>(particles.size()); }
    /** Above the mass of a hydrogen, a repartitioned one too. */
    bool isHeavy(int atom) const { return system.getParticleMass(particles[atom]) > 4.5; }
    double getAngle(int a, int vertex, int b) const;
    double getTorsion(int atom, int bond, int angle, int torsion) const;
    void readConstraints();
    void setBonds(std::set<Pair> bonds, const std::set<Pair>& certain);
    /** Bonds from each atom to one; -1 where there is no way. */
    std::vector<int> getSteps(int from) const;
    bool isConnected() const;
};

Molecule::Molecule(const System& system, const std::vector<int>& particles, const std::vector<Vec3>& reference)
    : system(system), particles(particles) {
    require(particles.size() >= 3, where, "the number of atoms", particles.size(), "at least 3");
    require(reference.size() == static_cast<std::size_t>(system.getNumParticles()), where,
            "the number of reference positions", reference.size(), "the number of particles of the System");
    for (int particle : particles) {
        require(particle >= 0 && particle < system.getNumParticles(), where, "an atom", particle,
                "a particle of the System");
        require(atomOf.emplace(particle, atomOf.size()).second, where, "an atom", name({particle}) + " twice",
                "listed once");
        require(!system.isVirtualSite(particle), where, "particle " + name({particle}), "a virtual site",
                "a particle that moves by itself");
        require(system.getParticleMass(particle) > 0, where, "the mass of particle " + name({particle}),
                system.getParticleMass(particle), "> 0");
        const Vec3& position = reference[particle];
        require(std::isfinite(position.dot(position)), where, "the reference position of particle " + name({particle}),
                position, "finite");
        positions.push_back(position);
    }
    readConstraints();
}

void Molecule::readConstraints() {
    for (int i = 0; i < system.getNumConstraints(); i++) {
        int a, b;
        double length;
        system.getConstraintParameters(i, a, b, length);
        bool first = atomOf.contains(a), second = atomOf.contains(b);
        require(first == second, where, "the constraint of particles " + name({a, b}),
                "between a charted and another atom", "among charted atoms, or among others");
        if (first)
            constraints[ordered(atomOf[a], atomOf[b])] = length;
    }
}

double Molecule::getAngle(int a, int vertex, int b) const {
    Vec3 u = positions[a] - positions[vertex], v = positions[b] - positions[vertex], normal = u.cross(v);
    return std::atan2(std::sqrt(normal.dot(normal)), u.dot(v));
}

double Molecule::getTorsion(int atom, int bond, int angle, int torsion) const {
    Vec3 b1 = positions[angle] - positions[torsion], b2 = positions[bond] - positions[angle],
         b3 = positions[atom] - positions[bond];
    return std::atan2(std::sqrt(b2.dot(b2)) * b1.dot(b2.cross(b3)), b1.cross(b2).dot(b2.cross(b3)));
}

/**
 * @param bonds    particle pairs; those that touch no charted atom are ignored
 * @param certain  the pairs that stay even when they look like the far side of a triangle
 */
void Molecule::setBonds(std::set<Pair> bonds, const std::set<Pair>& certain) {
    std::map<int, std::set<int>> bonded;
    for (auto [a, b] : bonds)
        if (atomOf.contains(a) || atomOf.contains(b)) {
            bonded[a].insert(b);
            bonded[b].insert(a);
        }
    // A harmonic "bond" that is much longer than two bonds that bridge it is a Urey-Bradley term.
    auto isUreyBradley = [&](Pair bond) {
        auto [a, b] = bond;
        if (certain.contains(bond) || !atomOf.contains(a) || !atomOf.contains(b))
            return false;
        double length = distance(positions[atomOf[a]], positions[atomOf[b]]) / 1.2;
        return std::ranges::any_of(bonded[a], [&](int c) {
            return bonded[b].contains(c) && atomOf.contains(c) &&
                   std::max(distance(positions[atomOf[a]], positions[atomOf[c]]),
                            distance(positions[atomOf[b]], positions[atomOf[c]])) < length;
        });
    };
    std::erase_if(bonds, isUreyBradley);
    neighbors.assign(particles.size(), {});
    degree.assign(particles.size(), 0);
    for (auto [a, b] : bonds) {
        bool first = atomOf.contains(a), second = atomOf.contains(b);
        if (first && second) {
            neighbors[atomOf[a]].insert(atomOf[b]);
            neighbors[atomOf[b]].insert(atomOf[a]);
        }
        if (first)
            degree[atomOf[a]]++;
        if (second)
            degree[atomOf[b]]++;
    }
}

std::vector<int> Molecule::getSteps(int from) const {
    std::vector<int> steps(particles.size(), -1), queue = {from};
    steps[from] = 0;
    for (std::size_t i = 0; i < queue.size(); i++)
        for (int next : neighbors[queue[i]])
            if (steps[next] < 0) {
                steps[next] = steps[queue[i]] + 1;
                queue.push_back(next);
            }
    return steps;
}

bool Molecule::isConnected() const {
    return std::ranges::none_of(getSteps(0), [](int steps) { return steps < 0; });
}

/** Particle pairs of the bond forces of one kind. */
template <class BondForce>
void addBonds(const System& system, std::set<Pair>& bonds) {
    for (int i = 0; i < system.getNumForces(); i++)
        if (auto force = dynamic_cast<const BondForce*>(&system.getForce(i)))
            for (int j = 0; j < force->getNumBonds(); j++) {
                int a, b;
                if constexpr (std::is_same_v<BondForce, OpenMM::HarmonicBondForce>) {
                    double length, k;
                    force->getBondParameters(j, a, b, length, k);
                } else {
                    std::vector<double> parameters;
                    force->getBondParameters(j, a, b, parameters);
                }
                bonds.insert(ordered(a, b));
            }
}

Molecule readMolecule(const System& system, const std::vector<int>& particles, const std::vector<Vec3>& reference,
                      const std::vector<Pair>& extraBonds) {
    Molecule molecule(system, particles, reference);
    std::set<Pair> certain;
    for (auto [a, b] : extraBonds) {
        int last = system.getNumParticles() - 1;
        require(std::min(a, b) >= 0 && std::max(a, b) <= last && a != b, where, "an extra bond's particles",
                name({a, b}), "two particles of the System");
        certain.insert(ordered(a, b));
    }
    for (const auto& [atoms, length] : molecule.constraints)
        certain.insert(ordered(particles[atoms.first], particles[atoms.second]));
    std::set<Pair> bonds = certain;
    addBonds<OpenMM::HarmonicBondForce>(system, bonds);
    molecule.setBonds(bonds, certain);
    if (!molecule.isConnected()) {
        // AMOEBA's bonds. They come second: other custom bond forces are restraints or 1-4 interactions.
        addBonds<OpenMM::CustomBondForce>(system, bonds);
        molecule.setBonds(bonds, certain);
    }
    std::vector<int> steps = molecule.getSteps(0);
    auto unreached = std::ranges::find(steps, -1);
    require(unreached == steps.end(), where, "the set of atoms",
            unreached == steps.end() ? ""
                                     : "not connected: no bonds lead from particle " + name({particles[0]}) + " to " +
                                           name({particles[unreached - steps.begin()]}),
            "connected by bonds (see extraBonds)");
    return molecule;
}

/** How central each atom is: {bonds to the farthest atom, bonds to all atoms together}; less is more central. */
std::vector<Pair> findCentrality(const Molecule& molecule) {
    std::vector<Pair> centrality;
    for (int atom = 0; atom < molecule.getSize(); atom++) {
        std::vector<int> steps = molecule.getSteps(atom);
        centrality.emplace_back(std::ranges::max(steps), std::accumulate(steps.begin(), steps.end(), 0));
    }
    return centrality;
}

using Tree = std::vector<std::set<int>>; // [atom]: its neighbors in the spanning tree

/** The breadth-first tree from the centre of the graph, but with every constraint as an edge. */
Tree findSpanningTree(const Molecule& molecule, int center) {
    std::vector<int> steps = molecule.getSteps(center), component(molecule.getSize());
    std::iota(component.begin(), component.end(), 0);
    auto find = [&](int atom) {
        while (component[atom] != atom)
            atom = component[atom] = component[component[atom]];
        return atom;
    };
    Tree tree(molecule.getSize());
    auto join = [&](int a, int b) {
        if (find(a) == find(b))
            return false;
        component[find(a)] = find(b);
        tree[a].insert(b);
        tree[b].insert(a);
        return true;
    };
    for (const auto& [atoms, length] : molecule.constraints)
        require(join(atoms.first, atoms.second), where,
                "the constraint of particles " +
                    name({molecule.particles[atoms.first], molecule.particles[atoms.second]}),
                "in a ring of constraints", "a bond of a tree: rigid water and constrained angles can't be charted");
    std::vector<std::pair<int, Pair>> edges;
    for (int a = 0; a < molecule.getSize(); a++)
        for (int b : molecule.neighbors[a])
            if (a < b)
                edges.push_back({std::min(steps[a], steps[b]), {a, b}});
    std::ranges::sort(edges);
    for (const auto& [step, atoms] : edges)
        join(atoms.first, atoms.second);
    return tree;
}

/** Atoms on the far side of a tree edge. */
int countBranch(const Tree& tree, int from, int to) {
    int count = 0;
    std::vector<Pair> stack = {{from, to}};
    while (!stack.empty()) {
        auto [parent, atom] = stack.back();
        stack.pop_back();
        count++;
        for (int next : tree[atom])
            if (next != parent)
                stack.push_back({atom, next});
    }
    return count;
}

/** An atom's neighbors in the tree, its parent left out: main chain first, then heavy atoms, then by number. */
std::vector<int> sortChildren(const Molecule& molecule, const Tree& tree, int atom, int parent) {
    std::vector<std::tuple<int, double, int>> keys;
    for (int child : tree[atom])
        if (child != parent)
            keys.emplace_back(-countBranch(tree, atom, child),
                              -molecule.system.getParticleMass(molecule.particles[child]), child);
    std::ranges::sort(keys);
    std::vector<int> children;
    for (const auto& key : keys)
        children.push_back(std::get<2>(key));
    return children;
}

/** The first two neighbors that are not on one line with an atom; both heavy if that is asked for. */
std::optional<Pair> findArms(const Molecule& molecule, const Tree& tree, int origin, bool heavy) {
    std::vector<int> children = sortChildren(molecule, tree, origin, -1);
    if (heavy)
        std::erase_if(children, [&](int child) { return !molecule.isHeavy(child); });
    for (std::size_t i = 0; i < children.size(); i++)
        for (std::size_t j = i + 1; j < children.size(); j++)
            if (std::sin(molecule.getAngle(children[i], origin, children[j])) > 0.1)
                return Pair(children[i], children[j]);
    return std::nullopt;
}

std::vector<int> findFrame(const Molecule& molecule, const Tree& tree, const std::vector<Pair>& centrality) {
    std::vector<int> atoms(molecule.getSize());
    std::iota(atoms.begin(), atoms.end(), 0);
    std::ranges::stable_sort(atoms, {}, [&](int atom) { return centrality[atom]; });
    for (bool heavy : {true, false})
        for (int origin : atoms)
            if (auto arms = findArms(molecule, tree, origin, heavy); arms && (!heavy || molecule.isHeavy(origin)))
                return {origin, arms->first, arms->second};
    require(false, where, "the set of atoms", "linear", "bent somewhere");
    return {};
}

/** The range of an offset: one side of the axis for a tetrahedral centre, else a turn about the reference structure's.
 */
ZMatrixRow makeOffset(const Molecule& molecule, int atom, int bond, int angle, int torsion) {
    double offset = molecule.getTorsion(atom, bond, angle, torsion), size = std::abs(offset);
    bool tetrahedral = molecule.degree[bond] >= 4 && size > pi / 3 && size < 5 * pi / 6;
    if (tetrahedral)
        return {atom, bond, angle, torsion, offset > 0 ? TorsionRange::Positive : TorsionRange::Negative, 0.0};
    return {atom, bond, angle, torsion, TorsionRange::Turn, offset};
}

std::vector<ZMatrixRow> makeRows(const Molecule& molecule, const Tree& tree, const std::vector<int>& frame) {
    const int origin = frame[0];
    std::vector<int> parent(molecule.getSize(), -1), queue = frame;
    parent[frame[1]] = parent[frame[2]] = origin;
    std::vector<ZMatrixRow> rows;
    for (std::size_t i = 0; i < queue.size(); i++) {
        int bond = queue[i], angle = parent[bond];
        std::vector<int> children = sortChildren(molecule, tree, bond, angle);
        // What torsions are counted from: for the origin its second arm, else the first child, which turns as a rotor.
        int torsion = bond == origin ? frame[2] : children.empty() ? -1 : children[0];
        for (int atom : children) {
            if (parent[atom] >= 0)
                continue;
            parent[atom] = bond;
            queue.push_back(atom);
            if (bond == origin)
                rows.push_back(makeOffset(molecule, atom, origin, frame[1], torsion));
            else if (atom != torsion)
                rows.push_back(makeOffset(molecule, atom, bond, angle, torsion));
            else
                rows.push_back({atom, bond, angle,
                                angle != origin    ? parent[angle]
                                : bond == frame[1] ? frame[2]
                                                   : frame[1]});
        }
    }
    return rows;
}

std::vector<double> findConstrainedLengths(const Molecule& molecule, const std::vector<int>& frame,
                                           const std::vector<ZMatrixRow>& rows) {
    std::vector<Pair> bonds = {{frame[1], frame[0]}, {frame[2], frame[0]}};
    for (const ZMatrixRow& row : rows)
        bonds.emplace_back(row.atom, row.bond);
    std::vector<double> lengths(molecule.getSize(), 0.0);
    for (auto [atom, bond] : bonds)
        if (auto found = molecule.constraints.find(ordered(atom, bond)); found != molecule.constraints.end())
            lengths[atom] = found->second;
    return lengths;
}

} // namespace

std::shared_ptr<InternalCoordinates> InternalCoordinates::fromSystem(const System& system,
                                                                     const std::vector<int>& atoms,
                                                                     const std::vector<Vec3>& referencePositions,
                                                                     const std::vector<Pair>& extraBonds) {
    Molecule molecule = readMolecule(system, atoms, referencePositions, extraBonds);
    std::vector<Pair> centrality = findCentrality(molecule);
    int center = static_cast<int>(std::ranges::min_element(centrality) - centrality.begin());
    Tree tree = findSpanningTree(molecule, center);
    std::vector<int> frame = findFrame(molecule, tree, centrality);
    std::vector<ZMatrixRow> rows = makeRows(molecule, tree, frame);
    return std::make_shared<InternalCoordinates>(rows, frame, findConstrainedLengths(molecule, frame, rows));
}
