// SPDX-License-Identifier: MIT

#include "MovedAtoms.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMM;
using at::Tensor;

void OpenMMFlow::checkParticles(const std::string& who, const std::vector<int>& particles, const System& system) {
    for (const int particle : particles) {
        require(particle >= 0 && particle < system.getNumParticles(), who, "a particle of the flow", particle,
                "one of the System's " + std::to_string(system.getNumParticles()));
        require(!system.isVirtualSite(particle), who, "a particle of the flow", particle,
                "no virtual site: those follow their parents");
        require(system.getParticleMass(particle) > 0, who, "mass of particle " + std::to_string(particle),
                system.getParticleMass(particle), "positive: a massless particle does not move");
    }
}

Tensor OpenMMFlow::gather(const std::vector<Vec3>& all, const std::vector<int>& particles) {
    Tensor row = at::empty({1, 3 * static_cast<std::int64_t>(particles.size())}, at::kDouble);
    double* data = row.mutable_data_ptr<double>();
    for (const int particle : particles)
        for (int k = 0; k < 3; k++)
            *data++ = all[particle][k];
    return row;
}

void OpenMMFlow::scatter(const Tensor& row, const std::vector<int>& particles, std::vector<Vec3>& all) {
    const Tensor flat = row.to(at::kCPU).contiguous();
    const double* data = flat.const_data_ptr<double>();
    for (const int particle : particles)
        for (int k = 0; k < 3; k++)
            all[particle][k] = *data++;
}
