// SPDX-License-Identifier: MIT
// ContextPotential on Platforms that read rows on their device, against Reference.

#include "api/ApiPlatforms.h"
#include "openmmflow/energies/ContextPotential.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>

using namespace OpenMMFlow;
using namespace OpenMM;
using at::Tensor;

namespace {

/** Three charged dimers in a small periodic box, each with a virtual site; the bond of the second is constrained. */
std::unique_ptr<System> makeDimers() {
    auto system = std::make_unique<System>();
    system->setDefaultPeriodicBoxVectors({2, 0, 0}, {0, 2, 0}, {0, 0, 2});
    auto* bonds = new HarmonicBondForce();
    auto* nonbonded = new NonbondedForce();
    nonbonded->setNonbondedMethod(NonbondedForce::CutoffPeriodic);
    nonbonded->setCutoffDistance(0.9);
    for (int molecule = 0; molecule < 3; molecule++) {
        const int first = 3 * molecule;
        for (int k = 0; k < 2; k++) {
            system->addParticle(12.0 + k);
            nonbonded->addParticle(0.1, 0.2, 0.3);
        }
        system->addParticle(0);
        system->setVirtualSite(first + 2, new TwoParticleAverageSite(first, first + 1, 0.3, 0.7));
        nonbonded->addParticle(-0.2, 0.2, 0);
        if (molecule == 1)
            system->addConstraint(first, first + 1, 0.15);
        else
            bonds->addBond(first, first + 1, 0.15, 1000);
        for (const auto& [i, j] : {std::pair{0, 1}, {0, 2}, {1, 2}})
            nonbonded->addException(first + i, first + j, 0, 0.1, 0);
    }
    system->addForce(bonds);
    system->addForce(nonbonded);
    return system;
}

/** The six particles with mass; some of the rows reach over the edge of the box. */
Tensor makeRows(std::int64_t batch) {
    const Tensor start = at::tensor(
        {0.1, 0.2, 0.1, 0.25, 0.2, 0.1, 0.9, 0.3, 0.4, 0.9, 0.45, 0.4, 1.95, 0.3, 0.4, 2.1, 0.3, 0.4}, at::kDouble);
    Random random(3);
    return start + 0.02 * random.normal(batch, 18) + 5 * (random.uniform(batch, 1) - 0.5);
}

std::vector<Vec3> referencePositions() {
    const Tensor row = makeRows(1);
    const double* x = row.const_data_ptr<double>();
    std::vector<Vec3> positions;
    for (int molecule = 0; molecule < 3; molecule++, x += 6)
        for (const Vec3& r : {Vec3(x[0], x[1], x[2]), Vec3(x[3], x[4], x[5]), Vec3()})
            positions.push_back(r);
    return positions;
}

/** Of some of the particles, not in their order. */
ContextPotential makePotential(const std::string& name) {
    ContextPotential::Options options;
    options.platform = getPlatform(name).getName();
    options.properties = getProperties(name);
    options.referencePositions = referencePositions();
    options.atoms = {6, 7, 1, 3, 4};
    return {*makeDimers(), 300, options};
}

void expectClose(const Tensor& found, const Tensor& expected, double tolerance) {
    const double scale = 1 + expected.abs().max().item<double>();
    EXPECT_LE((found.to(at::kCPU) - expected).abs().max().item<double>(), tolerance * scale);
}

} // namespace

using ContextPotentialOn = PlatformTest;
INSTANTIATE_TEST_SUITE_P(Platforms, ContextPotentialOn, testing::Values("OpenCL_mixed", "CUDA_mixed"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(SlowPlatforms, ContextPotentialOn, testing::ValuesIn(otherPrecisions),
                         [](const auto& info) { return info.param; });

// Also in double precision, these Platforms hold the parameters of forces in single. One test, since with PoCL a
// Context costs seconds.
TEST_P(ContextPotentialOn, EnergiesAndGradientsAreThoseOfReference) {
    const double tolerance = byPrecision(2e-5, 2e-5, 1e-6);
    const std::string device = at::hasCUDA() && GetParam().starts_with("CUDA") ? "cuda" : "cpu";
    auto reference = makePotential("Reference"), potential = makePotential(GetParam());
    const Tensor columns = at::tensor({12, 13, 14, 15, 16, 17, 3, 4, 5, 6, 7, 8, 9, 10, 11});
    Tensor rows = makeRows(20).index_select(1, columns) - 0.01;
    rows[4][2] = NAN;
    const Tensor finite = at::arange(20) != 4;
    const EnergyResult expected = reference.evaluate(rows, Gradient::Compute);
    for (const Gradient wanted : {Gradient::Compute, Gradient::Omit}) {
        const EnergyResult found = potential.evaluate(rows.to(at::Device(device)), wanted);
        EXPECT_EQ(found.u.device().str().substr(0, device.size()), device);
        EXPECT_EQ(found.nonFinite, 1);
        EXPECT_EQ(found.failed, 0) << potential.getLastFailure();
        const Tensor u = found.u.to(at::kCPU);
        EXPECT_TRUE(at::equal(at::isfinite(u), finite));
        expectClose(u.masked_select(finite), expected.u.masked_select(finite), tolerance);
        if (wanted == Gradient::Compute)
            expectClose(found.gradient, expected.gradient, tolerance);
    }
    EXPECT_EQ(potential.evaluate(rows.narrow(0, 0, 0), Gradient::Compute).u.numel(), 0);
    for (auto* each : {&reference, &potential})
        each->setPeriodicBoxVectors({1.9, 0, 0}, {0, 1.85, 0}, {0, 0, 1.8});
    const Tensor inNewBox = reference.evaluate(rows).u.masked_select(finite);
    EXPECT_GT((inNewBox - expected.u.masked_select(finite)).abs().max().item<double>(), 0.01);
    expectClose(potential.evaluate(rows).u.masked_select(finite), inNewBox, tolerance);
}
