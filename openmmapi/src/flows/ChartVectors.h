#ifndef OPENMMFLOW_FLOWS_CHARTVECTORS_H_
#define OPENMMFLOW_FLOWS_CHARTVECTORS_H_
// SPDX-License-Identifier: MIT

#include "../latent/HostDevice.h"
#include "openmmflow/flows/ZMatrixRow.h"
#include <cmath>

namespace OpenMMFlow {

/** Three numbers. */
struct ChartVector {
    double x, y, z;
    OPENMMFLOW_HOST_DEVICE double dot(const ChartVector& o) const { return x * o.x + y * o.y + z * o.z; }
    OPENMMFLOW_HOST_DEVICE ChartVector cross(const ChartVector& o) const {
        return {y * o.z - z * o.y, z * o.x - x * o.z, x * o.y - y * o.x};
    }
    OPENMMFLOW_HOST_DEVICE double norm() const { return std::sqrt(dot(*this)); }
    OPENMMFLOW_HOST_DEVICE ChartVector operator+(const ChartVector& o) const { return {x + o.x, y + o.y, z + o.z}; }
    OPENMMFLOW_HOST_DEVICE ChartVector operator-(const ChartVector& o) const { return {x - o.x, y - o.y, z - o.z}; }
    OPENMMFLOW_HOST_DEVICE ChartVector operator-() const { return {-x, -y, -z}; }
    OPENMMFLOW_HOST_DEVICE ChartVector operator*(double s) const { return {x * s, y * s, z * s}; }
    OPENMMFLOW_HOST_DEVICE ChartVector operator/(double s) const { return *this * (1 / s); }

    OPENMMFLOW_HOST_DEVICE static ChartVector load(const double* all, int atom) {
        return {all[3 * atom], all[3 * atom + 1], all[3 * atom + 2]};
    }
    OPENMMFLOW_HOST_DEVICE void store(double* all, int atom) const {
        all[3 * atom] = x;
        all[3 * atom + 1] = y;
        all[3 * atom + 2] = z;
    }
    OPENMMFLOW_HOST_DEVICE void addTo(double* all, int atom) const {
        all[3 * atom] += x;
        all[3 * atom + 1] += y;
        all[3 * atom + 2] += z;
    }
};

/** The axes in which a row places its atom: u points from angle to bond, m to the torsion atom's side, n = u x m. */
struct ChartAxes {
    ChartVector u, m, n;
    /** |bond - angle|, and where the torsion atom lies as seen from the angle atom, along u and m. */
    double length, along, height;
    OPENMMFLOW_HOST_DEVICE ChartAxes(const double* x, const ZMatrixRow& row) {
        const ChartVector angle = ChartVector::load(x, row.angle), axis = ChartVector::load(x, row.bond) - angle;
        const ChartVector toTorsion = ChartVector::load(x, row.torsion) - angle;
        length = axis.norm();
        u = axis / length;
        along = toTorsion.dot(u);
        const ChartVector across = toTorsion - u * along;
        height = across.norm();
        m = across / height;
        n = u.cross(m);
    }
    /**
     * An atom at bond + v that follows the rotation of these axes and feels a gradient g turns them with the torque v x
     * g. Add what that makes on the three atoms that span the axes.
     */
    OPENMMFLOW_HOST_DEVICE void addGradient(double* gradient, const ZMatrixRow& row, const ChartVector& v,
                                            const ChartVector& g) const {
        const ChartVector torque = v.cross(g);
        const double twist = torque.dot(u) / height;
        const ChartVector onTorsion = n * twist;
        const ChartVector onBond = (m * torque.dot(n) - n * (torque.dot(m) + twist * along)) / length;
        onTorsion.addTo(gradient, row.torsion);
        onBond.addTo(gradient, row.bond);
        (-onTorsion - onBond).addTo(gradient, row.angle);
    }
};

/** The unit vectors of spherical coordinates: where the atom lies, and where it goes as its angle, its torsion grows.
 */
struct ChartDirections {
    ChartVector radial, polar, azimuthal;
    OPENMMFLOW_HOST_DEVICE ChartDirections(const ChartAxes& axes, double sinAngle, double cosAngle, double torsion) {
        const double c = std::cos(torsion), s = std::sin(torsion);
        const ChartVector across = axes.m * c + axes.n * s;
        radial = across * sinAngle - axes.u * cosAngle;
        polar = across * cosAngle + axes.u * sinAngle;
        azimuthal = axes.n * c - axes.m * s;
    }
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_CHARTVECTORS_H_*/
