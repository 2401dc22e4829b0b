# SPDX-License-Identifier: MIT
"""From frames and weights to populations and free energies with errors. The estimators themselves are in C++."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .data import R, toNanometers


def torsion(positions: Any, atoms: Sequence[int]) -> np.ndarray:
    """The torsion angle of four atoms in each frame, IUPAC's sign.

    Parameters
    ----------
    positions : nm [frames, atoms, 3]
    atoms : four columns of `positions`

    Returns
    -------
    rad [frames], in [-pi, pi]
    """
    x = np.asarray(positions)
    i, j, k, l = (x[:, a] for a in atoms)
    axis = k - j
    first, second = np.cross(j - i, axis), np.cross(axis, l - k)
    sine = np.sum(np.cross(first, second) * axis, axis=1) / np.linalg.norm(axis, axis=1)
    return np.arctan2(sine, np.sum(first * second, axis=1))


def findBackboneTorsions(topology: Any) -> dict[str, list[list[int]]]:
    """The atoms of the phi and psi of every residue that has them: {"phi": [[i, j, k, l], ...], "psi": ...}."""
    found: dict[str, list[list[int]]] = {"phi": [], "psi": []}
    for chain in topology.chains():
        residues = [{atom.name: atom.index for atom in residue.atoms()} for residue in chain.residues()]
        for before, atoms, after in zip([{}, *residues], residues, [*residues[1:], {}]):
            if not {"N", "CA", "C"} <= atoms.keys():
                continue
            backbone = [atoms["N"], atoms["CA"], atoms["C"]]
            if "C" in before:
                found["phi"].append([before["C"], *backbone])
            if "N" in after:
                found["psi"].append([*backbone, after["N"]])
    return found


def bondedCoordinates(topology: Any, atoms: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Bonds, angles and torsions among some atoms of a Topology, each as columns of positions of these atoms, by name:
    {"CA-C 2": (1, 4), ...}, with the number from 1 of the residue of the second atom. Of the torsions about a bond there is the one
    between the heaviest ends."""
    every = list(topology.atoms())
    column = {atom: i for i, atom in enumerate(atoms)}
    neighbours: dict[int, list[int]] = {atom: [] for atom in atoms}
    for bond in topology.bonds():
        i, j = bond[0].index, bond[1].index
        if i in column and j in column:
            neighbours[i].append(j)
            neighbours[j].append(i)

    def number(atom: int) -> int:
        return every[atom].element.atomic_number if every[atom].element else 0

    bonds = [(i, j) for i in atoms for j in neighbours[i] if i < j]
    angles = [(i, j, k) for j in atoms for i in neighbours[j] for k in neighbours[j] if i < k]
    torsions = []
    for j, k in bonds:
        ends = [max((a for a in neighbours[b] if a not in (j, k)), key=number, default=None) for b in (j, k)]
        if None not in ends and ends[0] != ends[1]:
            torsions.append((ends[0], j, k, ends[1]))
    return {f"{'-'.join(every[i].name for i in path)} {every[path[1]].residue.index + 1}": tuple(column[i] for i in path)
            for path in (*bonds, *angles, *torsions)}


def measure(positions: Any, columns: Sequence[int]) -> np.ndarray:
    """A bond (nm), an angle or a torsion (degrees) in each frame, by the number of columns. positions: nm [frames, atoms, 3]."""
    x = np.asarray(positions, dtype=float)
    if len(columns) == 4:
        return np.degrees(torsion(x, columns))
    i, j, *k = (x[:, a] for a in columns)
    first = i - j
    if not k:
        return np.linalg.norm(first, axis=1)
    second = k[0] - j
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(first, second), axis=1), np.sum(first * second, axis=1)))


@dataclass(frozen=True)
class State:
    """The configurations with a torsion inside a range.

    Attributes
    ----------
    atoms : four columns of the positions
    low, high : degrees; the range runs upwards from low to high, through 180 where low > high
    """

    atoms: tuple[int, int, int, int]
    low: float
    high: float

    def contains(self, positions: Any) -> np.ndarray:
        """Whether each frame is in the state, bool [frames]. positions: nm [frames, atoms, 3]."""
        degrees = np.degrees(torsion(positions, self.atoms))
        return (degrees - self.low) % 360 < ((self.high - self.low) % 360 or 360)


@dataclass
class Estimate:
    """A number and its standard error."""

    value: float
    standardError: float

    def asDict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.standardError:.2g}"


def weightedPopulation(inside: Any, logWeights: Any) -> Estimate:
    """The population of a state from independent weighted samples, with the delta method's error.

    P = sum_i w_i b_i / sum_i w_i,  variance = sum_i w_i^2 (b_i - P)^2 / (sum_i w_i)^2

    Where all samples are inside, or none, the error is 1/(n + 2) of n = (sum_i w_i)^2 / sum_i w_i^2 samples.

    Parameters
    ----------
    inside : bool [samples]
    logWeights : [samples], -inf allowed
    """
    b, logWeights = np.asarray(inside, dtype=float), np.asarray(logWeights, dtype=float)
    if not np.isfinite(largest := logWeights.max()):
        raise ValueError(f"weightedPopulation: the largest log weight is {largest}, but must be finite")
    w = np.exp(logWeights - largest)
    population = np.sum(w * b) / np.sum(w)
    error = np.sqrt(np.sum((w * (b - population))**2)) / np.sum(w)
    return _makePopulation(population, error, np.sum(w)**2 / np.sum(w**2))


