#ifndef OPENMMFLOW_SAMPLERS_ANNEALEDKERNEL_H_
#define OPENMMFLOW_SAMPLERS_ANNEALEDKERNEL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/AnnealedPath.h"

namespace OpenMMFlow {

/** A move of walkers that leaves a stage of an AnnealedPath invariant. */
class OPENMMFLOW_EXPORT AnnealedKernel {
public:
    virtual ~AnnealedKernel() = default;
    /**
     * Move every walker by a transition that leaves pi_lambda invariant, whatever lambda its state comes with. The
     * state is replaced, never modified in place, and is left at lambda.
     *
     * @param stage  the number of the stage that lambda belongs to, for kernels that treat stages differently
     * @return the accepted part of the moves
     */
    virtual double move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) = 0;
    /** Whether it uses gradients: states that have them spare it an evaluation. */
    [[nodiscard]] virtual Gradient getGradient() const { return Gradient::Omit; }
    /** Whether move() may change the kernel, for later calls: adapt its step sizes. */
    virtual void setAdaptive(bool adaptive) {}
    /** The same for engines, whatever the user has set. */
    virtual void suspendAdaptation(bool suspended) {}
    /** What adaptation has come to, for a checkpoint. */
    [[nodiscard]] virtual NamedTensors getState() const { return {}; }
    /** Throws, and changes nothing, where the state is another kernel's. */
    virtual void setState(const NamedTensors& state);
};

/** Step sizes by stage, which follow the acceptance. */
class OPENMMFLOW_EXPORT StepSizes {
public:
    /**
     * @param owner             the class that messages name
     * @param first             the step size before any adaptation, > 0
     * @param targetAcceptance  in (0, 1), or 0 to keep step sizes
     * @param largest           no step size grows beyond it
     */
    StepSizes(const char* owner, double first, double targetAcceptance, double largest = INFINITY);
    /** That of a stage; where a stage has none yet, that of the last one that has. @param stage  at least 0 */
    [[nodiscard]] double get(int stage) const;
    /** Grow or shrink the step size of a stage by a tenth. */
    void adapt(int stage, double acceptance);
    [[nodiscard]] const std::vector<double>& getAll() const { return values; }
    void setAll(std::vector<double> newValues);
    void setAdaptive(bool newAdaptive) { adaptive = newAdaptive; }
    void suspend(bool newSuspended) { suspended = newSuspended; }

private:
    const char* owner;
    double first, targetAcceptance, largest;
    bool adaptive = true, suspended = false;
    std::vector<double> values; // by stage
};

/**
 * A kernel with a step size for each stage. After each call of move() the step size of its stage grows or shrinks by a
 * tenth towards a target acceptance, for later calls; a stage that has none yet takes over that of the stage before.
 *
 * Results are exact for step sizes that were settled before the run. Adaptation during one makes moves depend on the
 * walkers as a whole, an effect that falls with the inverse of their number: for an exact run, do one to adapt, then
 * setAdaptive(false).
 */
class OPENMMFLOW_EXPORT SteppedKernel : public AnnealedKernel {
public:
    /** The step size that a stage will use. */
    [[nodiscard]] double getStepSize(int stage) const { return steps.get(stage); }
    /** The step sizes of the stages that have been moved so far, as adapted. */
    [[nodiscard]] const std::vector<double>& getStepSizes() const { return steps.getAll(); }
    void setStepSizes(std::vector<double> values) { steps.setAll(std::move(values)); }
    [[nodiscard]] NamedTensors getState() const override;
    void setState(const NamedTensors& state) override;
    void setAdaptive(bool adaptive) override { steps.setAdaptive(adaptive); }
    void suspendAdaptation(bool suspended) override { steps.suspend(suspended); }

protected:
    explicit SteppedKernel(StepSizes steps) : steps(std::move(steps)) {}
    /** The accepted part of a call's proposals, after adaptation to it. */
    double finish(int stage, std::int64_t numAccepted, std::int64_t numProposed);
    StepSizes steps;
};

/** Several kernels, one after the other: jumps of a LatentKernel and then local moves, say. */
class OPENMMFLOW_EXPORT KernelSequence : public AnnealedKernel {
public:
    /** @param kernels  at least one */
    explicit KernelSequence(std::vector<std::shared_ptr<AnnealedKernel>> kernels);
    /** @return the mean of their acceptances */
    double move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) override;
    [[nodiscard]] Gradient getGradient() const override;
    void setAdaptive(bool adaptive) override;
    void suspendAdaptation(bool suspended) override;
    [[nodiscard]] NamedTensors getState() const override;
    void setState(const NamedTensors& state) override;
    /** The acceptance of each kernel in the latest call. */
    [[nodiscard]] const std::vector<double>& getAcceptances() const { return acceptances; }

private:
    std::vector<std::shared_ptr<AnnealedKernel>> kernels;
    std::vector<double> acceptances;
};

/**
 * Random walk Metropolis: x' = x + s e, e ~ N(0, I), accepted with min(1, pi_lambda(x')/pi_lambda(x)). No gradients.
 * The best acceptance is near .44 in one dimension and .23 in many (Roberts, Gelman and Gilks, Ann. Appl. Probab. 7,
 * 110, 1997).
 */
class OPENMMFLOW_EXPORT RandomWalkKernel : public SteppedKernel {
public:
    struct Options {
        /** s, in units of x, > 0. */
        double stepSize = 0.1;
        /** Proposals in each call of move(). */
        int numMoves = 5;
        /** In (0, 1), or 0 to keep the step size. */
        double targetAcceptance = 0.3;
    };
    explicit RandomWalkKernel(const Options& options);
    double move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) override;

private:
    Options options;
};

/**
 * The Metropolis-adjusted Langevin algorithm (Roberts and Tweedie, Bernoulli 2, 341, 1996):
 *
 *     x' = x + (s^2/2) grad log pi(x) + s e,   e ~ N(0, I)
 *     logAlpha = log pi(x') - log pi(x) + log g(x|x') - log g(x'|x)
 *     log g(x'|x) = -|x' - x - (s^2/2) grad log pi(x)|^2 / (2 s^2) + const
 *
 * The best acceptance in many dimensions is near .57.
 */
class OPENMMFLOW_EXPORT LangevinKernel : public SteppedKernel {
public:
    struct Options {
        /** s, in units of x, > 0. */
        double stepSize = 0.1;
        /** Proposals in each call of move(), each one evaluation with gradient. */
        int numMoves = 5;
        /** In (0, 1), or 0 to keep the step size. */
        double targetAcceptance = 0.57;
    };
    explicit LangevinKernel(const Options& options);
    double move(AnnealedPath& path, int stage, double lambda, PathState& state, Random& random) override;
    [[nodiscard]] Gradient getGradient() const override { return Gradient::Compute; }

private:
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ANNEALEDKERNEL_H_*/
