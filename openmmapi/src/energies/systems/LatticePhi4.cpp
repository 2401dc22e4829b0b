// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/LatticePhi4.h"
#include "LatticeTools.h"
#include "openmmflow/latent/Lattice.h"
#include <openmm/CustomCompoundBondForce.h>
#include <openmm/CustomExternalForce.h>

using namespace OpenMMFlow;
using at::Tensor;
using std::vector;

namespace {

constexpr int numNodes = 256;
constexpr double smallestEigenvalue = 1e-14;

/** S = sum_x phi_x (-hopping n_x + quadratic phi_x + quartic phi_x^3), n_x the sum of the neighbours. */
class NativePhi4 : public LatticePotential {
public:
    explicit NativePhi4(const LatticePhi4::Options& options)
        : LatticePotential({options.extents.begin(), options.extents.end()}), options(options) {}

protected:
    [[nodiscard]] std::pair<Tensor, Tensor> compute(const Tensor& phi, Gradient gradient) const override {
        const Tensor square = phi.square(), hop = options.hopping * sumNeighbours(phi);
        const Tensor u = (phi * (phi * (options.quadratic + options.quartic * square) - hop)).sum(1);
        if (gradient == Gradient::Omit)
            return {u, {}};
        return {u, 2 * (phi * (options.quadratic + 2 * options.quartic * square) - hop)};
    }

private:
    LatticePhi4::Options options;
};

/** exp(-(quadratic phi^2 + quartic phi^4)) on equally spaced nodes, for which the trapezoid rule converges fast. */
struct SiteGrid {
    SiteGrid(const LatticePhi4::Options& options) {
        // S is at least the sum of v over the sites, as |phi phi'| <= (phi^2 + phi'^2)/2.
        const double bond = 2 * std::abs(options.hopping) * static_cast<double>(options.extents.size());
        const double slope = options.quadratic - bond, lowest = slope < 0 ? -slope * slope / (4 * options.quartic) : 0;
        const double level = lowest + 40;
        const double squared = options.quartic > 0 ? (std::sqrt(slope * slope + 4 * options.quartic * level) - slope) /
                                                         (2 * options.quartic)
                                                   : level / slope;
        phi = at::linspace(-std::sqrt(squared), std::sqrt(squared), numNodes, at::kDouble);
        logStep = std::log(2 * std::sqrt(squared) / (numNodes - 1));
    }
    Tensor phi;
    double logStep;
};

// ln tr M^power, M scaled so that its powers stay finite.
double logTraceOfPower(const Tensor& matrix, int power) {
    const double scale = at::linalg_norm(matrix).item<double>();
    return std::log(at::linalg_matrix_power(matrix / scale, power).trace().item<double>()) + power * std::log(scale);
}

// ln tr (D (K x K))^power on pairs of nodes. With K = U E U^T, a matrix of few eigenvalues, it is that of the small
// matrix (E x E) (U x U)^T D (U x U).
double logTraceOfPairs(const Tensor& k, const Tensor& d, int power) {
    const auto [values, vectors] = at::linalg_eigh(k);
    const Tensor large = values.abs() > smallestEigenvalue * values.abs().max();
    const Tensor e = values.masked_select(large), u = vectors.t().index({large}).t();
    const std::int64_t rank = e.size(0);
    const Tensor products = (u.unsqueeze(2) * u.unsqueeze(1)).reshape({numNodes, -1}); // u_a u_c at each node
    // From [a c, b d], the sums over both nodes of u_a u_c D u_b u_d, to [a b, c d].
    const Tensor joined = products.t().mm(d).mm(products).reshape({rank, rank, rank, rank}).transpose(1, 2);
    return logTraceOfPower(joined.reshape({rank * rank, -1}) * at::outer(e, e).reshape({-1, 1}), power);
}

} // namespace

LatticePhi4::LatticePhi4(const Options& newOptions) : options(newOptions) {
    const char* where = "LatticePhi4::LatticePhi4";
    require(!options.extents.empty(), where, "number of extents", 0, "at least 1");
    for (const int extent : options.extents)
        require(extent >= 2, where, "an extent", extent, "at least 2");
    for (const auto& [name, value] : {std::pair("hopping", options.hopping), std::pair("quadratic", options.quadratic)})
        require(std::isfinite(value), where, name, value, "finite");
    require(options.quartic >= 0 && std::isfinite(options.quartic), where, "quartic", options.quartic,
            "at least 0 and finite");
    const double bond = 2 * std::abs(options.hopping) * static_cast<double>(options.extents.size());
    require(options.quartic > 0 || options.quadratic > bond, where, "quadratic", options.quadratic,
            "more than " + std::to_string(bond) + " where quartic is 0");
}

LatticePhi4 LatticePhi4::fromKappa(const vector<int>& extents, double kappa, double lambda) {
    return LatticePhi4({extents, kappa, 1 - 2 * lambda, lambda});
}

LatticePhi4 LatticePhi4::fromMass(const vector<int>& extents, double massSquared, double lambda) {
    return LatticePhi4({extents, 1.0, massSquared + 2 * static_cast<double>(extents.size()), lambda});
}

