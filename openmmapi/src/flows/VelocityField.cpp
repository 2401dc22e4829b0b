// SPDX-License-Identifier: MIT

#include "openmmflow/flows/VelocityField.h"
#include "openmmflow/flows/LatticeVelocityField.h"
#include "openmmflow/flows/NetworkVelocityField.h"
#include "openmmflow/latent/Check.h"
#include <nlohmann/json.hpp>

using namespace OpenMMFlow;
using at::Tensor;

VelocityResult VelocityField::withEstimatedDivergence(const Tensor& y, const Tensor& t, const Tensor& probes) const {
    require(probes.dim() == 3 && probes.size(0) == y.size(0) && probes.size(1) > 0 && probes.size(2) == getSize(),
            "VelocityField::withEstimatedDivergence", "shape of probes", probes.sizes(),
            "[batch, number of probes, " + std::to_string(getSize()) + "]");
    return evaluate(y, t, probes);
}

std::shared_ptr<VelocityField> VelocityField::create(const nlohmann::json& architecture, int size,
                                                     const std::vector<int>& circular) {
    const std::string type = architecture.value("type", "NetworkVelocityField"); // once there was no other
    require(type == "NetworkVelocityField" || type == "LatticeVelocityField", "VelocityField::create", "type", type,
            "NetworkVelocityField or LatticeVelocityField");
    if (type == "NetworkVelocityField")
        return std::make_shared<NetworkVelocityField>(size, circular, NetworkVelocityField::readOptions(architecture));
    const auto field = LatticeVelocityField::fromArchitecture(architecture);
    require(field->getSize() == size, "VelocityField::create", "number of sites", field->getSize(),
            "the size, " + std::to_string(size));
    return field;
}
