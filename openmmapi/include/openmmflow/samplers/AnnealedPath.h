#ifndef OPENMMFLOW_SAMPLERS_ANNEALEDPATH_H_
#define OPENMMFLOW_SAMPLERS_ANNEALEDPATH_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include "openmmflow/flows/Flow.h"

namespace OpenMMFlow {

/** The two ends of a path at a batch of points. */
struct PathPoint {
    /** log pi_0 and log pi_1, float64 [batch]; not finite where a density is 0 or not defined. */
    at::Tensor log0, log1;
    /** Their gradients, float64 [batch, size]; 0 where they are not finite. */
    at::Tensor gradient0, gradient1;
};

/**
 * The geometric path between two unnormalised densities pi_0 and pi_1,
 *
 *     log pi_beta(x) = (1 - beta) log pi_0(x) + beta log pi_1(x),   0 <= beta <= 1
 *
 * Both ends are evaluated together, because they share work.
 */
class OPENMMFLOW_EXPORT AnnealedPath {
public:
    virtual ~AnnealedPath() = default;
    /** Columns of x. */
    [[nodiscard]] virtual int getSize() const = 0;
    /** Both ends with gradients. Makes no autograd graph. @param x  [batch, size] */
    [[nodiscard]] virtual PathPoint evaluate(const at::Tensor& x) = 0;
    /** Evaluations of an energy so far. */
    [[nodiscard]] std::int64_t getNumEvaluations() const { return numEvaluations; }

protected:
    std::int64_t numEvaluations = 0;
};

/** From exp(-u_0) to exp(-u_1). */
class OPENMMFLOW_EXPORT PotentialPath : public AnnealedPath {
public:
    PotentialPath(std::shared_ptr<ReducedPotential> start, std::shared_ptr<ReducedPotential> end);
    [[nodiscard]] int getSize() const override { return start->getSize(); }
    [[nodiscard]] PathPoint evaluate(const at::Tensor& x) override;

private:
    std::shared_ptr<ReducedPotential> start, end;
};

/**
 * From a flow's density q to p^alpha q^(1 - alpha), p = exp(-u): the target itself at alpha = 1; at alpha = 2 the
 * density p^2/q, from which the gradient of the alpha = 2 divergence has the least variance (Midgley et al., ICLR
 * 2023).
 */
class OPENMMFLOW_EXPORT FlowPath : public AnnealedPath {
public:
    /** @param alpha  > 0 */
    FlowPath(std::shared_ptr<const Flow> flow, std::shared_ptr<ReducedPotential> potential, double alpha = 1.0);
    [[nodiscard]] int getSize() const override { return potential->getSize(); }
    [[nodiscard]] PathPoint evaluate(const at::Tensor& x) override;

private:
    std::shared_ptr<const Flow> flow;
    std::shared_ptr<ReducedPotential> potential;
    double alpha;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_ANNEALEDPATH_H_*/