LatticePhi4 LatticePhi4::quantumPath(int numSlices, double spacing, double mass, double muSquared, double lambda) {
    for (const auto& [name, value] : {std::pair("spacing", spacing), std::pair("mass", mass)})
        require(value > 0 && std::isfinite(value), "LatticePhi4::quantumPath", name, value, "positive and finite");
    return LatticePhi4({{numSlices},
                        0.5 * mass / spacing,
                        mass / spacing + 0.5 * spacing * mass * muSquared,
                        0.25 * spacing * lambda});
}

LatticePhi4 LatticePhi4::ringPolymer(int numBeads, double beta, double mass, double omega) {
    require(numBeads >= 2, "LatticePhi4::ringPolymer", "numBeads", numBeads, "at least 2");
    return quantumPath(numBeads, beta / numBeads, mass, omega * omega, 0);
}

int LatticePhi4::getNumSites() const {
    return Lattice(options.extents).getSize();
}

// (x, x + mu) for each site and axis.
vector<std::pair<int, int>> LatticePhi4::getBonds() const {
    const Lattice lattice(options.extents);
    vector<std::pair<int, int>> bonds;
    for (int axis = 0; axis < static_cast<int>(options.extents.size()); axis++)
        for (int site = 0; site < lattice.getSize(); site++)
            bonds.emplace_back(site, lattice.getNeighbour(site, axis, 1));
    return bonds;
}

double LatticePhi4::energy(const vector<double>& phi) const {
    require(static_cast<int>(phi.size()) == getNumSites(), "LatticePhi4::energy", "number of sites", phi.size(),
            std::to_string(getNumSites()));
    double sum = 0;
    for (const double value : phi)
        sum += options.quadratic * value * value + options.quartic * std::pow(value, 4);
    for (const auto& [x, y] : getBonds())
        sum -= 2 * options.hopping * phi[x] * phi[y];
    return sum;
}

double LatticePhi4::freeLogZ() const {
    const Tensor modes = latticeModes(options.extents, options.quadratic, -options.hopping);
    return 0.5 * (getNumSites() * std::log(M_PI) - modes.log().sum().item<double>());
}

Tensor LatticePhi4::sampleFree(std::int64_t count, Random& random) const {
    require(options.quartic == 0, "LatticePhi4::sampleFree", "quartic", options.quartic, "0");
    require(count >= 1, "LatticePhi4::sampleFree", "count", count, "at least 1");
    const Tensor modes = latticeModes(options.extents, options.quadratic, -options.hopping);
    return normalFields(options.extents, 2 * modes, count, random);
}

// Slices of one or two sites along the longest extent. With g(phi)^2 the part of a slice's weight that belongs to one
// of its sites and K(phi, phi') = g(phi) exp(2 hopping phi phi') g(phi'), T of single sites is K, and that of pairs
// D (K x K), D what joins the two sites of a slice.
double LatticePhi4::getLogZ() const {
    if (options.quartic == 0)
        return freeLogZ();
    const SiteGrid grid(options);
    const Tensor square = grid.phi.square();
    if (options.hopping == 0)
        return getNumSites() *
               (at::logsumexp(-square * (options.quadratic + options.quartic * square), 0).item<double>() +
                grid.logStep);
    const auto [shortest, longest] = std::minmax_element(options.extents.begin(), options.extents.end());
    const bool pairs = options.extents.size() == 2;
    require(options.extents.size() == 1 || (pairs && *shortest == 2), "LatticePhi4::getLogZ", "shape of the lattice",
            at::IntArrayRef(vector<std::int64_t>(options.extents.begin(), options.extents.end())),
            "one-dimensional, or of width 2, where hopping and quartic are not 0");
    const double inSlice = pairs ? 2 * options.hopping : 0; // of 4 hopping phi phi' = 2 hopping (phi^2 + phi'^2 - ...)
    const Tensor logG = -0.5 * square * (options.quadratic - inSlice + options.quartic * square);
    const Tensor logK =
        logG.unsqueeze(0) + logG.unsqueeze(1) + 2 * options.hopping * grid.phi.unsqueeze(0) * grid.phi.unsqueeze(1);
    const Tensor k = (logK + grid.logStep).exp();
    if (!pairs)
        return logTraceOfPower(k, *longest);
    const Tensor d = (-inSlice * (grid.phi.unsqueeze(0) - grid.phi.unsqueeze(1)).square()).exp();
    return logTraceOfPairs(k, d, *longest);
}

std::shared_ptr<ReducedPotential> LatticePhi4::createNativePotential() const {
    return std::make_shared<NativePhi4>(options);
}

std::unique_ptr<OpenMM::System> LatticePhi4::createSystem() const {
    auto system = std::make_unique<OpenMM::System>();
    auto* site = new OpenMM::CustomExternalForce("quadratic*x^2+quartic*x^4+(y^2+z^2)/2");
    site->addGlobalParameter("quadratic", options.quadratic);
    site->addGlobalParameter("quartic", options.quartic);
    auto* bond = new OpenMM::CustomCompoundBondForce(2, "-2*hopping*x1*x2");
    bond->addGlobalParameter("hopping", options.hopping);
    for (int i = 0; i < getNumSites(); i++)
        site->addParticle(system->addParticle(1.0));
    for (const auto& [x, y] : getBonds())
        bond->addBond({x, y});
    system->addForce(site);
    system->addForce(bond);
    return system;
}

vector<OpenMM::Vec3> LatticePhi4::getPositions() const {
    return vector<OpenMM::Vec3>(getNumSites());
}

vector<int> LatticePhi4::getColumns() const {
    return firstColumns(getNumSites());
}
