#ifndef OPENMMFLOW_FLOWS_ARCHITECTURES_H_
#define OPENMMFLOW_FLOWS_ARCHITECTURES_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/flows/Conditioner.h"
#include "openmmflow/flows/Sequence.h"

namespace OpenMMFlow {

/** How a NICER flow scales its variables: by numbers of either sign, or by exponentials. */
enum class ScalingLayer { Learned, Exponential };

struct NICEROptions {
    /** Number of NICER layers, two couplings each, at least 1. */
    int layers = 10;
    ScalingLayer scaling = ScalingLayer::Learned;
    /** Networks of the couplings; each draws its own weights from the seed. */
    Conditioner::Options conditioner = {{100}, Activation::ReLU, 0};
    /** Whether f(-z) = -f(z): see AdditiveCoupling. */
    bool odd = false;
};

/**
 * The volume-preserving flow of Boltzmann generators (Noé, Olsson, Köhler and Wu, Science 365, eaaw1147, 2019): NICER
 * layers, and a scaling layer next to z. With x1 the even- and x2 the odd-numbered variables, a layer is, from x to z,
 *
 *     z2 = x2 + P(x1),  z1 = x1 + Q(z2)
 *
 * in which P and Q are networks; forward, from z to x, is an AdditiveCoupling of the even-numbered variables and then
 * one of the odd-numbered. The log-det is constant, so one flow serves several temperatures by the variance of its
 * prior (F9). On a lattice (conditioner.extents) x1 and x2 are the colours of a checkerboard. Identity at the start.
 *
 * @param size  number of variables, at least 2
 */
[[nodiscard]] OPENMMFLOW_EXPORT std::shared_ptr<Sequence> makeNICER(int size, const NICEROptions& options = {});

struct RealNVPOptions {
    /** The largest |s| of a coupling: see AffineCoupling. */
    double scaleBound = 3.0;
    /** Networks of the couplings; each draws its own weights from the seed. */
    Conditioner::Options conditioner;
    /** Whether f(-z) = -f(z): see AffineCoupling. */
    bool odd = false;
};

/**
 * A RealNVP flow (Dinh, Sohl-Dickstein and Bengio, ICLR 2017): in each layer an AffineCoupling of the even-numbered
 * variables and then one of the odd-numbered; on a lattice (conditioner.extents) of the sites of one colour of a
 * checkerboard and then of the other. Identity at the start.
 *
 * @param size    number of variables, at least 2
 * @param layers  number of layers, two couplings each, at least 1
 */
[[nodiscard]] OPENMMFLOW_EXPORT std::shared_ptr<Sequence> makeRealNVP(int size, int layers,
                                                                      const RealNVPOptions& options = {});

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_FLOWS_ARCHITECTURES_H_*/
