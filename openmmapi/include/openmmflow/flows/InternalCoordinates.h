#ifndef OPENMMFLOW_FLOWS_INTERNALCOORDINATES_H_
#define OPENMMFLOW_FLOWS_INTERNALCOORDINATES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"
#include <openmm/System.h>
#include <openmm/Vec3.h>

namespace OpenMMFlow {

/**
 * One row of a Z-matrix: an atom placed by its distance to `bond`, its angle at `bond` towards `angle`, and its torsion
 * about the axis bond-angle. Where an earlier row already has a torsion about the same axis, `sibling` is that row and the
 * coordinate is the offset from its torsion; otherwise sibling is -1. Numbers are positions in the list of charted atoms.
 */
struct ZMatrixRow {
    int atom, bond, angle, torsion;
    int sibling = -1;
    /** Half ranges: +1 keeps the offset in (0, pi), -1 in (-pi, 0); 0 lets it run over a whole turn about offsetCenter. */
    int handedness = 0;
    double offsetCenter = 0.0;
};

/**
 * Bond-angle-torsion coordinates xi of a connected set of n atoms, as the last transform of a molecular flow.
 *
 *     forward:  xi -> x, logDet = log|det dx/dxi| = 2 ln b_1 + 2 ln b_2 + ln sin a_0 + sum_rows (2 ln b + ln sin a)
 *     inverse:  x -> xi, logDet = the negative
 *
 * The first three atoms are the frame: an origin and two neighbours, at distances b_1, b_2 and angle a_0. Rigid motions
 * are left out: x is [batch, 3n] (x, y, z of each charted atom, nm), xi is [batch, 3n - 6] less one column for each
 * constrained bond. forward() builds x with the origin at 0, the first neighbour on the +x axis and the second in the upper
 * xy half-plane; place() moves it onto the frame of a reference. inverse() takes x in any position and orientation.
 *
 * Order of xi: free bonds (nm), angles (rad), torsions and offsets (rad, [-pi, pi), offsets relative to their centre).
 * Each group is in the order of the frame and then of the rows. A torsion is circular when it is the first about its axis.
 *
 * Chirality, and the order of hydrogens on one carbon, hold by construction: the offsets of atoms about a tetrahedral
 * centre stay in the half range of the reference structure. Outside the domain (b <= 0, a outside (0, pi), an offset outside
 * its half range) forward gives logDet = NaN and inverse gives logDet = -inf.
 *
 * Constrained bonds (F5) are held at their length: they are not coordinates, and keep their constant factor in logDet.
 *
 * Sources: Parsons et al., J. Comput. Chem. 26, 1063 (2005) for the placement; Noe et al., Science 365, eaaw1147 (2019).
 */
class OPENMMFLOW_EXPORT InternalCoordinates : public Transform {
public:
    /**
     * @param rows               the placement of atoms 3, 4, ... after the frame atoms; together they place each atom once
     * @param frame              origin, first and second neighbour: positions in the list of charted atoms
     * @param constrainedLength  [n]: for each charted atom the fixed length (nm) of the bond that places it (for the two
     *                           frame neighbours, their distance to the origin), or 0 where the length is free
     */
    InternalCoordinates(std::vector<ZMatrixRow> rows, std::vector<int> frame, std::vector<double> constrainedLength);
    /**
     * Build the chart of some atoms of a System from its bonds (harmonic and custom bond forces, and constraints).
     *
     * @param system              where bonds and constraints come from
     * @param atoms               the atoms to chart, connected by bonds, at least 4; none massless or a virtual site
     * @param referencePositions  nm, of all particles of the System: settles handedness and centres of offsets
     * @param extraBonds          bonds that no force shows, as particle pairs
     * Throws when the atoms are not connected, or when a constraint can't be held: between a charted and another atom,
     * or not along a bond of the tree (a constrained angle, rigid water), naming the particles and the reason.
     */
    static std::shared_ptr<InternalCoordinates> fromSystem(const OpenMM::System& system, const std::vector<int>& atoms,
                                                           const std::vector<OpenMM::Vec3>& referencePositions,
                                                           const std::vector<std::pair<int, int>>& extraBonds = {});
    [[nodiscard]] int getNumAtoms() const;
    [[nodiscard]] const std::vector<ZMatrixRow>& getRows() const { return rows; }
    [[nodiscard]] const std::vector<int>& getFrame() const { return frame; }
    [[nodiscard]] const std::vector<double>& getConstrainedLength() const { return constrainedLength; }
    /** Columns of xi that are circular. */
    [[nodiscard]] std::vector<int> getCircularIndices() const;
    /** Columns of xi that are bonds, angles, and torsions or offsets. */
    [[nodiscard]] int getNumBonds() const { return numBonds; }
    [[nodiscard]] int getNumAngles() const { return numAngles; }
    /** The column of xi of the torsion about the axis between two charted atoms (either order), or -1. */
    [[nodiscard]] int findTorsion(int bond, int angle) const;

    [[nodiscard]] int getInputSize() const override;
    [[nodiscard]] int getOutputSize() const override { return 3 * getNumAtoms(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& xi) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "InternalCoordinates"; }
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] at::Tensor place(const at::Tensor& x, const at::Tensor& reference) const override;

private:
    std::vector<ZMatrixRow> rows;
    std::vector<int> frame;
    std::vector<double> constrainedLength;
    int numBonds = 0, numAngles = 0;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_INTERNALCOORDINATES_H_*/
