// SPDX-License-Identifier: MIT

#include "ChartKernel.h"
#include "../latent/Angle.h"
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

using namespace OpenMMFlow;
using OpenMM::Vec3;
using std::numbers::pi;

namespace {

constexpr double notANumber = std::numeric_limits<double>::quiet_NaN();

Vec3 load(const double* x, int atom) {
    return {x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]};
}

void add(double* x, int atom, const Vec3& value) {
    for (int i = 0; i < 3; i++)
        x[3 * atom + i] += value[i];
}

void store(double* x, int atom, const Vec3& value) {
    for (int i = 0; i < 3; i++)
        x[3 * atom + i] = value[i];
}

double norm(const Vec3& v) {
    return std::sqrt(v.dot(v));
}

bool allFinite(const double* values, std::size_t count) {
    return std::all_of(values, values + count, [](double v) { return std::isfinite(v); });
}

/** Whether a torsion may have a value. Rounding of a periodic flow may leave it just beyond pi. */
bool contains(TorsionRange range, double torsion) {
    if (range == TorsionRange::Positive)
        return 0 < torsion && torsion < pi;
    if (range == TorsionRange::Negative)
        return -pi < torsion && torsion < 0;
    return std::abs(torsion) <= pi + 1e-9;
}

bool isAngle(double angle) {
    return 0 < angle && angle < pi;
}

/** The axes in which a row places its atom: u points from angle to bond, m to the torsion atom's side, n = u x m. */
struct Axes {
    Vec3 u, m, n;
    /** |bond - angle|, and where the torsion atom lies as seen from the angle atom, along u and m. */
    double length, along, height;
    Axes(const double* x, const ZMatrixRow& row) {
        Vec3 axis = load(x, row.bond) - load(x, row.angle), toTorsion = load(x, row.torsion) - load(x, row.angle);
        length = norm(axis);
        u = axis / length;
        along = toTorsion.dot(u);
        Vec3 across = toTorsion - u * along;
        height = norm(across);
        m = across / height;
        n = u.cross(m);
    }
    /**
     * An atom at bond + v that follows the rotation of these axes and feels a gradient g turns them with the torque v x
     * g. Add what that makes on the three atoms that span the axes.
     */
    void addGradient(double* gradient, const ZMatrixRow& row, const Vec3& v, const Vec3& g) const {
        Vec3 torque = v.cross(g);
        double twist = torque.dot(u) / height;
        Vec3 onTorsion = n * twist;
        Vec3 onBond = (m * torque.dot(n) - n * (torque.dot(m) + twist * along)) / length;
        add(gradient, row.torsion, onTorsion);
        add(gradient, row.bond, onBond);
        add(gradient, row.angle, -onTorsion - onBond);
    }
};

/** The unit vectors of spherical coordinates: where the atom lies, and where it goes as its angle, its torsion grows.
 */
struct Directions {
    Vec3 radial, polar, azimuthal;
    Directions(const Axes& axes, double sinAngle, double cosAngle, double torsion) {
        double c = std::cos(torsion), s = std::sin(torsion);
        Vec3 across = axes.m * c + axes.n * s;
        radial = across * sinAngle - axes.u * cosAngle;
        polar = across * cosAngle + axes.u * sinAngle;
        azimuthal = axes.n * c - axes.m * s;
    }
};

} // namespace

double InternalCoordinates::Chart::build(const double* xi, double* x) const {
    double b1 = getLength(xi, frame[1]), b2 = getLength(xi, frame[2]), a0 = xi[numBonds];
    bool valid = b1 > 0 && b2 > 0 && isAngle(a0);
    store(x, frame[0], Vec3());
    store(x, frame[1], Vec3(b1, 0, 0));
    store(x, frame[2], Vec3(b2 * std::cos(a0), b2 * std::sin(a0), 0));
    double logDet = 2 * std::log(b1) + 2 * std::log(b2) + std::log(std::sin(a0));
    for (std::size_t i = 0; i < rows.size() && valid; i++) {
        const ZMatrixRow& row = rows[i];
        double length = getLength(xi, row.atom), angle = xi[numBonds + 1 + i], torsion = xi[getFirstTorsion() + i];
        valid = length > 0 && isAngle(angle) && contains(row.range, torsion);
        double sinAngle = std::sin(angle);
        Directions to(Axes(x, row), sinAngle, std::cos(angle), torsion + row.center);
        store(x, row.atom, load(x, row.bond) + to.radial * length);
        logDet += 2 * std::log(length) + std::log(sinAngle);
    }
    if (valid && std::isfinite(logDet) && allFinite(x, 3 * constrainedLength.size()))
        return logDet;
    std::fill_n(x, 3 * constrainedLength.size(), notANumber);
    return notANumber;
}

