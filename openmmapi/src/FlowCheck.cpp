// SPDX-License-Identifier: MIT

#include "openmmflow/FlowCheck.h"
#include "MovedAtoms.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/latent/Check.h"
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

using Lengths = std::map<std::pair<int, int>, double>; // by particles, the lower one first

Lengths findConstraints(const System& system, const std::vector<int>& atoms) {
    const std::set<int> moved(atoms.begin(), atoms.end());
    Lengths found;
    for (int i = 0; i < system.getNumConstraints(); i++) {
        int a = 0, b = 0;
        double length = 0;
        system.getConstraintParameters(i, a, b, length);
        if (moved.count(a) > 0 && moved.count(b) > 0)
            found[std::minmax(a, b)] = length;
    }
    return found;
}

Lengths findHeldDistances(const Flow& flow) {
    Lengths held;
    const auto& atoms = flow.getAtoms();
    for (const auto& [first, second, length] : flow.getTransform()->getHeldDistances())
        held[std::minmax(atoms[first], atoms[second])] = length;
    return held;
}

} // namespace

void OpenMMFlow::checkFlow(const Flow& flow, const System& system, const std::string& who) {
    require(!flow.getAtoms().empty(), who, "number of the flow's atoms", 0,
            "at least 1: say which particles the flow describes");
    checkParticles(who, flow.getAtoms(), system);
    const Lengths constraints = findConstraints(system, flow.getAtoms()), held = findHeldDistances(flow);
    const auto name = [](const auto& pair) { return std::to_string(pair.first) + "-" + std::to_string(pair.second); };
    const std::string cure = ": make the flow for a System with the same order of atoms and constraints";
    for (const auto& [pair, length] : constraints) {
        const auto found = held.find(pair);
        require(found != held.end(), who, "the constraint between moved particles " + name(pair), "free in the flow",
                "held by the flow's chart" + cure);
        require(std::abs(found->second - length) <= 1e-6 * length, who,
                "length (nm) of the flow's held bond " + name(pair), found->second,
                "that of the System's constraint, " + std::to_string(length));
    }
    for (const auto& [pair, length] : held)
        require(constraints.count(pair) > 0, who, "the bond that the flow's chart holds, " + name(pair),
                "not constrained in the System", "constrained" + cure);
}
