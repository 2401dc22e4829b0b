// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/ManyWell.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <openmm/CustomExternalForce.h>

using namespace OpenMMFlow;

ManyWell::ManyWell() : ManyWell(Options{}) {}

ManyWell::ManyWell(const Options& options) : options(options), well(options.well) {
    require(options.numPairs >= 1, "ManyWell::ManyWell", "numPairs", options.numPairs, "at least 1");
}

double ManyWell::getLogZ() const {
    return options.numPairs * well.getTruth().logZ;
}

double ManyWell::energy(const std::vector<double>& pairs) const {
    require(pairs.size() == 2 * static_cast<std::size_t>(options.numPairs), "ManyWell::energy", "number of coordinates",
            pairs.size(), std::to_string(2 * options.numPairs));
    double sum = 0;
    for (std::size_t i = 0; i < pairs.size(); i += 2)
        sum += well.energy(pairs[i], pairs[i + 1]);
    return sum;
}

at::Tensor ManyWell::sample(std::int64_t count, Random& random) const {
    std::vector<at::Tensor> pairs;
    for (int i = 0; i < options.numPairs; i++)
        pairs.push_back(well.sample(count, random));
    return at::cat(pairs, 1);
}

// The force of one well acts on every particle.
std::unique_ptr<OpenMM::System> ManyWell::createSystem() const {
    auto system = well.createSystem();
    auto& force = dynamic_cast<OpenMM::CustomExternalForce&>(system->getForce(0));
    for (int i = 1; i < options.numPairs; i++)
        force.addParticle(system->addParticle(1.0));
    return system;
}

std::vector<OpenMM::Vec3> ManyWell::getPositions() const {
    return std::vector<OpenMM::Vec3>(options.numPairs, well.getPositions()[0]);
}

std::vector<int> ManyWell::getColumns() const {
    std::vector<int> columns;
    for (int i = 0; i < options.numPairs; i++)
        columns.insert(columns.end(), {3 * i, 3 * i + 1});
    return columns;
}
