#ifndef OPENMMFLOW_FLOWFORCE_H_
#define OPENMMFLOW_FLOWFORCE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <memory>
#include <openmm/Force.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

class Flow;

/**
 * A Force whose energy is the negative log density of a normalizing flow:
 *
 *     E(x) = -scale kT log q(x_S)      (kJ/mol)
 *
 * x_S are the positions (nm) of the flow's atoms, and scale is a Context parameter, 1 by default. With the flow's
 * density as the energy, dynamics samples the flow; mixed with a System's own energy it gives the stages of an annealed
 * path (F7). Runs on every Platform through the host. A configuration outside the flow's domain throws.
 *
 * Rational-quadratic splines have a continuous density whose slope jumps at the knots, so that the energy drifts a
 * little where a trajectory crosses one: use a thermostat.
 */
class OPENMMFLOW_EXPORT FlowForce : public OpenMM::Force {
public:
    /**
     * @param flow         the flow; shared, not copied: it must not change while a Context uses it
     * @param temperature  the T of kT, in K, > 0
     */
    FlowForce(std::shared_ptr<Flow> flow, double temperature);
    ~FlowForce() override;
    /** The flow that was given. */
    std::shared_ptr<Flow> getFlow() const { return flow; }
    /** The T of kT, in K. */
    double getTemperature() const { return temperature; }
    /** The particles that the flow describes. */
    const std::vector<int>& getParticles() const;
    /** The name of the Context parameter that scales the energy, "FlowForceScale" by default. */
    const std::string& getScaleParameter() const { return scaleParameter; }
    /** @param name  not empty; FlowForces with the same name share the parameter */
    void setScaleParameter(const std::string& name);
    /** The value of the scale parameter in a new Context. */
    double getDefaultScale() const { return defaultScale; }
    void setDefaultScale(double scale);
    /** Always false: the flow sees positions as they are, without periodic images. */
    bool usesPeriodicBoundaryConditions() const override { return false; }

protected:
    OpenMM::ForceImpl* createImpl() const override;

private:
    std::shared_ptr<Flow> flow;
    double temperature, defaultScale = 1.0;
    std::string scaleParameter = "FlowForceScale";
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWFORCE_H_*/
