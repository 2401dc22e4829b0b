// SPDX-License-Identifier: MIT

#include "openmmflow/samplers/ParameterPath.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

/** Sets parameters, and on leaving those that were there before. */
class ParameterGuard {
public:
    ParameterGuard(ContextPotential& potential, const std::map<std::string, double>& wanted) : potential(potential) {
        const auto all = potential.getParameters();
        for (const auto& [name, value] : wanted)
            if (all.at(name) != value)
                before[name] = all.at(name);
        try {
            for (const auto& [name, value] : before)
                potential.setParameter(name, wanted.at(name));
        } catch (...) {
            restore();
            throw;
        }
    }
    ~ParameterGuard() { restore(); }
    ParameterGuard(const ParameterGuard&) = delete;
    ParameterGuard& operator=(const ParameterGuard&) = delete;

private:
    void restore() {
        for (const auto& [name, value] : before)
            try {
                potential.setParameter(name, value);
            } catch (const std::exception&) { // these values were there before; nothing else can be done here
            }
    }
    ContextPotential& potential;
    std::map<std::string, double> before;
};

} // namespace

ParameterPath::ParameterPath(std::shared_ptr<ContextPotential> newPotential, std::vector<double> newNodes)
    : potential(std::move(newPotential)), nodes(std::move(newNodes)), scale(nodes.size(), 1.0) {
    const char* where = "ParameterPath::ParameterPath";
    require(potential != nullptr, where, "potential", "null", "a ContextPotential");
    require(nodes.size() >= 2, where, "number of nodes", nodes.size(), "at least 2");
    require(nodes.front() == 0, where, "the first node", nodes.front(), "0");
    require(nodes.back() == 1, where, "the last node", nodes.back(), "1");
    for (std::size_t i = 1; i < nodes.size(); i++)
        require(nodes[i] > nodes[i - 1], where, "a node", nodes[i],
                "larger than that before, " + std::to_string(nodes[i - 1]));
}

void ParameterPath::addParameter(const std::string& name, std::vector<double> values) {
    const char* where = "ParameterPath::addParameter";
    require(potential->getParameters().count(name) > 0, where, "name", name, "a parameter of the System");
    require(table.count(name) == 0, where, "name", name, "added once");
    require(values.size() == nodes.size(), where, "number of values", values.size(),
            "that of the nodes, " + std::to_string(nodes.size()));
    for (const double value : values)
        require(std::isfinite(value), where, "a value", value, "finite");
    table[name] = std::move(values);
}

void ParameterPath::setScale(std::vector<double> values) {
    const char* where = "ParameterPath::setScale";
    require(values.size() == nodes.size(), where, "number of values", values.size(),
            "that of the nodes, " + std::to_string(nodes.size()));
    for (const double value : values)
        require(value > 0 && std::isfinite(value), where, "a value", value, "positive and finite");
    scale = std::move(values);
}

double ParameterPath::interpolate(const std::vector<double>& values, double lambda) const {
    require(lambda >= 0 && lambda <= 1, "ParameterPath::getParameters", "lambda", lambda, "in [0, 1]");
    const auto above = std::upper_bound(nodes.begin() + 1, nodes.end() - 1, lambda);
    const auto i = above - nodes.begin();
    const double part = (lambda - nodes[i - 1]) / (nodes[i] - nodes[i - 1]);
    return part == 1 ? values[i] : values[i - 1] + part * (values[i] - values[i - 1]);
}

std::map<std::string, double> ParameterPath::getParameters(double lambda) const {
    std::map<std::string, double> parameters;
    for (const auto& [name, values] : table)
        parameters[name] = interpolate(values, lambda);
    return parameters;
}

double ParameterPath::getScale(double lambda) const {
    return interpolate(scale, lambda);
}

PathState ParameterPath::compute(const Tensor& x, double lambda, Gradient gradient) {
    const ParameterGuard parameters(*potential, getParameters(lambda));
    const EnergyResult energy = potential->evaluate(x, gradient);
    count(x.size(0), gradient);
    const double s = getScale(lambda);
    PathState state;
    state.x = x;
    state.logDensity = -s * energy.u;
    state.kept = {energy.u};
    if (gradient == Gradient::Compute) {
        state.gradient = -s * energy.gradient;
        state.kept.push_back(energy.gradient);
    }
    return state;
}

PathState ParameterPath::reuse(const PathState& state, double lambda) const {
    PathState moved;
    if (state.kept.empty() || getParameters(lambda) != getParameters(state.lambda))
        return moved;
    const double s = getScale(lambda);
    moved.x = state.x;
    moved.kept = state.kept;
    moved.logDensity = -s * state.kept[0];
    if (state.kept.size() == 2)
        moved.gradient = -s * state.kept[1];
    return moved;
}
