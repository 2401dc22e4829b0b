#ifndef OPENMMFLOW_BENCHMARKS_TIMING_H_
#define OPENMMFLOW_BENCHMARKS_TIMING_H_
// SPDX-License-Identifier: MIT
// What the benchmarks share: a System from files, and times of alternatives taken in turns.

#include <OpenMM.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

struct Molecule {
    std::unique_ptr<OpenMM::System> system;
    std::vector<OpenMM::Vec3> positions; // nm
};

/** Read FOLDER/NAME.xml, a System, and FOLDER/NAME.txt, three numbers for each particle: see molecules.py. */
inline Molecule readMolecule(const std::string& folder, const std::string& name) {
    std::ifstream xml(folder + "/" + name + ".xml"), text(folder + "/" + name + ".txt");
    if (!xml || !text)
        throw OpenMM::OpenMMException("no " + name + ".xml or .txt in " + folder + ": run molecules.py");
    Molecule molecule{std::unique_ptr<OpenMM::System>(OpenMM::XmlSerializer::deserialize<OpenMM::System>(xml)), {}};
    for (double x = 0, y = 0, z = 0; text >> x >> y >> z;)
        molecule.positions.emplace_back(x, y, z);
    return molecule;
}

/** Seconds that each action takes, in each of the rounds in which they have their turns: as many as there is time for,
 * at least 5 (or 1, if there is none). */
template <class... Actions>
std::vector<std::vector<double>> timeInTurns(double seconds, const Actions&... actions) {
    using Clock = std::chrono::steady_clock;
    std::vector<std::vector<double>> times(sizeof...(actions));
    (actions(), ...);
    const auto begin = Clock::now();
    do {
        std::size_t which = 0;
        const auto measure = [&](const auto& action) {
            const auto start = Clock::now();
            action();
            times[which++].push_back(std::chrono::duration<double>(Clock::now() - start).count());
        };
        (measure(actions), ...);
    } while (Clock::now() - begin < std::chrono::duration<double>(seconds) || (seconds > 0 && times[0].size() < 5));
    return times;
}

/** A line of JSON: what was timed, the items in one call, and the times by name. */
inline void printTimes(const std::string& what, double count, const std::vector<std::string>& names,
                       const std::vector<std::vector<double>>& times) {
    nlohmann::json line = {{"what", what}, {"count", count}};
    for (std::size_t i = 0; i < names.size(); i++)
        line["times"][names[i]] = times[i];
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
}

#endif /*OPENMMFLOW_BENCHMARKS_TIMING_H_*/
