// SPDX-License-Identifier: MIT
// The chart's maps and their gradients are plain double loops, one row of the batch at a time: at batch 1, inside
// dynamics, they cost microseconds. The tests hold them against the same formulas in tensor operations.

#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using OpenMM::Vec3;
using std::numbers::pi;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

/** Into [-pi, pi). */
double wrap(double torsion) {
    double turned = torsion - 2 * pi * std::round(torsion / (2 * pi));
    return turned >= pi ? turned - 2 * pi : turned;
}

/** Whether a column of xi may have a value. Rounding of a periodic flow may leave it just beyond pi. */
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

/**
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

    double build(const double* xi, double* x) const;
    void buildGradient(const double* xi, const double* x, const double* onX, double onLogDet, double* onXi) const;
    double measure(const double* x, double* xi) const;
    void measureGradient(const double* x, const double* xi, const double* onXi, double onLogDet, double* onX) const;
};

/** xi -> x; returns logDet. */
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

/** x -> xi; returns logDet. */
double InternalCoordinates::Chart::measure(const double* x, double* xi) const {
    double logDet = 0.0;
    bool valid = true;
    auto setBond = [&](int atom, double length) {
        if (bondColumn[atom] >= 0)
            xi[bondColumn[atom]] = length;
        else
            length = constrainedLength[atom];
        valid = valid && length > 0;
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
    if (valid && std::isfinite(logDet) && allFinite(xi, getNumColumns()))
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

namespace {

using Chart = InternalCoordinates::Chart;

/** One of the chart's two directions. */
struct Kernels : torch::CustomClassHolder {
    double (Chart::*value)(const double*, double*) const;
    void (Chart::*gradient)(const double*, const double*, const double*, double, double*) const;
    std::int64_t outputSize;
    std::shared_ptr<const Chart> chart;
    Kernels(decltype(value) value, decltype(gradient) gradient, std::int64_t outputSize,
            std::shared_ptr<const Chart> chart)
        : value(value), gradient(gradient), outputSize(outputSize), chart(std::move(chart)) {}
};

variable_list evaluate(const Kernels& kernels, const at::Tensor& argument) {
    at::Tensor value = at::empty({argument.size(0), kernels.outputSize}, argument.options());
    at::Tensor logDet = at::empty({argument.size(0)}, argument.options());
    const double* from = argument.const_data_ptr<double>();
    double* to = value.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < argument.size(0); i++)
        logDet.mutable_data_ptr<double>()[i] =
            ((*kernels.chart).*kernels.value)(from + i * argument.size(1), to + i * value.size(1));
    return {value, logDet};
}

struct ChartFunction : torch::autograd::Function<ChartFunction> {
    static variable_list forward(AutogradContext* context, const at::Tensor& argument,
                                 const c10::intrusive_ptr<Kernels>& kernels) {
        variable_list result = evaluate(*kernels, argument);
        context->save_for_backward({argument, result[0], result[1]});
        context->saved_data["kernels"] = c10::IValue::make_capsule(kernels);
        return result;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        require(!at::GradMode::is_enabled(), "InternalCoordinates", "create_graph", "true",
                "false: second derivatives are not available");
        auto kernels = c10::static_intrusive_pointer_cast<Kernels>(context->saved_data["kernels"].toCapsule());
        variable_list saved = context->get_saved_variables();
        at::Tensor onValue = gradients[0].contiguous(), onLogDet = gradients[1].contiguous();
        at::Tensor result = at::zeros_like(saved[0]);
        std::int64_t in = saved[0].size(1), out = saved[1].size(1);
        for (std::int64_t i = 0; i < result.size(0); i++)
            if (std::isfinite(saved[2].const_data_ptr<double>()[i]))
                ((*kernels->chart).*kernels->gradient)(
                    saved[0].const_data_ptr<double>() + i * in, saved[1].const_data_ptr<double>() + i * out,
                    onValue.const_data_ptr<double>() + i * out, onLogDet.const_data_ptr<double>()[i],
                    result.mutable_data_ptr<double>() + i * in);
        return {result, at::Tensor()};
    }
};

TransformResult applyKernels(const c10::intrusive_ptr<Kernels>& kernels, const at::Tensor& argument, std::int64_t inputSize,
                      const char* where) {
    require(argument.dim() == 2 && argument.size(1) == inputSize, where, "the argument's shape", argument.sizes(),
            "[batch, " + std::to_string(inputSize) + "]");
    at::Tensor contiguous = argument.to(at::kCPU, at::kDouble).contiguous();
    bool differentiate = at::GradMode::is_enabled() && contiguous.requires_grad();
    variable_list result = differentiate ? ChartFunction::apply(contiguous, kernels) : evaluate(*kernels, contiguous);
    return {result[0].to(argument.device()), result[1].to(argument.device())};
}

/** Axes of the frame's three atoms as the rows of rotations [batch, 3, 3], and the origin [batch, 1, 3]. */
std::pair<at::Tensor, at::Tensor> findFrame(const at::Tensor& atoms, const std::vector<int>& frame) {
    auto unit = [](const at::Tensor& v) { return v / v.norm(2, {-1}, true); };
    at::Tensor origin = atoms.select(1, frame[0]);
    at::Tensor e1 = unit(atoms.select(1, frame[1]) - origin), d2 = atoms.select(1, frame[2]) - origin;
    at::Tensor e2 = unit(d2 - e1 * (d2 * e1).sum(-1, true));
    return {at::stack({e1, e2, at::linalg_cross(e1, e2)}, 1), origin.unsqueeze(1)};
}

void checkRow(const ZMatrixRow& row, std::size_t index, int numAtoms, std::set<int>& placed) {
    const char* where = "InternalCoordinates";
    std::string name = "row " + std::to_string(index);
    require(row.atom >= 0 && row.atom < numAtoms && !placed.contains(row.atom), where, name + "'s atom", row.atom,
            "one of the charted atoms that is not placed yet");
    for (int parent : {row.bond, row.angle, row.torsion})
        require(placed.contains(parent), where, name + "'s reference", parent, "an atom that is placed earlier");
    require(row.bond != row.angle && row.bond != row.torsion && row.angle != row.torsion, where, name + "'s references",
            "the same atom twice", "three different atoms");
    require(std::abs(row.center) <= pi && (row.center == 0 || row.range == TorsionRange::Turn), where,
            name + "'s center", row.center, "within [-pi, pi], and 0 unless the range is a Turn");
    placed.insert(row.atom);
}

} // namespace

InternalCoordinates::InternalCoordinates(std::vector<ZMatrixRow> rows, std::vector<int> frame,
                                         std::vector<double> constrainedLength) {
    const char* where = "InternalCoordinates";
    int numAtoms = static_cast<int>(constrainedLength.size());
    require(numAtoms >= 3, where, "the number of atoms", numAtoms, "at least 3");
    require(frame.size() == 3, where, "the number of frame atoms", frame.size(), "3");
    require(rows.size() + 3 == constrainedLength.size(), where, "the number of rows", rows.size(),
            "the number of atoms - 3");
    std::set<int> placed;
    for (int atom : frame)
        require(atom >= 0 && atom < numAtoms && placed.insert(atom).second, where, "a frame atom", atom,
                "one of the charted atoms, each once");
    for (std::size_t i = 0; i < rows.size(); i++)
        checkRow(rows[i], i, numAtoms, placed);
    for (double length : constrainedLength)
        require(std::isfinite(length) && length >= 0, where, "a constrained length", length, "finite and >= 0");
    require(constrainedLength[frame[0]] == 0, where, "the origin's constrained length", constrainedLength[frame[0]],
            "0: no bond places it");

    Chart made{std::move(rows), std::move(frame), std::move(constrainedLength), std::vector<int>(numAtoms, -1)};
    std::vector<int> placedByBond = {made.frame[1], made.frame[2]};
    for (const ZMatrixRow& row : made.rows)
        placedByBond.push_back(row.atom);
    for (int atom : placedByBond)
        if (made.constrainedLength[atom] == 0)
            made.bondColumn[atom] = made.numBonds++;
    chart = std::make_shared<const Chart>(std::move(made));
}

int InternalCoordinates::getNumAtoms() const {
    return chart->getNumAtoms();
}
const std::vector<ZMatrixRow>& InternalCoordinates::getRows() const {
    return chart->rows;
}
const std::vector<int>& InternalCoordinates::getFrame() const {
    return chart->frame;
}
const std::vector<double>& InternalCoordinates::getConstrainedLength() const {
    return chart->constrainedLength;
}
int InternalCoordinates::getNumBonds() const {
    return chart->numBonds;
}
int InternalCoordinates::getNumAngles() const {
    return chart->getNumAngles();
}
int InternalCoordinates::getInputSize() const {
    return chart->getNumColumns();
}

std::vector<int> InternalCoordinates::getCircularIndices() const {
    std::vector<int> columns;
    for (std::size_t i = 0; i < chart->rows.size(); i++)
        if (chart->rows[i].range == TorsionRange::Circle)
            columns.push_back(chart->getFirstTorsion() + static_cast<int>(i));
    return columns;
}

int InternalCoordinates::findTorsion(int bond, int angle) const {
    for (std::size_t i = 0; i < chart->rows.size(); i++) {
        const ZMatrixRow& row = chart->rows[i];
        bool sameAxis = (row.bond == bond && row.angle == angle) || (row.bond == angle && row.angle == bond);
        if (sameAxis && row.range == TorsionRange::Circle)
            return chart->getFirstTorsion() + static_cast<int>(i);
    }
    return -1;
}

TransformResult InternalCoordinates::forward(const at::Tensor& xi) const {
    auto kernels = c10::make_intrusive<Kernels>(&Chart::build, &Chart::buildGradient, getOutputSize(), chart);
    return applyKernels(kernels, xi, getInputSize(), "InternalCoordinates::forward");
}

TransformResult InternalCoordinates::inverse(const at::Tensor& x) const {
    auto kernels = c10::make_intrusive<Kernels>(&Chart::measure, &Chart::measureGradient, getInputSize(), chart);
    return applyKernels(kernels, x, getOutputSize(), "InternalCoordinates::inverse");
}

at::Tensor InternalCoordinates::place(const at::Tensor& x, const at::Tensor& reference) const {
    const char* where = "InternalCoordinates::place";
    require(x.dim() == 2 && x.size(1) == getOutputSize(), where, "the shape of x", x.sizes(), "[batch, 3 atoms]");
    require(reference.dim() == 2 && reference.size(1) == getOutputSize() &&
                (reference.size(0) == 1 || reference.size(0) == x.size(0)),
            where, "the shape of reference", reference.sizes(), "that of x, or [1, 3 atoms]");
    at::Tensor atoms = x.reshape({-1, getNumAtoms(), 3});
    auto [axes, origin] = findFrame(atoms, chart->frame);
    auto [newAxes, newOrigin] = findFrame(reference.reshape({-1, getNumAtoms(), 3}), chart->frame);
    at::Tensor placed = at::matmul(at::matmul(atoms - origin, axes.transpose(1, 2)), newAxes) + newOrigin;
    return placed.reshape({x.size(0), getOutputSize()});
}

nlohmann::json InternalCoordinates::getArchitecture() const {
    nlohmann::json rows = nlohmann::json::array();
    for (const ZMatrixRow& row : chart->rows)
        rows.push_back({{"atom", row.atom},
                        {"bond", row.bond},
                        {"angle", row.angle},
                        {"torsion", row.torsion},
                        {"range", static_cast<int>(row.range)},
                        {"center", row.center}});
    return {{"type", getTypeName()},
            {"rows", rows},
            {"frame", chart->frame},
            {"constrainedLength", chart->constrainedLength}};
}

std::shared_ptr<InternalCoordinates> InternalCoordinates::fromArchitecture(const nlohmann::json& architecture) {
    std::vector<ZMatrixRow> rows;
    for (const nlohmann::json& row : architecture.at("rows")) {
        int range = row.at("range").get<int>();
        require(range >= 0 && range <= static_cast<int>(TorsionRange::Negative),
                "InternalCoordinates::fromArchitecture", "range", range, "0 to 3");
        rows.push_back({row.at("atom").get<int>(), row.at("bond").get<int>(), row.at("angle").get<int>(),
                        row.at("torsion").get<int>(), static_cast<TorsionRange>(range),
                        row.at("center").get<double>()});
    }
    return std::make_shared<InternalCoordinates>(rows, architecture.at("frame").get<std::vector<int>>(),
                                                 architecture.at("constrainedLength").get<std::vector<double>>());
}
