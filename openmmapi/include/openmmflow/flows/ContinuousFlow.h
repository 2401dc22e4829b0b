#ifndef OPENMMFLOW_FLOWS_CONTINUOUSFLOW_H_
#define OPENMMFLOW_FLOWS_CONTINUOUSFLOW_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/NetworkVelocityField.h"

namespace OpenMMFlow {

class Random;

enum class OdeMethod { RungeKutta4, DormandPrince };

/** How a differential equation is integrated over one unit of time. */
struct OdeOptions {
    OdeMethod method = OdeMethod::DormandPrince;
    /** Runge-Kutta: number of equal steps. */
    int steps = 40;
    /**
     * Dormand-Prince: the largest estimated error of a step, in each component s of the state, is
     * absoluteTolerance + relativeTolerance |s|.
     */
    double absoluteTolerance = 1e-8, relativeTolerance = 1e-8;
    /** Dormand-Prince: steps tried, rejected ones included, after which a row has failed. */
    int maxSteps = 1000;
};

/**
 * A continuous normalizing flow (Chen et al., Neural ODEs, NeurIPS 2018; Grathwohl et al., FFJORD, ICLR 2019):
 *
 *     forward:  x = y(1),  dy/dt = v(y, t),  y(0) = z,     logDet =  int_0^1 tr(dv/dy) dt
 *     inverse:  z = y(0),  the same equation from y(1) = x,  logDet = -int_0^1 tr(dv/dy) dt
 *
 * with a VelocityField v, whose divergence is exact. Circular variables are wrapped into [-pi, pi) at the end. Identity
 * at the start. A row that becomes non-finite or takes too many steps has failed: it is outside the domain.
 *
 * Integrators: the classical Runge-Kutta formula of order 4 with fixed steps, and Dormand and Prince's pair 5(4) (J.
 * Comp. Appl. Math. 6, 19, 1980), in which each row of a batch has its own step size.
 *
 * How exact it is. Unlike the other transforms, this one is not exact to rounding: log-det and inverse are those of the
 * equation up to the error of the integrator. Dormand-Prince keeps the estimated error of y and of logDet in each step
 * below tol = absoluteTolerance + relativeTolerance |.|. The estimate is that of the formula of order 4, O(h^5), while
 * the solution goes on with that of order 5, whose errors O(h^6) add up to O(h^5) = O(tol) in all. On the way they grow
 * by e^L at most, where L bounds the growth rate |d(v, div v)/dy|:
 *
 *     |error of x|, |error of logDet| <~ tol e^L,    |inverse(forward(z)) - z| <~ 2 tol e^L
 *
 * (measured in TestContinuousFlow; the estimate is no rigorous bound, and Runge-Kutta has none: halve its steps and
 * compare.) An accept decision made with logDet errors below d samples a density that differs from the target by a
 * factor within e^(+-2 d) or so: 1 +- 1e-7 at the default tolerance and a tame field. Choose the tolerance for that.
 *
 * Gradients of Runge-Kutta's formula are exact, by going back through its steps, whose stages are kept: memory grows
 * with their number. Those of Dormand-Prince are those of the adjoint equation, solved backwards with the same
 * integrator and tolerance, in memory that does not. With a the derivative of a loss by y(t), and b that by logDet, for
 * forward:
 *
 *     da/dt = -a^T dv/dy - b d(tr dv/dy)/dy,    dLoss/dtheta = int_0^1 (a^T dv/dtheta + b d(tr dv/dy)/dtheta) dt
 *
 * Step sizes follow y and a; the integral over time is a quadrature on the same steps, without a part in their control
 * (Kidger, Chen and Lyons, ICML 2021). y is recomputed backwards from its end: where the flow contracts strongly, ask
 * for a smaller tolerance. Second derivatives are refused.
 */
class OPENMMFLOW_EXPORT ContinuousFlow : public Transform {
public:
    struct Options {
        OdeOptions solver;
        NetworkVelocityField::Options field;
    };
    /** With a NetworkVelocityField. @param size  number of variables  @param circular  which live on [-pi, pi) */
    ContinuousFlow(int size, std::vector<int> circular, const Options& options);
    /** With any other field, such as a LatticeVelocityField. */
    explicit ContinuousFlow(std::shared_ptr<VelocityField> field, const OdeOptions& solver = {});
    [[nodiscard]] const VelocityField& getField() const { return *field; }
    [[nodiscard]] const OdeOptions& getSolver() const { return solver; }
    /** Change the integrator or its tolerance: loose for training, tight for sampling. */
    void setSolver(const OdeOptions& options);
    [[nodiscard]] int getInputSize() const override { return field->getSize(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    /**
     * The inverse with Hutchinson's unbiased estimate in place of its log-det, cheaper in many dimensions. Its error is
     * random and large; it is made for the loss of a training and must not enter an accept decision or a weight, which
     * is why forward() and inverse() don't offer it.
     *
     * @param probes  number of random sign vectors for each row, at least 1; they stay the same along the path
     */
    [[nodiscard]] TransformResult estimateInverse(const at::Tensor& x, int probes, Random& random) const;
    [[nodiscard]] std::string getTypeName() const override { return "ContinuousFlow"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    static std::shared_ptr<ContinuousFlow> fromArchitecture(const nlohmann::json& architecture);
    [[nodiscard]] NamedTensors getParameters() const override { return field->getParameters(); }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override;

private:
    [[nodiscard]] TransformResult integrate(const at::Tensor& y, bool backwards, const at::Tensor& probes) const;
    std::shared_ptr<VelocityField> field;
    OdeOptions solver;
    at::Tensor isCircular; // bool [size]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CONTINUOUSFLOW_H_*/
