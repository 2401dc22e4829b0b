// SPDX-License-Identifier: MIT
// A step of FlowLangevinIntegrator with jumps off against one of LangevinMiddleIntegrator.
//
//     python molecules.py FOLDER; benchmark_steps FOLDER

#include "Timing.h"
#include "openmmflow/FlowLangevinIntegrator.h"
#include "openmmflow/flows/Elementary.h"
#include "openmmflow/flows/Flow.h"
#include <cstdio>
#include <numeric>

using namespace OpenMM;
using namespace OpenMMFlow;

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: benchmark_steps FOLDER\n");
        return 2;
    }
    Platform::loadPluginsFromDirectory(Platform::getDefaultPluginsDirectory());
    const Molecule molecule = readMolecule(argv[1], "vacuum");
    std::vector<int> atoms(molecule.positions.size());
    std::iota(atoms.begin(), atoms.end(), 0);
    const int size = 3 * static_cast<int>(atoms.size());
    const auto flow = std::make_shared<Flow>(
        std::make_shared<GaussianPrior>(size),
        std::make_shared<Scaling>(std::vector<double>(size, 0.0), std::vector<double>(size, 1.0)), atoms);
    std::printf("microseconds per step\n%-10s %8s %14s %26s %8s\n", "platform", "block", "OpenMM-Flow",
                "LangevinMiddleIntegrator", "ratio");
    for (const char* platform : {"Reference", "CPU"})
        for (const int block : {1, 100}) {
            FlowLangevinIntegrator ours(300, 1, 0.001, flow);
            ours.setJumpInterval(0);
            LangevinMiddleIntegrator theirs(300, 1, 0.001);
            std::map<std::string, std::string> properties;
            if (std::string(platform) == "CPU")
                properties.emplace("Threads", "1");
            Context a(*molecule.system, ours, Platform::getPlatformByName(platform), properties);
            Context b(*molecule.system, theirs, Platform::getPlatformByName(platform), properties);
            a.setPositions(molecule.positions);
            b.setPositions(molecule.positions);
            const int steps = 500;
            const auto run = [&](Integrator& integrator) {
                for (int i = 0; i < steps; i += block)
                    integrator.step(block);
            };
            const auto medians = timeInTurns(
                41, [&] { run(ours); }, [&] { run(theirs); });
            std::printf("%-10s %8d %14.3f %26.3f %8.3f\n", platform, block, 1e6 * medians[0] / steps,
                        1e6 * medians[1] / steps, medians[0] / medians[1]);
            std::fflush(stdout);
        }
    return 0;
}
