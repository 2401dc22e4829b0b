// SPDX-License-Identifier: MIT

#include "openmmflow/AnnealedProtocol.h"
#include "openmmflow/latent/Check.h"
#include <algorithm>
#include <cmath>

using namespace OpenMMFlow;

AnnealedProtocol::AnnealedProtocol(int stepsPerStage, double stepSize) {
    setStepsPerStage(stepsPerStage);
    setStepSize(stepSize);
}

void AnnealedProtocol::setStepsPerStage(int steps) {
    require(steps >= 0, "AnnealedProtocol::setStepsPerStage", "steps", steps, "at least 0");
    stepsPerStage = steps;
}

void AnnealedProtocol::setStepSize(double size) {
    require(size > 0 && std::isfinite(size), "AnnealedProtocol::setStepSize", "size", size, "positive and finite");
    stepSize = size;
}

void AnnealedProtocol::setFriction(double coefficient) {
    require(coefficient >= 0 && std::isfinite(coefficient), "AnnealedProtocol::setFriction", "coefficient", coefficient,
            "at least 0 and finite");
    friction = coefficient;
}

int AnnealedProtocol::addParameter(const std::string& name, const std::vector<double>& newValues) {
    const char* where = "AnnealedProtocol::addParameter";
    require(!name.empty(), where, "name", "empty", "that of a Context parameter");
    require(std::find(names.begin(), names.end(), name) == names.end(), where, "name", name,
            "that of a parameter which is not there yet");
    require(newValues.size() >= 2, where, "number of values", newValues.size(), "at least 2: of stages 0 and 1");
    require(values.empty() || newValues.size() == values[0].size(), where, "number of values", newValues.size(),
            "that of the other parameters, " + std::to_string(getNumStages() + 1));
    for (const double value : newValues)
        require(std::isfinite(value), where, "a value of " + name, value, "finite");
    names.push_back(name);
    values.push_back(newValues);
    return getNumParameters() - 1;
}

static std::size_t checkIndex(const char* where, int index, int count) {
    require(index >= 0 && index < count, where, "index", index,
            "at least 0 and less than the number of parameters, " + std::to_string(count));
    return static_cast<std::size_t>(index);
}

const std::string& AnnealedProtocol::getParameterName(int index) const {
    return names[checkIndex("AnnealedProtocol::getParameterName", index, getNumParameters())];
}

const std::vector<double>& AnnealedProtocol::getParameterValues(int index) const {
    return values[checkIndex("AnnealedProtocol::getParameterValues", index, getNumParameters())];
}
