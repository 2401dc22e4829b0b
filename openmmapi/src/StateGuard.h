#ifndef OPENMMFLOW_STATEGUARD_H_
#define OPENMMFLOW_STATEGUARD_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/internal/MovedAtomsKernel.h"
#include <map>
#include <string>

namespace OpenMMFlow {

/** The state of a Context, put back when this goes out of scope. */
class StateGuard {
public:
    /** @param atoms  keeps positions and velocities; not to be told to save() others while this lives */
    StateGuard(OpenMM::ContextImpl& context, MovedAtomsKernel& atoms);
    ~StateGuard();
    StateGuard(const StateGuard&) = delete;
    StateGuard& operator=(const StateGuard&) = delete;
    /** Keep positions and velocities as they are; time, step count and parameters are put back all the same. */
    void keepMove() { moved = true; }

private:
    OpenMM::ContextImpl& context;
    MovedAtomsKernel& atoms;
    const std::map<std::string, double> parameters;
    const double time;
    const long long stepCount;
    bool moved = false;
};

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_STATEGUARD_H_*/
