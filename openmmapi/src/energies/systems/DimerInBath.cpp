// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/DimerInBath.h"
#include "LineDensity.h"
#include "openmmflow/latent/Check.h"
#include <openmm/CustomCompoundBondForce.h>
#include <openmm/CustomExternalForce.h>

using namespace OpenMMFlow;
using OpenMM::CustomCompoundBondForce;
using OpenMM::CustomExternalForce;
using OpenMM::Vec3;

namespace {

// ln[exp(-x) I_0(x)], x >= 0: the angular average of exp(-2 x sin^2), by the trapezoidal rule, which converges
// exponentially for periodic functions.
double logScaledBessel(double x) {
    const int numPoints = 64 + static_cast<int>(8 * std::sqrt(x));
    double sum = 0;
    for (int i = 0; i < numPoints; i++)
        sum += std::exp(-2 * x * std::pow(std::sin(M_PI * (i + 0.5) / numPoints), 2)) / numPoints;
    return std::log(sum);
}

} // namespace

DimerInBath::DimerInBath() : DimerInBath(Options{}) {}

DimerInBath::DimerInBath(const Options& newOptions) : options(newOptions) {
    const char* where = "DimerInBath::DimerInBath";
    require(options.numSolvent >= 0, where, "numSolvent", options.numSolvent, "at least 0");
    for (const auto& [name, value] :
         {std::pair("quartic", options.quartic), std::pair("middle", options.middle),
          std::pair("tether", options.tether), std::pair("epsilon", options.epsilon), std::pair("sigma", options.sigma),
          std::pair("halfWidth", options.halfWidth), std::pair("wall", options.wall)})
        require(value > 0 && std::isfinite(value), where, name, value, "positive and finite");
    require(std::isfinite(options.slope), where, "slope", options.slope, "finite");
    require(std::isfinite(options.quadratic), where, "quadratic", options.quadratic, "finite");

    // With X = x_0 + x_1, Y = y_0 + y_1 and the dimer's vector D, volume element 1/4: the tether is k X^2 + (k/2) Y^2 +
    // (k/2) D_y^2, and the angle of D integrates to 2 pi exp(-kappa) I_0(kappa), kappa = k d^2/4.
    const double k = options.tether;
    const auto u = [&](double d) {
        return dimerEnergy(d) - std::log(2 * M_PI * d) - logScaledBessel(0.25 * k * d * d);
    };
    const double level = u(options.middle) + 60;
    const LineDensity density(u, 1e-9 * options.middle, options.middle,
                              findLevel(u, options.middle, 0.05 * options.middle, level));
    truth.logZ = density.logZ() + 0.5 * std::log(M_PI / k) + 0.5 * std::log(2 * M_PI / k) - std::log(4.0);
    truth.probabilityShort = density.probabilityLeft();
    truth.deltaF = density.logRatio();
}

double DimerInBath::dimerEnergy(double distance) const {
    const double s = 2 * (distance - options.middle);
    return options.slope * s - options.quadratic * s * s + options.quartic * s * s * s * s;
}

double DimerInBath::energy(const std::vector<Vec3>& positions) const {
    require(static_cast<int>(positions.size()) == getNumParticles(), "DimerInBath::energy", "number of positions",
            positions.size(), std::to_string(getNumParticles()));
    const Vec3 &a = positions[0], &b = positions[1];
    double sum = dimerEnergy(std::hypot(a[0] - b[0], a[1] - b[1])) +
                 options.tether * (std::pow(a[0] + b[0], 2) + a[1] * a[1] + b[1] * b[1]);
    for (std::size_t i = 0; i < positions.size(); i++) {
        for (int axis = 0; axis < 2; axis++)
            sum += options.wall * std::pow(std::max(0.0, std::abs(positions[i][axis]) - options.halfWidth), 2);
        for (std::size_t j = 0; j < i; j++)
            if (i > 1) {
                const double dx = positions[i][0] - positions[j][0], dy = positions[i][1] - positions[j][1];
                sum += options.epsilon * std::pow(options.sigma * options.sigma / (dx * dx + dy * dy), 6);
            }
    }
    return sum;
}

std::unique_ptr<OpenMM::System> DimerInBath::createSystem() const {
    auto system = std::make_unique<OpenMM::System>();
    auto* dimer = new CustomCompoundBondForce(2, "slope*s-quadratic*s^2+quartic*s^4+tether*((x1+x2)^2+y1^2+y2^2);"
                                                 "s=2*(sqrt((x1-x2)^2+(y1-y2)^2)-middle)");
    for (const auto& [name, value] : {std::pair("slope", options.slope), std::pair("quadratic", options.quadratic),
                                      std::pair("quartic", options.quartic), std::pair("middle", options.middle),
                                      std::pair("tether", options.tether)})
        dimer->addGlobalParameter(name, value);
    dimer->addBond({0, 1});
    auto* pairs = new CustomCompoundBondForce(2, "epsilon*(sigma^2/((x1-x2)^2+(y1-y2)^2))^6");
    pairs->addGlobalParameter("epsilon", options.epsilon);
    pairs->addGlobalParameter("sigma", options.sigma);
    auto* walls = new CustomExternalForce("wall*(max(0,abs(x)-halfWidth)^2+max(0,abs(y)-halfWidth)^2)+z^2/2");
    walls->addGlobalParameter("wall", options.wall);
    walls->addGlobalParameter("halfWidth", options.halfWidth);
    for (int i = 0; i < getNumParticles(); i++) {
        walls->addParticle(system->addParticle(1.0));
        for (int j = 0; j < i && i > 1; j++)
            pairs->addBond({j, i});
    }
    system->addForce(dimer);
    system->addForce(pairs);
    system->addForce(walls);
    return system;
}

std::vector<Vec3> DimerInBath::getPositions() const {
    std::vector<Vec3> positions = {Vec3(-0.5 * options.middle, 0, 0), Vec3(0.5 * options.middle, 0, 0)};
    const int rows = static_cast<int>(std::ceil(std::sqrt(options.numSolvent)));
    for (int i = 0; i < options.numSolvent; i++) {
        const auto site = [&](int k) { return options.halfWidth * ((2.0 * k + 1) / rows - 1); };
        positions.emplace_back(site(i % rows), site(i / rows), 0);
    }
    return positions;
}

std::vector<int> DimerInBath::getColumns() const {
    std::vector<int> columns;
    for (int i = 0; i < getNumParticles(); i++)
        columns.insert(columns.end(), {3 * i, 3 * i + 1});
    return columns;
}
