#ifndef OPENMMFLOW_LATENT_CHECK_H_
#define OPENMMFLOW_LATENT_CHECK_H_
// SPDX-License-Identifier: MIT

#include <openmm/OpenMMException.h>
#include <sstream>
#include <string_view>

namespace OpenMMFlow {

/**
 * Throw OpenMMException("Class::method: name is VALUE, but must be RULE") unless a condition holds.
 *
 * @param condition  what must be true
 * @param where      "Class::method"
 * @param name       the argument's name
 * @param value      its value; anything that can be written to a stream
 * @param rule       what it must be
 */
template <class T>
void require(bool condition, std::string_view where, std::string_view name, const T& value, std::string_view rule) {
    if (condition)
        return;
    std::ostringstream message;
    message << where << ": " << name << " is " << value << ", but must be " << rule;
    throw OpenMM::OpenMMException(message.str());
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_LATENT_CHECK_H_*/
