// SPDX-License-Identifier: MIT

#include "AnnealedWalk.h"
#include "MovedAtoms.h"
#include "openmmflow/latent/Check.h"
#include <cmath>
#include <sstream>

using namespace OpenMMFlow;
using namespace OpenMM;

static const char* const who = "FlowLangevinIntegrator";

// Reference starts the random numbers of the whole process anew when a kernel is made. A kernel that is made in the
// middle of a run gets another seed there, so that noise is not repeated; other platforms want one seed for all.
static int chooseSeed(const FlowLangevinIntegrator& owner, ContextImpl& context, StageDynamics dynamics, Random& random,
                      bool late) {
    const std::string platform = context.getPlatform().getName();
    const bool ofReference = platform == "Reference" || (platform == "CPU" && dynamics != StageDynamics::Langevin);
    return late && ofReference ? static_cast<int>(1 + random.integer(2147483646)) : owner.getRandomNumberSeed();
}

AnnealedWalk::AnnealedWalk(const FlowLangevinIntegrator& owner, ContextImpl& context, Random& random)
    : owner(owner), context(context), random(random) {}

void AnnealedWalk::setProtocol(std::shared_ptr<const AnnealedProtocol> newProtocol, bool late) {
    for (int i = 0; newProtocol != nullptr && i < newProtocol->getNumParameters(); i++)
        require(context.getParameters().count(newProtocol->getParameterName(i)) > 0, who, "a parameter of the protocol",
                newProtocol->getParameterName(i), "one of the Context's: a Force of the System has to have it");
    protocol = std::move(newProtocol);
    if (protocol == nullptr)
        return;
    const StageDynamics dynamics = protocol->getStageDynamics();
    auto& propagator = propagators[dynamics];
    if (propagator == nullptr)
        propagator = makeStagePropagator(dynamics, context, owner, chooseSeed(owner, context, dynamics, random, late));
}

AnnealedWalk::~AnnealedWalk() = default;

void AnnealedWalk::checkStart() const {
    for (int i = 0; i < protocol->getNumParameters(); i++) {
        const std::string& name = protocol->getParameterName(i);
        const double value = context.getParameter(name), expected = protocol->getParameterValues(i)[0];
        std::ostringstream rule;
        rule << "that of the protocol's stage 0, " << expected << ", at which the simulation runs";
        require(value == expected, who, "the Context's " + name, value, rule.str());
    }
}

void AnnealedWalk::setStage(int stage) {
    for (int i = 0; i < protocol->getNumParameters(); i++)
        context.setParameter(protocol->getParameterName(i), protocol->getParameterValues(i)[stage]);
}

// kJ/mol, with forces for the dynamics that follows.
double AnnealedWalk::measurePotential() {
    return context.calcForcesAndEnergy(true, true, owner.getIntegrationForceGroups());
}

void AnnealedWalk::drawVelocities() {
    const System& system = context.getSystem();
    const double kT = gasConstant * owner.getTemperature();
    std::vector<Vec3> velocities(system.getNumParticles());
    for (int i = 0; i < system.getNumParticles(); i++)
        if (system.getParticleMass(i) > 0)
            velocities[i] =
                Vec3(random.normal(), random.normal(), random.normal()) * std::sqrt(kT / system.getParticleMass(i));
    context.setVelocities(velocities);
    context.applyVelocityConstraints(owner.getConstraintTolerance());
}

// Steps too long for the constraints to be solved leave them broken, and the state without meaning.
bool AnnealedWalk::keepsConstraints() const {
    const System& system = context.getSystem();
    if (system.getNumConstraints() == 0)
        return true;
    std::vector<Vec3> positions;
    context.getPositions(positions);
    for (int i = 0; i < system.getNumConstraints(); i++) {
        int a = 0, b = 0;
        double length = 0;
        system.getConstraintParameters(i, a, b, length);
        const Vec3 d = positions[a] - positions[b];
        if (!(std::abs(std::sqrt(d.dot(d)) / length - 1) < 1e-4 + 100 * owner.getConstraintTolerance()))
            return false;
    }
    return true;
}

// Outwards a stage's parameters are switched on before its steps; on the way back, its steps come first. So the way
// back is the way out in reverse. Works are in kT. @return false as soon as an energy is not finite
bool AnnealedWalk::walkHalf(Half half, HalfWork& work) {
    const double kT = gasConstant * owner.getTemperature();
    const int numStages = protocol->getNumStages(), steps = protocol->getStepsPerStage();
    double potential = measurePotential();
    const auto change = [&](int stage) {
        setStage(stage);
        const double changed = measurePotential();
        work.switches.push_back((changed - potential) / kT);
        work.protocol += work.switches.back();
        potential = changed;
    };
    const auto propagate = [&] {
        if (steps == 0)
            return;
        const StageResult result = propagators.at(protocol->getStageDynamics())
                                       ->run(context, *protocol, owner.getTemperature(), steps, potential);
        work.shadow += result.shadowWork / kT;
        work.steps += steps;
        work.accepted += result.accepted;
        potential = result.potential;
    };
    for (int i = 1; i <= numStages && std::isfinite(potential); i++)
        if (half == Half::Out) {
            change(i);
            propagate();
        } else {
            propagate();
            change(numStages - i);
        }
    return std::isfinite(potential) && std::isfinite(work.protocol) && std::isfinite(work.shadow);
}

bool AnnealedWalk::walk(AnnealedRecord& record, const std::function<std::optional<double>()>& middle) {
    HalfWork out, back;
    // However far the walk comes: an evaluation may throw.
    const auto note = [&] {
        record.workOut = out.protocol;
        record.shadowOut = out.shadow;
        record.workBack = back.protocol;
        record.shadowBack = back.shadow;
        record.stageWorks = out.switches;
        record.stageWorks.insert(record.stageWorks.end(), back.switches.begin(), back.switches.end());
        record.stageSteps = out.steps + back.steps;
        record.stageAccepted = out.accepted + back.accepted;
    };
    record.logAlpha = -INFINITY;
    try {
        drawVelocities();
        const std::optional<double> gain = walkHalf(Half::Out, out) ? middle() : std::nullopt;
        record.jumped = gain.has_value();
        record.middleLogAlpha = gain.value_or(0.0);
        if (record.jumped && walkHalf(Half::Back, back) && keepsConstraints())
            record.logAlpha = record.middleLogAlpha - (out.protocol + out.shadow + back.protocol + back.shadow);
    } catch (...) {
        note();
        throw;
    }
    note();
    return std::isfinite(record.logAlpha);
}
