#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_MANYWELL_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_MANYWELL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/DoubleWell.h"

namespace OpenMMFlow {

/**
 * Independent double wells side by side, one particle each: 2^numPairs modes of unequal weight (Noe et al. 2019; the
 * benchmark of Midgley et al., ICLR 2023, has 16 pairs of x^4 - 6 x^2 - x/2 + y^2/2, the default here).
 *
 *     U = sum_i U_well(x_i, y_i),   ln Z = numPairs ln Z_well
 */
class OPENMMFLOW_EXPORT ManyWell : public AnalyticSystem {
public:
    struct Options {
        /** At least 1. */
        int numPairs = 16;
        DoubleWell::Options well{4, 12, -0.5, 1};
    };
    explicit ManyWell(const Options& options);
    ManyWell();
    [[nodiscard]] int getNumPairs() const { return options.numPairs; }
    /** One of the wells: all are the same. */
    [[nodiscard]] DoubleWell getWell() const { return well; }
    /** ln Z of all pairs. */
    [[nodiscard]] double getLogZ() const;
    /** U of x1, y1, x2, y2, ..., kJ/mol. */
    [[nodiscard]] double energy(const std::vector<double>& pairs) const;
    /** Independent samples of exp(-U). @return [count, 2 numPairs] */
    [[nodiscard]] at::Tensor sample(std::int64_t count, Random& random) const;
    [[nodiscard]] std::unique_ptr<OpenMM::System> createSystem() const override;
    /** Every pair in its left minimum. */
    [[nodiscard]] std::vector<OpenMM::Vec3> getPositions() const override;
    [[nodiscard]] std::vector<int> getColumns() const override;

private:
    Options options;
    DoubleWell well;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_MANYWELL_H_*/
