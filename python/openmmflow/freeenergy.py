# SPDX-License-Identifier: MIT
"""Free energies from works, weights and energies, with what tells whether to believe them.

Between two states of a System (freeEnergyDifference; in one call BoltzmannGenerator.freeEnergy), of a System itself
(absoluteFreeEnergy; BoltzmannGenerator.absoluteFreeEnergy), along stages or temperatures (mbarFreeEnergies); between two Systems see
bridge. Everything is in units of kT, F = -ln Z. No overlap is an error, not a number.

All are blind to configurations that no sample has. BAR between samples of one metastable basin each is right about the
basins, and looks as good as one of everything: each end state has to be sampled as a whole, or restricted to what was (State).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from openmm import unit

from . import openmmflow as api
from .analysis import Estimate, importPymbar, thin
from .data import inUnit

LEAST_OVERLAP = 0.03  # Klimovich, Shirts and Mobley, J. Comput. Aided Mol. Des. 29, 397 (2015)
LARGEST_CONVERGENCE = 0.5  # of Hahn and Then's measure, which is 0 for a converged estimate and 1 for a lost one
FEWEST_WORKS = 50


@dataclass
class BarEstimate(Estimate):
    """F_B - F_A in units of kT by Bennett's acceptance ratio, with what tells whether to believe it.

    Attributes
    ----------
    overlap : of the two ensembles, from 0 to 1; below 0.03 the error is not to be trusted
    convergence : 0 when the rare works that the estimate hangs on were seen; near 1 when not (Hahn and Then)
    forward, reverse : the one-sided estimates of the same F_B - F_A, from samples of A alone and of B alone
    effectiveForward, effectiveReverse : how many works carry each of those, (sum e^-w)^2 / sum e^-2w
    numForward, numReverse : works on each side
    """

    overlap: float
    convergence: float
    forward: Estimate
    reverse: Estimate
    effectiveForward: float
    effectiveReverse: float
    numForward: int
    numReverse: int

    @property
    def covered(self) -> Estimate:
        """exp(reverse - forward): 1 where each state's samples (mapped) reach all of the other; less by the part that they miss."""
        value = float(np.exp(self.reverse.value - self.forward.value))
        return Estimate(value, value * float(np.hypot(self.forward.standardError, self.reverse.standardError)))

    def getProblems(self) -> list[str]:
        """Why not to believe the number; empty if nothing speaks against it."""
        problems = []
        if self.overlap < LEAST_OVERLAP:
            problems.append(f"poor overlap ({self.overlap:.2g}, should be {LEAST_OVERLAP} or more)")
        if self.convergence > LARGEST_CONVERGENCE:
            problems.append(f"the rare works that count were hardly seen (convergence {self.convergence:.2f}, should be near 0)")
        if (fewest := min(self.numForward, self.numReverse)) < FEWEST_WORKS:
            problems.append(f"few samples ({fewest} independent works on one side, should be {FEWEST_WORKS} or more)")
        difference, error = self._compareSides()
        if difference < -4 * error:
            problems.append(f"the one-sided estimates contradict each other (the one from A is {-difference:.2g} kT below the one from B, "
                            f"{-difference / error:.0f} standard errors): samples of one side are not from its ensemble, or the flow was "
                            "trained on them")
        return problems

    def getRemarks(self) -> list[str]:
        """What is worth knowing beside."""
        difference, error = self._compareSides()
        if difference > 4 * error:
            return [f"the one-sided estimates differ by {difference:.2g} kT, {difference / error:.0f} standard errors: one "
                    "state's samples do not reach all of the other"]
        return []

    def _compareSides(self) -> tuple[float, float]:
        """forward - reverse, and its error. What a side's samples miss can only make it positive."""
        return (self.forward.value - self.reverse.value,
                float(np.hypot(self.forward.standardError, self.reverse.standardError)) + 1e-9)

    def verdict(self) -> str:
        """In words, whether to believe the number."""
        remarks = "".join(f"; {remark}" for remark in self.getRemarks())
        if problems := self.getProblems():
            return f"not to be trusted: {'; '.join(problems)}{remarks}. Use more samples, a better flow or map, or stages between"
        return f"no objection: overlap {self.overlap:.2f}, convergence {self.convergence:.2f}{remarks}"

    def asDict(self) -> dict[str, Any]:
        return super().asDict() | {"verdict": self.verdict()}


def barEstimate(forwardWorks: Any, reverseWorks: Any) -> BarEstimate:
    """BAR from independent works of each side (see bar() for what works are; +inf is one). Throws where there is no overlap."""
    forward, reverse = (np.asarray(works, dtype=float) for works in (forwardWorks, reverseWorks))
    found = api.bar(forward.tolist(), reverse.tolist())
    return BarEstimate(found.deltaF, found.standardError, found.overlap, found.convergence,
                       Estimate(found.forwardDeltaF, found.forwardStandardError),
                       Estimate(found.reverseDeltaF, found.reverseStandardError),
                       *(api.effectiveSampleSize((-works).tolist()).size for works in (forward, reverse)),
                       len(forward), len(reverse))


