#ifndef OPENMMFLOW_ESTIMATORS_FREEENERGY_H_
#define OPENMMFLOW_ESTIMATORS_FREEENERGY_H_
// SPDX-License-Identifier: MIT

#include "openmmflow/latent/Export.h"
#include <cstdint>
#include <vector>

namespace OpenMMFlow {

/**
 * Free energy differences from works. Everything is in units of kT: F = -ln Z, deltaF = F_B - F_A.
 *
 * Works belong to a map M from the configurations of state A to those of state B (the identity, if there is none):
 *
 *     forward:  w_F = u_B(M x) - u_A(x) - log|det dM/dx|,         x sampled from A
 *     reverse:  w_R = u_A(M^-1 y) - u_B(y) - log|det dM^-1/dy|,   y sampled from B
 *
 * Between a flow and its target, A is the flow (F_A = 0) and B the target (deltaF = -ln Z):
 *
 *     w_F = u(x) + log q(x) = -log w(x),  x sampled from the flow;     w_R = -u(y) - log q(y) = log w(y),  y from the
 * target
 *
 * A work of +inf says that the other state gives the point no weight (outside a restricted state, F8; outside a chart);
 * it counts as a sample. NaN and -inf are refused. Samples are taken as independent: subsample, or multiply variances
 * by statisticalInefficiency(). Errors are asymptotic, one standard deviation; like the estimates, they can be wrong
 * when rare works dominate and none was seen: compare both one-sided estimates with BAR's, and look at the overlap.
 */
struct FreeEnergyResult {
    /** The free energy of the end state less that of the state that was sampled, and its standard error. */
    double deltaF = 0, standardError = 0;
    /** Works given, and how many of them are +inf. */
    std::int64_t numWorks = 0, numInfinite = 0;
};

/**
 * Exponential averaging: deltaF = -ln mean(exp(-w)); by the delta method its variance is var(exp(-w)) / (N
 * mean(exp(-w))^2). Given reverse works it returns F_A - F_B. Source: Zwanzig, J. Chem. Phys. 22, 1420 (1954).
 *
 * @param works  at least 2; throws if none is finite
 */
OPENMMFLOW_EXPORT FreeEnergyResult zwanzig(const std::vector<double>& works);

/** What bar() returns. */
struct BarResult {
    /** F_B - F_A and its standard error. */
    double deltaF = 0, standardError = 0;
    /** Of the two ensembles: 0 when they share nothing, 1 when they are the same. Below 0.03 distrust the error. */
    double overlap = 0;
    /**
     * How far the estimate is from having seen the rare works that it hangs on: 0 when it has. Near 1, values and error
     * are not to be believed.
     */
    double convergence = 0;
    /** One-sided estimates of the same F_B - F_A: zwanzig(forward).deltaF and -zwanzig(reverse).deltaF, and their
     * errors. */
    double forwardDeltaF = 0, forwardStandardError = 0, reverseDeltaF = 0, reverseStandardError = 0;
    /** Works given, and how many of them are +inf. */
    std::int64_t numForward = 0, numReverse = 0, numForwardInfinite = 0, numReverseInfinite = 0;
};

/**
 * Bennett's acceptance ratio: the deltaF that solves, with f(y) = 1/(1 + exp(y)) and M = ln(N_F/N_R),
 *
 *     sum_F f(w_F + M - deltaF)  =  sum_R f(w_R - M + deltaF)
 *
 * The left side grows with deltaF and the right side falls, so that the solution is unique: it exists when both sides
 * have a finite work. Then
 *
 *     variance = (1/N_F) (<f^2>_F / <f>_F^2 - 1) + (1/N_R) (<f^2>_R / <f>_R^2 - 1)
 *     overlap  = (1/N_F + 1/N_R) S,   S = sum over all works of f (1 - f)
 *     convergence = 1 - (sum_F f^2 + sum_R f^2) / sum_F f
 *
 * S is the number of samples that the states share. The overlap is that of MBAR: 1 less the second eigenvalue of the
 * overlap matrix. The convergence measure compares two estimates of the overlap, by second and by first moments of f,
 * which have the same expectation at the true deltaF; the second one hangs more on rare works, and is missed by more.
 *
 * Blind to configurations that neither state's samples have: within one metastable basin all measures are good, and the
 * result is that of the basin. Sources: Bennett, J. Comput. Phys. 22, 245 (1976); Shirts, Bair, Hooker and Pande, PRL
 * 91, 140601 (2003); Hahn and Then, Phys. Rev. E 81, 041117 (2010); Klimovich, Shirts and Mobley, J. Comput. Aided Mol.
 * Des. 29, 397 (2015).
 *
 * Throws "no overlap" when one side has no finite work, or S < 0.001: the maximum-likelihood error would exceed 30 kT.
 *
 * @param forwardWorks  at least 2   @param reverseWorks  at least 2
 */
OPENMMFLOW_EXPORT BarResult bar(const std::vector<double>& forwardWorks, const std::vector<double>& reverseWorks);

} // namespace OpenMMFlow

#endif /*OPENMMFLOW_ESTIMATORS_FREEENERGY_H_*/
