#ifndef OPENMMFLOW_FLOWS_ECKARTCOORDINATES_H_
#define OPENMMFLOW_FLOWS_ECKARTCOORDINATES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/**
 * Cartesian coordinates of n atoms in the frame that superposes them on a reference: what is left of a configuration
 * when rigid motions are removed, for flows of clusters, backbones and other sets without a Z-matrix.
 *
 * With the reference a, centred, and Q an orthonormal basis [3n, 3n - 6] of the displacements that are orthogonal to
 * its translations and rotations (Eckart's conditions),
 *
 *     forward:  y -> x = a + Q y
 *               logDet = ln det G(x) - (1/2) ln det G(a) + (3/2) ln n,   G(x) = sum_i [(a_i . x_i) 1 - x_i a_i^T]
 *     inverse:  x -> y = Q^T (R x - c - a), with centroid c and the rotation R of least squared distance to a
 *
 * logDet is that of (translation, rotation, y) -> x, as in InternalCoordinates, so that densities of both charts
 * compare. The superposition is unique, and the chart one to one, where G(x) is positive definite: y beyond gives
 * logDet = NaN and a row of NaN in forward; inverse gives -inf and a row of 0 where the superposition is not unique.
 * forward() builds x in the reference's frame, place() moves it onto that of another configuration.
 *
 * Sources: Eckart, Phys. Rev. 47, 552 (1935); Kudin and Dymarsky, J. Chem. Phys. 122, 224105 (2005) for superposition
 * and Eckart frame being one; Noe et al., Science 365, eaaw1147 (2019), for whitened Cartesian coordinates, there
 * without the factor G.
 */
class OPENMMFLOW_EXPORT EckartCoordinates : public Transform {
public:
    /**
     * @param reference  [3n] or [n, 3], nm: at least 3 atoms, not on one line
     * The atoms weigh the same in the superposition.
     */
    explicit EckartCoordinates(const at::Tensor& reference);
    /** The chart that getArchitecture() described. */
    static std::shared_ptr<EckartCoordinates> fromArchitecture(const nlohmann::json& architecture);
    [[nodiscard]] int getNumAtoms() const { return static_cast<int>(reference.size(0)); }
    /** The centred reference, float64 [n, 3]. */
    [[nodiscard]] const at::Tensor& getReference() const { return reference; }
    [[nodiscard]] int getInputSize() const override { return 3 * getNumAtoms() - 6; }
    [[nodiscard]] int getOutputSize() const override { return 3 * getNumAtoms(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& y) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "EckartCoordinates"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    /** Q: any orthonormal basis will do, so that the one that was trained with has to be kept. */
    [[nodiscard]] NamedTensors getBuffers() const override { return {{"basis", basis}}; }
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {reference}; }
    [[nodiscard]] at::Tensor place(const at::Tensor& x, const at::Tensor& reference) const override;

private:
    [[nodiscard]] at::Tensor computeLogDet(const at::Tensor& x) const;
    [[nodiscard]] double computeConstant() const;
    at::Tensor reference; // [n, 3]
    at::Tensor basis;     // Q, [3n, 3n - 6]
    double constant;      // of logDet
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_ECKARTCOORDINATES_H_*/
