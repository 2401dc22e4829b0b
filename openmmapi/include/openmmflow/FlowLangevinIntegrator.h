#ifndef OPENMMFLOW_FLOWLANGEVININTEGRATOR_H_
#define OPENMMFLOW_FLOWLANGEVININTEGRATOR_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/AnnealedProtocol.h"
#include "openmmflow/latent/Export.h"
#include "openmmflow/samplers/Acceptance.h"
#include <cstdint>
#include <memory>
#include <openmm/LangevinMiddleIntegrator.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

class Flow;

/** What the jumps of an integrator have done since it was made or its statistics were reset. */
struct JumpStatistics {
    /** Visits to the jump, trials made in them, trials accepted. An annealed jump is one trial. */
    std::int64_t jumps = 0, trials = 0, accepted = 0;
    /** Rejected because a coordinate, an energy or a density was not finite; because the energy evaluation threw. */
    std::int64_t nonFinite = 0, failed = 0;
    /** Of annealed jumps: trials in the middle and those accepted there; steps at the stages, and those accepted. */
    std::int64_t middleTrials = 0, middleAccepted = 0, stageSteps = 0, stageAccepted = 0;
    /** Proposals that were prepared ahead; trials, of bare jumps or in the middle, rejected by prepared energies. */
    std::int64_t preparedProposals = 0, rejectedAhead = 0;
    /** accepted / trials; 0 before the first trial. */
    double getAcceptanceRate() const { return trials == 0 ? 0.0 : static_cast<double>(accepted) / trials; }
};

/** When the proposals of independence jumps are made. */
enum class ProposalPreparation {
    /** When a jump needs them. */
    WhenNeeded,
    /**
     * One batch ahead, in a thread: an idle core makes them while dynamics goes on. Every result is bit for bit that of
     * WhenNeeded. A batch is at least 64 proposals.
     */
    Ahead,
    /**
     * Ahead, and their energies too, from another Context of the same System and platform. Those reject; a trial that
     * they would accept is decided by the energy of the Context that jumps. Results are those of WhenNeeded up to
     * rounding, as energies are computed before proposals are placed on the frame of the current state.
     *
     * Only where that is sure: on Reference and CPU, where the flow moves all particles of the System, whose Forces are
     * OpenMM's own and depend on distances, angles and torsions alone, without periodic boundaries or external fields;
     * and not after the Forces were changed in the Context (updateParametersInContext()), nor with other integration
     * force groups than at first. Elsewhere this is Ahead.
     */
    AheadWithEnergies
};

/** Everything that decided one trial, so that anyone can decide it again: see jumpLogAlpha() and accept() in
 * Acceptance.h. */
struct JumpRecord {
    /** The Context's step count and the number of the trial within its jump. */
    std::int64_t step = 0;
    int trial = 0;
    /** Reduced energies, log densities and log-dets of the flow, of the current (old) and the proposed (new) state. */
    double uOld = 0, uNew = 0, logQOld = 0, logQNew = 0, logDetOld = 0, logDetNew = 0;
    /** (1/2) log det Z of the constraints among the moved atoms (F5); it is part of u: u = U/kT - metric. */
    double metricOld = 0, metricNew = 0;
    double logAlpha = 0, uniform = 0;
    bool accepted = false;
    /** A trial in the middle of an annealed jump: u is that of the last stage, and accepted is what was decided there;
     * made without a decision, its uniform is 0. */
    bool inTheMiddle = false;
};

/**
 * Everything that decided one annealed jump (F7):
 *
 *     logAlpha = middleLogAlpha - (workOut + shadowOut + workBack + shadowBack),   accepted by accept() in Acceptance.h
 */
