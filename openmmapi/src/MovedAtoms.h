#ifndef OPENMMFLOW_MOVEDATOMS_H_
#define OPENMMFLOW_MOVEDATOMS_H_
// SPDX-License-Identifier: MIT
// Between OpenMM's vectors of all particles and a flow's row of some of them.

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>
#include <openmm/OpenMMException.h>
#include <openmm/System.h>
#include <openmm/Vec3.h>
#include <string>
#include <vector>

namespace OpenMMFlow {

/** kJ/(mol K) */
constexpr double gasConstant = 0.00831446261815324;

/** Throw unless the particles exist, have mass and are no virtual sites. @param who  the class that asks, for the
 * message */
void checkParticles(const std::string& who, const std::vector<int>& particles, const OpenMM::System& system);

/** The particles' coordinates, nm. @return float64 [1, 3 particles] */
at::Tensor gather(const std::vector<OpenMM::Vec3>& all, const std::vector<int>& particles);

/** Write a row into the particles' vectors. @param row  float64 [1, 3 particles] */
void scatter(const at::Tensor& row, const std::vector<int>& particles, std::vector<OpenMM::Vec3>& all);

/** Call a function; what torch throws leaves as OpenMMException. */
template <class Function>
auto translateErrors(const std::string& who, const Function& function) {
    try {
        return function();
    } catch (const c10::Error& error) {
        throw OpenMM::OpenMMException(who + ": " + error.what_without_backtrace());
    }
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_MOVEDATOMS_H_*/
