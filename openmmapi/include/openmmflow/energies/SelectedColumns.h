#ifndef OPENMMFLOW_ENERGIES_SELECTEDCOLUMNS_H_
#define OPENMMFLOW_ENERGIES_SELECTEDCOLUMNS_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include <memory>
#include <vector>

namespace OpenMMFlow {

/**
 * A potential as a function of some of its coordinates, the others held fixed:
 *
 *     u(y) = u_whole(x),   x[columns[i]] = y[i],   x = reference elsewhere
 *
 * So a flow of two variables meets a particle of an OpenMM System, which has three coordinates. exp(-u) is the
 * conditional density of y given the other coordinates. Where they enter u_whole as a term of their own, and the
 * reference is at that term's zero, it is the marginal density too, and the ln Z of the whole is that of y plus that
 * of the term.
 */
class OPENMMFLOW_EXPORT SelectedColumns : public ReducedPotential {
public:
    /**
     * @param whole      the potential of all coordinates
     * @param columns    which columns of x are those of y, in the order of y; each at most once
     * @param reference  x of the columns that are not listed, finite, [size of whole]
     */
    SelectedColumns(std::shared_ptr<ReducedPotential> whole, std::vector<int> columns, std::vector<double> reference);
    [[nodiscard]] const std::shared_ptr<ReducedPotential>& getWhole() const { return whole; }
    [[nodiscard]] const std::vector<int>& getColumns() const { return columns; }
    [[nodiscard]] int getSize() const override { return static_cast<int>(columns.size()); }
    /** @param y  [batch, number of columns] */
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& y, Gradient gradient = Gradient::Omit) override;
    /** x for y: the selected columns filled in. @param y  [batch, number of columns]  @return [batch, size of whole] */
    [[nodiscard]] at::Tensor expand(const at::Tensor& y) const;

private:
    std::shared_ptr<ReducedPotential> whole;
    std::vector<int> columns;
    at::Tensor index, reference; // int64 [columns], float64 [1, size of whole]
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SELECTEDCOLUMNS_H_*/
