#ifndef OPENMMFLOW_JUMPER_H_
#define OPENMMFLOW_JUMPER_H_
// SPDX-License-Identifier: MIT

#include "AnnealedWalk.h"
#include "MovedAtoms.h"
#include "ProposalQueue.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/internal/MovedAtomsKernel.h"
#include "openmmflow/internal/PlatformKernels.h"
#include "openmmflow/latent/Random.h"
#include <openmm/internal/ContextImpl.h>

namespace OpenMMFlow {

/** The jumps of one Context: everything of FlowLangevinIntegrator that is not Langevin dynamics. */
class FlowLangevinIntegrator::Jumper {
public:
    /** Throws where the flow does not fit the System: see FlowLangevinIntegrator. */
    Jumper(const FlowLangevinIntegrator& owner, OpenMM::ContextImpl& context);
    /** All trials of one jump, or an annealed jump. @return the number accepted */
    int jump();
    /** Take up another flow, after the same checks. */
    void setFlow(const std::shared_ptr<Flow>& flow);
    /** Anneal the jumps, or no longer where it is null. @param late  whether dynamics has begun already */
    void setProtocol(std::shared_ptr<const AnnealedProtocol> protocol, bool late);
    /** Let go of the platform's kernels, as must be done before the Context goes, and of what works beside it. */
    void releaseContext();
    /** Something in the Context was changed from outside. */
    void noteChange(OpenMM::State::DataType changed);
    /** See FlowLangevinIntegrator::getJumpPlatform(). */
    [[nodiscard]] const std::string& getPlatformDescription() const { return moved.description; }
    [[nodiscard]] std::string createCheckpoint() const;
    void loadCheckpoint(const std::string& bytes);

    int stepsSinceJump = 0;
    JumpStatistics statistics;
    std::vector<JumpRecord> records;
    std::vector<AnnealedRecord> annealedRecords;
    std::vector<double> logAlphas; // the latest 10,000, as a ring
    std::size_t nextLogAlpha = 0;

private:
    /** A configuration of the moved atoms, with what its test needs. */
    struct Trial {
        at::Tensor x, z; // [1, size], [1, latent size]; x on the frame of the current state
        double u = 0, logQ = 0, logDet = 0, metric = 0;
        bool failed = false;      // the energy evaluation threw
        double uAhead = INFINITY; // by an energy that was prepared; +inf where there is none
    };
    /** What some trials from a state have come to. */
    struct Outcome {
        int numAccepted = 0;
        at::Tensor x; // of the last accepted
    };

    [[nodiscard]] MovedAtomsKernel& atoms() { return moved.kernel.getAs<MovedAtomsKernel>(); }
    void moveTo(const at::Tensor& x);
    [[nodiscard]] Trial measureCurrent();
    int jumpAtOnce();
    int jumpAnnealed();
    [[nodiscard]] std::optional<double> jumpInTheMiddle();
    [[nodiscard]] Outcome decideTrials(bool inTheMiddle);
    [[nodiscard]] std::vector<Trial> takeProposals(const Trial& current, std::int64_t count);
    [[nodiscard]] Trial proposeFrom(const Trial& current);
    void followTemperature();
    [[nodiscard]] bool rejectAhead(const Trial& current, Trial& trial, double uniform);
    void measureEnergy(Trial& trial);
    bool decide(const Trial& current, const Trial& trial, int number, double uniform, bool inTheMiddle);
    [[nodiscard]] JumpRecord makeRecord(const Trial& current, const Trial& trial, int number) const;
    void noteMiddle(const JumpRecord& record);
    void noteLogAlpha(double logAlpha, bool failed);
    void redrawMoved(std::vector<OpenMM::Vec3>& velocities);
    void moveVelocities(const at::Tensor& x);
    void moveToHalfStep();
    [[nodiscard]] double computeReducedEnergy();
    [[nodiscard]] std::string hashContext(const std::vector<std::string>& parameters) const;

    const FlowLangevinIntegrator& owner;
    OpenMM::ContextImpl& context;
    std::shared_ptr<Flow> trainedFlow, flow; // the owner's, and that at the owner's temperature
    std::shared_ptr<const ConstraintMetric> metric;
    MovedAtoms moved;
    Random random; // uniforms, latent moves and velocities
    AnnealedWalk walk;
    ProposalQueue proposals; // of independence jumps
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_JUMPER_H_*/
