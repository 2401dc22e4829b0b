// SPDX-License-Identifier: MIT

#include "StagePropagator.h"
#include "MovedAtoms.h"
#include <array>
#include <cmath>
#include <openmm/CustomIntegrator.h>
#include <openmm/kernels.h>
#include <set>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

template <class Stochastic>
void prepare(Stochastic& integrator, const Integrator& owner, int seed) {
    integrator.setConstraintTolerance(owner.getConstraintTolerance());
    integrator.setIntegrationForceGroups(owner.getIntegrationForceGroups());
    integrator.setRandomNumberSeed(seed);
}

/** Leapfrog, V R O R, whose velocities are half a step behind: made symmetric by half a kick back at first and forth at
 * last. */
class LangevinPropagator : public StagePropagator {
public:
    LangevinPropagator(ContextImpl& context, const Integrator& owner, int seed) {
        prepare(integrator, owner, seed);
        kernel = context.getPlatform().createKernel(IntegrateLangevinMiddleStepKernel::Name(), context);
        kernel.getAs<IntegrateLangevinMiddleStepKernel>().initialize(context.getSystem(), integrator);
    }
    StageResult run(ContextImpl& context, const AnnealedProtocol& protocol, double temperature, int steps,
                    double potential) override {
        integrator.setTemperature(temperature);
        integrator.setFriction(protocol.getFriction());
        integrator.setStepSize(protocol.getStepSize());
        kick(context, -0.5 * protocol.getStepSize());
        for (int i = 0; i < steps; i++) {
            kernel.getAs<IntegrateLangevinMiddleStepKernel>().execute(context, integrator);
            potential = context.calcForcesAndEnergy(true, i == steps - 1, integrator.getIntegrationForceGroups());
        }
        kick(context, 0.5 * protocol.getStepSize());
        return {potential, 0, steps};
    }

private:
    void kick(ContextImpl& context, double time) {
        context.computeShiftedVelocities(time, velocities);
        context.setVelocities(velocities);
    }
    LangevinMiddleIntegrator integrator{300, 1, 0.001};
    Kernel kernel;
    std::vector<Vec3> velocities;
};

/**
 * O V R V O, with the energy that V R V adds counted or decided about. The O's of two steps in turn are done as one.
 *
 * A step is two of the kernel's, O V R and V O: virtual sites follow at the end of each, so that forces and energies in
 * between are those of the new positions. Each computation for all degrees of freedom costs something on the CPU, where
 * each draws random numbers: there are few.
 */
class SymmetricPropagator : public StagePropagator {
public:
    SymmetricPropagator(bool metropolised, ContextImpl& context, const Integrator& owner, int seed)
        : metropolised(metropolised), constrained(context.getSystem().getNumConstraints() > 0),
          groups(findGroups(context, owner)) {
        prepare(integrator, owner, seed);
        for (const char* name : globalNames)
            integrator.addGlobalVariable(name, 0.0);
        for (const char* name : {"unconstrained_", "oldX_", "oldV_"})
            integrator.addPerDofVariable(name, 0.0);
        addStep();
        kernel = context.getPlatform().createKernel(IntegrateCustomStepKernel::Name(), context);
        auto& custom = kernel.getAs<IntegrateCustomStepKernel>();
        custom.initialize(context.getSystem(), integrator);
        const std::vector<Vec3> zero(context.getSystem().getNumParticles());
        for (int i = 0; i < integrator.getNumPerDofVariables(); i++)
            custom.setPerDofVariable(context, i, zero);
    }
    StageResult run(ContextImpl& context, const AnnealedProtocol& protocol, double temperature, int steps,
                    double potential) override {
        auto& custom = kernel.getAs<IntegrateCustomStepKernel>();
        integrator.setStepSize(protocol.getStepSize());
        const double keep = std::exp(-0.5 * protocol.getFriction() * protocol.getStepSize());
        std::vector<double> globals(globalNames.size());
        globals[0] = gasConstant * temperature;
        globals[1] = keep;
        globals[2] = 1; // the half step of noise before the first V R V
        globals[3] = potential;
        // Of a part of the Forces, a kernel may have kept those of other parameters or positions.
        bool forcesAreValid = groups.front().empty();
        for (int i = 0; i < steps; i++) {
            if (i > 0 && i == steps - 1)
                custom.getGlobalVariables(context, globals);
            globals[6] = i < steps - 1 ? keep * keep : keep;
            if (i == 0 || i == steps - 1)
                custom.setGlobalVariables(context, globals);
            for (int half = 0; half < 2; half++)
                custom.execute(context, integrator, forcesAreValid);
        }
        custom.getGlobalVariables(context, globals);
        return {globals[3], globals[4], std::lround(globals[5])};
    }

private:
    // With names of their own: a Context parameter of the same name would be changed.
    static constexpr std::array globalNames = {"kT_",       "keep_",     "first_",   "potential_", "shadow_",
                                               "accepted_", "keepLast_", "kinetic_", "before_",    "trial_",
                                               "limit_",    "reject_",   "half_"};

