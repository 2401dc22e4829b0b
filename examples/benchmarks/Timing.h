#ifndef OPENMMFLOW_BENCHMARKS_TIMING_H_
#define OPENMMFLOW_BENCHMARKS_TIMING_H_
// SPDX-License-Identifier: MIT
// What the benchmarks share: a System from files, and times of alternatives taken in turns.

#include <OpenMM.h>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
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

/** Seconds that each action takes: the median of some rounds in which each has its turn. */
template <class... Actions>
std::vector<double> timeInTurns(int rounds, const Actions&... actions) {
    std::vector<std::vector<double>> times(sizeof...(actions));
    for (int round = -1; round < rounds; round++) { // the first is not counted
        std::size_t which = 0;
        const auto measure = [&](const auto& action) {
            const auto start = std::chrono::steady_clock::now();
            action();
            const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
            if (round >= 0)
                times[which].push_back(taken.count());
            which++;
        };
        (measure(actions), ...);
    }
    std::vector<double> medians;
    for (auto& list : times) {
        std::nth_element(list.begin(), list.begin() + list.size() / 2, list.end());
        medians.push_back(list[list.size() / 2]);
    }
    return medians;
}

#endif /*OPENMMFLOW_BENCHMARKS_TIMING_H_*/