@dataclass
class FreeEnergyDifference(Estimate):
    """F_B - F_A in units of kT by way of a third state, the latent one, with what tells whether to believe it.

    Attributes
    ----------
    legA, legB : F_A and F_B less the latent state's free energy, which is 0; independent of each other
    """

    legA: BarEstimate
    legB: BarEstimate

    def verdict(self) -> str:
        """In words, whether to believe the number."""
        return f"A: {self.legA.verdict()}. B: {self.legB.verdict()}"

    def asDict(self) -> dict[str, Any]:
        return {"value": self.value, "standardError": self.standardError, "A": self.legA.asDict(), "B": self.legB.asDict()}


def differenceOfLegs(a: BarEstimate, b: BarEstimate) -> FreeEnergyDifference:
    """From the free energies of A and of B, independent estimates, above that of the same third state."""
    return FreeEnergyDifference(b.value - a.value, float(np.hypot(a.standardError, b.standardError)), a, b)


def freeEnergyDifference(logWeightsFlow: Any, inA: Any, inB: Any, logWeightsA: Any,
                         logWeightsB: Any) -> FreeEnergyDifference:
    """F_B - F_A by BAR through the latent state of a flow (F8 of THEORY.md).

    Each state is the target with u = infinity outside it. The works from the latent state to a state are -log w of the
    flow's samples inside it and +infinity for the others; the works back are log w of the target's samples inside it.
    The flow's samples are split between the two states, so that the two results are independent; correlated target
    samples are thinned by their statistical inefficiency.

    Parameters
    ----------
    logWeightsFlow : log w of independent samples of the flow [samples]
    inA, inB : whether each of them is in the state, bool [samples]
    logWeightsA, logWeightsB : log w of target samples in A and in B, in time order
    """
    logW = np.asarray(logWeightsFlow, dtype=float)
    legs = [barEstimate(np.where(np.asarray(inside)[part], -logW[part], np.inf), thin(np.asarray(target, dtype=float)))
            for part, inside, target in ((slice(0, None, 2), inA, logWeightsA), (slice(1, None, 2), inB, logWeightsB))]
    return differenceOfLegs(*legs)


@dataclass
class AbsoluteFreeEnergy(BarEstimate):
    """F = -ln Z of a System in units of kT, by BAR between a flow (F = 0) and its target.

        Z = integral of exp(-U/kT) over the flow's coordinates

    `measure` says which these are, and so what F means. forward is the q-estimator of the lattice literature (from the
    flow's samples; never too low where the flow covers the target), reverse the p-estimator, `covered` the part of the
    target that the flow reaches; upperBound and lowerBound hold within their errors, whatever the flow.
    """

    upperBound: Estimate
    lowerBound: Estimate
    measure: str


def absoluteFreeEnergy(logWeightsFlow: Any, logWeightsTarget: Any, measure: str = "the columns of x") -> AbsoluteFreeEnergy:
    """F = -ln Z of a target from a flow and from samples of the target.

    Parameters
    ----------
    logWeightsFlow : log w = -u - log q of independent samples of the flow; -inf where they have no weight
    logWeightsTarget : log w of samples of the target, in time order; +inf where the flow has no density
    measure : what the integral of exp(-u) is over
    """
    logW, thinned = np.asarray(logWeightsFlow, dtype=float), thin(np.asarray(logWeightsTarget, dtype=float))
    bar, found = barEstimate(-logW, thinned), api.flowFreeEnergy(logW.tolist(), thinned.tolist())
    upper, lower = (Estimate(bound.value, bound.standardError) for bound in (found.upperBound, found.lowerBound))
    return AbsoluteFreeEnergy(**vars(bar), upperBound=upper, lowerBound=lower, measure=measure)


def describeMeasure(flow: Any) -> str:
    """What a flow's density is a density of, in words."""
    atoms, latent, size = len(flow.getAtoms()), flow.getLatentSize(), flow.getSize()
    if not atoms:
        return f"dx over its {size} columns"
    if latent == size:
        return f"dx over the {atoms} atoms, in nm^{size}"
    if latent == size - 6:
        return (f"dx over the {atoms} atoms less their rigid motions, in nm^{size - 3}: that of all coordinates, in a volume V, is "
                "F - ln(8 pi^2 V)")
    return (f"the {latent} internal coordinates with their volume element, {size - 6 - latent} bonds held rigid and weighed with their mass "
            "metric: only differences between Systems with the same constraints mean something")


