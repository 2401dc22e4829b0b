#ifndef OPENMMFLOW_SAMPLERS_ANNEALEDPATH_H_
#define OPENMMFLOW_SAMPLERS_ANNEALEDPATH_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include "openmmflow/flows/Flow.h"

namespace OpenMMFlow {

/** Walkers on a path, at one lambda. Dimension 0 of all tensors is the walker; they are replaced, never modified. */
struct PathState {
    /** [batch, size] */
    at::Tensor x;
    /** log pi_lambda(x), not normalised, float64 [batch]; -inf where it is not finite or x is not. */
    at::Tensor logDensity;
    /** Its gradient, [batch, size]; 0 in rows whose logDensity is -inf; undefined unless asked for. */
    at::Tensor gradient;
    /** Momenta of the kernels that keep them, N(0, I), [batch, size]; undefined before the first move. */
    at::Tensor momentum;
    /** What the path keeps so that another lambda at the same x costs nothing; energies first, then gradients. */
    std::vector<at::Tensor> kept;
    double lambda = 0;
};

/** Where accepted the proposed walkers, elsewhere the current ones. What one of them lacks is left out. @param accepted
 * bool [batch] */
OPENMMFLOW_EXPORT PathState choose(const at::Tensor& accepted, const PathState& proposed, const PathState& current);
/** Some of the walkers, in the order of rows. @param rows  int64 [any number] */
OPENMMFLOW_EXPORT PathState selectRows(const PathState& state, const at::Tensor& rows);

/** A family of unnormalised densities pi_lambda(x), 0 <= lambda <= 1: the stages of annealing. */
class OPENMMFLOW_EXPORT AnnealedPath {
public:
    virtual ~AnnealedPath() = default;
    /** Columns of x. */
    [[nodiscard]] virtual int getSize() const = 0;
    /** pi_lambda at x. Makes no autograd graph. @param x  [batch, size]  @param lambda  in [0, 1] */
    [[nodiscard]] PathState evaluate(const at::Tensor& x, double lambda, Gradient gradient = Gradient::Omit);
    /**
     * The same walkers at another lambda. Free where the path has kept enough, otherwise one evaluation of each; also
     * when a gradient is asked for that was not computed before. A gradient that is there stays.
     */
    [[nodiscard]] PathState atLambda(const PathState& state, double lambda, Gradient gradient = Gradient::Omit);
    /** Evaluations of an energy so far, and how many of them came with a gradient. */
    [[nodiscard]] std::int64_t getNumEvaluations() const { return numEvaluations; }
    [[nodiscard]] std::int64_t getNumGradients() const { return numGradients; }

protected:
    /** evaluate(), where numbers need not be finite. Counts its evaluations. */
    virtual PathState compute(const at::Tensor& x, double lambda, Gradient gradient) = 0;
    /** What is kept taken to another lambda, again not necessarily finite; nothing (x undefined) if it can't be. */
    virtual PathState reuse(const PathState& state, double lambda) const = 0;
    void count(std::int64_t evaluations, Gradient gradient);

private:
    std::int64_t numEvaluations = 0, numGradients = 0;
};

/**
 * The geometric path between two densities, pi_0 and pi_1:
 *
 *     log pi_lambda(x) = (1 - lambda) log pi_0(x) + lambda log pi_1(x)
 *
 * Both ends are evaluated together, because they share work, and kept: every lambda at the same x is free.
 */
class OPENMMFLOW_EXPORT GeometricPath : public AnnealedPath {
protected:
    /** log pi_0 and log pi_1, and their gradients where asked for. */
    struct Ends {
        at::Tensor log0, log1, gradient0, gradient1;
    };
    virtual Ends evaluateEnds(const at::Tensor& x, Gradient gradient) = 0;
    PathState compute(const at::Tensor& x, double lambda, Gradient gradient) override;
    PathState reuse(const PathState& state, double lambda) const override;
};

/** From exp(-u_0) to exp(-u_1). */
class OPENMMFLOW_EXPORT PotentialPath : public GeometricPath {
public:
    PotentialPath(std::shared_ptr<ReducedPotential> start, std::shared_ptr<ReducedPotential> end);
    [[nodiscard]] int getSize() const override { return start->getSize(); }

protected:
    Ends evaluateEnds(const at::Tensor& x, Gradient gradient) override;

private:
    std::shared_ptr<ReducedPotential> start, end;
};

/**
 * From a flow's density q to p^alpha q^(1 - alpha), p = exp(-u): the target itself at alpha = 1; at alpha = 2 the
 * density p^2/q, from which the gradient of the alpha = 2 divergence has the least variance (Midgley et al., ICLR
 * 2023). Of the flow's and the potential's evaluations only the latter count.
 */
class OPENMMFLOW_EXPORT FlowPath : public GeometricPath {
public:
    /** @param alpha  > 0 */
    FlowPath(std::shared_ptr<const Flow> flow, std::shared_ptr<ReducedPotential> potential, double alpha = 1.0);
    [[nodiscard]] int getSize() const override { return potential->getSize(); }

protected:
    Ends evaluateEnds(const at::Tensor& x, Gradient gradient) override;

private:
    [[nodiscard]] at::Tensor logEnd(const at::Tensor& logQ, const at::Tensor& u) const;
    std::shared_ptr<const Flow> flow;
    std::shared_ptr<ReducedPotential> potential;
    double alpha;
};

/**
 * From one temperature to another: log pi_lambda = -s u, with s linear in lambda from startScale to endScale.
 *
 * Where u is U/kT at a temperature T, a scale of T/T' is the temperature T'. A constrained ContextPotential's u also
 * holds the mass-metric term of F5, which does not scale with temperature: its ensembles are exact at s = 1 only.
 */
class OPENMMFLOW_EXPORT TemperaturePath : public GeometricPath {
public:
    /** @param startScale  > 0, below 1 for a higher temperature  @param endScale  > 0 */
    TemperaturePath(std::shared_ptr<ReducedPotential> potential, double startScale, double endScale = 1.0);
    [[nodiscard]] int getSize() const override { return potential->getSize(); }

protected:
    Ends evaluateEnds(const at::Tensor& x, Gradient gradient) override;

private:
    std::shared_ptr<ReducedPotential> potential;
    double startScale, endScale;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ANNEALEDPATH_H_*/
