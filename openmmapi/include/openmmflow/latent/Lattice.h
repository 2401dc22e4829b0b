#ifndef OPENMMFLOW_LATENT_LATTICE_H_
#define OPENMMFLOW_LATENT_LATTICE_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <ATen/core/Tensor.h>
#include <vector>

namespace OpenMMFlow {

/**
 * The sites of a periodic lattice of any number of dimensions, one variable each. Sites are numbered with the last
 * coordinate running fastest: site (i, j) of a lattice of extents (n, m) is variable m i + j.
 */
class OPENMMFLOW_EXPORT Lattice {
public:
    /** @param extents  sites along each dimension, each at least 1; at least one dimension */
    explicit Lattice(std::vector<int> extents);
    [[nodiscard]] const std::vector<int>& getExtents() const { return extents; }
    /** Number of sites. */
    [[nodiscard]] int getSize() const { return size; }
    [[nodiscard]] std::vector<int> getCoordinates(int site) const;
    /** @param coordinates  of any size: they are taken modulo the extents */
    [[nodiscard]] int getSite(const std::vector<int>& coordinates) const;
    /** The site some steps away along one dimension. */
    [[nodiscard]] int getNeighbour(int site, int dimension, int steps) const;
    /**
     * One of the two colours of a checkerboard: sites whose coordinates have an even sum, or an odd one. Where all
     * extents are even, neighbours differ in colour, and translations by an even number of steps keep colours.
     */
    [[nodiscard]] std::vector<int> getCheckerboard(bool odd) const;
    /**
     * The sites at most one step away in each dimension, 3^dimensions of them, itself included, in the same order of
     * displacements for every site. Where an extent is below 3 some are listed more than once. int64 [size,
     * 3^dimensions]
     */
    [[nodiscard]] at::Tensor getNeighbourhoods() const;
    /**
     * Classes of displacements from site 0 that the lattice's point symmetries map onto each other: reflections of each
     * dimension, and exchanges of dimensions of equal extents. Numbered from 0, the class of no displacement. int64
     * [size]
     */
    [[nodiscard]] at::Tensor getOrbits() const;

private:
    std::vector<int> extents;
    int size = 1;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_LATENT_LATTICE_H_*/
