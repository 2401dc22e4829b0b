#ifndef OPENMMFLOW_TESTS_APISYSTEMS_H_
#define OPENMMFLOW_TESTS_APISYSTEMS_H_
// SPDX-License-Identifier: MIT
// Small Systems, and flows that propose for them, for the tests of FlowForce and FlowLangevinIntegrator.

#include "api/ApiPlatforms.h"
#include "openmmflow/energies/systems/AnalyticSystem.h" // unitTemperature
#include "openmmflow/flows/Coupling.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Flow.h"
#include "openmmflow/flows/InternalCoordinates.h"
#include "openmmflow/flows/Sequence.h"
#include <OpenMM.h>
#include <gtest/gtest.h>
#include <openmm/internal/CustomCPPForceImpl.h>

namespace OpenMMFlow {

/** System A1 of one particle, U = x^4/4 - 6x^2/2 + c x + y^2/2 + z^2/2, whose wells differ by about 5c. */
inline std::unique_ptr<OpenMM::System> makeDoubleWell(double c) {
    auto system = std::make_unique<OpenMM::System>();
    system->addParticle(1.0);
    auto* force = new OpenMM::CustomExternalForce("x^4/4 - 3*x^2 + tilt*x + (y^2 + z^2)/2");
    force->addGlobalParameter("tilt", c);
    force->addParticle(0);
    system->addForce(force);
    return system;
}

/** The double well as stage lambda = 1, and a broad normal density, off its centre, as lambda = 0. */
inline std::unique_ptr<OpenMM::System> makeAnnealedWell(double c) {
    auto system = std::make_unique<OpenMM::System>();
    system->addParticle(1.0);
    auto* force = new OpenMM::CustomExternalForce(
        "lambda*(x^4/4 - 3*x^2 + tilt*x + (y^2 + z^2)/2) + (1-lambda)*((x-0.4)^2/8 + (y^2 + z^2)/3)");
    force->addGlobalParameter("lambda", 1.0);
    force->addGlobalParameter("tilt", c);
    force->addParticle(0);
    system->addForce(force);
    return system;
}

/** Z_right / Z of the double well, by the midpoint rule. */
inline double rightFraction(double c) {
    double right = 0, all = 0;
    for (int i = 0; i < 100000; i++) {
        const double x = -6 + 12 * (i + 0.5) / 100000, weight = std::exp(-(x * x * x * x / 4 - 3 * x * x + c * x));
        all += weight;
        right += x > 0.0835 ? weight : 0;
    }
    return right / all;
}

/** A broad, off-centre normal density of the coordinates of some particles. */
inline std::shared_ptr<Flow> makeBroadFlow(std::vector<int> atoms, double mean, double width) {
    const std::size_t size = 3 * atoms.size();
    return std::make_shared<Flow>(
        std::make_shared<GaussianPrior>(static_cast<int>(size)),
        std::make_shared<Scaling>(std::vector<double>(size, mean), std::vector<double>(size, width)), atoms);
}

/** A broad density of the double well's particle: wide in x, as it should be in y and z. */
inline std::shared_ptr<Flow> makeWellFlow() {
    return std::make_shared<Flow>(
        std::make_shared<GaussianPrior>(3),
        std::make_shared<Scaling>(std::vector<double>{0.2, 0.1, -0.1}, std::vector<double>{2.5, 1.2, 1.2}),
        std::vector<int>{0});
}

/** System T: three equal masses, two of them at fixed distances from the first; no forces. */
inline std::unique_ptr<OpenMM::System> makeTrimer(bool constrained = true) {
    auto system = std::make_unique<OpenMM::System>();
    for (int i = 0; i < 3; i++)
        system->addParticle(12.0);
    auto* bonds = new OpenMM::HarmonicBondForce();
    for (const int i : {1, 2})
        if (constrained)
            system->addConstraint(0, i, 0.15);
        else
            bonds->addBond(0, i, 0.15, 1e5);
    system->addForce(bonds);
    return system;
}

inline std::vector<OpenMM::Vec3> makeTrimerPositions(double angle) {
    return {OpenMM::Vec3(1, 2, 3), OpenMM::Vec3(1.15, 2, 3),
            OpenMM::Vec3(1 + 0.15 * std::cos(angle), 2 + 0.15 * std::sin(angle), 3)};
}

/** A flow of the trimer's angle (and of its bonds, where they are free). */
inline std::shared_ptr<Flow> makeTrimerFlow(const OpenMM::System& system) {
    const auto chart = InternalCoordinates::fromSystem(system, {0, 1, 2}, makeTrimerPositions(1.9));
    const int size = chart->getInputSize();
    std::vector<double> shift(size, 0.15), scale(size, 0.01);
    shift.back() = 1.7;
    scale.back() = 0.9;
    return std::make_shared<Flow>(std::make_shared<GaussianPrior>(size),
                                  std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{
                                      std::make_shared<Scaling>(shift, scale), chart}),
                                  std::vector<int>{0, 1, 2});
}

/** A Force that throws, or whose energy and forces are NaN, where a particle's x is above a limit or at one evaluation
 * of a count. Harmless otherwise. */
class FaultyForce : public OpenMM::Force {
public:
    enum class Fault { Throws, NotANumber };
    FaultyForce(Fault fault, double limit) : fault(fault), limit(limit) {}
    Fault fault;
    double limit;
    /** Evaluations until the next fails; not counted below 0. */
    mutable int evaluationsLeft = -1;

protected:
    struct Impl : OpenMM::CustomCPPForceImpl {
        explicit Impl(const FaultyForce& owner) : CustomCPPForceImpl(owner), owner(owner) {}
        const OpenMM::Force& getOwner() const override { return owner; }
        double computeForce(OpenMM::ContextImpl&, const std::vector<OpenMM::Vec3>& positions,
                            std::vector<OpenMM::Vec3>& forces) override {
            std::fill(forces.begin(), forces.end(), OpenMM::Vec3());
            if (positions[0][0] <= owner.limit && (owner.evaluationsLeft < 0 || owner.evaluationsLeft-- > 0))
                return 0;
            if (owner.fault == Fault::Throws)
                throw OpenMM::OpenMMException("the particle is too far to the right");
            std::fill(forces.begin(), forces.end(), OpenMM::Vec3(NAN, NAN, NAN));
            return NAN;
        }
        const FaultyForce& owner;
    };
    OpenMM::ForceImpl* createImpl() const override { return new Impl(*this); }
};

/** Equality of every component, bit for bit. */
inline bool areEqual(const std::vector<OpenMM::Vec3>& a, const std::vector<OpenMM::Vec3>& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_APISYSTEMS_H_*/
