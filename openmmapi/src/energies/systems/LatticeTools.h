#ifndef OPENMMFLOW_ENERGIES_SYSTEMS_LATTICETOOLS_H_
#define OPENMMFLOW_ENERGIES_SYSTEMS_LATTICETOOLS_H_
// SPDX-License-Identifier: MIT

#include "../FiniteRows.h"
#include "openmmflow/latent/Check.h"
#include "openmmflow/latent/Random.h"
#include <numeric>
#include <vector>

namespace OpenMMFlow {

/** Fields on a periodic lattice, one column of x for each site in row-major order. */
class LatticePotential : public ReducedPotential {
public:
    explicit LatticePotential(std::vector<std::int64_t> extents) : extents(std::move(extents)) {
        size = std::accumulate(this->extents.begin(), this->extents.end(), std::int64_t{1}, std::multiplies<>());
    }
    [[nodiscard]] int getSize() const override { return static_cast<int>(size); }
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& x, Gradient gradient) override {
        require(x.dim() == 2 && x.size(1) == size, "LatticePotential::evaluate", "shape of x", x.sizes(),
                "[batch, " + std::to_string(size) + "]");
        // In parts that stay in a processor's cache: four times as fast as all of a large batch at once.
        const std::int64_t rows = x.is_cpu() ? std::max<std::int64_t>(1, numbersAtOnce / size) : x.size(0) + 1;
        std::vector<at::Tensor> energies, gradients;
        for (const at::Tensor& part : x.detach().split(rows)) {
            const auto [u, du] = compute(part.to(at::kDouble), gradient);
            energies.push_back(u);
            if (gradient == Gradient::Compute)
                gradients.push_back(du);
        }
        return finiteRows(at::cat(energies), gradients.empty() ? at::Tensor() : at::cat(gradients));
    }

protected:
    /** u [batch] and, where asked for, du/dx [batch, sites], for float64 fields. */
    [[nodiscard]] virtual std::pair<at::Tensor, at::Tensor> compute(const at::Tensor& field,
                                                                    Gradient gradient) const = 0;
    /** At each site the sum of the neighbours, two for each axis. @param field  [batch, sites] */
    [[nodiscard]] at::Tensor sumNeighbours(const at::Tensor& field) const {
        std::vector<std::int64_t> shape = extents;
        shape.insert(shape.begin(), field.size(0));
        const at::Tensor lattice = field.reshape(shape);
        at::Tensor sum = at::zeros_like(lattice);
        for (std::int64_t axis = 1; axis < lattice.dim(); axis++)
            sum += at::roll(lattice, 1, axis) + at::roll(lattice, -1, axis);
        return sum.reshape(field.sizes());
    }

private:
    static constexpr std::int64_t numbersAtOnce = 32768;
    std::vector<std::int64_t> extents;
    std::int64_t size;
};

/** The columns of x that hold the first coordinate of each particle. */
inline std::vector<int> firstColumns(int numParticles) {
    std::vector<int> columns(numParticles);
    for (int i = 0; i < numParticles; i++)
        columns[i] = 3 * i;
    return columns;
}

/** constant + bond sum_mu 2 cos k_mu of each mode of a periodic lattice, in row-major order: the eigenvalues of the
 * matrix with `constant` on the diagonal and `bond` between neighbours. */
inline at::Tensor latticeModes(const std::vector<int>& extents, double constant, double bond) {
    at::Tensor modes = at::full({1}, constant, at::kDouble);
    for (const int extent : extents) {
        const at::Tensor k = 2 * M_PI / extent * at::arange(extent, at::kDouble);
        modes = (modes.unsqueeze(1) + 2 * bond * k.cos()).flatten();
    }
    return modes;
}

/**
 * Normal fields whose covariance has the inverse of `modes` as its eigenvalues: white noise, convolved.
 *
 * @param modes  of latticeModes(), all > 0  @return float64 [count, sites]
 */
inline at::Tensor normalFields(const std::vector<int>& extents, const at::Tensor& modes, std::int64_t count,
                               Random& random) {
    const std::vector<std::int64_t> shape(extents.begin(), extents.end());
    std::vector<std::int64_t> batch = shape, axes(shape.size());
    batch.insert(batch.begin(), count);
    std::iota(axes.begin(), axes.end(), 1);
    const at::Tensor noise = random.normal(count, modes.numel()).reshape(batch);
    const at::Tensor scaled = at::fft_fftn(noise, {}, axes) * modes.reshape(shape).rsqrt();
    return at::real(at::fft_ifftn(scaled, {}, axes)).reshape({count, -1});
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_SYSTEMS_LATTICETOOLS_H_*/
