#ifndef OPENMMFLOW_TESTS_APIPLATFORMS_H_
#define OPENMMFLOW_TESTS_APIPLATFORMS_H_
// SPDX-License-Identifier: MIT
// The Platforms that the bodies of tests run on: "Reference", "CPU", and "OpenCL_single", of some precision.

#include <OpenMM.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace OpenMMFlow {

/** OpenCL stands for a GPU here, by PoCL on the CPU, whose compiler is slow: most bodies run in one precision every
 * day. */
inline const std::vector<std::string> everydayPlatforms = {"Reference", "CPU", "OpenCL_mixed", "CUDA_mixed"};
inline const std::vector<std::string> otherPrecisions = {"OpenCL_single", "OpenCL_double", "CUDA_single",
                                                         "CUDA_double"};

/** Libraries for CUDA take a second to load, for nothing where there is no driver. */
inline bool canLoad(const std::string& library) {
    return library.find("CUDA") == std::string::npos || dlopen("libcuda.so.1", RTLD_LAZY) != nullptr;
}

/** With OpenMM's plugins loaded, and ours for its Platforms. */
inline OpenMM::Platform& getPlatform(const std::string& name) {
    static const bool loaded = [] {
        OpenMM::Platform::loadPluginsFromDirectory(OpenMM::Platform::getDefaultPluginsDirectory());
        std::istringstream libraries(OPENMMFLOW_PLATFORM_LIBRARIES);
        for (std::string library; std::getline(libraries, library, ':');)
            try {
                if (canLoad(library))
                    OpenMM::Platform::loadPluginLibrary(library);
            } catch (const OpenMM::OpenMMException& error) { // the tests that need it are skipped
                std::fprintf(stderr, "%s\n", error.what());
            }
        return true;
    }();
    (void)loaded;
    return OpenMM::Platform::getPlatformByName(name.substr(0, name.find('_')));
}

inline std::map<std::string, std::string> getProperties(const std::string& name) {
    const std::size_t split = name.find('_');
    if (split != std::string::npos)
        return {{"Precision", name.substr(split + 1)}};
    return name == "CPU" ? std::map<std::string, std::string>{{"Threads", "1"}} : std::map<std::string, std::string>();
}

/** Why there can be no Context; empty where there can. */
inline const std::string& findPlatformProblem(const std::string& name) {
    static std::map<std::string, std::string> problems;
    if (problems.count(name) > 0)
        return problems[name];
    std::string& problem = problems[name];
    try {
        OpenMM::System system;
        for (int i = 0; i < 2; i++)
            system.addParticle(1.0);
        OpenMM::VerletIntegrator integrator(0.001);
        const OpenMM::Context context(system, integrator, getPlatform(name), getProperties(name));
    } catch (const OpenMM::OpenMMException& error) {
        problem = name + ": " + error.what();
    }
    return problem;
}

/** Tests whose parameter is the name of a platform. */
struct PlatformTest : testing::TestWithParam<std::string> {
    void SetUp() override {
        if (const std::string& problem = findPlatformProblem(GetParam()); !problem.empty())
            GTEST_SKIP() << problem;
    }
    // A Context of a System with an integrator; positions set.
    static std::unique_ptr<OpenMM::Context> makeContext(OpenMM::System& system, OpenMM::Integrator& integrator,
                                                        std::vector<OpenMM::Vec3> positions) {
        // A kernel of OpenMM for kinetic energies crashes with PoCL 3 where a System has one particle: here it gets
        // another, which has no part in anything.
        if (isOnDevice() && system.getNumParticles() == 1)
            system.addParticle(0.0);
        positions.resize(system.getNumParticles());
        auto context =
            std::make_unique<OpenMM::Context>(system, integrator, getPlatform(GetParam()), getProperties(GetParam()));
        context->setPositions(positions);
        return context;
    }
    static bool isReference() { return GetParam() == "Reference"; }
    static bool isOnDevice() { return GetParam().find('_') != std::string::npos; }
    static bool isDouble() { return !isOnDevice() || GetParam().ends_with("double"); }
    /** One of three, by the precision of positions. */
    template <class T>
    static T byPrecision(T single, T mixed, T inDouble) {
        return isDouble() ? inDouble : GetParam().ends_with("mixed") ? mixed : single;
    }
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_TESTS_APIPLATFORMS_H_*/
