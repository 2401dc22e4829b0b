#ifndef OPENMMFLOW_SAMPLERS_PARAMETERPATH_H_
#define OPENMMFLOW_SAMPLERS_PARAMETERPATH_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ContextPotential.h"
#include "openmmflow/samplers/AnnealedPath.h"

namespace OpenMMFlow {

/**
 * Stages of a System that differ in context parameters, and in temperature too if wanted:
 *
 *     log pi_lambda(x) = -s(lambda) u(x; parameters(lambda))
 *
 * Parameters and the scale s are tables of one value per node, piecewise linear in lambda between nodes: soft-core and
 * charge parameters one after the other, restraints that are released, solute tempering. s = 1 unless set; T/T' is the
 * temperature T', with what TemperaturePath says of constraints.
 *
 * Each evaluation sets the parameters of the potential's Contexts and restores those of before, also when something
 * throws. Another lambda costs an evaluation, unless it has the same parameters and differs in s alone.
 */
class OPENMMFLOW_EXPORT ParameterPath : public AnnealedPath {
public:
    /** @param nodes  0 = first < ... < last = 1 */
    explicit ParameterPath(std::shared_ptr<ContextPotential> potential, std::vector<double> nodes = {0.0, 1.0});
    /** @param name  a parameter of the System  @param values  one for each node, in the parameter's units */
    void addParameter(const std::string& name, std::vector<double> values);
    /** @param values  s at each node, > 0 */
    void setScale(std::vector<double> values);
    /** Parameters at lambda. */
    [[nodiscard]] std::map<std::string, double> getParameters(double lambda) const;
    /** s at lambda. */
    [[nodiscard]] double getScale(double lambda) const;
    [[nodiscard]] int getSize() const override { return potential->getSize(); }

protected:
    PathState compute(const at::Tensor& x, double lambda, Gradient gradient) override;
    PathState reuse(const PathState& state, double lambda) const override;

private:
    [[nodiscard]] double interpolate(const std::vector<double>& values, double lambda) const;
    std::shared_ptr<ContextPotential> potential;
    std::vector<double> nodes, scale;
    std::map<std::string, std::vector<double>> table;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_PARAMETERPATH_H_*/
