// SPDX-License-Identifier: MIT
// Jumps in C++: three particles whose angle has two wells, with a barrier that dynamics alone crosses once in a blue
// moon.

#include <OpenMM.h>
#include <cmath>
#include <iostream>
#include <openmmflow/FlowLangevinIntegrator.h>
#include <openmmflow/flows/Coupling.h>
#include <openmmflow/flows/Elementary.h>
#include <openmmflow/flows/Flow.h>
#include <openmmflow/flows/InternalCoordinates.h>
#include <openmmflow/flows/Sequence.h>

using namespace OpenMM;
using namespace OpenMMFlow;

int main() {
    // Bonds of 0.1 nm, and an angle in wells of depth 60 kJ/mol at 1.0 and 2.0 rad.
    System system;
    for (int i = 0; i < 3; i++)
        system.addParticle(12.0);
    auto* bonds = new HarmonicBondForce();
    bonds->addBond(0, 1, 0.1, 2e5);
    bonds->addBond(1, 2, 0.1, 2e5);
    system.addForce(bonds);
    auto* wells = new CustomAngleForce("60*((theta-1.5)^2/0.25-1)^2");
    wells->addAngle(0, 1, 2, {});
    system.addForce(wells);
    const std::vector<Vec3> positions{Vec3(0.1, 0, 0), Vec3(0, 0, 0),
                                      Vec3(0.1 * std::cos(1.0), 0.1 * std::sin(1.0), 0)};

    // z -> bonds and angle -> x. The angle's distribution covers both wells; nothing is trained.
    const double temperature = 300, kT = 8.31446261815324e-3 * temperature, width = std::sqrt(kT / 2e5);
    const std::vector<int> atoms{0, 1, 2};
    const auto chart = InternalCoordinates::fromSystem(system, atoms, positions);
    const auto scaling =
        std::make_shared<Scaling>(std::vector<double>{0.1, 0.1, 1.5}, std::vector<double>{width, width, 0.4});
    const auto transform = std::make_shared<Sequence>(std::vector<std::shared_ptr<Transform>>{scaling, chart});
    const auto flow = std::make_shared<Flow>(std::make_shared<GaussianPrior>(3), transform, atoms);

    FlowLangevinIntegrator integrator(temperature, 1.0, 0.001, flow);
    integrator.setJumpInterval(20);
    integrator.setTrialsPerJump(8);
    integrator.setRandomNumberSeed(1);
    integrator.setJumpRandomNumberSeed(1);
    Context context(system, integrator, Platform::getPlatform("Reference"));
    context.setPositions(positions);
    context.setVelocitiesToTemperature(temperature, 1);

    int right = 0, crossings = 0;
    const int frames = 5000;
    bool before = false;
    for (int i = 0; i < frames; i++) {
        integrator.step(20);
        const auto x = context.getState(State::Positions).getPositions();
        const Vec3 a = x[0] - x[1], b = x[2] - x[1];
        const bool now = std::acos(a.dot(b) / std::sqrt(a.dot(a) * b.dot(b))) > 1.5;
        right += now;
        crossings += now != before;
        before = now;
    }
    const auto statistics = integrator.getJumpStatistics();
    const double found = static_cast<double>(right) / frames, exact = 0.519184;
    std::cout << statistics.accepted << " of " << statistics.trials << " trials accepted, " << crossings
              << " crossings, P(right) = " << found << " (" << exact << " by quadrature)\n";
    return crossings > 1000 && std::abs(found - exact) < 0.05 ? 0 : 1;
}
