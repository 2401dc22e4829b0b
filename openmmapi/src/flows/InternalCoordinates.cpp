// SPDX-License-Identifier: MIT

#include "openmmflow/flows/InternalCoordinates.h"
#include "../latent/TensorTools.h"
#include "Chart.h"
#include "DeviceKernels.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using std::numbers::pi;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using ChartTables = InternalCoordinates::ChartTables;

namespace {

/** One of the chart's two directions. Autograd graphs share it: they may outlive the transform. */
struct Direction : torch::CustomClassHolder {
    bool inverse;
    std::shared_ptr<const InternalCoordinates::Chart> chart;
    ChartTables tables;
    Direction(bool inverse, std::shared_ptr<const InternalCoordinates::Chart> chart, ChartTables tables)
        : inverse(inverse), chart(std::move(chart)), tables(std::move(tables)) {}
    [[nodiscard]] std::int64_t getOutputSize() const {
        return inverse ? chart->getNumColumns() : 3 * chart->getNumAtoms();
    }
    /** The kernels of the device that holds the tables, if an argument is there too; else null. */
    [[nodiscard]] const DeviceKernels* findKernels(const at::Tensor& argument) const {
        return argument.device() == tables.rows.device() ? findDeviceKernels(argument.device().type()) : nullptr;
    }
    [[nodiscard]] ChartView viewTables() const {
        ChartView view = chart->view();
        view.rows = static_cast<const ZMatrixRow*>(tables.rows.const_data_ptr());
        view.frame = tables.indices.const_data_ptr<int>();
        view.bondColumn = view.frame + 3;
        view.constrainedLength = tables.lengths.const_data_ptr<double>();
        return view;
    }
};

variable_list evaluate(const Direction& direction, const at::Tensor& argument) {
    at::Tensor value = at::empty({argument.size(0), direction.getOutputSize()}, argument.options());
    at::Tensor logDet = at::empty({argument.size(0)}, argument.options());
    const double* from = argument.const_data_ptr<double>();
    double *to = value.mutable_data_ptr<double>(), *logDets = logDet.mutable_data_ptr<double>();
    if (const DeviceKernels* kernels = direction.findKernels(argument))
        kernels->evaluateChart(direction.viewTables(), direction.inverse, argument.size(0), from, to, logDets,
                               argument.device().index());
    else
        for (std::int64_t i = 0; i < argument.size(0); i++)
            logDets[i] = direction.chart->view().evaluate(direction.inverse, from + i * argument.size(1),
                                                          to + i * value.size(1));
    return {value, logDet};
}

/** @param result  what evaluate() returned for the argument */
at::Tensor pullBack(const Direction& direction, const at::Tensor& argument, const variable_list& result,
                    const at::Tensor& onValue, const at::Tensor& onLogDet) {
    at::Tensor onArgument = at::empty_like(argument);
    const at::Tensor scratch = onValue.clone(at::MemoryFormat::Contiguous), weight = onLogDet.contiguous();
    const std::int64_t in = argument.size(1), out = result[0].size(1);
    const double *x = argument.const_data_ptr<double>(), *y = result[0].const_data_ptr<double>();
    const double *logDet = result[1].const_data_ptr<double>(), *onLogDets = weight.const_data_ptr<double>();
    double *onY = scratch.mutable_data_ptr<double>(), *onX = onArgument.mutable_data_ptr<double>();
    if (const DeviceKernels* kernels = direction.findKernels(argument))
        kernels->pullBackChart(direction.viewTables(), direction.inverse, argument.size(0), x, y, logDet, onY,
                               onLogDets, onX, argument.device().index());
    else
        for (std::int64_t i = 0; i < argument.size(0); i++)
            direction.chart->view().pullBack(direction.inverse, x + i * in, y + i * out, logDet[i], onY + i * out,
                                             onLogDets[i], onX + i * in);
    return onArgument;
}

struct ChartFunction : torch::autograd::Function<ChartFunction> {
    static variable_list forward(AutogradContext* context, const at::Tensor& argument,
                                 const c10::intrusive_ptr<Direction>& direction) {
        variable_list result = evaluate(*direction, argument);
        context->save_for_backward({argument, result[0], result[1]});
        context->saved_data["direction"] = c10::IValue::make_capsule(direction);
        return result;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        refuseSecondDerivatives("InternalCoordinates");
        auto direction = c10::static_intrusive_pointer_cast<Direction>(context->saved_data["direction"].toCapsule());
        const variable_list saved = context->get_saved_variables();
        return {pullBack(*direction, saved[0], {saved[1], saved[2]}, gradients[0], gradients[1]), at::Tensor()};
    }
};

TransformResult applyKernels(const c10::intrusive_ptr<Direction>& direction, const at::Tensor& argument,
                             std::int64_t inputSize, const char* where) {
    require(argument.dim() == 2 && argument.size(1) == inputSize, where, "the argument's shape", argument.sizes(),
            "[batch, " + std::to_string(inputSize) + "]");
    const at::Device device = direction->findKernels(argument) != nullptr ? argument.device() : at::kCPU;
    at::Tensor contiguous = argument.to(device, at::kDouble).contiguous();
    bool differentiate = at::GradMode::is_enabled() && contiguous.requires_grad();
    variable_list result =
        differentiate ? ChartFunction::apply(contiguous, direction) : evaluate(*direction, contiguous);
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

ChartTables makeTables(const InternalCoordinates::Chart& chart) {
    std::vector<int> indices = chart.frame;
    indices.insert(indices.end(), chart.bondColumn.begin(), chart.bondColumn.end());
    const auto bytes = static_cast<std::int64_t>(chart.rows.size() * sizeof(ZMatrixRow));
    const at::Tensor rows = at::empty({bytes}, at::kByte);
    std::memcpy(rows.mutable_data_ptr(), chart.rows.data(), bytes);
    return {rows, at::tensor(indices, at::kInt), at::tensor(chart.constrainedLength, at::kDouble)};
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
    tables = makeTables(*chart);
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
    return applyKernels(c10::make_intrusive<Direction>(false, chart, tables), xi, getInputSize(),
                        "InternalCoordinates::forward");
}

TransformResult InternalCoordinates::inverse(const at::Tensor& x) const {
    return applyKernels(c10::make_intrusive<Direction>(true, chart, tables), x, getOutputSize(),
                        "InternalCoordinates::inverse");
}

PulledResult InternalCoordinates::inverseWithPullBack(const at::Tensor& x) const {
    auto direction = c10::make_intrusive<Direction>(true, chart, tables);
    if (x.scalar_type() != at::kDouble || (!x.is_cpu() && direction->findKernels(x) == nullptr))
        return Transform::inverseWithPullBack(x);
    const at::NoGradGuard noGrad;
    const TransformResult map = inverse(x.detach());
    return {map, [direction, x = x.detach().contiguous(), map](const at::Tensor& onValue) {
                return pullBack(*direction, x, {map.value, map.logDet}, onValue, at::ones_like(map.logDet));
            }};
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
    const char* where = "InternalCoordinates::fromArchitecture";
    try {
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
    } catch (const nlohmann::json::exception& e) {
        throw OpenMM::OpenMMException(std::string(where) + ": the description is not valid: " + e.what());
    }
}

std::vector<HeldDistance> InternalCoordinates::getHeldDistances() const {
    const std::vector<double>& length = getConstrainedLength();
    const std::vector<int>& frame = getFrame();
    std::vector<HeldDistance> held;
    const auto add = [&](int atom, int partner) {
        if (length[atom] > 0)
            held.push_back({atom, partner, length[atom]});
    };
    add(frame[1], frame[0]);
    add(frame[2], frame[0]);
    for (const ZMatrixRow& row : getRows())
        add(row.atom, row.bond);
    return held;
}
