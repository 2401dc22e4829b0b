// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ConstraintMetric.h"
#include "../latent/TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <cmath>
#include <map>
#include <numeric>
#include <openmm/Vec3.h>
#include <torch/csrc/autograd/custom_function.h>

using namespace OpenMMFlow;
using OpenMM::Vec3;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/** Two constraints of a block that share an atom: Z_ij = factor e_i . e_j, factor = s_i s_j / m. */
struct Coupling {
    int i, j;
    double factor;
};

/** Constraints that hang together; numbered from 0 within the block. */
struct Block {
    std::vector<std::pair<int, int>> atoms;
    std::vector<double> diagonal;
    std::vector<Coupling> couplings;

    void getDirections(const double* x, std::vector<Vec3>& units, std::vector<double>& lengths) const;
    double halfLogDet(const std::vector<Vec3>& units, std::vector<double>& factor) const;
    void addGradient(const double* x, double onResult, double* onX) const;
};

void Block::getDirections(const double* x, std::vector<Vec3>& units, std::vector<double>& lengths) const {
    units.resize(atoms.size());
    lengths.resize(atoms.size());
    for (std::size_t i = 0; i < atoms.size(); i++) {
        const double *a = x + 3 * atoms[i].first, *b = x + 3 * atoms[i].second;
        Vec3 difference(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
        lengths[i] = std::sqrt(difference.dot(difference));
        units[i] = difference / lengths[i];
    }
}

/** (1/2) log det Z = sum_i log L_ii, with Z = L L^T; leaves L in `factor`, row by row. Not finite where Z is singular.
 */
double Block::halfLogDet(const std::vector<Vec3>& units, std::vector<double>& factor) const {
    std::size_t n = atoms.size();
    factor.assign(n * n, 0.0);
    for (std::size_t i = 0; i < n; i++)
        factor[i * n + i] = diagonal[i];
    for (const Coupling& c : couplings)
        factor[std::max(c.i, c.j) * n + std::min(c.i, c.j)] = c.factor * units[c.i].dot(units[c.j]);
    double result = 0.0;
    for (std::size_t j = 0; j < n; j++) {
        for (std::size_t k = 0; k < j; k++)
            for (std::size_t i = j; i < n; i++)
                factor[i * n + j] -= factor[i * n + k] * factor[j * n + k];
        double pivot = factor[j * n + j];
        for (std::size_t i = j; i < n; i++)
            factor[i * n + j] /= std::sqrt(pivot);
        result += 0.5 * std::log(pivot);
    }
    return result;
}

/** Z^-1, from its Cholesky factor: column by column, L y = e_k, then L^T z = y. */
std::vector<double> invert(const std::vector<double>& factor, std::size_t n) {
    std::vector<double> inverse(n * n, 0.0);
    for (std::size_t k = 0; k < n; k++) {
        double* z = inverse.data() + k * n;
        z[k] = 1.0;
        for (std::size_t i = k; i < n; i++) {
            for (std::size_t j = k; j < i; j++)
                z[i] -= factor[i * n + j] * z[j];
            z[i] /= factor[i * n + i];
        }
        for (std::size_t i = n; i-- > 0;) {
            for (std::size_t j = i + 1; j < n; j++)
                z[i] -= factor[j * n + i] * z[j];
            z[i] /= factor[i * n + i];
        }
    }
    return inverse;
}

/** d (1/2) log det Z = (1/2) tr(Z^-1 dZ) = sum over couplings of (Z^-1)_ij factor (de_i . e_j + e_i . de_j). */
void Block::addGradient(const double* x, double onResult, double* onX) const {
    std::vector<Vec3> units, onUnits(atoms.size());
    std::vector<double> lengths, factor;
    getDirections(x, units, lengths);
    halfLogDet(units, factor);
    std::vector<double> inverse = invert(factor, atoms.size());
    for (const Coupling& c : couplings) {
        double weight = onResult * inverse[c.i * atoms.size() + c.j] * c.factor;
        onUnits[c.i] += units[c.j] * weight;
        onUnits[c.j] += units[c.i] * weight;
    }
    for (std::size_t i = 0; i < atoms.size(); i++) {
        Vec3 onDifference = (onUnits[i] - units[i] * units[i].dot(onUnits[i])) / lengths[i];
        for (int k = 0; k < 3; k++) {
            onX[3 * atoms[i].first + k] += onDifference[k];
            onX[3 * atoms[i].second + k] -= onDifference[k];
        }
    }
}

/** s_i s_j / m of the atom that two constraints share; 0 if they share none. */
double couple(const std::pair<int, int>& first, const std::pair<int, int>& second, const std::vector<double>& mass) {
    if (first.first == second.first || first.second == second.second)
        return 1 / mass[first.first == second.first ? first.first : first.second];
    if (first.first == second.second || first.second == second.first)
        return -1 / mass[first.first == second.second ? first.first : first.second];
    return 0.0;
}

Block makeBlock(const std::vector<std::pair<int, int>>& atoms, const std::vector<double>& mass) {
    Block block{atoms, {}, {}};
    for (int i = 0; i < static_cast<int>(atoms.size()); i++) {
        block.diagonal.push_back(1 / mass[atoms[i].first] + 1 / mass[atoms[i].second]);
        for (int j = 0; j < i; j++)
            if (double factor = couple(atoms[i], atoms[j], mass); factor != 0)
                block.couplings.push_back({i, j, factor});
    }
    return block;
}

/** The constraints between given particles, as pairs of positions in their list. */
std::vector<std::pair<int, int>> readConstraints(const OpenMM::System& system, const std::vector<int>& atoms) {
    std::map<int, int> position;
    for (int particle : atoms) {
        require(particle >= 0 && particle < system.getNumParticles(), "ConstraintMetric", "an atom", particle,
                "a particle of the System");
        require(position.emplace(particle, position.size()).second, "ConstraintMetric", "an atom", particle,
                "listed once");
    }
    std::map<std::pair<int, int>, int> found;
    for (int i = 0; i < system.getNumConstraints(); i++) {
        int a, b;
        double length;
        system.getConstraintParameters(i, a, b, length);
        std::string name = "the constraint of particles " + std::to_string(a) + " and " + std::to_string(b);
        require(position.contains(a) == position.contains(b), "ConstraintMetric", name,
                "between a moved and another particle", "among moved particles, or among others");
        if (!position.contains(a))
            continue;
        require(system.getParticleMass(a) > 0 && system.getParticleMass(b) > 0, "ConstraintMetric", name,
                "on a massless particle", "between particles that have mass");
        require(found.emplace(std::minmax(position[a], position[b]), i).second, "ConstraintMetric", name, "given twice",
                "given once: det Z is 0 otherwise");
    }
    std::vector<std::pair<int, int>> constraints;
    for (const auto& [pair, index] : found)
        constraints.push_back(pair);
    return constraints;
}

} // namespace

