#ifndef OPENMMFLOW_FLOWS_INTERNALCOORDINATES_H_
#define OPENMMFLOW_FLOWS_INTERNALCOORDINATES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Transform.h"
#include "openmmflow/flows/ZMatrixRow.h"
#include <openmm/System.h>
#include <openmm/Vec3.h>

namespace OpenMMFlow {

/**
 * Bond-angle-torsion coordinates xi of a connected set of n atoms, as the last transform of a molecular flow.
 *
 *     forward:  xi -> x, logDet = log|det dx/dxi| = 2 ln b_1 + 2 ln b_2 + ln sin a_0 + sum_rows (2 ln b + ln sin a)
 *     inverse:  x -> xi, logDet = the negative
 *
 * The first three atoms are the frame: an origin and two neighbours, at distances b_1, b_2 and angle a_0. Rigid motions
 * are left out: x is [batch, 3n] (x, y, z of each charted atom, nm), xi is [batch, 3n - 6] less one column for each
 * constrained bond. forward() builds x with the origin at 0, the first neighbour on the +x axis and the second in the
 * upper xy half-plane; place() moves it onto the frame of a reference. inverse() takes x in any position and
 * orientation.
 *
 * Order of xi: free bonds (nm), angles (rad), torsions (rad, in [-pi, pi), those of a Turn less their centre). Each
 * group is in the order of the frame and then of the rows. Only rotors are circular: the first torsion about each axis
 * beyond the frame's origin.
 *
 * Chirality, and the order of hydrogens on one carbon, hold by construction: the offsets of atoms about a tetrahedral
 * centre stay in the half range of the reference structure. Outside the domain (b <= 0, a outside (0, pi), a torsion
 * outside
 * [-pi, pi] or its half range, anything not finite) forward gives logDet = NaN and a row of NaN, inverse gives
 * logDet = -inf and a row of 0; their gradients are 0. Torsions are not wrapped by forward: were they, a flow that is
 * not periodic would reach one x from several xi, and its density would be wrong.
 *
 * Constrained bonds (F5) are held at their length: they are not coordinates, and keep their constant factor in logDet.
 * inverse() does not look at the actual length of such a bond.
 *
 * Gradients are first order: both directions throw when a graph of their backward pass is asked for.
 *
 * Sources: Parsons et al., J. Comput. Chem. 26, 1063 (2005) for the placement; Noe et al., Science 365, eaaw1147
 * (2019).
 */
class OPENMMFLOW_EXPORT InternalCoordinates : public Transform {
public:
    /**
     * @param rows               the placement of atoms 3, 4, ... after the frame atoms; together they place each atom
     * once
     * @param frame              origin, first and second neighbour: positions in the list of charted atoms
     * @param constrainedLength  [n]: for each charted atom the fixed length (nm) of the bond that places it (for the
     * two frame neighbours, their distance to the origin), or 0 where the length is free
     */
    InternalCoordinates(std::vector<ZMatrixRow> rows, std::vector<int> frame, std::vector<double> constrainedLength);
    /**
     * Build the chart of some atoms of a System from its bonds: harmonic bond forces and constraints and, if those do
     * not connect the atoms, custom bond forces. The longest side of a triangle of such bonds (Urey-Bradley) is not
     * one.
     *
     * The frame's origin is the atom nearest the centre of the bond graph that has two heavy neighbours (mass
     * above 4.5, so that repartitioned hydrogens stay light), where there is one. Rows are in breadth-first order.
     *
     * @param system              where bonds and constraints come from
     * @param atoms               the atoms to chart, connected by bonds, at least 3; none massless or a virtual site
     * @param referencePositions  nm, of all particles of the System, molecules whole: settles handedness and centres
     * @param extraBonds          bonds that no force shows, as particle pairs
     * Throws when the atoms are not connected or on one line, or when a constraint can't be held: between a charted and
     * another atom, or in a ring of constraints (a constrained angle, rigid water), naming the particles and the
     * reason.
     */
    static std::shared_ptr<InternalCoordinates> fromSystem(const OpenMM::System& system, const std::vector<int>& atoms,
                                                           const std::vector<OpenMM::Vec3>& referencePositions,
                                                           const std::vector<std::pair<int, int>>& extraBonds = {});
    /** The chart that getArchitecture() described. Throws if the description is not valid. */
    static std::shared_ptr<InternalCoordinates> fromArchitecture(const nlohmann::json& architecture);
    [[nodiscard]] int getNumAtoms() const;
    [[nodiscard]] const std::vector<ZMatrixRow>& getRows() const;
    [[nodiscard]] const std::vector<int>& getFrame() const;
    [[nodiscard]] const std::vector<double>& getConstrainedLength() const;
    /** Columns of xi that are circular. */
    [[nodiscard]] std::vector<int> getCircularIndices() const;
    /** The number of columns of xi that are bonds, and angles; the others are torsions. */
    [[nodiscard]] int getNumBonds() const;
    [[nodiscard]] int getNumAngles() const;
    /** The column of xi of the rotor about the axis between two charted atoms (either order), or -1. */
    [[nodiscard]] int findTorsion(int bond, int angle) const;

    [[nodiscard]] int getInputSize() const override;
    [[nodiscard]] int getOutputSize() const override { return 3 * getNumAtoms(); }
    [[nodiscard]] TransformResult forward(const at::Tensor& xi) const override;
    [[nodiscard]] TransformResult inverse(const at::Tensor& x) const override;
    [[nodiscard]] PulledResult inverseWithPullBack(const at::Tensor& x) const override;
    [[nodiscard]] std::string getTypeName() const override { return "InternalCoordinates"; }
    [[nodiscard]] std::vector<HeldDistance> getHeldDistances() const override;
    [[nodiscard]] nlohmann::json getArchitecture() const override;
    [[nodiscard]] std::vector<at::Tensor> getConstants() const override {
        return {tables.rows, tables.indices, tables.lengths};
    }
    [[nodiscard]] at::Tensor place(const at::Tensor& x, const at::Tensor& reference) const override;

    /** The rows and what the kernels need besides; never changes. Autograd graphs share it: they may outlive the
     * transform. */
    struct Chart;

    /** What kernels need of it, as tensors, which may be on a device. */
    struct ChartTables {
        at::Tensor rows, indices, lengths; // bytes of ZMatrixRow [rows]; the frame, then Chart::bondColumn; [n]
    };

private:
    std::shared_ptr<const Chart> chart;
    ChartTables tables;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_INTERNALCOORDINATES_H_*/
