// SPDX-License-Identifier: MIT

#include "openmmflow/flows/MixedCoordinates.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <limits>
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

const char* const where = "MixedCoordinates::MixedCoordinates";

/** The columns of xi that place some atoms, in the order that a chart of those atoms alone has. */
std::vector<int> findColumns(const InternalCoordinates& chart, const std::vector<int>& numberOf) {
    const auto& rows = chart.getRows();
    const auto& frame = chart.getFrame();
    std::vector<int> columns;
    int bond = 0;
    const auto addBond = [&](int atom) {
        if (chart.getConstrainedLength()[atom] > 0)
            return;
        if (numberOf[atom] >= 0)
            columns.push_back(bond);
        bond++;
    };
    addBond(frame[1]);
    addBond(frame[2]);
    for (const ZMatrixRow& row : rows)
        addBond(row.atom);
    columns.push_back(chart.getNumBonds());
    for (const int first : {chart.getNumBonds() + 1, chart.getNumBonds() + chart.getNumAngles()})
        for (std::size_t i = 0; i < rows.size(); i++)
            if (numberOf[rows[i].atom] >= 0)
                columns.push_back(first + static_cast<int>(i));
    return columns;
}

std::shared_ptr<InternalCoordinates> chartAlone(const InternalCoordinates& chart, const std::vector<int>& numberOf,
                                                std::size_t numAtoms) {
    const auto number = [&](int atom, int of) {
        require(numberOf[atom] >= 0, where, "atom " + std::to_string(atom), "not listed",
                "listed with atom " + std::to_string(of) + ", which it places");
        return numberOf[atom];
    };
    std::vector<int> frame;
    for (const int atom : chart.getFrame()) {
        require(numberOf[atom] >= 0, where, "frame atom " + std::to_string(atom), "not listed", "listed");
        frame.push_back(numberOf[atom]);
    }
    std::vector<ZMatrixRow> rows;
    for (ZMatrixRow row : chart.getRows()) {
        if (numberOf[row.atom] < 0)
            continue;
        const int atom = row.atom;
        row.atom = numberOf[atom];
        row.bond = number(row.bond, atom);
        row.angle = number(row.angle, atom);
        row.torsion = number(row.torsion, atom);
        rows.push_back(row);
    }
    return std::make_shared<InternalCoordinates>(rows, frame, std::vector<double>(numAtoms, 0.0));
}

} // namespace

MixedCoordinates::MixedCoordinates(const std::shared_ptr<InternalCoordinates>& chart, std::vector<int> atoms,
                                   const Tensor& reference) {
    require(chart != nullptr, where, "chart", "null", "an InternalCoordinates");
    require(reference.dim() == 2 && reference.size(0) == static_cast<std::int64_t>(atoms.size()), where,
            "shape of the reference", reference.sizes(), "[atoms, 3], " + std::to_string(atoms.size()) + " atoms");
    std::vector<int> numberOf(chart->getNumAtoms(), -1);
    for (std::size_t i = 0; i < atoms.size(); i++) {
        require(atoms[i] >= 0 && atoms[i] < chart->getNumAtoms() && numberOf[atoms[i]] < 0, where, "an atom", atoms[i],
                "a charted atom, each once");
        require(chart->getConstrainedLength()[atoms[i]] == 0, where,
                "the bond that places atom " + std::to_string(atoms[i]), "constrained", "free");
        numberOf[atoms[i]] = static_cast<int>(i);
    }
    internal = chartAlone(*chart, numberOf, atoms.size());
    cartesian = std::make_shared<EckartCoordinates>(reference);
    columns = findColumns(*chart, numberOf);
    size = chart->getInputSize();
    index = indexTensor(columns);
}

MixedCoordinates::MixedCoordinates(int size, std::vector<int> newColumns, std::shared_ptr<EckartCoordinates> cartesian,
                                   std::shared_ptr<InternalCoordinates> internal)
    : size(size), columns(std::move(newColumns)), cartesian(std::move(cartesian)), internal(std::move(internal)),
      index(indexTensor(columns)) {}

// The columns of the part put among all; what is outside of a domain marked as such.
TransformResult MixedCoordinates::replace(const Tensor& all, const TransformResult& part, double outside,
                                          double filler) const {
    const Tensor valid = at::isfinite(part.logDet);
    return {whereRows(valid, all.index_copy(1, index, part.value), filler), whereRows(valid, part.logDet, outside)};
}

TransformResult MixedCoordinates::forward(const Tensor& z) const {
    const TransformResult x = cartesian->forward(z.index_select(1, index));
    const TransformResult xi = internal->inverse(x.value);
    return replace(z, {xi.value, x.logDet + xi.logDet}, NAN, NAN);
}

TransformResult MixedCoordinates::inverse(const Tensor& xi) const {
    const TransformResult x = internal->forward(xi.index_select(1, index));
    const TransformResult y = cartesian->inverse(x.value);
    return replace(xi, {y.value, x.logDet + y.logDet}, -std::numeric_limits<double>::infinity(), 0.0);
}

std::vector<Tensor> MixedCoordinates::getConstants() const {
    std::vector<Tensor> all = cartesian->getConstants();
    appendTo(all, internal->getConstants());
    all.push_back(index);
    return all;
}

nlohmann::json MixedCoordinates::getArchitecture() const {
    return {{"type", getTypeName()},
            {"size", size},
            {"columns", columns},
            {"cartesian", cartesian->getArchitecture()},
            {"internal", internal->getArchitecture()}};
}

std::shared_ptr<MixedCoordinates> MixedCoordinates::fromArchitecture(const nlohmann::json& architecture) {
    const auto size = architecture.at("size").get<int>();
    const auto columns = architecture.at("columns").get<std::vector<int>>();
    const auto cartesian = EckartCoordinates::fromArchitecture(architecture.at("cartesian"));
    const auto internal = InternalCoordinates::fromArchitecture(architecture.at("internal"));
    const char* from = "MixedCoordinates::fromArchitecture";
    require(cartesian->getOutputSize() == internal->getOutputSize() &&
                columns.size() == static_cast<std::size_t>(internal->getInputSize()),
            from, "number of columns", columns.size(), "that of both charts");
    for (const int column : columns)
        require(column >= 0 && column < size, from, "a column", column, "one of 0..size-1");
    return std::shared_ptr<MixedCoordinates>(new MixedCoordinates(size, columns, cartesian, internal));
}
