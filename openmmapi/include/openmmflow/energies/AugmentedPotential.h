#ifndef OPENMMFLOW_ENERGIES_AUGMENTEDPOTENTIAL_H_
#define OPENMMFLOW_ENERGIES_AUGMENTEDPOTENTIAL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include "openmmflow/latent/Random.h"
#include <memory>

namespace OpenMMFlow {

/**
 * A potential with augmented variables: standard normal ones beside x that give a flow room to move,
 *
 *     u(x, a) = u(x) + |a|^2/2 + (m/2) ln 2 pi,   a of m columns, behind those of x.
 *
 * The marginal of exp(-u(x, a)) in x is exp(-u(x)), with the same ln Z: averages, weights and free energies of a flow
 * of (x, a) against this potential are those of x. Couplings may then split x against a, so that all of x, even a
 * single variable, is changed at once. The price is that weights vary with a too. Frames to train on are augment()ed.
 *
 * Jumps (LatentJump) draw a anew from its conditional density N(0, I), which does not depend on x, before each
 * proposal: a Gibbs step, exact by itself.
 *
 * Sources: Huang, Dinh and Courville, "Augmented Normalizing Flows" (2020); Chen, Lu, Chenli, Zhu and Tian, "VFlow",
 * ICML 2020.
 */
class OPENMMFLOW_EXPORT AugmentedPotential : public ReducedPotential {
public:
    /** @param physical  u(x)  @param numAugmented  m, at least 1 */
    AugmentedPotential(std::shared_ptr<ReducedPotential> physical, int numAugmented);
    [[nodiscard]] const std::shared_ptr<ReducedPotential>& getPhysical() const { return physical; }
    [[nodiscard]] int getNumAugmented() const { return numAugmented; }
    [[nodiscard]] int getSize() const override { return physical->getSize() + numAugmented; }
    /** @param y  (x, a), [batch, size] */
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& y, Gradient gradient = Gradient::Omit) override;
    /** (x, a) with a ~ N(0, I). @param x  [batch, size of the physical potential] */
    [[nodiscard]] at::Tensor augment(const at::Tensor& x, Random& random) const;
    /** x of (x, a). @param y  [batch, size] */
    [[nodiscard]] at::Tensor takePhysical(const at::Tensor& y) const;
    /** |a|^2/2 + (m/2) ln 2 pi of (x, a), float64 [batch]. @param y  [batch, size] */
    [[nodiscard]] at::Tensor augmentedPart(const at::Tensor& y) const;

private:
    std::shared_ptr<ReducedPotential> physical;
    int numAugmented;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_AUGMENTEDPOTENTIAL_H_*/
