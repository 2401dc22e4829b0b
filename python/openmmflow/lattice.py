# SPDX-License-Identifier: MIT
"""Lattice fields by Hamiltonian Monte Carlo, the reference that flows are compared with: chains, and ladders of free energies.

Any ReducedPotential will do; those of testsystems.LatticePhi4 are cheap:

    kappas = np.linspace(0, 0.3, 16)
    potentials = [testsystems.LatticePhi4.fromKappa([64, 8], kappa, 0.022).createNativePotential() for kappa in kappas]
    ladder = hmcLadder(potentials, np.zeros((32, 512)), numSamples=100)
    F = F_0 + ladder.freeEnergies            # F_0 = -LatticePhi4.fromKappa([64, 8], 0, 0.022).getLogZ()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import openmmflow as api
from .freeenergy import mbarFreeEnergies


@dataclass
class HmcChain:
    """What hmcChain() returns.

    Attributes
    ----------
    x : samples of exp(-u), in time order, [samples, walkers, size]
    u : their reduced energies, [samples, walkers]
    acceptance : of the trajectories that were sampled
    stepSize : of the leapfrog, as it was adapted before
    evaluations : of energy and gradient, those of the equilibration included
    """

    x: torch.Tensor
    u: torch.Tensor
    acceptance: float
    stepSize: float
    evaluations: int


def hmcChain(potential: Any, start: Any, numSamples: int, *, numSteps: int = 10, trajectoriesPerSample: int = 2,
             equilibration: int = 100, stepSize: float = 0.1, targetAcceptance: float = 0.8, seed: int = 0) -> HmcChain:
    """Hamiltonian Monte Carlo of many walkers side by side.

    The step size is adapted during equilibration and then kept, but for a random factor between 0.8 and 1.2 for each
    sample: trajectories of one length would not be ergodic in modes that are near harmonic.

    Blind to what no walker crosses to: in a broken phase each keeps the sign of its magnetisation. Where a symmetry is
    known, flip the signs of a random half of the samples.

    Parameters
    ----------
    potential : a ReducedPotential
    start : one field for each walker, [walkers, size]
    numSamples : of each walker
    numSteps : leapfrog steps of a trajectory
    equilibration : trajectories before the first sample
    stepSize : at first
    seed : 0 chooses
    """
    random = api.Random(seed)
    path = api.TemperaturePath(potential, 1.0, 1.0)
    kernel = api.HamiltonianKernel(api.HamiltonianKernelOptions(stepSize=stepSize, numSteps=numSteps,
                                                                targetAcceptance=targetAcceptance))
    state = path.evaluate(torch.as_tensor(start, dtype=torch.float64), 1.0, api.Gradient.Compute)
    if not torch.isfinite(state.logDensity).all():
        walker = int(torch.nonzero(~torch.isfinite(state.logDensity))[0, 0])
        raise ValueError(f"hmcChain: u at the start of walker {walker} is {-float(state.logDensity[walker])}, but must be finite")
    for _ in range(equilibration):
        kernel.move(path, 0, 1.0, state, random)
    stepSize = kernel.getStepSize(0)
    kernel.setAdaptive(False)
    x, u, accepted = [], [], 0.0
    for _ in range(numSamples):
        kernel.setStepSizes([stepSize * (0.8 + 0.4 * random.uniform())])
        accepted += sum(kernel.move(path, 0, 1.0, state, random) for _ in range(trajectoriesPerSample))
        x.append(state.x)
        u.append(-state.logDensity)
    return HmcChain(torch.stack(x), torch.stack(u), accepted / (numSamples * trajectoriesPerSample), stepSize,
                    path.getNumEvaluations())


def walkersInefficiency(series: Any) -> float:
    """The statistical inefficiency of walkers that ran side by side: 1 + 2 sum_t (1 - t/N) C(t), at least 1, up to where C
    falls to 0. C is that of all walkers about their common mean, so that it sees walkers that stay apart.

    Parameters
    ----------
    series : [times, walkers]
    """
    d = np.asarray(series, dtype=float)
    d = d - d.mean()
    variance = np.mean(d * d)
    if not variance > 0:
        raise ValueError(f"walkersInefficiency: the variance of the series is {variance}, but must be positive")
    g = 1.0
    for lag in range(1, len(d)):
        correlation = np.mean(d[lag:] * d[:-lag]) / variance
        if correlation <= 0:
            break
        g += 2 * (1 - lag / len(d)) * correlation
    return float(g)


@dataclass
class HmcLadder:
    """What hmcLadder() returns: of each potential in turn.

    Attributes
    ----------
    freeEnergies, standardErrors : F less that of the first, and its error, kT [potentials]
    numEffective : independent samples that MBAR was given [potentials]
    overlaps : between neighbours, an element of MBAR's overlap matrix: below 0.03 there are too few potentials
    acceptances : of the trajectories
    evaluations : of energy and gradient in all chains; MBAR's own energies are not counted
    chains : the samples
    """

    freeEnergies: np.ndarray
    standardErrors: np.ndarray
    numEffective: np.ndarray
    overlaps: np.ndarray
    acceptances: list[float]
    evaluations: int
    chains: list[HmcChain]


def hmcLadder(potentials: Sequence[Any], start: Any, numSamples: int, *, equilibration: int = 100, seed: int = 0,
              **chainSettings: Any) -> HmcLadder:
    """Free energy differences along a sequence of potentials, by chains of each and MBAR.

    The walkers of each potential start where those of the one before have ended. Samples are thinned by the inefficiency
    of the energy difference between the potentials on either side.

    Parameters
    ----------
    potentials : at least 2, each close to the next: throws where neighbours have no overlap
    start, numSamples, equilibration, chainSettings : see hmcChain(); the equilibration is that of each potential
    """
    if len(potentials) < 2:
        raise ValueError(f"hmcLadder: the number of potentials is {len(potentials)}, but must be at least 2")
    seeds = api.Random(seed)
    chains, thinned, counts = [], [], []
    for k, potential in enumerate(potentials):
        chain = hmcChain(potential, start, numSamples, equilibration=equilibration, seed=1 + seeds.integer(2**62),
                         **chainSettings)
        start, chainSettings["stepSize"] = chain.x[-1], chain.stepSize
        flat = chain.x.flatten(0, 1)
        above, below = (potentials[i].evaluate(flat).u for i in (min(k + 1, len(potentials) - 1), max(k - 1, 0)))
        g = walkersInefficiency((above - below).reshape(chain.u.shape))
        chains.append(chain)
        thinned.append(chain.x[np.arange(0, numSamples, g).astype(int)].flatten(0, 1))
        counts.append(len(thinned[-1]))
    samples = torch.cat(thinned)
    found = mbarFreeEnergies([potential.evaluate(samples).u.numpy() for potential in potentials], counts)
    return HmcLadder(found.values, found.errors, found.numSamples, np.diagonal(found.overlap, 1), [chain.acceptance for chain in chains],
                     sum(chain.evaluations for chain in chains), chains)