def _makePopulation(population: float, error: float, count: float) -> Estimate:
    """With an error of its own where all of `count` independent samples or blocks are inside, or none: there they scatter by nothing."""
    return Estimate(float(population), float(error if 0 < population < 1 else 1 / (count + 2)))


def blockPopulation(inside: Any, logWeights: Any = None, numBlocks: int = 10) -> Estimate:
    """The population of a state from a correlated trajectory, with the error of blocks in time (a jackknife over them); where all
    frames are inside, or none, 1/(numBlocks + 2).

    Parameters
    ----------
    inside : bool [frames], in time order; or [walkers, frames] for walkers that ran side by side
    logWeights : of the same shape; equal by default
    numBlocks : blocks should be much longer than the time between visits to the state
    """
    b = np.atleast_2d(np.asarray(inside, dtype=float))
    w = np.ones_like(b) if logWeights is None else np.exp(np.atleast_2d(logWeights) - np.max(logWeights))
    if b.shape[1] < 2 * numBlocks:
        raise ValueError(f"blockPopulation: there are {b.shape[1]} frames, but must be at least {2 * numBlocks}")
    weight = np.array([part.sum() for part in np.array_split(w, numBlocks, axis=1)])
    hits = np.array([part.sum() for part in np.array_split(w * b, numBlocks, axis=1)])
    without = (hits.sum() - hits) / (weight.sum() - weight)
    variance = (numBlocks - 1) / numBlocks * np.sum((without - without.mean())**2)
    return _makePopulation(hits.sum() / weight.sum(), np.sqrt(variance), numBlocks)


def freeEnergyFromPopulation(population: Estimate) -> Estimate:
    """-ln(P / (1 - P)), in kT, of a state against the rest: F(state) - F(rest), with the delta method's error."""
    p = population.value
    if not 0 < p < 1:
        raise ValueError(f"freeEnergyFromPopulation: the population is {p}, but must be strictly between 0 and 1")
    return Estimate(float(-np.log(p / (1 - p))), population.standardError / (p * (1 - p)))


def freeEnergyProfile(angles: Any, logWeights: Any = None, bins: int = 72,
                      numBlocks: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-ln p of an angle, its minimum at 0, with errors of blocks in time.

    Parameters
    ----------
    angles : rad [frames]
    logWeights : [frames]; equal by default

    Returns
    -------
    centres of bins (degrees), profile and its error (kT); infinite and NaN in bins without a frame
    """
    angles = np.asarray(angles, dtype=float)
    w = np.ones_like(angles) if logWeights is None else np.exp(np.asarray(logWeights) - np.max(logWeights))
    edges = np.linspace(-np.pi, np.pi, bins + 1)
    blocks = np.array([np.histogram(a, edges, weights=v)[0]
                       for a, v in zip(np.array_split(angles, numBlocks), np.array_split(w, numBlocks))])
    without = blocks.sum(axis=0) - blocks
    without /= without.sum(axis=1, keepdims=True)
    density = blocks.sum(axis=0) / blocks.sum()
    error = np.sqrt((numBlocks - 1) / numBlocks * np.sum((without - without.mean(axis=0))**2, axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = -np.log(density)
        return np.degrees((edges[1:] + edges[:-1]) / 2), profile - profile.min(), error / density


def inefficiency(series: np.ndarray) -> float:
    """The statistical inefficiency of a series, in which infinite values count as the nearest finite one; 1 where fewer than four
    are finite, or all are the same but for rounding."""
    from . import statisticalInefficiency

    finite = series[np.isfinite(series)]
    if len(finite) < 4 or np.ptp(finite) <= 1e-9 * max(1.0, float(np.abs(finite).max())):
        return 1.0
    return statisticalInefficiency(np.clip(series, finite.min(), finite.max()).tolist())


def thin(*series: np.ndarray) -> np.ndarray:
    """One value of each g of a series, g its statistical inefficiency; of several series, the largest one for all, so that each keeps
    its part in the whole."""
    g = max(map(inefficiency, series))
    return np.concatenate([part[np.arange(0, len(part), g).astype(int)] for part in series])


def importPymbar() -> Any:
    """pymbar, without its advertisement for JAX."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        import pymbar
    return pymbar


def mbarLogWeights(energies: np.ndarray, temperatures: Iterable[float], target: float) -> np.ndarray:
    """Normalised log weights, at one temperature, of frames drawn at several.

    Parameters
    ----------
    energies : kJ/mol [states * frames], as many frames from each state, state by state
    temperatures : K, of the states
    target : K

    Returns
    -------
    float64 [states * frames], the exponentials sum to 1
    """
    ladder = np.array(list(temperatures), dtype=float)
    if np.all(ladder == ladder[0]):
        logWeights = -energies * (1 / (R * target) - 1 / (R * ladder[0]))
    else:
        # w = exp(-u) / sum_k N_k exp(f_k - u_k), in logarithms: weights() would underflow at high temperatures.
        reduced = energies / (R * ladder[:, None])
        counts = np.full(len(ladder), len(energies) // len(ladder))
        f = importPymbar().MBAR(reduced, counts).f_k
        mixture = np.logaddexp.reduce(np.log(counts)[:, None] + f[:, None] - reduced, axis=0)
        logWeights = -energies / (R * target) - mixture
    shifted = np.exp(logWeights - logWeights.max())
    return logWeights - logWeights.max() - np.log(shifted.sum())


def summarize(states: Mapping[str, State], positions: Any, logWeights: Any) -> dict[str, Estimate]:
    """The population of each state from independent weighted samples. positions: nm [samples, atoms, 3]."""
    x = toNanometers(positions)
    return {name: weightedPopulation(state.contains(x), logWeights) for name, state in states.items()}
