#ifndef OPENMMFLOW_FLOWS_ZMATRIXROW_H_
#define OPENMMFLOW_FLOWS_ZMATRIXROW_H_
// SPDX-License-Identifier: MIT

namespace OpenMMFlow {

/** Where the torsion of a row of a Z-matrix may lie. */
enum class TorsionRange {
    /** A rotor: the circle. */
    Circle,
    /** One turn about a centre, cut opposite of it: an atom that stays on its side of the axis, as in a planar centre.
     */
    Turn,
    /** (0, pi): a tetrahedral centre of fixed handedness. */
    Positive,
    /** (-pi, 0): the same, of the other hand. */
    Negative
};

/**
 * One row of a Z-matrix: an atom placed by its distance to `bond`, its angle at `bond` towards `angle`, and its torsion
 * about the axis bond-angle, counted from the atom `torsion`. A rotor (Circle) counts from an atom beyond `angle`; all
 * other torsions are offsets from an atom that is itself bonded to `bond`. Numbers are positions in the list of charted
 * atoms.
 */
struct ZMatrixRow {
    int atom, bond, angle, torsion;
    TorsionRange range = TorsionRange::Circle;
    /** Of a Turn: the torsion (rad) at which its coordinate is 0. */
    double center = 0.0;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_ZMATRIXROW_H_*/