struct AnnealedRecord {
    /** The Context's step count. */
    std::int64_t step = 0;
    /** Reduced protocol work of the ways out and back: changes of u with the parameters. */
    double workOut = 0, workBack = 0;
    /** Their parts: the work of each switch of the parameters, to stages 1..K and back to K-1..0, as far as it came. */
    std::vector<double> stageWorks;
    /** Reduced shadow work: what steps of LangevinShadowWork add to the total energy; else 0. */
    double shadowOut = 0, shadowBack = 0;
    /** logAlpha of a jump that is Always made; 0 for one that is Decided. */
    double middleLogAlpha = 0;
    /** Whether the middle jump was made; where it was not, there is no way back. */
    bool jumped = false;
    /** Steps made at the stages, and those accepted. */
    std::int64_t stageSteps = 0, stageAccepted = 0;
    /** -inf, and no uniform, where the way did not come to its end. */
    double logAlpha = 0, uniform = 0;
    bool accepted = false;
};

/**
 * Langevin dynamics that jumps: blocks of LangevinMiddleIntegrator, and every jumpInterval steps some configurations
 * that a normalizing flow proposes for its atoms, each accepted or rejected by a test that keeps the ensemble exact
 * (F2, F3).
 *
 *     repeat:  jumpInterval Langevin steps;
 *              then for each of trialsPerJump proposals x':
 *                  logAlpha = [-u(x') - log q(x')] - [-u(x) - log q(x)];  accept x' with min(1, exp(logAlpha))
 *
 * u is the Context's potential energy over kT (integration force groups, box and parameters as they are), less the
 * mass-metric factor of constraints among the moved atoms (F5). The moved atoms keep the position of their frame's
 * origin and its orientation (F4); all other atoms stay. The target is the canonical ensemble at this integrator's
 * temperature, so a jump is as exact beside a barostat, which acts within the Langevin blocks.
 *
 * With an AnnealedProtocol jumps are annealed (F7): parameters of the Context go through its stages, the flow's jump
 * follows where it is easy, and they come back; the whole is accepted or rejected, with velocities drawn anew or as
 * they were.
 *
 * With jumpInterval = 0 this is LangevinMiddleIntegrator: the same trajectory at the same speed. A jump advances
 * neither time nor step count. A rejected or failed trial leaves no trace. Where a jump is accepted, velocities at the
 * time of the positions are kept, or drawn anew when moved atoms are constrained.
 *
 * When a Context is created this throws if an atom of the flow does not exist, is a virtual site or is massless, if a
 * constraint can't be held by the flow's chart, or if the flow was trained for another temperature and can't be taken
 * to this one. A flow of constant log-det can: it follows the integrator's temperature, also when setTemperature()
 * changes it, by the variance of its prior (F9). Other flows keep their density; where the temperature is changed
 * later, jumps stay exact and are accepted less often.
 */
class OPENMMFLOW_EXPORT FlowLangevinIntegrator : public OpenMM::LangevinMiddleIntegrator {
public:
    /**
     * @param temperature    K, > 0
     * @param frictionCoeff  1/ps, >= 0
     * @param stepSize       ps, > 0
     * @param flow           the flow that proposes; shared, not copied. Its atoms are the ones that jump.
     */
    FlowLangevinIntegrator(double temperature, double frictionCoeff, double stepSize, std::shared_ptr<Flow> flow);
    ~FlowLangevinIntegrator() override;
    std::shared_ptr<Flow> getFlow() const { return flow; }
    /** Replace the flow, as adaptive training does. Proposals drawn from the old one are thrown away. Also between
     * steps. */
    void setFlow(std::shared_ptr<Flow> flow);