@dataclass
class StageFreeEnergies:
    """Free energies of several states by MBAR, in kT and relative to the first.

    Attributes
    ----------
    values, errors : [states]
    overlap : MBAR's overlap matrix [states, states]
    numSamples : of each state [states]
    """

    values: np.ndarray
    errors: np.ndarray
    overlap: np.ndarray
    numSamples: np.ndarray

    @property
    def difference(self) -> Estimate:
        """Of the last state and the first."""
        return Estimate(float(self.values[-1]), float(self.errors[-1]))

    @property
    def neighbourOverlap(self) -> np.ndarray:
        """Between each sampled state and the next, both ways together: comparable with BarEstimate.overlap [sampled states - 1]."""
        matrix = self.overlap[np.ix_(self.numSamples > 0, self.numSamples > 0)]
        return np.diagonal(matrix, 1) + np.diagonal(matrix, -1)

    def verdict(self) -> str:
        """In words, whether to believe the numbers. The states are taken to be in the order of a path."""
        worst, sampled = self.neighbourOverlap, np.flatnonzero(self.numSamples)
        if len(worst) and worst.min() < LEAST_OVERLAP:
            i = int(np.argmin(worst))
            return (f"not to be trusted: poor overlap of states {sampled[i]} and {sampled[i + 1]} ({worst.min():.2g}, should be "
                    f"{LEAST_OVERLAP} or more). Put states between them")
        return "no objection" + (f": smallest overlap of neighbours {worst.min():.2f}" if len(worst) else "")

    def asDict(self) -> dict[str, Any]:
        return {"values": self.values.tolist(), "standard errors": self.errors.tolist(), "samples": self.numSamples.tolist(),
                "neighbours' overlap": self.neighbourOverlap.tolist(), "verdict": self.verdict()}


def mbarFreeEnergies(reducedEnergies: Any, numSamples: Sequence[int]) -> StageFreeEnergies:
    """Free energies of stages or temperatures by pymbar's MBAR (Shirts and Chodera, J. Chem. Phys. 129, 124105, 2008).

    Blind to what no state's samples have; errors are those of independent samples: thin them first.

    Parameters
    ----------
    reducedEnergies : u of each sample in each state [states, samples], samples state by state
    numSamples : of each state [states]; states without any are allowed
    """
    u, counts = np.asarray(reducedEnergies, dtype=float), np.asarray(numSamples, dtype=int)
    if u.ndim != 2 or len(u) != len(counts) or u.shape[1] != counts.sum():
        raise ValueError(f"mbarFreeEnergies: reducedEnergies are {u.shape}, but must be {(len(counts), int(counts.sum()))}: states and "
                         "samples")
    if not np.all(np.isfinite(u)):
        raise ValueError("mbarFreeEnergies: an energy is not finite, but must be")
    mbar = importPymbar().MBAR(u, counts)
    overlap = mbar.compute_overlap()["matrix"]
    sampled = np.flatnonzero(counts)
    shared = np.diagonal(counts[sampled, None] * overlap[np.ix_(sampled, sampled)], 1)
    found = mbar.compute_free_energy_differences() if len(shared) == 0 or shared.min() >= 1e-3 else None
    if found is None or not np.all(np.isfinite([found["Delta_f"][0], found["dDelta_f"][0]])):
        raise ValueError(f"mbarFreeEnergies: neighbouring states share {shared.min():.2g} samples, but must share at least 0.001: no overlap")
    return StageFreeEnergies(found["Delta_f"][0], found["dDelta_f"][0], overlap, counts)


def toAlchemlyb(reducedEnergies: Any, numSamples: Sequence[int], temperature: Any, lambdas: Sequence[float] | None = None) -> Any:
    """The energies of mbarFreeEnergies() as alchemlyb's u_nk: a pandas DataFrame for its estimators and plots.

    Parameters
    ----------
    reducedEnergies, numSamples : see mbarFreeEnergies()
    temperature : K
    lambdas : what to call the states; equally spaced from 0 to 1 by default
    """
    import pandas

    u, counts = np.asarray(reducedEnergies, dtype=float), np.asarray(numSamples, dtype=int)
    states = np.linspace(0, 1, len(counts)) if lambdas is None else np.asarray(lambdas, dtype=float)
    if u.shape != (len(states), counts.sum()) or len(states) != len(counts):
        raise ValueError(f"toAlchemlyb: reducedEnergies are {u.shape}, but must be {(len(states), int(counts.sum()))}: states and samples")
    times = np.concatenate([np.arange(count, dtype=float) for count in counts])
    index = pandas.MultiIndex.from_arrays([times, np.repeat(states, counts)], names=["time", "fep-lambda"])
    frame = pandas.DataFrame(u.T, columns=states.tolist(), index=index)
    frame.attrs = {"temperature": float(inUnit(temperature, unit.kelvin)), "energy_unit": "kT"}
    return frame


def worksToAlchemlyb(forwardWorks: Any, reverseWorks: Any, temperature: Any) -> Any:
    """Works of two states as alchemlyb's u_nk: what its BAR makes of them is barEstimate()'s. Infinite works it does not take."""
    forward, reverse = (np.asarray(works, dtype=float) for works in (forwardWorks, reverseWorks))
    energies = np.block([[np.zeros_like(forward), reverse], [forward, np.zeros_like(reverse)]])
    return toAlchemlyb(energies, [len(forward), len(reverse)], temperature)
