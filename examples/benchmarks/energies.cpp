// SPDX-License-Identifier: MIT
// Batched energies of ContextPotential on one and two Contexts, and of a bare loop over as many, in as many threads.
// Run by energies.py, which reads its lines: see printTimes().
//
//     python molecules.py FOLDER; benchmark_energies FOLDER SECONDS

#include "Timing.h"
#include "openmmflow/energies/ContextPotential.h"
#include "openmmflow/latent/Random.h"
#include <ATen/ATen.h>
#include <cstdio>
#include <thread>

using namespace OpenMM;
using namespace OpenMMFlow;

namespace {

/** What one would write without OpenMM-Flow. */
class BareLoop {
public:
    BareLoop(const System& system, const std::string& platform, int count) {
        for (int i = 0; i < count; i++) {
            integrators.push_back(std::make_unique<VerletIntegrator>(0.001));
            std::map<std::string, std::string> properties;
            if (platform == "CPU")
                properties.emplace("Threads", "1");
            contexts.push_back(std::make_unique<Context>(system, *integrators.back(),
                                                         Platform::getPlatformByName(platform), properties));
        }
    }
    void evaluate(const std::vector<std::vector<Vec3>>& samples, std::vector<double>& energies) {
        const std::size_t count = std::min(contexts.size(), samples.size());
        const auto work = [&](std::size_t first) {
            for (std::size_t i = first; i < samples.size(); i += count) {
                contexts[first]->setPositions(samples[i]);
                energies[i] = contexts[first]->getState(State::Energy).getPotentialEnergy();
            }
        };
        std::vector<std::thread> threads;
        for (std::size_t i = 1; i < count; i++)
            threads.emplace_back(work, i);
        work(0);
        for (auto& thread : threads)
            thread.join();
    }

private:
    std::vector<std::unique_ptr<VerletIntegrator>> integrators;
    std::vector<std::unique_ptr<Context>> contexts;
};

/** Configurations near the molecule's, as each side wants them. */
struct Samples {
    std::vector<std::vector<Vec3>> lists;
    at::Tensor rows;
};

Samples makeSamples(const Molecule& molecule, std::int64_t batch) {
    Random random(1);
    Samples samples{std::vector<std::vector<Vec3>>(batch, molecule.positions),
                    at::empty({batch, 3 * static_cast<std::int64_t>(molecule.positions.size())}, at::kDouble)};
    double* to = samples.rows.mutable_data_ptr<double>();
    for (auto& positions : samples.lists)
        for (Vec3& position : positions)
            for (int k = 0; k < 3; k++) {
                position[k] += 0.002 * random.normal();
                *to++ = position[k];
            }
    return samples;
}

void compare(const Molecule& molecule, const std::string& name, const std::string& platform, std::int64_t batch,
             double seconds) {
    const Samples samples = makeSamples(molecule, batch);
    std::vector<std::unique_ptr<ContextPotential>> potentials;
    std::vector<std::unique_ptr<BareLoop>> loops;
    for (const int numContexts : {1, 2}) {
        ContextPotential::Options options;
        options.platform = platform;
        options.numContexts = numContexts;
        potentials.push_back(std::make_unique<ContextPotential>(*molecule.system, 300, options));
        loops.push_back(std::make_unique<BareLoop>(*molecule.system, platform, numContexts));
    }
    std::vector<double> energies(batch);
    const auto ours = [&](int which) { (void)potentials[which]->evaluate(samples.rows); };
    const auto theirs = [&](int which) { loops[which]->evaluate(samples.lists, energies); };
    // A turn takes about 20 ms.
    const int repeats = std::clamp(static_cast<int>(0.02 / timeInTurns(0, [&] { theirs(1); })[0].back()), 1, 2000);
    const auto repeat = [repeats](const auto& action, int which) {
        for (int i = 0; i < repeats; i++)
            action(which);
    };
    const auto times = timeInTurns(
        seconds, [&] { repeat(ours, 0); }, [&] { repeat(ours, 1); }, [&] { repeat(theirs, 0); },
        [&] { repeat(theirs, 1); });
    printTimes(name + ", " + platform + ", batch " + std::to_string(batch), static_cast<double>(repeats * batch),
               {"one Context", "two Contexts", "bare loop, one", "bare loop, two"}, times);
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: benchmark_energies FOLDER SECONDS\n");
        return 2;
    }
    Platform::loadPluginsFromDirectory(Platform::getDefaultPluginsDirectory());
    for (const char* name : {"vacuum", "implicit"}) {
        const Molecule molecule = readMolecule(argv[1], name);
        const std::string chosen = ContextPotential(*molecule.system, 300).getPlatformName();
        for (const std::string platform : {"Reference", "CPU"})
            for (const std::int64_t batch : {1, 1024})
                compare(molecule, name + std::string(platform == chosen ? " (chosen)" : ""), platform, batch,
                        std::stod(argv[2]));
    }
    return 0;
}
