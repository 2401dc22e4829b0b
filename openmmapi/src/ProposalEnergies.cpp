// SPDX-License-Identifier: MIT

#include "ProposalEnergies.h"
#include "MovedAtoms.h"
#include <ATen/ATen.h>
#include <OpenMM.h>
#include <openmm/serialization/XmlSerializer.h>
#include <regex>
#include <set>
#include <typeindex>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

// Single-particle terms may have the particle's own coordinates.
bool mentionsCoordinates(const std::string& expression) {
    return std::regex_search(expression, std::regex("\\b[xyz]\\b"));
}

bool mentionsCoordinates(const CustomGBForce& force) {
    std::string name, expression;
    CustomGBForce::ComputationType type{};
    for (int i = 0; i < force.getNumComputedValues(); i++) {
        force.getComputedValueParameters(i, name, expression, type);
        if (mentionsCoordinates(expression))
            return true;
    }
    for (int i = 0; i < force.getNumEnergyTerms(); i++) {
        force.getEnergyTermParameters(i, expression, type);
        if (mentionsCoordinates(expression))
            return true;
    }
    return false;
}

// By exact type: a class derived from one of these may do anything. CMMotionRemover has no energy.
bool isInvariant(const Force& force) {
    static const std::set<std::type_index> known = {
        typeid(HarmonicBondForce),    typeid(HarmonicAngleForce), typeid(PeriodicTorsionForce),
        typeid(RBTorsionForce),       typeid(CMAPTorsionForce),   typeid(CustomBondForce),
        typeid(CustomAngleForce),     typeid(CustomTorsionForce), typeid(NonbondedForce),
        typeid(CustomNonbondedForce), typeid(GBSAOBCForce),       typeid(CustomGBForce),
        typeid(CMMotionRemover)};
    if (const auto* born = dynamic_cast<const CustomGBForce*>(&force); born != nullptr && mentionsCoordinates(*born))
        return false;
    return known.count(typeid(force)) > 0 && !force.usesPeriodicBoundaryConditions();
}

std::unique_ptr<System> copyWithoutConstraints(const System& system) {
    std::unique_ptr<System> copy(XmlSerializer::clone(system));
    while (copy->getNumConstraints() > 0)
        copy->removeConstraint(copy->getNumConstraints() - 1);
    return copy;
}

ContextPotential::Options makeOptions(ContextImpl& context, const std::vector<int>& atoms, int forceGroups) {
    ContextPotential::Options options;
    Platform& platform = context.getPlatform();
    options.platform = platform.getName();
    for (const std::string& name : platform.getPropertyNames())
        options.properties[name] = name == "Threads" ? "1" : platform.getPropertyValue(context.getOwner(), name);
    options.numContexts = 1;
    options.forceGroups = forceGroups;
    options.atoms = atoms;
    return options;
}

} // namespace

bool ProposalEnergies::canServe(ContextImpl& context, const std::vector<int>& atoms) {
    const std::string& platform = context.getPlatform().getName();
    const System& system = context.getSystem();
    if ((platform != "Reference" && platform != "CPU") || static_cast<int>(atoms.size()) != system.getNumParticles())
        return false;
    for (int i = 0; i < system.getNumForces(); i++)
        if (!isInvariant(system.getForce(i)))
            return false;
    return true;
}

ProposalEnergies::ProposalEnergies(const Integrator& owner, ContextImpl& context, const std::vector<int>& atoms)
    : owner(owner), context(context), forceGroups(owner.getIntegrationForceGroups()),
      potential(*copyWithoutConstraints(context.getSystem()), 1 / gasConstant,
                makeOptions(context, atoms, forceGroups)) {}

bool ProposalEnergies::areValid(const Conditions& conditions) const {
    return valid && owner.getIntegrationForceGroups() == forceGroups && conditions == context.getParameters();
}

at::Tensor ProposalEnergies::evaluate(const at::Tensor& x, const Conditions& conditions) {
    for (const auto& [name, value] : conditions)
        potential.setParameter(name, value);
    return potential.evaluate(x).u;
}
