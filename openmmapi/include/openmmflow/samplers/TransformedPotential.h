#ifndef OPENMMFLOW_SAMPLERS_TRANSFORMEDPOTENTIAL_H_
#define OPENMMFLOW_SAMPLERS_TRANSFORMEDPOTENTIAL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/**
 * A potential as seen from the other side of a transform x = f(z):
 *
 *     u(z) = u_whole(x) - log|det df/dz|,   x = f(z)
 *
 * exp(-u(z)) dz is exp(-u_whole(x)) dx: averages, weights and ln Z are the same. With a chart for f, kernels and maps
 * work in internal coordinates, whose ln Z is that of the atoms less their rigid motions. With the inverse of a map M
 * from state A to state B for f, and A's potential, it is A carried to B: what targeted free energies compare with B.
 *
 * A point outside the domain of f has u = +inf, and counts as one that is not finite.
 */
class OPENMMFLOW_EXPORT TransformedPotential : public ReducedPotential {
public:
    /**
     * @param whole      u_whole(x)
     * @param transform  f, as many columns of output as whole has
     * @param reference  for a chart of atoms among others that stay: x whose frame the atoms are placed on (see
     * Transform::place), [size of whole]; empty where u_whole does not depend on rigid motions
     */
    TransformedPotential(std::shared_ptr<ReducedPotential> whole, std::shared_ptr<Transform> transform,
                         const std::vector<double>& reference = {});
    [[nodiscard]] const std::shared_ptr<ReducedPotential>& getWhole() const { return whole; }
    [[nodiscard]] const std::shared_ptr<Transform>& getTransform() const { return transform; }
    [[nodiscard]] int getSize() const override { return transform->getInputSize(); }
    /** @param z  [batch, input size of the transform] */
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& z, Gradient gradient = Gradient::Omit) override;

private:
    std::shared_ptr<ReducedPotential> whole;
    std::shared_ptr<Transform> transform;
    at::Tensor reference; // [1, size of whole] or undefined
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_TRANSFORMEDPOTENTIAL_H_*/
