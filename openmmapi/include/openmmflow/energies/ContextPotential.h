#ifndef OPENMMFLOW_ENERGIES_CONTEXTPOTENTIAL_H_
#define OPENMMFLOW_ENERGIES_CONTEXTPOTENTIAL_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/energies/ReducedPotential.h"
#include <map>
#include <memory>
#include <openmm/System.h>
#include <openmm/Vec3.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

/**
 * The reduced potential of an OpenMM System, on a pool of Contexts that work in threads:
 *
 *     u(x) = U(x; parameters, box) / kT  -  (1/2) log det Z(x)
 *
 * The last term appears where the System constrains bonds between moved atoms: it makes exp(-u) the density that
 * constrained dynamics samples, in unconstrained coordinates (F5; see ConstraintMetric.h). It is zero without
 * constraints.
 *
 * Virtual sites follow their parents, constraints are not applied, and energies come from the chosen force groups. A
 * sample whose coordinates, energy or (where asked for) forces are not finite, or whose evaluation throws, gets u =
 * +inf, alone, and is counted. Methods may be called from any thread, one at a time works.
 */
class OPENMMFLOW_EXPORT ContextPotential : public ReducedPotential {
public:
    struct Options {
        /**
         * Name of the platform. If empty: what the environment variable OPENMM_DEFAULT_PLATFORM says; else CUDA or HIP
         * where they work; else the faster of Reference and CPU, timed at the reference positions. Never OpenCL, which
         * may be a processor in disguise. As everywhere in OpenMM, a program loads the plugins that hold the platforms.
         */
        std::string platform;
        /** Platform properties; Threads = 1 is added on CPU unless given. */
        std::map<std::string, std::string> properties;
        /** Number of Contexts, each in a thread of its own; 0 takes one per core, or one in all on a GPU. */
        int numContexts = 0;
        /** Force groups to include, one bit each. */
        int forceGroups = -1;
        /** Particles that x describes; empty for all that are not virtual sites. The others stay where the reference
         * has them. */
        std::vector<int> atoms;
        /** nm, all particles; may be empty when x describes all particles. */
        std::vector<OpenMM::Vec3> referencePositions;
    };
    /**
     * @param system       copied, so that later changes do not matter; its barostats, thermostats and CMMotionRemover
     * are left out
     * @param temperature  K, > 0
     */
    ContextPotential(const OpenMM::System& system, double temperature, const Options& options);
    ContextPotential(const OpenMM::System& system, double temperature);
    ~ContextPotential() override;
    [[nodiscard]] int getSize() const override;
    [[nodiscard]] EnergyResult evaluate(const at::Tensor& x, Gradient gradient = Gradient::Omit) override;
    [[nodiscard]] double getTemperature() const;
    [[nodiscard]] std::string getPlatformName() const;
    [[nodiscard]] int getNumContexts() const;
    [[nodiscard]] const std::vector<int>& getAtoms() const;
    /** Set a parameter of every Context. Throws if the System has no such parameter. */
    void setParameter(const std::string& name, double value);
    [[nodiscard]] std::map<std::string, double> getParameters() const;
    /** Set the box of every Context, nm; in OpenMM's reduced form. */
    void setPeriodicBoxVectors(const OpenMM::Vec3& a, const OpenMM::Vec3& b, const OpenMM::Vec3& c);
    /** Energy evaluations, non-finite and failed samples since construction. */
    struct Counts {
        std::int64_t evaluations = 0, nonFinite = 0, failed = 0;
    };
    [[nodiscard]] Counts getCounts() const;
    /** What the latest evaluation that threw said; empty if none did. */
    [[nodiscard]] std::string getLastFailure() const;

private:
    class Pool;
    std::unique_ptr<Pool> pool;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ENERGIES_CONTEXTPOTENTIAL_H_*/
