#ifndef OPENMMFLOW_FLOWS_CHARTMATH_H_
#define OPENMMFLOW_FLOWS_CHARTMATH_H_
// SPDX-License-Identifier: MIT
// The maps of InternalCoordinates, one configuration at a time, in plain double loops over the rows of the Z-matrix: at
// batch 1, inside dynamics, they cost microseconds. One source for processors and GPUs. The tests hold them against the
// same formulas in tensor operations.

#include "../latent/Angle.h"
#include "ChartVectors.h"

namespace OpenMMFlow {

/**
 * A chart's tables, wherever they are, and its two maps with their pull-backs. Each takes one row of a batch: xi, the
 * free bonds, the angles and the torsions, and x, three numbers an atom.
 */
struct ChartView {
    const ZMatrixRow* rows; // [numRows]
    const int* frame;       // [3]
    /** [numAtoms]: the column of the bond that places each atom, -1 where it is constrained or the atom is the origin.
     */
    const int* bondColumn;
    const double* constrainedLength; // [numAtoms]
    int numRows, numBonds, numAtoms;

    OPENMMFLOW_HOST_DEVICE int getFirstTorsion() const { return numBonds + numRows + 1; }
    OPENMMFLOW_HOST_DEVICE int getNumColumns() const { return getFirstTorsion() + numRows; }

    /** xi -> x; returns logDet. */
    OPENMMFLOW_HOST_DEVICE double build(const double* xi, double* x) const;
    /** @param onX  overwritten  @param onXi  filled, both with the gradients of the loss by x, xi and logDet */
    OPENMMFLOW_HOST_DEVICE void buildGradient(const double* xi, const double* x, double* onX, double onLogDet,
                                              double* onXi) const;
    /** x -> xi; returns logDet. */
    OPENMMFLOW_HOST_DEVICE double measure(const double* x, double* xi) const;
    OPENMMFLOW_HOST_DEVICE void measureGradient(const double* x, const double* xi, const double* onXi, double onLogDet,
                                                double* onX) const;

