// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Lattice.h"
#include "TensorTools.h"
#include "openmmflow/latent/Check.h"
#include <numeric>

using namespace OpenMMFlow;
using at::Tensor;

Lattice::Lattice(std::vector<int> newExtents) : extents(std::move(newExtents)) {
    require(!extents.empty(), "Lattice::Lattice", "number of extents", extents.size(), "at least 1");
    for (const int extent : extents) {
        require(extent >= 1, "Lattice::Lattice", "an extent", extent, "at least 1");
        size *= extent;
    }
}

std::vector<int> Lattice::getCoordinates(int site) const {
    std::vector<int> coordinates(extents.size());
    for (std::size_t i = extents.size(); i-- > 0; site /= extents[i])
        coordinates[i] = site % extents[i];
    return coordinates;
}

int Lattice::getSite(const std::vector<int>& coordinates) const {
    int site = 0;
    for (std::size_t i = 0; i < extents.size(); i++)
        site = site * extents[i] + ((coordinates[i] % extents[i]) + extents[i]) % extents[i];
    return site;
}

int Lattice::getNeighbour(int site, int dimension, int steps) const {
    std::vector<int> coordinates = getCoordinates(site);
    coordinates.at(dimension) += steps;
    return getSite(coordinates);
}

std::vector<int> Lattice::getCheckerboard(bool odd) const {
    std::vector<int> sites;
    for (int site = 0; site < size; site++) {
        const std::vector<int> at = getCoordinates(site);
        if ((std::accumulate(at.begin(), at.end(), 0) % 2 == 1) == odd)
            sites.push_back(site);
    }
    return sites;
}

Tensor Lattice::getNeighbourhoods() const {
    const Lattice displacements(std::vector<int>(extents.size(), 3));
    std::vector<int> neighbours;
    for (int site = 0; site < size; site++)
        for (int i = 0; i < displacements.getSize(); i++) {
            std::vector<int> at = getCoordinates(site);
            const std::vector<int> step = displacements.getCoordinates(i);
            for (std::size_t d = 0; d < at.size(); d++)
                at[d] += step[d] - 1;
            neighbours.push_back(getSite(at));
        }
    return indexTensor(neighbours).reshape({size, -1});
}

Tensor Lattice::getOrbits() const {
    // A class is known by its distances along the dimensions, those of equal extents in increasing order.
    std::map<std::vector<std::pair<int, int>>, int> numbers;
    std::vector<int> orbits;
    for (int site = 0; site < size; site++) {
        const std::vector<int> at = getCoordinates(site);
        std::vector<std::pair<int, int>> distances;
        for (std::size_t d = 0; d < at.size(); d++)
            distances.emplace_back(extents[d], std::min(at[d], extents[d] - at[d]));
        std::sort(distances.begin(), distances.end());
        orbits.push_back(numbers.try_emplace(distances, static_cast<int>(numbers.size())).first->second);
    }
    return indexTensor(orbits);
}
