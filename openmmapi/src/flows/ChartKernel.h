#ifndef OPENMMFLOW_FLOWS_CHARTKERNEL_H_
#define OPENMMFLOW_FLOWS_CHARTKERNEL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/InternalCoordinates.h"

namespace OpenMMFlow {

/**
 * What an InternalCoordinates holds, and its maps as plain double loops over the rows of the Z-matrix: at batch 1,
 * inside dynamics, they cost microseconds. The tests hold them against the same formulas in tensor operations.
 *
 * Each kernel treats one row of a batch. The gradient kernels take the gradients of the loss with respect to the two
 * results and return the one with respect to the argument.
 */
struct InternalCoordinates::Chart {
    std::vector<ZMatrixRow> rows;
    std::vector<int> frame;
    std::vector<double> constrainedLength;
    /** [n]: the column of the bond that places each atom, -1 where it is constrained or the atom is the origin. */
    std::vector<int> bondColumn;
    int numBonds = 0;

    int getNumAngles() const { return static_cast<int>(rows.size()) + 1; }
    int getFirstTorsion() const { return numBonds + getNumAngles(); }
    int getNumColumns() const { return getFirstTorsion() + static_cast<int>(rows.size()); }
    int getNumAtoms() const { return static_cast<int>(constrainedLength.size()); }
    /** The length of the bond that places an atom, where the free ones are in xi. */
    double getLength(const double* xi, int atom) const {
        return bondColumn[atom] < 0 ? constrainedLength[atom] : xi[bondColumn[atom]];
    }

    /** xi -> x; returns logDet. */
    double build(const double* xi, double* x) const;
    void buildGradient(const double* xi, const double* x, const double* onX, double onLogDet, double* onXi) const;
    /** x -> xi; returns logDet. */
    double measure(const double* x, double* xi) const;
    void measureGradient(const double* x, const double* xi, const double* onXi, double onLogDet, double* onX) const;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CHARTKERNEL_H_*/