    /** Langevin steps between jumps, 100 by default; 0 turns jumps off. Counted across calls to step(). */
    int getJumpInterval() const { return jumpInterval; }
    void setJumpInterval(int steps);
    /** Proposals at each jump, 1 by default. Independent ones are drawn from the flow in one batch. */
    int getTrialsPerJump() const { return trialsPerJump; }
    void setTrialsPerJump(int trials);
    /** Independence by default. */
    JumpKind getJumpKind() const { return jumpKind; }
    void setJumpKind(JumpKind kind);
    /** Size of latent moves: (0, 1] for PriorPreserving, > 0 for RandomWalk; not used by Independence. 0.1 by default.
     */
    double getLatentStepSize() const { return latentStepSize; }
    void setLatentStepSize(double size);
    /** Metropolis by default. */
    AcceptanceTest getAcceptanceTest() const { return acceptanceTest; }
    void setAcceptanceTest(AcceptanceTest test);
    /**
     * WhenNeeded by default: a thread of its own is worth it where a core has nothing else to do. Proposals that were
     * made ahead are thrown away, and made anew, when the flow or its parameters have changed; energies when a
     * parameter of the Context has. A flow that a Python object computes is not used ahead. Takes effect at once, but
     * AheadWithEnergies prepares energies only in Contexts that are made after it was set.
     */
    void setProposalPreparation(ProposalPreparation preparation);
    ProposalPreparation getProposalPreparation() const { return proposalPreparation; }
    /** Seed of the jumps' own random numbers; 0, the default, chooses one when a Context is created. */
    std::uint64_t getJumpRandomNumberSeed() const { return jumpSeed; }
    void setJumpRandomNumberSeed(std::uint64_t seed);
    /**
     * Anneal the jumps; null, the default, leaves them bare. The protocol is copied. Also between steps.
     * Trials are those of the middle jump, and one is made where it is MiddleJump::Always. Throws, with the Context or
     * at once, if that has no such parameters; a jump throws unless the Context runs at the values of stage 0.
     */
    void setAnnealedProtocol(std::shared_ptr<AnnealedProtocol> protocol);
    /** A copy, or null. */
    std::shared_ptr<AnnealedProtocol> getAnnealedProtocol() const;

    void step(int steps) override;
    /** Make one jump (trialsPerJump trials, or one annealed jump) now. @return the number of trials accepted */
    int jump();

    /**
     * Where the moved atoms of a jump are read and set: the Context's Platform, and "on the device" or "on the host",
     * or "through the host" and why, where the Platform keeps them on a device for which OpenMM-Flow has no plugin
     * library. Empty before there is a Context.
     */
    std::string getJumpPlatform() const;
    JumpStatistics getJumpStatistics() const;
    void resetJumpStatistics();
    /**
     * Quantiles of logAlpha over the latest 10,000 finite trials.
     * @param probabilities  each in [0, 1]  @return one number each; NaN before the first trial
     */
    std::vector<double> getLogAlphaQuantiles(const std::vector<double>& probabilities) const;
    /** Whether every trial is recorded, false by default. */
    bool getRecordTrials() const { return recordTrials; }
    void setRecordTrials(bool record) { recordTrials = record; }
    /** The records so far, oldest first. */
    const std::vector<JumpRecord>& getJumpRecords() const;
    /** The same of annealed jumps; getJumpRecords() has the trials in their middle. */
    const std::vector<AnnealedRecord>& getAnnealedRecords() const;
    /** Both lists. */
    void clearJumpRecords();

protected:
    void initialize(OpenMM::ContextImpl& context) override;
    void cleanup() override;
    void createCheckpoint(std::ostream& stream) const override;
    void loadCheckpoint(std::istream& stream) override;
    void stateChanged(OpenMM::State::DataType changed) override;

private:
    class Jumper;
    void checkTemperature(const Flow& other) const;
    std::shared_ptr<Flow> flow;
    int jumpInterval = 100, trialsPerJump = 1;
    JumpKind jumpKind = JumpKind::Independence;
    double latentStepSize = 0.1;
    AcceptanceTest acceptanceTest = AcceptanceTest::Metropolis;
    ProposalPreparation proposalPreparation = ProposalPreparation::WhenNeeded;
    std::uint64_t jumpSeed = 0;
    bool recordTrials = false, inContext = false;
    std::shared_ptr<const AnnealedProtocol> protocol;
    std::unique_ptr<Jumper> jumper;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWLANGEVININTEGRATOR_H_*/
