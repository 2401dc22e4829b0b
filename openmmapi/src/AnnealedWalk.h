#ifndef OPENMMFLOW_ANNEALEDWALK_H_
#define OPENMMFLOW_ANNEALEDWALK_H_
// SPDX-License-Identifier: MIT

#include "StagePropagator.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/latent/Random.h"
#include <functional>
#include <map>
#include <optional>

namespace OpenMMFlow {

/** The way through the stages of an AnnealedProtocol and back, in one Context (F7). */
class AnnealedWalk {
public:
    AnnealedWalk(const FlowLangevinIntegrator& owner, OpenMM::ContextImpl& context, Random& random);
    ~AnnealedWalk();
    /** Null where jumps are bare. */
    [[nodiscard]] const std::shared_ptr<const AnnealedProtocol>& getProtocol() const { return protocol; }
    /** Throws if the Context has no such parameters. @param late  whether dynamics has begun already */
    void setProtocol(std::shared_ptr<const AnnealedProtocol> newProtocol, bool late);
    /** Let go of the platform's kernels, as must be done before the Context goes. */
    void releaseKernels() { propagators.clear(); }
    /** Throw unless the Context runs at the values of stage 0. */
    void checkStart() const;
    /**
     * Walk from the present positions with new velocities. Leaves the last positions, the first parameters and an
     * advanced time in the Context; may throw anywhere between.
     *
     * @param middle  what to do at the last stage. It returns the log of what the acceptance of the whole gains, or
     *                nothing, which ends the walk.
     * @param record  gets works, what was accepted on the way, and logAlpha: -inf where the walk has ended early
     * @return whether it came to its end, with finite works and its constraints kept
     */
    bool walk(AnnealedRecord& record, const std::function<std::optional<double>()>& middle);
    /** Set velocities of the temperature, at the time of the positions: Maxwell's, along the constraints. */
    void drawVelocities();

private:
    enum class Half { Out, Back };
    struct HalfWork {
        double protocol = 0, shadow = 0; // kT
        std::vector<double> switches;    // parts of protocol
        std::int64_t steps = 0, accepted = 0;
    };
    void setStage(int stage);
    bool walkHalf(Half half, HalfWork& work);
    [[nodiscard]] bool keepsConstraints() const;
    [[nodiscard]] double measurePotential();

    const FlowLangevinIntegrator& owner;
    OpenMM::ContextImpl& context;
    std::shared_ptr<const AnnealedProtocol> protocol;
    Random& random;
    // Made when first needed and kept: platforms hold on to what a kernel has registered with them.
    std::map<StageDynamics, std::unique_ptr<StagePropagator>> propagators;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ANNEALEDWALK_H_*/