struct ConstraintMetric::Blocks {
    std::size_t numAtoms = 0;
    int numConstraints = 0;
    /** The part of the result that is the same for every x: the blocks of one constraint. */
    double constant = 0.0;
    std::vector<Block> coupled;

    double halfLogDet(const double* x) const {
        double result = constant;
        std::vector<Vec3> units;
        std::vector<double> lengths, factor;
        for (const Block& block : coupled) {
            block.getDirections(x, units, lengths);
            result += block.halfLogDet(units, factor);
        }
        return result;
    }
};

namespace {

using Blocks = ConstraintMetric::Blocks;

at::Tensor evaluate(const Blocks& blocks, const at::Tensor& x) {
    at::Tensor result = at::empty({x.size(0)}, x.options());
    for (std::int64_t i = 0; i < x.size(0); i++)
        result.mutable_data_ptr<double>()[i] = blocks.halfLogDet(x.const_data_ptr<double>() + i * x.size(1));
    return result;
}

struct SharedBlocks : torch::CustomClassHolder {
    std::shared_ptr<const Blocks> blocks;
    explicit SharedBlocks(std::shared_ptr<const Blocks> blocks) : blocks(std::move(blocks)) {}
};

struct HalfLogDet : torch::autograd::Function<HalfLogDet> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                              const std::shared_ptr<const Blocks>& blocks) {
        at::Tensor result = evaluate(*blocks, x);
        context->save_for_backward({x, result});
        context->saved_data["blocks"] = c10::IValue::make_capsule(c10::make_intrusive<SharedBlocks>(blocks));
        return result;
    }

    static variable_list backward(AutogradContext* context, const variable_list& gradients) {
        refuseSecondDerivatives("ConstraintMetric::halfLogDet");
        auto shared = c10::static_intrusive_pointer_cast<SharedBlocks>(context->saved_data["blocks"].toCapsule());
        variable_list saved = context->get_saved_variables();
        const at::Tensor &x = saved[0], onResult = gradients[0].contiguous();
        at::Tensor onX = at::zeros_like(x);
        for (std::int64_t i = 0; i < x.size(0); i++)
            if (std::isfinite(saved[1].const_data_ptr<double>()[i]))
                for (const Block& block : shared->blocks->coupled)
                    block.addGradient(x.const_data_ptr<double>() + i * x.size(1), onResult.const_data_ptr<double>()[i],
                                      onX.mutable_data_ptr<double>() + i * x.size(1));
        return {onX, at::Tensor()};
    }
};

} // namespace

ConstraintMetric::ConstraintMetric(const OpenMM::System& system, const std::vector<int>& atoms) {
    std::vector<std::pair<int, int>> constraints = readConstraints(system, atoms);
    std::vector<double> mass;
    for (int particle : atoms)
        mass.push_back(system.getParticleMass(particle));
    std::vector<int> group(atoms.size());
    std::iota(group.begin(), group.end(), 0);
    auto find = [&](int atom) {
        while (group[atom] != atom)
            atom = group[atom] = group[group[atom]];
        return atom;
    };
    for (auto [a, b] : constraints)
        group[find(a)] = find(b);
    std::map<int, std::vector<std::pair<int, int>>> grouped;
    for (auto [a, b] : constraints)
        grouped[find(a)].emplace_back(a, b);

    Blocks made{atoms.size(), static_cast<int>(constraints.size()), 0.0, {}};
    for (const auto& [root, pairs] : grouped) {
        Block block = makeBlock(pairs, mass);
        if (pairs.size() == 1)
            made.constant += 0.5 * std::log(block.diagonal[0]);
        else
            made.coupled.push_back(std::move(block));
    }
    blocks = std::make_shared<const Blocks>(std::move(made));
}

int ConstraintMetric::getNumConstraints() const {
    return blocks->numConstraints;
}

at::Tensor ConstraintMetric::halfLogDet(const at::Tensor& x) const {
    std::int64_t size = 3 * static_cast<std::int64_t>(blocks->numAtoms);
    require(x.dim() == 2 && x.size(1) == size, "ConstraintMetric::halfLogDet", "the shape of x", x.sizes(),
            "[batch, " + std::to_string(size) + "]");
    at::Tensor contiguous = x.to(at::kCPU, at::kDouble).contiguous();
    bool differentiate = at::GradMode::is_enabled() && contiguous.requires_grad();
    return (differentiate ? HalfLogDet::apply(contiguous, blocks) : evaluate(*blocks, contiguous)).to(x.device());
}
