// SPDX-License-Identifier: MIT

#include "openmmflow/energies/systems/DoubleWell.h"
#include "LineDensity.h"
#include "openmmflow/latent/Check.h"
#include <ATen/ATen.h>
#include <openmm/CustomExternalForce.h>

using namespace OpenMMFlow;
using at::Tensor;

namespace {

// Beyond this much above the lowest energy nothing is left of the density in double precision.
constexpr double negligible = 60;

// The roots of a x^3 - b x + c = 0 in ascending order, by Viete's formula for three real roots.
std::array<double, 3> stationaryPoints(const DoubleWell::Options& options) {
    const double radius = 2 * std::sqrt(options.b / (3 * options.a));
    const double angle = std::acos(-1.5 * options.c / options.b * std::sqrt(3 * options.a / options.b)) / 3;
    std::array<double, 3> roots{};
    for (int k = 0; k < 3; k++)
        roots[k] = radius * std::cos(angle - 2 * M_PI * k / 3);
    std::sort(roots.begin(), roots.end());
    return roots;
}

LineDensity makeDensity(const DoubleWell& well, const DoubleWell::Truth& truth) {
    const auto u = [&](double x) { return well.energy(x, 0); };
    const double level = std::min(u(truth.leftMinimum), u(truth.rightMinimum)) + negligible;
    const double step = 0.1 * (truth.rightMinimum - truth.leftMinimum);
    return {u, findLevel(u, truth.leftMinimum, -step, level), truth.barrier,
            findLevel(u, truth.rightMinimum, step, level)};
}

} // namespace

DoubleWell::DoubleWell() : DoubleWell(Options{}) {}

DoubleWell::DoubleWell(const Options& newOptions) : options(newOptions) {
    const char* where = "DoubleWell::DoubleWell";
    const auto& [a, b, c, d] = options;
    for (const auto& [name, value] : {std::pair("a", a), std::pair("b", b), std::pair("d", d)})
        require(value > 0 && std::isfinite(value), where, name, value, "positive and finite");
    require(4 * b * b * b > 27 * a * c * c, where, "c", c, "small enough for two minima: 27 a c^2 < 4 b^3");
    const auto roots = stationaryPoints(options);
    truth.leftMinimum = roots[0];
    truth.barrier = roots[1];
    truth.rightMinimum = roots[2];
    const LineDensity density = makeDensity(*this, truth);
    truth.logZX = density.logZ();
    truth.logZ = truth.logZX + 0.5 * std::log(2 * M_PI / d);
    const double mean = density.mean([](double x) { return x; });
    truth.meanX = mean;
    truth.varianceX = density.mean([mean](double x) { return (x - mean) * (x - mean); });
    truth.probabilityLeft = density.probabilityLeft();
    truth.deltaF = density.logRatio();
}

double DoubleWell::energy(double x, double y) const {
    const auto& [a, b, c, d] = options;
    return a * x * x * x * x / 4 - b * x * x / 2 + c * x + d * y * y / 2;
}

// x by the inverse of its distribution function at sorted random numbers, put back in random order.
Tensor DoubleWell::sample(std::int64_t count, Random& random) const {
    require(count >= 1, "DoubleWell::sample", "count", count, "at least 1");
    std::vector<double> fractions(count);
    for (double& fraction : fractions)
        fraction = random.uniform();
    std::sort(fractions.begin(), fractions.end());
    const Tensor x = at::tensor(makeDensity(*this, truth).quantiles(fractions), at::kDouble);
    const Tensor y = random.normal(count, 1).squeeze(1) / std::sqrt(options.d);
    return at::stack({x.index_select(0, random.permutation(count)), y}, 1);
}

std::unique_ptr<OpenMM::System> DoubleWell::createSystem() const {
    auto system = std::make_unique<OpenMM::System>();
    auto* force = new OpenMM::CustomExternalForce("a*x^4/4 - b*x^2/2 + c*x + d*y^2/2 + z^2/2");
    force->addGlobalParameter("a", options.a);
    force->addGlobalParameter("b", options.b);
    force->addGlobalParameter("c", options.c);
    force->addGlobalParameter("d", options.d);
    force->addParticle(system->addParticle(1.0));
    system->addForce(force);
    return system;
}

std::vector<OpenMM::Vec3> DoubleWell::getPositions() const {
    return {OpenMM::Vec3(truth.leftMinimum, 0, 0)};
}
