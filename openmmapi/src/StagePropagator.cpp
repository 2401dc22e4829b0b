// SPDX-License-Identifier: MIT

#include "StagePropagator.h"
#include "MovedAtoms.h"
#include <array>
#include <cmath>
#include <openmm/CustomIntegrator.h>
#include <openmm/kernels.h>

using namespace OpenMMFlow;
using namespace OpenMM;

namespace {

void prepare(Integrator& integrator, const Integrator& owner) {
    integrator.setConstraintTolerance(owner.getConstraintTolerance());
    integrator.setIntegrationForceGroups(owner.getIntegrationForceGroups());
}

/** Leapfrog, V R O R, whose velocities are half a step behind: made symmetric by half a kick back at first and forth at
 * last. */
class LangevinPropagator : public StagePropagator {
public:
    LangevinPropagator(ContextImpl& context, const Integrator& owner, int seed) {
        prepare(integrator, owner);
        integrator.setRandomNumberSeed(seed);
        kernel = context.getPlatform().createKernel(IntegrateLangevinMiddleStepKernel::Name(), context);
        kernel.getAs<IntegrateLangevinMiddleStepKernel>().initialize(context.getSystem(), integrator);
    }
    double run(ContextImpl& context, const AnnealedProtocol& protocol, double temperature, int steps,
               double potential) override {
        integrator.setTemperature(temperature);
        integrator.setFriction(protocol.getFriction());
        integrator.setStepSize(protocol.getStepSize());
        const int groups = integrator.getIntegrationForceGroups();
        kick(context, -0.5 * protocol.getStepSize());
        for (int i = 0; i < steps; i++) {
            kernel.getAs<IntegrateLangevinMiddleStepKernel>().execute(context, integrator);
            potential = context.calcForcesAndEnergy(true, i == steps - 1, groups);
        }
        kick(context, 0.5 * protocol.getStepSize());
        numAccepted += steps;
        return potential;
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

/** O V R V O, with the heat of its O's counted or its V R V's metropolised. */
class SymmetricPropagator : public StagePropagator {
public:
    SymmetricPropagator(bool metropolised, ContextImpl& context, const Integrator& owner, int seed) {
        prepare(integrator, owner);
        integrator.setRandomNumberSeed(seed);
        for (const char* name : globalNames)
            integrator.addGlobalVariable(name, 0.0);
        integrator.addPerDofVariable("unconstrained", 0.0);
        if (metropolised)
            addMetropolisedStep(context.getSystem());
        else
            addStep();
        kernel = context.getPlatform().createKernel(IntegrateCustomStepKernel::Name(), context);
        auto& custom = kernel.getAs<IntegrateCustomStepKernel>();
        custom.initialize(context.getSystem(), integrator);
        const std::vector<Vec3> zero(context.getSystem().getNumParticles());
        for (int i = 0; i < integrator.getNumPerDofVariables(); i++)
            custom.setPerDofVariable(context, i, zero);
    }
    double run(ContextImpl& context, const AnnealedProtocol& protocol, double temperature, int steps,
               double potential) override {
        auto& custom = kernel.getAs<IntegrateCustomStepKernel>();
        integrator.setStepSize(protocol.getStepSize());
        const double keep = std::exp(-0.5 * protocol.getFriction() * protocol.getStepSize());
        std::vector<double> globals = {gasConstant * temperature, keep, std::sqrt(1 - keep * keep), potential};
        globals.resize(integrator.getNumGlobalVariables());
        custom.setGlobalVariables(context, globals);
        bool forcesAreValid = true;
        for (int i = 0; i < steps; i++)
            custom.execute(context, integrator, forcesAreValid);
        custom.getGlobalVariables(context, globals);
        heat += globals[4];
        numAccepted += std::lround(globals[5]);
        return globals[3];
    }

private:
    static constexpr std::array globalNames = {"kT",       "keep",   "noise", "potential", "heat",
                                               "accepted", "before", "after", "trial",     "limit"};
    // Friction and noise for half a step; "before" and "after" are kinetic energies.
    void addNoise() {
        integrator.addComputePerDof("v", "keep*v + noise*sqrt(kT/m)*gaussian");
        integrator.addConstrainVelocities();
    }
    void addCountedNoise() {
        integrator.addComputeSum("before", "0.5*m*v*v");
        addNoise();
        integrator.addComputeSum("after", "0.5*m*v*v");
        integrator.addComputeGlobal("heat", "heat + after - before");
    }
    // Velocity Verlet with constraints (RATTLE), which is reversible and keeps volume.
    void addVerlet() {
        integrator.addComputePerDof("v", "v + 0.5*dt*f/m");
        integrator.addComputePerDof("x", "x + dt*v");
        integrator.addComputePerDof("unconstrained", "x");
        integrator.addConstrainPositions();
        integrator.addComputePerDof("v", "v + 0.5*dt*f/m + (x - unconstrained)/dt");
        integrator.addConstrainVelocities();
    }
    void addStep() {
        addCountedNoise();
        addVerlet();
        integrator.addComputeGlobal("potential", "energy");
        addCountedNoise();
        integrator.addComputeGlobal("accepted", "accepted + 1");
    }
    // What is not accepted goes back, with its velocities reversed. A comparison with NaN is false, so that what has no
    // energy is not accepted.
    void addMetropolisedStep(const System& system) {
        integrator.addPerDofVariable("oldX", 0.0);
        integrator.addPerDofVariable("oldV", 0.0);
        integrator.addGlobalVariable("reject", 0.0);
        addNoise();
        integrator.addComputeSum("before", "0.5*m*v*v");
        integrator.addComputeGlobal("limit", "potential + before - kT*log(uniform)");
        integrator.addComputePerDof("oldX", "x");
        integrator.addComputePerDof("oldV", "v");
        addVerlet();
        integrator.addComputeSum("after", "0.5*m*v*v");
        integrator.addComputeGlobal("trial", "energy");
        integrator.addComputeGlobal("after", "trial + after");
        integrator.addComputeGlobal("reject", "1");
        integrator.beginIfBlock("after < limit");
        integrator.addComputeGlobal("reject", "0");
        integrator.addComputeGlobal("potential", "trial");
        integrator.addComputeGlobal("accepted", "accepted + 1");
        integrator.endBlock();
        integrator.beginIfBlock("reject > 0");
        integrator.addComputePerDof("x", "oldX");
        integrator.addComputePerDof("v", "-oldV");
        if (hasVirtualSites(system))
            integrator.addConstrainPositions(); // they follow there
        integrator.endBlock();
        addNoise();
    }
    static bool hasVirtualSites(const System& system) {
        for (int i = 0; i < system.getNumParticles(); i++)
            if (system.isVirtualSite(i))
                return true;
        return false;
    }
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
