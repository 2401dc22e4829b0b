// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/LennardJonesCluster.h"
#include "LineDensity.h"
#include "openmmflow/latent/Check.h"
#include <numeric>
#include <openmm/CustomExternalForce.h>
#include <openmm/NonbondedForce.h>

using namespace OpenMMFlow;
using OpenMM::Vec3;

namespace {

double pairEnergy(const LennardJonesCluster::Options& options, double distance) {
    const double sixth = std::pow(options.sigma / distance, 6);
    return 4 * options.epsilon * (sixth * sixth - sixth);
}

} // namespace

LennardJonesCluster::LennardJonesCluster() : LennardJonesCluster(Options{}) {}

LennardJonesCluster::LennardJonesCluster(const Options& newOptions) : options(newOptions) {
    const char* where = "LennardJonesCluster::LennardJonesCluster";
    require(options.numParticles >= 2, where, "numParticles", options.numParticles, "at least 2");
    for (const auto& [name, value] :
         {std::pair("epsilon", options.epsilon), std::pair("sigma", options.sigma), std::pair("k", options.k)})
        require(value > 0 && std::isfinite(value), where, name, value, "positive and finite");
}

double LennardJonesCluster::energy(const std::vector<Vec3>& positions) const {
    require(static_cast<int>(positions.size()) == options.numParticles, "LennardJonesCluster::energy",
            "number of positions", positions.size(), std::to_string(options.numParticles));
    double sum = 0;
    for (std::size_t i = 0; i < positions.size(); i++) {
        sum += 0.5 * options.k * positions[i].dot(positions[i]);
        for (std::size_t j = 0; j < i; j++) {
            const Vec3 difference = positions[i] - positions[j];
            sum += pairEnergy(options, std::sqrt(difference.dot(difference)));
        }
    }
    return sum;
}

// With r = x_1 - x_2 the well is k |X|^2 + (k/4) r^2, and the volume element of (X, r) is that of (x_1, x_2).
double LennardJonesCluster::getLogZ() const {
    require(options.numParticles == 2, "LennardJonesCluster::getLogZ", "numParticles", options.numParticles,
            "2: larger clusters are not known exactly");
    const auto u = [this](double r) {
        return pairEnergy(options, r) + 0.25 * options.k * r * r - std::log(4 * M_PI * r * r);
    };
    const double middle = std::cbrt(std::sqrt(2.0)) * options.sigma, level = u(middle) + 60;
    // The repulsion is so steep that the level lies within [sigma/4, middle], and the integrand smooth.
    const double low = findLevel(u, middle, -0.01 * options.sigma, level);
    const double high = findLevel(u, middle, 0.1 * options.sigma, level);
    return getLogZOfCentre() + LineDensity(u, low, middle, high).logZ();
}

double LennardJonesCluster::getLogZOfCentre() const {
    return 1.5 * std::log(2 * M_PI / (options.k * options.numParticles));
}

std::unique_ptr<OpenMM::System> LennardJonesCluster::createSystem() const {
    auto system = std::make_unique<OpenMM::System>();
    auto* pairs = new OpenMM::NonbondedForce();
    auto* well = new OpenMM::CustomExternalForce("k*(x^2+y^2+z^2)/2");
    well->addGlobalParameter("k", options.k);
    for (int i = 0; i < options.numParticles; i++) {
        well->addParticle(system->addParticle(1.0));
        pairs->addParticle(0.0, options.sigma, options.epsilon);
    }
    system->addForce(pairs);
    system->addForce(well);
    return system;
}

std::vector<Vec3> LennardJonesCluster::getPositions() const {
    const double spacing = std::cbrt(std::sqrt(2.0)) * options.sigma / std::sqrt(2.0); // half the edge of a cube
    const int reach = 2 + static_cast<int>(std::cbrt(options.numParticles));
    std::vector<Vec3> sites;
    for (int i = -reach; i <= reach; i++)
        for (int j = -reach; j <= reach; j++)
            for (int k = -reach; k <= reach; k++)
                if ((i + j + k) % 2 == 0)
                    sites.push_back(Vec3(i, j, k) * spacing);
    std::stable_sort(sites.begin(), sites.end(),
                     [](const Vec3& a, const Vec3& b) { return a.dot(a) < b.dot(b) - 1e-9; });
    sites.resize(options.numParticles);
    return sites;
}

std::vector<int> LennardJonesCluster::getColumns() const {
    std::vector<int> columns(3 * static_cast<std::size_t>(options.numParticles));
    std::iota(columns.begin(), columns.end(), 0);
    return columns;
}
