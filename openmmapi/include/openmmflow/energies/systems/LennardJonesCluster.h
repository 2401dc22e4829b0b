#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_LENNARDJONESCLUSTER_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_LENNARDJONESCLUSTER_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/AnalyticSystem.h"

namespace OpenMMFlow {

/**
 * Lennard-Jones particles that a harmonic well keeps together:
 *
 *     U = sum_{i<j} 4 epsilon [(sigma/r_ij)^12 - (sigma/r_ij)^6] + (k/2) sum_i |x_i|^2
 *
 * The well is also (k/2) sum_i |x_i - X|^2 + (k n/2) |X|^2, X the centre: it holds the cluster together, and its
 * centre, independently of the rest, at X ~ N(0, kT/(k n) I). Without a well exp(-U) would have no finite integral.
 */
class OPENMMFLOW_EXPORT LennardJonesCluster : public AnalyticSystem {
public:
    struct Options {
        /** n, at least 2. */
        int numParticles = 13;
        /** kJ/mol, nm, kJ/mol/nm^2; each > 0. */
        double epsilon = 1, sigma = 1, k = 1;
    };
    explicit LennardJonesCluster(const Options& options);
    LennardJonesCluster();
    [[nodiscard]] int getNumParticles() const { return options.numParticles; }
    /** U, kJ/mol. @param positions  nm */
    [[nodiscard]] double energy(const std::vector<OpenMM::Vec3>& positions) const;
    /** ln Z of a pair, by quadrature over its distance. Throws unless there are two particles. */
    [[nodiscard]] double getLogZ() const;
    /** ln Z of the centre alone, (3/2) ln(2 pi / (k n)): exp(-U) is its product with a density of the rest. */
    [[nodiscard]] double getLogZOfCentre() const;
    [[nodiscard]] std::unique_ptr<OpenMM::System> createSystem() const override;
    /** Sites of a face-centred cubic lattice around one of them, neighbours at the distance of lowest energy. */
    [[nodiscard]] std::vector<OpenMM::Vec3> getPositions() const override;
    [[nodiscard]] std::vector<int> getColumns() const override;

private:
    Options options;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_LENNARDJONESCLUSTER_H_*/
