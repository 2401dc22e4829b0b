// SPDX-License-Identifier: MIT

#include "HostMovedAtomsKernel.h"
#include "MovedAtoms.h"

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

Tensor HostMovedAtomsKernel::gather(ContextImpl& context) {
    context.getPositions(vectors);
    return OpenMMFlow::gather(vectors, atoms);
}

void HostMovedAtomsKernel::scatter(ContextImpl& context, const Tensor& row) {
    context.getPositions(vectors);
    OpenMMFlow::scatter(row, atoms, vectors);
    context.setPositions(vectors);
}

Tensor HostMovedAtomsKernel::gatherForces(ContextImpl& context) {
    context.getForces(vectors);
    return OpenMMFlow::gather(vectors, atoms);
}

void HostMovedAtomsKernel::save(ContextImpl& context) {
    context.getPositions(savedPositions);
    context.getVelocities(savedVelocities);
}

void HostMovedAtomsKernel::restore(ContextImpl& context) {
    context.setPositions(savedPositions);
    context.setVelocities(savedVelocities);
}