    /** One map or the other: inverse is measure, else build. */
    OPENMMFLOW_HOST_DEVICE double evaluate(bool inverse, const double* argument, double* value) const {
        return inverse ? measure(argument, value) : build(argument, value);
    }
    /** Its pull-back: zero outside of the domain. @param onValue  overwritten  @param onArgument  filled */
    OPENMMFLOW_HOST_DEVICE void pullBack(bool inverse, const double* argument, const double* value, double logDet,
                                         double* onValue, double onLogDet, double* onArgument) const {
        if (!std::isfinite(logDet))
            fill(onArgument, inverse ? 3 * numAtoms : getNumColumns(), 0.0);
        else if (inverse)
            measureGradient(argument, value, onValue, onLogDet, onArgument);
        else
            buildGradient(argument, value, onValue, onLogDet, onArgument);
    }

private:
    static constexpr double pi = std::numbers::pi;
    OPENMMFLOW_HOST_DEVICE static void fill(double* values, int count, double value) {
        for (int i = 0; i < count; i++)
            values[i] = value;
    }
    OPENMMFLOW_HOST_DEVICE static bool allFinite(const double* values, int count) {
        bool finite = true;
        for (int i = 0; i < count; i++)
            finite = finite && std::isfinite(values[i]);
        return finite;
    }
    OPENMMFLOW_HOST_DEVICE static bool isAngle(double angle) { return 0 < angle && angle < pi; }
    /** Whether a torsion may have a value. Rounding of a periodic flow may leave it just beyond pi. */
    OPENMMFLOW_HOST_DEVICE static bool contains(TorsionRange range, double torsion) {
        if (range == TorsionRange::Positive)
            return 0 < torsion && torsion < pi;
        if (range == TorsionRange::Negative)
            return -pi < torsion && torsion < 0;
        return std::abs(torsion) <= pi + 1e-9;
    }
    /** The length of the bond that places an atom, where the free ones are in xi. */
    OPENMMFLOW_HOST_DEVICE double getLength(const double* xi, int atom) const {
        return bondColumn[atom] < 0 ? constrainedLength[atom] : xi[bondColumn[atom]];
    }
    /** The length of the bond that places an atom, noted in xi where it is free. */
    OPENMMFLOW_HOST_DEVICE double setLength(double* xi, int atom, double length) const {
        if (bondColumn[atom] < 0)
            return constrainedLength[atom];
        return xi[bondColumn[atom]] = length;
    }
    OPENMMFLOW_HOST_DEVICE void setBondGradient(double* onXi, const double* xi, int atom, double gradient,
                                                double onLogDet) const {
        if (bondColumn[atom] >= 0)
            onXi[bondColumn[atom]] = gradient + 2 * onLogDet / xi[bondColumn[atom]];
    }
    /** The gradients of the loss by a measured bond and angle, logDet's part included. */
    OPENMMFLOW_HOST_DEVICE double onBond(const double* onXi, const double* xi, int atom, double onLogDet) const {
        const int column = bondColumn[atom];
        return column < 0 ? 0.0 : onXi[column] - 2 * onLogDet / xi[column];
    }
    OPENMMFLOW_HOST_DEVICE double onAngle(const double* onXi, const double* xi, int index, double onLogDet) const {
        return onXi[numBonds + index] - onLogDet / std::tan(xi[numBonds + index]);
    }
};

OPENMMFLOW_HOST_DEVICE inline double ChartView::build(const double* xi, double* x) const {
    const double b1 = getLength(xi, frame[1]), b2 = getLength(xi, frame[2]), a0 = xi[numBonds];
    bool valid = b1 > 0 && b2 > 0 && isAngle(a0);
    ChartVector{0, 0, 0}.store(x, frame[0]);
    ChartVector{b1, 0, 0}.store(x, frame[1]);
    ChartVector{b2 * std::cos(a0), b2 * std::sin(a0), 0}.store(x, frame[2]);
    double logDet = 2 * std::log(b1) + 2 * std::log(b2) + std::log(std::sin(a0));
    for (int i = 0; i < numRows && valid; i++) {
        const ZMatrixRow& row = rows[i];
        const double length = getLength(xi, row.atom), angle = xi[numBonds + 1 + i],
                     torsion = xi[getFirstTorsion() + i];
        valid = length > 0 && isAngle(angle) && contains(row.range, torsion);
        const double sinAngle = std::sin(angle);
        const ChartDirections to(ChartAxes(x, row), sinAngle, std::cos(angle), torsion + row.center);
        (ChartVector::load(x, row.bond) + to.radial * length).store(x, row.atom);
        logDet += 2 * std::log(length) + std::log(sinAngle);
    }
    if (valid && std::isfinite(logDet) && allFinite(x, 3 * numAtoms))
        return logDet;
    fill(x, 3 * numAtoms, NAN);
    return NAN;
}

OPENMMFLOW_HOST_DEVICE inline void ChartView::buildGradient(const double* xi, const double* x, double* onX,
                                                            double onLogDet, double* onXi) const {
    for (int i = numRows - 1; i >= 0; i--) {
        const ZMatrixRow& row = rows[i];
        const double length = getLength(xi, row.atom), angle = xi[numBonds + 1 + i];
        const double sinAngle = std::sin(angle), cosAngle = std::cos(angle);
        const ChartAxes axes(x, row);
        const ChartDirections to(axes, sinAngle, cosAngle, xi[getFirstTorsion() + i] + row.center);
        const ChartVector g = ChartVector::load(onX, row.atom);
        setBondGradient(onXi, xi, row.atom, g.dot(to.radial), onLogDet);
        onXi[numBonds + 1 + i] = length * g.dot(to.polar) + onLogDet * cosAngle / sinAngle;
        onXi[getFirstTorsion() + i] = length * sinAngle * g.dot(to.azimuthal);
        g.addTo(onX, row.bond);
        axes.addGradient(onX, row, to.radial * length, g);
    }
    const double sinAngle = std::sin(xi[numBonds]), cosAngle = std::cos(xi[numBonds]);
    const ChartVector g1 = ChartVector::load(onX, frame[1]), g2 = ChartVector::load(onX, frame[2]);
    setBondGradient(onXi, xi, frame[1], g1.x, onLogDet);
    setBondGradient(onXi, xi, frame[2], g2.x * cosAngle + g2.y * sinAngle, onLogDet);
    onXi[numBonds] = getLength(xi, frame[2]) * (g2.y * cosAngle - g2.x * sinAngle) + onLogDet * cosAngle / sinAngle;
}

OPENMMFLOW_HOST_DEVICE inline double ChartView::measure(const double* x, double* xi) const {
    const ChartVector origin = ChartVector::load(x, frame[0]);
    const ChartVector d1 = ChartVector::load(x, frame[1]) - origin, d2 = ChartVector::load(x, frame[2]) - origin;
    const double a0 = std::atan2(d1.cross(d2).norm(), d1.dot(d2));
    double logDet = -2 * std::log(setLength(xi, frame[1], d1.norm()));
    logDet -= 2 * std::log(setLength(xi, frame[2], d2.norm()));
    logDet -= std::log(std::sin(a0));
    xi[numBonds] = a0;
    bool valid = isAngle(a0);
    for (int i = 0; i < numRows && valid; i++) {
        const ZMatrixRow& row = rows[i];
        const ChartAxes axes(x, row);
        const ChartVector v = ChartVector::load(x, row.atom) - ChartVector::load(x, row.bond);
        const double vm = v.dot(axes.m), vn = v.dot(axes.n);
        const double angle = std::atan2(std::hypot(vm, vn), -v.dot(axes.u));
        const double torsion = wrap(std::atan2(vn, vm) - row.center);
        logDet -= 2 * std::log(setLength(xi, row.atom, v.norm()));
        logDet -= std::log(std::sin(angle));
        xi[numBonds + 1 + i] = angle;
        xi[getFirstTorsion() + i] = torsion;
        valid = isAngle(angle) && contains(row.range, torsion);
    }
    // logDet does not tell of x itself: an infinite one at the end of a constrained bond leaves it finite.
    if (valid && std::isfinite(logDet) && allFinite(x, 3 * numAtoms))
        return logDet;
    fill(xi, getNumColumns(), 0.0);
    return -INFINITY;
}

OPENMMFLOW_HOST_DEVICE inline void ChartView::measureGradient(const double* x, const double* xi, const double* onXi,
                                                              double onLogDet, double* onX) const {
    fill(onX, 3 * numAtoms, 0.0);
    const ChartVector origin = ChartVector::load(x, frame[0]);
    const ChartVector d1 = ChartVector::load(x, frame[1]) - origin, d2 = ChartVector::load(x, frame[2]) - origin;
    const double b1 = d1.norm(), b2 = d2.norm(), sinAngle = std::sin(xi[numBonds]), cosAngle = std::cos(xi[numBonds]);
    const ChartVector e1 = d1 / b1, e2 = d2 / b2;
    const double bend = onAngle(onXi, xi, 0, onLogDet) / sinAngle;
    const ChartVector g1 = e1 * onBond(onXi, xi, frame[1], onLogDet) + (e1 * cosAngle - e2) * (bend / b1);
    const ChartVector g2 = e2 * onBond(onXi, xi, frame[2], onLogDet) + (e2 * cosAngle - e1) * (bend / b2);
    g1.addTo(onX, frame[1]);
    g2.addTo(onX, frame[2]);
    (-g1 - g2).addTo(onX, frame[0]);
    for (int i = 0; i < numRows; i++) {
        const ZMatrixRow& row = rows[i];
        const ChartAxes axes(x, row);
        const ChartVector v = ChartVector::load(x, row.atom) - ChartVector::load(x, row.bond);
        const double length = v.norm(), angle = xi[numBonds + 1 + i], torsion = xi[getFirstTorsion() + i];
        const ChartDirections to(axes, std::sin(angle), std::cos(angle), torsion + row.center);
        const ChartVector g = to.radial * onBond(onXi, xi, row.atom, onLogDet) +
                              to.polar * (onAngle(onXi, xi, i + 1, onLogDet) / length) +
                              to.azimuthal * (onXi[getFirstTorsion() + i] / (length * std::sin(angle)));
        g.addTo(onX, row.atom);
        (-g).addTo(onX, row.bond);
        axes.addGradient(onX, row, v, -g);
    }
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CHARTMATH_H_*/
