#ifndef OPENMMFLOW_FLOWS_RIGIDBODIES_H_
#define OPENMMFLOW_FLOWS_RIGIDBODIES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/**
 * Positions and orientations of rigid bodies, such as rigid water, beside atoms that are free: the last transform of a
 * flow of molecules that move as a whole. z = 0 is the reference configuration a. For an atom i of body b, whose
 * centroid in the reference is c_b,
 *
 *     forward:  x_i = c_b + t_b + R_b (a_i - c_b),   R = Rz(alpha) Ry(beta) Rz(gamma) Ry(-pi/2),
 *               sin^2(beta/2) = Phi(s), the normal distribution function;   of a free atom  x_i = a_i + t_i
 *               logDet = sum_b ln 2 phi(s_b),   phi the normal density: ln|d(cos beta)/ds|
 *     inverse:  x -> z, logDet = the negative
 *
 * z is [batch, 6 bodies + 3 free atoms], in this order: t of the bodies (nm), t of the free atoms (nm), s of the bodies
 * (open, no unit), alpha and gamma of each body (circular, rad, in [-pi, pi)). x is [batch, 3 atoms], nm.
 *
 * logDet is that of z -> (positions, rotations), in the product of Lebesgue's measure of positions and Haar's measure
 * of rotations, dalpha d(cos beta) dgamma, whose total is 8 pi^2. That measure does not depend on which point of a body
 * is its position. A body with all distances constrained has a constant mass metric, so that constrained dynamics
 * samples exp(-u) in just this measure (F5 of THEORY.md), and weights are exp(-u)/q. With s ~ N(0, 1) and uniform
 * angles, p = GaussianPrior(bodies) x UniformTorusPrior(2 bodies), rotations are uniform; the reference, beta = pi/2,
 * is where the three angles are turns about three orthogonal axes. There is no double cover, as no quaternion is. Only
 * body turns with beta = 0 or pi, a set of codimension 2, are not reached.
 *
 * Outside the domain (alpha or gamma outside [-pi, pi), |s| > 30, anything not finite) forward gives logDet = NaN and a
 * row of NaN; inverse gives -inf and a row of 0 where an atom of a body is not where the body has it, by more than a
 * tolerance, and at those turns.
 *
 * FlowLangevinIntegrator takes bodies of which the System constrains all distances: three or four atoms.
 *
 * Positions are as they come, not wrapped into a periodic box: bodies that diffuse out of the box leave the flow.
 *
 * Source: Koehler, Invernizzi, de Haan and Noe, "Rigid Body Flows for Sampling Molecular Crystal Structures", ICML
 * 2023, for flows of positions and orientations, there by unit quaternions.
 */
class OPENMMFLOW_EXPORT RigidBodies : public Transform {
public:
    /**
     * @param reference  [3n] or [n, 3], nm
     * @param bodies     the atoms of each body: at least 3, not on one line; no atom in two of them
     * @param tolerance  nm, > 0: how far inverse() lets an atom be from where its body has it
     */
    RigidBodies(const at::Tensor& reference, std::vector<std::vector<int>> bodies, double tolerance = 1e-4);
    /** The transform that getArchitecture() described. */
    static std::shared_ptr<RigidBodies> fromArchitecture(const nlohmann::json& architecture);
    /** float64 [n, 3] */
    [[nodiscard]] const at::Tensor& getReference() const { return reference; }
    [[nodiscard]] const std::vector<std::vector<int>>& getBodies() const { return bodies; }
    /** Columns of z that are circular: the last ones. */
    [[nodiscard]] std::vector<int> getCircularIndices() const;
    [[nodiscard]] int getInputSize() const override;
    [[nodiscard]] int getOutputSize() const override { return static_cast<int>(reference.numel()); }
    [[nodiscard]] TransformResult forward(const at::Tensor& z) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "RigidBodies"; }
    [[nodiscard]] std::vector<HeldDistance> getHeldDistances() const override;
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override {
        return {reference, bound, bodyOf, free, local, centers, triples, frames};
    }

private:
    /** Where bodies are: t [batch, bodies, 3], R [batch, bodies, 3, 3]. */
    struct Pose {
        at::Tensor shift, rotation;
    };
    [[nodiscard]] int getNumBodies() const { return static_cast<int>(bodies.size()); }
    [[nodiscard]] at::Tensor build(const Pose& pose) const;
    [[nodiscard]] Pose measure(const at::Tensor& atoms) const;
    [[nodiscard]] at::Tensor findValid(const at::Tensor& atoms) const;

    at::Tensor reference; // [n, 3]
    std::vector<std::vector<int>> bodies;
    double tolerance;
    at::Tensor bound, bodyOf;  // int64: the atoms of all bodies, one after the other, and the body of each
    at::Tensor free;           // int64: the others
    at::Tensor local, centers; // a_i - c_b of the bound atoms [bound, 3], and c_b [bodies, 3]
    at::Tensor triples;        // int64 [3, bodies]: places in `bound` of three atoms that show how a body is turned
    at::Tensor frames;         // of those atoms in the reference, [1, bodies, 3, 3]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_RIGIDBODIES_H_*/
