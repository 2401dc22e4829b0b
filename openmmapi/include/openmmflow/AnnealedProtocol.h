#ifndef OPENMMFLOW_ANNEALEDPROTOCOL_H_
#define OPENMMFLOW_ANNEALEDPROTOCOL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <string>
#include <vector>

namespace OpenMMFlow {

/** How an annealed jump moves the atoms while parameters change. All are the same forwards and backwards in time. */
enum class StageDynamics {
    /**
     * The platform's LangevinMiddleIntegrator, at the price of its plain steps. Not metropolised: its stages keep
     * exp(-u_k) up to the error of a finite step, and so does the ensemble of the simulation, as with plain Langevin
     * dynamics. Choose a step size that would do for the simulation itself.
     */
    Langevin,
    /**
     * O V R V O: half a step of friction and noise, a velocity Verlet step, half a step of friction and noise. What
     * Verlet steps add to the total energy, the shadow work, is counted in W: exact whatever the step size (Sivak,
     * Chodera and Crooks, Phys. Rev. X 3, 011007, 2013). It grows with the number of atoms of the whole System, and
     * with it the rejections.
     */
    LangevinShadowWork,
    /**
     * Generalised hybrid Monte Carlo, O V R V O with each Verlet step accepted or rejected, and velocities reversed
     * where it is rejected: each stage keeps exp(-u_k), so that W has no shadow work. Exact whatever the step size.
     */
    Metropolised
};

/** What happens to the flow's jump in the middle of an annealed one. */
enum class MiddleJump {
    /**
     * Its trials are decided there, by the energy of the last stage. Where none is accepted the annealed jump ends, as
     * a rejected one, at half of its price: paths without a jump have no part in either direction of the balance.
     */
    Decided,
    /** One trial, always made; W gains -logAlpha of F2 at the last stage. */
    Always
};

/**
 * The stages of an annealed jump of FlowLangevinIntegrator, a nonequilibrium candidate Monte Carlo (NCMC) move (F7;
 * Nilmeier, Crooks, Minh and Chodera, PNAS 108, E1009, 2011): Context parameters that go from stage 0, with whose
 * values the simulation runs, to stage K, where the flow fits better, and after the flow's jump back through the same
 * stages.
 *
 *     for k = 1..K:  W += u_k(x) - u_{k-1}(x);  stepsPerStage steps at stage k
 *     the flow's jump at stage K
 *     for k = K..1:  stepsPerStage steps at stage k;  W += u_{k-1}(x) - u_k(x)
 *     accept with min(1, exp(-W)); else everything is as it was before
 *
 * u_k is the Context's potential energy over kT with the parameters of stage k, in the integration force groups.
 * Neither the box nor anything else that acts between steps of dynamics (barostats, thermostats, CMMotionRemover)
 * changes on the way. The price of a jump is 2 K (stepsPerStage + 1) evaluations of the forces. "Exact whatever the
 * step size" above has one limit: constraints have to be solved to tolerance in each step, so that it can be undone.
 *
 *     auto protocol = std::make_shared<AnnealedProtocol>(10, 0.002);
 *     protocol->addParameter("lambda", {1, 0.75, 0.5, 0.25, 0});
 *     integrator.setAnnealedProtocol(protocol);
 */
class OPENMMFLOW_EXPORT AnnealedProtocol {
public:
    /**
     * @param stepsPerStage  steps of dynamics at each stage but stage 0; 0 switches at once
     * @param stepSize       of these steps, ps, > 0
     */
    AnnealedProtocol(int stepsPerStage, double stepSize);
    int getStepsPerStage() const { return stepsPerStage; }
    void setStepsPerStage(int steps);
    double getStepSize() const { return stepSize; }
    void setStepSize(double size);
    /** 1/ps, >= 0; 1 by default. */
    double getFriction() const { return friction; }
    void setFriction(double coefficient);
    /** LangevinShadowWork by default. */
    StageDynamics getStageDynamics() const { return stageDynamics; }
    void setStageDynamics(StageDynamics dynamics) { stageDynamics = dynamics; }
    /** Decided by default. */
    MiddleJump getMiddleJump() const { return middleJump; }
    void setMiddleJump(MiddleJump jump) { middleJump = jump; }
    /**
     * Say what a Context parameter is at the stages.
     *
     * @param name    of a parameter that a Force of the System has, once each
     * @param values  finite, at stages 0 to K, K >= 1; as many as those of the other parameters
     * @return the index of the parameter
     */
    int addParameter(const std::string& name, const std::vector<double>& values);
    int getNumParameters() const { return static_cast<int>(names.size()); }
    const std::string& getParameterName(int index) const;
    const std::vector<double>& getParameterValues(int index) const;
    /** K, 0 as long as there is no parameter. */
    int getNumStages() const { return values.empty() ? 0 : static_cast<int>(values[0].size()) - 1; }

private:
    int stepsPerStage = 0;
    double stepSize = 0, friction = 1;
    StageDynamics stageDynamics = StageDynamics::LangevinShadowWork;
    MiddleJump middleJump = MiddleJump::Decided;
    std::vector<std::string> names;
    std::vector<std::vector<double>> values; // [parameters][K + 1]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ANNEALEDPROTOCOL_H_*/