void InternalCoordinates::Chart::buildGradient(const double* xi, const double* x, const double* onX, double onLogDet,
                                               double* onXi) const {
    std::vector<double> onAtoms(onX, onX + 3 * constrainedLength.size());
    auto setBond = [&](int atom, double gradient) {
        if (bondColumn[atom] >= 0)
            onXi[bondColumn[atom]] = gradient + 2 * onLogDet / xi[bondColumn[atom]];
    };
    for (int i = static_cast<int>(rows.size()) - 1; i >= 0; i--) {
        const ZMatrixRow& row = rows[i];
        double length = getLength(xi, row.atom), angle = xi[numBonds + 1 + i];
        double sinAngle = std::sin(angle), cosAngle = std::cos(angle);
        Axes axes(x, row);
        Directions to(axes, sinAngle, cosAngle, xi[getFirstTorsion() + i] + row.center);
        Vec3 g = load(onAtoms.data(), row.atom);
        setBond(row.atom, g.dot(to.radial));
        onXi[numBonds + 1 + i] = length * g.dot(to.polar) + onLogDet * cosAngle / sinAngle;
        onXi[getFirstTorsion() + i] = length * sinAngle * g.dot(to.azimuthal);
        add(onAtoms.data(), row.bond, g);
        axes.addGradient(onAtoms.data(), row, to.radial * length, g);
    }
    double sinAngle = std::sin(xi[numBonds]), cosAngle = std::cos(xi[numBonds]);
    Vec3 g1 = load(onAtoms.data(), frame[1]), g2 = load(onAtoms.data(), frame[2]);
    setBond(frame[1], g1[0]);
    setBond(frame[2], g2[0] * cosAngle + g2[1] * sinAngle);
    onXi[numBonds] = getLength(xi, frame[2]) * (g2[1] * cosAngle - g2[0] * sinAngle) + onLogDet * cosAngle / sinAngle;
}

double InternalCoordinates::Chart::measure(const double* x, double* xi) const {
    double logDet = 0.0;
    bool valid = true;
    auto setBond = [&](int atom, double length) {
        if (bondColumn[atom] >= 0)
            xi[bondColumn[atom]] = length;
        else
            length = constrainedLength[atom];
        logDet -= 2 * std::log(length);
    };
    auto setAngle = [&](std::size_t index, double sine, double cosine) {
        double angle = std::atan2(sine, cosine);
        xi[numBonds + index] = angle;
        valid = valid && isAngle(angle);
        logDet -= std::log(std::sin(angle));
    };
    Vec3 d1 = load(x, frame[1]) - load(x, frame[0]), d2 = load(x, frame[2]) - load(x, frame[0]);
    setBond(frame[1], norm(d1));
    setBond(frame[2], norm(d2));
    setAngle(0, norm(d1.cross(d2)), d1.dot(d2));
    for (std::size_t i = 0; i < rows.size() && valid; i++) {
        const ZMatrixRow& row = rows[i];
        Axes axes(x, row);
        Vec3 v = load(x, row.atom) - load(x, row.bond);
        double vm = v.dot(axes.m), vn = v.dot(axes.n);
        setBond(row.atom, norm(v));
        setAngle(i + 1, std::hypot(vm, vn), -v.dot(axes.u));
        double torsion = wrap(std::atan2(vn, vm) - row.center);
        xi[getFirstTorsion() + i] = torsion;
        valid = valid && contains(row.range, torsion);
    }
    // logDet does not tell of x itself: an infinite one at the end of a constrained bond leaves it finite.
    if (valid && std::isfinite(logDet) && allFinite(x, 3 * constrainedLength.size()))
        return logDet;
    std::fill_n(xi, getNumColumns(), 0.0);
    return -std::numeric_limits<double>::infinity();
}

void InternalCoordinates::Chart::measureGradient(const double* x, const double* xi, const double* onXi, double onLogDet,
                                                 double* onX) const {
    std::fill_n(onX, 3 * constrainedLength.size(), 0.0);
    auto getBond = [&](int atom) {
        int column = bondColumn[atom];
        return column < 0 ? 0.0 : onXi[column] - 2 * onLogDet / xi[column];
    };
    auto getAngle = [&](std::size_t index) {
        return onXi[numBonds + index] - onLogDet / std::tan(xi[numBonds + index]);
    };
    Vec3 d1 = load(x, frame[1]) - load(x, frame[0]), d2 = load(x, frame[2]) - load(x, frame[0]);
    double b1 = norm(d1), b2 = norm(d2), sinAngle = std::sin(xi[numBonds]), cosAngle = std::cos(xi[numBonds]);
    Vec3 e1 = d1 / b1, e2 = d2 / b2;
    Vec3 g1 = e1 * getBond(frame[1]) + (e1 * cosAngle - e2) * (getAngle(0) / (b1 * sinAngle));
    Vec3 g2 = e2 * getBond(frame[2]) + (e2 * cosAngle - e1) * (getAngle(0) / (b2 * sinAngle));
    add(onX, frame[1], g1);
    add(onX, frame[2], g2);
    add(onX, frame[0], -g1 - g2);
    for (std::size_t i = 0; i < rows.size(); i++) {
        const ZMatrixRow& row = rows[i];
        Axes axes(x, row);
        Vec3 v = load(x, row.atom) - load(x, row.bond);
        double length = norm(v), angle = xi[numBonds + 1 + i];
        Directions to(axes, std::sin(angle), std::cos(angle), xi[getFirstTorsion() + i] + row.center);
        Vec3 g = to.radial * getBond(row.atom) + to.polar * (getAngle(i + 1) / length) +
                 to.azimuthal * (onXi[getFirstTorsion() + i] / (length * std::sin(angle)));
        add(onX, row.atom, g);
        add(onX, row.bond, -g);
        axes.addGradient(onX, row, v, -g);
    }
}
