#ifndef OPENMMFLOW_SAMPLERS_STATETOOLS_H_
#define OPENMMFLOW_SAMPLERS_STATETOOLS_H_
// SPDX-License-Identifier: MIT
// The states of kernels and losses, for checkpoints.

#include "openmmflow/flows/Transform.h"

namespace OpenMMFlow {

/** The tensors whose names begin with a prefix, without it. */
inline NamedTensors withoutPrefix(const NamedTensors& tensors, const std::string& prefix) {
    NamedTensors found;
    for (const auto& [name, tensor] : tensors)
        if (name.rfind(prefix, 0) == 0)
            found.emplace_back(name.substr(prefix.size()), tensor);
    return found;
}

/** Set the states of all objects, or of none where one of them throws. @param objects  pointers to them */
template <class Pointer>
void setStates(const std::vector<Pointer>& objects, const std::vector<NamedTensors>& states) {
    std::vector<NamedTensors> before;
    for (const auto& object : objects)
        before.push_back(object->getState());
    try {
        for (std::size_t i = 0; i < objects.size(); i++)
            objects[i]->setState(states[i]);
    } catch (...) {
        for (std::size_t i = 0; i < objects.size(); i++)
            objects[i]->setState(before[i]);
        throw;
    }
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_SAMPLERS_STATETOOLS_H_*/
