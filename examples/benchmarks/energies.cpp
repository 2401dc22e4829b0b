// SPDX-License-Identifier: MIT
// Batched energies of ContextPotential against a bare loop over as many Contexts, in as many threads.
//
//     python molecules.py FOLDER; benchmark_energies FOLDER [number of Contexts]

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

void compare(const Molecule& molecule, const std::string& name, const std::string& platform, int numContexts,
             std::int64_t batch) {
    ContextPotential::Options options;
    options.platform = platform;
    options.numContexts = numContexts;
    ContextPotential potential(*molecule.system, 300, options);
    BareLoop bare(*molecule.system, platform, numContexts);
    Random random(1);
    const std::int64_t particles = static_cast<std::int64_t>(molecule.positions.size());
    const at::Tensor noise = 0.002 * random.normal(batch, 3 * particles);
    std::vector<std::vector<Vec3>> samples(batch, molecule.positions);
    at::Tensor x = at::empty({batch, 3 * particles}, at::kDouble);
    for (std::int64_t i = 0; i < batch; i++)
        for (std::int64_t k = 0; k < 3 * particles; k++) {
            samples[i][k / 3][k % 3] += noise[i][k].item<double>();
            x[i][k] = samples[i][k / 3][k % 3];
        }
    std::vector<double> energies(batch);
    const auto repeat = [](int repeats, const auto& action) {
        for (int i = 0; i < repeats; i++)
            action();
    };
    const auto ours = [&] { (void)potential.evaluate(x); };
    const auto theirs = [&] { bare.evaluate(samples, energies); };
    // A turn takes about 20 ms.
    const int repeats = std::clamp(static_cast<int>(0.02 / timeInTurns(5, theirs)[0]), 1, 2000);
    const auto medians = timeInTurns(
        25, [&] { repeat(repeats, ours); }, [&] { repeat(repeats, theirs); });
    const double count = static_cast<double>(repeats * batch);
    std::printf("%-9s %-10s %6lld %14.0f %14.0f %8.3f\n", name.c_str(), platform.c_str(), static_cast<long long>(batch),
                count / medians[0], count / medians[1], medians[1] / medians[0]);
    std::fflush(stdout);
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: benchmark_energies FOLDER [number of Contexts]\n");
        return 2;
    }
    Platform::loadPluginsFromDirectory(Platform::getDefaultPluginsDirectory());
    const int cores = argc > 2 ? std::stoi(argv[2]) : static_cast<int>(std::thread::hardware_concurrency());
    std::printf("%d Contexts; configurations per second\n", cores);
    std::printf("%-9s %-10s %6s %14s %14s %8s\n", "", "platform", "batch", "OpenMM-Flow", "bare loop", "ratio");
    for (const char* name : {"vacuum", "implicit"}) {
        const Molecule molecule = readMolecule(argv[1], name);
        for (const char* platform : {"Reference", "CPU"})
            for (const std::int64_t batch : {1, 1024})
                compare(molecule, name, platform, cores, batch);
    }
    return 0;
}
