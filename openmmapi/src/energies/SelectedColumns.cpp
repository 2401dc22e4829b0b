// SPDX-License-Identifier: MIT

#include "openmmflow/energies/SelectedColumns.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <set>

using namespace OpenMMFlow;
using at::Tensor;

SelectedColumns::SelectedColumns(std::shared_ptr<ReducedPotential> newWhole, std::vector<int> newColumns,
                                 std::vector<double> newReference)
    : whole(std::move(newWhole)), columns(std::move(newColumns)) {
    const char* where = "SelectedColumns::SelectedColumns";
    require(whole != nullptr, where, "whole", "null", "a ReducedPotential");
    require(!columns.empty(), where, "number of columns", 0, "at least 1");
    const int size = whole->getSize();
    std::set<int> seen;
    for (const int column : columns)
        require(column >= 0 && column < size && seen.insert(column).second, where, "a column", column,
                "in [0, " + std::to_string(size) + "), each at most once");
    require(static_cast<int>(newReference.size()) == size, where, "size of reference", newReference.size(),
            "that of the whole potential, " + std::to_string(size));
    for (const double value : newReference)
        require(std::isfinite(value), where, "a reference coordinate", value, "finite");
    index = at::tensor(std::vector<std::int64_t>(columns.begin(), columns.end()), at::kLong);
    reference = at::tensor(newReference, at::kDouble).unsqueeze(0);
}

Tensor SelectedColumns::expand(const Tensor& y) const {
    require(y.dim() == 2 && y.size(1) == getSize(), "SelectedColumns::expand", "shape of y", y.sizes(),
            "[batch, " + std::to_string(getSize()) + "]");
    const Tensor rows = reference.to(y.device()).expand({y.size(0), reference.size(1)});
    return rows.index_copy(1, index.to(y.device()), y.to(at::kDouble));
}

EnergyResult SelectedColumns::evaluate(const Tensor& y, Gradient gradient) {
    EnergyResult result = whole->evaluate(expand(y.detach()), gradient);
    if (result.gradient.defined())
        result.gradient = result.gradient.reshape({y.size(0), -1}).index_select(1, index.to(y.device()));
    return result;
}
