// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/IsingTorus.h"
#include "LatticeTools.h"
#include "openmmflow/latent/Lattice.h"
#include <openmm/CustomCompoundBondForce.h>
#include <openmm/CustomExternalForce.h>

using namespace OpenMMFlow;
using at::Tensor;
using std::vector;

namespace {

double logTwoCosh(double x) {
    return std::abs(x) + std::log1p(std::exp(-2 * std::abs(x)));
}

/** With h = B psi: u = psi h/2 - sum ln 2 cosh h + constant. */
class NativeIsing : public LatticePotential {
public:
    NativeIsing(const IsingTorus::Options& options, double constant)
        : LatticePotential({options.rows, options.columns}), options(options), constant(constant) {}

protected:
    [[nodiscard]] std::pair<Tensor, Tensor> compute(const Tensor& psi, Gradient gradient) const override {
        const Tensor h = applyB(psi), size = h.abs();
        const Tensor u = (0.5 * psi * h - size - (-2 * size).exp().log1p()).sum(1) + constant;
        return {u, gradient == Gradient::Compute ? applyB(psi - h.tanh()) : Tensor()};
    }

private:
    [[nodiscard]] Tensor applyB(const Tensor& psi) const {
        return options.shift * psi + options.coupling * sumNeighbours(psi);
    }
    IsingTorus::Options options;
    double constant;
};

// ln |prod_r 2 cosh(m gamma_r/2)| or, with sign = -1, of 2 sinh.
double logProduct(const vector<double>& gammas, int m, int sign) {
    double sum = 0;
    for (const double gamma : gammas)
        sum += 0.5 * m * std::abs(gamma) + std::log1p(sign * std::exp(-m * std::abs(gamma)));
    return sum;
}

} // namespace

IsingTorus::IsingTorus(const Options& newOptions) : options(newOptions) {
    const char* where = "IsingTorus::IsingTorus";
    for (const auto& [name, extent] : {std::pair("rows", options.rows), std::pair("columns", options.columns)})
        require(extent >= 3, where, name, extent, "at least 3");
    require(std::isfinite(options.coupling), where, "coupling", options.coupling, "finite");
    const double smallest = 4 * std::abs(options.coupling);
    if (options.shift == 0)
        options.shift = 1.25 * smallest;
    require(options.shift > smallest && std::isfinite(options.shift), where, "shift", options.shift,
            "more than 4 |coupling|, " + std::to_string(smallest) + ", and finite");
}

// Kaufman's sum of four products over the even and odd gamma, of which one changes its sign at the critical coupling.
double IsingTorus::getLogZ() const {
    const double coupling = options.coupling;
    require(coupling > 0, "IsingTorus::getLogZ", "coupling", coupling, "positive");
    const int m = options.rows, n = options.columns;
    const double centre = std::cosh(2 * coupling) / std::tanh(2 * coupling);
    vector<double> even = {2 * coupling + std::log(std::tanh(coupling))}, odd;
    for (int l = 1; l < 2 * n; l++)
        (l % 2 == 0 ? even : odd).push_back(std::acosh(centre - std::cos(M_PI * l / n)));
    const vector<double> logs = {logProduct(odd, m, 1), logProduct(odd, m, -1), logProduct(even, m, 1),
                                 logProduct(even, m, -1)};
    const double largest = *std::max_element(logs.begin(), logs.end()), lastSign = even[0] > 0 ? 1 : -1;
    const double sum = std::exp(logs[0] - largest) + std::exp(logs[1] - largest) + std::exp(logs[2] - largest) +
                       lastSign * std::exp(logs[3] - largest);
    return -std::log(2.0) + 0.5 * getNumSites() * std::log(2 * std::sinh(2 * coupling)) + largest + std::log(sum);
}

vector<int> IsingTorus::getNeighbours(int site) const {
    const Lattice lattice({options.rows, options.columns});
    return {lattice.getNeighbour(site, 0, 1), lattice.getNeighbour(site, 0, -1), lattice.getNeighbour(site, 1, 1),
            lattice.getNeighbour(site, 1, -1)};
}

double IsingTorus::getConstant() const {
    const double logDet =
        latticeModes({options.rows, options.columns}, options.shift, options.coupling).log().sum().item<double>();
    return 0.5 * (getNumSites() * (options.shift + std::log(2 * M_PI)) - logDet);
}

double IsingTorus::energy(const vector<double>& psi) const {
    require(static_cast<int>(psi.size()) == getNumSites(), "IsingTorus::energy", "number of sites", psi.size(),
            std::to_string(getNumSites()));
    double sum = getConstant();
    for (int site = 0; site < getNumSites(); site++) {
        double h = options.shift * psi[site];
        for (const int neighbour : getNeighbours(site))
            h += options.coupling * psi[neighbour];
        sum += 0.5 * psi[site] * h - logTwoCosh(h);
    }
    return sum;
}

std::shared_ptr<ReducedPotential> IsingTorus::createNativePotential() const {
    return std::make_shared<NativeIsing>(options, getConstant());
}

Tensor IsingTorus::sampleGivenSpins(const Tensor& spins, Random& random) const {
    require(spins.dim() == 2 && spins.size(1) == getNumSites(), "IsingTorus::sampleGivenSpins", "shape of spins",
            spins.sizes(), "[batch, " + std::to_string(getNumSites()) + "]");
    const vector<int> extents = {options.rows, options.columns};
    const Tensor modes = latticeModes(extents, options.shift, options.coupling);
    return spins.to(at::kDouble) + normalFields(extents, modes, spins.size(0), random);
}

// -ln 2 cosh h as -|h| - ln(1 + exp(-2 |h|)): cosh would overflow. Every site has its part of the constant.
std::unique_ptr<OpenMM::System> IsingTorus::createSystem() const {
    auto system = std::make_unique<OpenMM::System>();
    auto* confinement = new OpenMM::CustomExternalForce("(y^2+z^2)/2+constant");
    confinement->addGlobalParameter("constant", getConstant() / getNumSites());
    auto* site =
        new OpenMM::CustomCompoundBondForce(5, "x1*h/2-abs(h)-log(1+exp(-2*abs(h)));h=shift*x1+coupling*(x2+x3+x4+x5)");
    site->addGlobalParameter("shift", options.shift);
    site->addGlobalParameter("coupling", options.coupling);
    for (int i = 0; i < getNumSites(); i++)
        confinement->addParticle(system->addParticle(1.0));
    for (int i = 0; i < getNumSites(); i++) {
        vector<int> particles = getNeighbours(i);
        particles.insert(particles.begin(), i);
        site->addBond(particles);
    }
    system->addForce(confinement);
    system->addForce(site);
    return system;
}

vector<OpenMM::Vec3> IsingTorus::getPositions() const {
    return vector<OpenMM::Vec3>(getNumSites());
}

vector<int> IsingTorus::getColumns() const {
    return firstColumns(getNumSites());
}
