#ifndef OPENMMFLOW_FLOWS_LATTICEVELOCITYFIELD_H_
#define OPENMMFLOW_FLOWS_LATTICEVELOCITYFIELD_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/VelocityField.h"
#include "openmmflow/latent/Lattice.h"

namespace OpenMMFlow {

/**
 * The velocity of a continuous flow of lattice fields with the lattice's symmetries, one layer of convolution over
 * functions of the field at each site:
 *
 *     v_x(phi, t) = sum_y sum_f K_f(x - y, t) g_f(phi_y),     g_0(phi) = phi,  g_f(phi) = sin(omega_f phi)
 *     K_f(d, t) = sum_k cos(pi k t) w_kf,orbit(d)
 *     div v = sum_f K_f(0, t) sum_x g_f'(phi_x)
 *
 * The kernel reaches over the whole lattice, and is the same number w for all displacements d of an orbit (see
 * Lattice::getOrbits()). Hence v commutes with translations, with the lattice's reflections and exchanges of axes, and
 * with the change of sign of the whole field (Z2), and so does the flow: from a prior with these symmetries, such as
 * independent Gaussians, it makes a density that has them too.
 *
 * The divergence is exact and needs no tangents: it costs as much as the velocity. Convolutions are products in Fourier
 * space, where the kernel is real.
 *
 * The frequencies omega are learned; they start evenly spread up to maxFrequency. The kernel starts at zero: v = 0, the
 * flow is the identity. Beyond |phi| = pi/omega_1 sines tell nothing new; keep omega_1 = maxFrequency/frequencies below
 * that of the largest fields met.
 *
 * Gerdes, de Haan, Rainone, Bondesan and Cheng, SciPost Phys. 15, 238 (2023), equations 13 to 15, with two differences:
 * the cosines of time don't have to end where they began, and w is a plain tensor instead of a product of factors.
 *
 * Can't fit a target that lacks one of the symmetries: a field in a magnetic field, a lattice with boundaries.
 */
class OPENMMFLOW_EXPORT LatticeVelocityField : public VelocityField {
public:
    struct Options {
        /** Number of sines, at least 0. */
        int frequencies = 8;
        /** The largest omega at the start, > 0: in units of 1/field. */
        double maxFrequency = 5.0;
        /** Number of functions of time, at least 1. */
        int timeFunctions = 4;
    };
    /** @param extents  of the lattice, with 1 to 3 dimensions; sites are numbered as in Lattice */
    LatticeVelocityField(std::vector<int> extents, const Options& options);
    [[nodiscard]] int getSize() const override { return lattice.getSize(); }
    [[nodiscard]] const std::vector<int>& getCircular() const override;
    [[nodiscard]] const std::vector<int>& getExtents() const { return lattice.getExtents(); }
    [[nodiscard]] at::Tensor operator()(const at::Tensor& y, const at::Tensor& t) const override;
    /** "kernel", [timeFunctions, 1 + frequencies, orbits], and "frequencies", [frequencies]. */
    [[nodiscard]] NamedTensors getParameters() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override { return {waves, weights}; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    static std::shared_ptr<LatticeVelocityField> fromArchitecture(const nlohmann::json& architecture);
    [[nodiscard]] PullBack pullBack(const at::Tensor& y, const at::Tensor& t, const at::Tensor& probes,
                                    const at::Tensor& onVelocity, const at::Tensor& onDivergence,
                                    Derivatives derivatives) const override;
    [[nodiscard]] std::shared_ptr<VelocityField> withParameters(std::vector<at::Tensor> tensors) const override;
    [[nodiscard]] std::int64_t countIntermediates(std::int64_t probes) const override;

protected:
    /** Probes are not looked at: the exact divergence costs less than an estimate. */
    [[nodiscard]] VelocityResult evaluate(const at::Tensor& y, const at::Tensor& t,
                                          const at::Tensor& probes) const override;

private:
    struct Features; // g_f and the kernel at the rows' times, in Fourier space
    [[nodiscard]] Features makeFeatures(const at::Tensor& y, const at::Tensor& t) const;
    [[nodiscard]] at::Tensor transform(const at::Tensor& fields) const;
    [[nodiscard]] at::Tensor transformBack(const at::Tensor& spectrum) const;
    Lattice lattice;
    Options options;
    at::Tensor kernel, frequencies;
    at::Tensor waves;   // sum of exp(-iqd) over the d of an orbit, real, [orbits, half of the momenta]
    at::Tensor weights; // of these momenta, such that the sum over all is an average, [half of the momenta]
    std::vector<std::int64_t> shape, dimensions;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_LATTICEVELOCITYFIELD_H_*/