    // The force groups to add up; just "" where all Forces count. A step of a CustomIntegrator sees one or all.
    static std::vector<std::string> findGroups(const ContextImpl& context, const Integrator& owner) {
        std::set<int> counted;
        bool all = true;
        for (int i = 0; i < context.getSystem().getNumForces(); i++) {
            const int group = context.getSystem().getForce(i).getForceGroup();
            if ((owner.getIntegrationForceGroups() >> group) & 1)
                counted.insert(group);
            else
                all = false;
        }
        if (all)
            return {""};
        std::vector<std::string> names;
        for (const int group : counted)
            names.push_back(std::to_string(group));
        return names;
    }
    void addNoise(const std::string& keep) {
        integrator.addComputePerDof("v", keep + "*v + sqrt((1 - " + keep + "^2)*kT_/m)*gaussian");
        addConstrainVelocities();
    }
    void addConstrainVelocities() {
        if (constrained)
            integrator.addConstrainVelocities();
    }
    void addKinetic() { integrator.addComputeSum("kinetic_", "0.5*m*v*v"); }
    void addStep() {
        integrator.beginIfBlock("half_ < 0.5");
        addFirstHalf();
        integrator.endBlock();
        integrator.beginIfBlock("half_ > 0.5");
        addSecondHalf();
        integrator.endBlock();
        integrator.addComputeGlobal("half_", "1 - half_");
    }
    // Both halves are velocity Verlet with constraints (RATTLE), which is reversible and keeps volume: what constraints
    // have done to x is done to v in the second.
    void addFirstHalf() {
        integrator.beginIfBlock("first_ > 0.5");
        addNoise("keep_");
        integrator.addComputeGlobal("first_", "0");
        integrator.endBlock();
        addKinetic();
        integrator.addComputeGlobal("before_", "potential_ + kinetic_");
        if (metropolised) {
            integrator.addComputeGlobal("limit_", "before_ - kT_*log(uniform)");
            integrator.addComputePerDof("oldX_", "x");
            integrator.addComputePerDof("oldV_", "v");
        }
        for (const std::string& group : groups)
            integrator.addComputePerDof("v", "v + 0.5*dt*f" + group + "/m");
        integrator.addComputePerDof("x", "x + dt*v");
        if (constrained)
            integrator.addComputePerDof("unconstrained_", "x");
        if (constrained)
            integrator.addConstrainPositions();
    }
    void addSecondHalf() {
        std::string correction = constrained ? " + (x - unconstrained_)/dt" : "";
        for (const std::string& group : groups) {
            integrator.addComputePerDof("v", "v + 0.5*dt*f" + group + "/m" + correction);
            correction.clear();
        }
        addConstrainVelocities();
        integrator.addComputeGlobal("trial_", "0");
        for (const std::string& group : groups)
            integrator.addComputeGlobal("trial_", "trial_ + energy" + group);
        addKinetic();
        integrator.addComputeGlobal("kinetic_", "kinetic_ + trial_");
        if (metropolised)
            addDecision();
        else
            integrator.addComputeGlobal("shadow_", "shadow_ + kinetic_ - before_");
        integrator.addComputeGlobal("potential_", "trial_");
        integrator.addComputeGlobal("accepted_", "accepted_ + 1 - reject_");
        addNoise("keepLast_");
    }
    // What is not accepted goes back, with its velocities reversed. A comparison with NaN is false, so that what has no
    // energy is not accepted.
    void addDecision() {
        integrator.addComputeGlobal("reject_", "1");
        integrator.beginIfBlock("kinetic_ < limit_");
        integrator.addComputeGlobal("reject_", "0");
        integrator.endBlock();
        integrator.beginIfBlock("reject_ > 0");
        integrator.addComputePerDof("x", "oldX_");
        integrator.addComputePerDof("v", "-oldV_");
        integrator.addComputeGlobal("trial_", "potential_");
        integrator.endBlock();
    }
    const bool metropolised, constrained;
    const std::vector<std::string> groups;
    CustomIntegrator integrator{0.001};
    Kernel kernel;
};

} // namespace

std::unique_ptr<StagePropagator> OpenMMFlow::makeStagePropagator(StageDynamics dynamics, ContextImpl& context,
                                                                 const Integrator& owner, int seed) {
    if (dynamics == StageDynamics::Langevin)
        return std::make_unique<LangevinPropagator>(context, owner, seed);
    return std::make_unique<SymmetricPropagator>(dynamics == StageDynamics::Metropolised, context, owner, seed);
}
