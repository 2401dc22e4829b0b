#ifndef OPENMMFLOW_FLOWS_CHART_H_
#define OPENMMFLOW_FLOWS_CHART_H_
// SPDX-License-Identifier: MIT

#include "ChartMath.h"
#include "openmmflow/flows/InternalCoordinates.h"

namespace OpenMMFlow {

/** What an InternalCoordinates holds. */
struct InternalCoordinates::Chart {
    std::vector<ZMatrixRow> rows;
    std::vector<int> frame;
    std::vector<double> constrainedLength;
    /** [n]: the column of the bond that places each atom, -1 where it is constrained or the atom is the origin. */
    std::vector<int> bondColumn;
    int numBonds = 0;

    [[nodiscard]] int getNumAngles() const { return static_cast<int>(rows.size()) + 1; }
    [[nodiscard]] int getFirstTorsion() const { return numBonds + getNumAngles(); }
    [[nodiscard]] int getNumColumns() const { return getFirstTorsion() + static_cast<int>(rows.size()); }
    [[nodiscard]] int getNumAtoms() const { return static_cast<int>(constrainedLength.size()); }
    [[nodiscard]] ChartView view() const {
        return {rows.data(), frame.data(), bondColumn.data(), constrainedLength.data(), static_cast<int>(rows.size()),
                numBonds,    getNumAtoms()};
    }
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CHART_H_*/
