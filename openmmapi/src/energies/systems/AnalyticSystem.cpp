// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/AnalyticSystem.h"
#include "openmmflow/energies/SelectedColumns.h"

using namespace OpenMMFlow;

std::shared_ptr<ReducedPotential> AnalyticSystem::createPotential(const ContextPotential::Options& options) const {
    const auto whole = std::make_shared<ContextPotential>(*createSystem(), unitTemperature, options);
    return std::make_shared<SelectedColumns>(whole, getColumns(), std::vector<double>(whole->getSize(), 0.0));
}

std::shared_ptr<ReducedPotential> AnalyticSystem::createPotential() const {
    return createPotential({});
}
