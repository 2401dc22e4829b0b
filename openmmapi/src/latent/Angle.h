#ifndef OPENMMFLOW_LATENT_ANGLE_H_
#define OPENMMFLOW_LATENT_ANGLE_H_
// SPDX-License-Identifier: MIT

#include "HostDevice.h"
#include <numbers>

namespace OpenMMFlow {

/**
 * An angle into [-pi, pi), unchanged where it already is in there.
 *
 * @param V  double, or a vector of doubles; not shared between kernels that are compiled for different processors
 */
template <class V>
[[maybe_unused]] OPENMMFLOW_HOST_DEVICE static inline V wrap(V angle) {
    using std::numbers::pi;
    constexpr double rounding = 0x1.8p52; // adding it rounds to an integer
    const V turns = (angle * (0.5 / pi) + rounding) - rounding;
    V turned = angle - 2 * pi * turns;
    turned = turned < -pi ? turned + 2 * pi : turned;
    return turned >= pi ? turned - 2 * pi : turned;
}

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_LATENT_ANGLE_H_*/
