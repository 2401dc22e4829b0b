# SPDX-License-Identifier: MIT
"""Adaptive training: walkers that jump with the flow sample the data that the flow is trained on, in turns.

The idea is that of Gabrie, Rotskoff and Vanden-Eijnden, PNAS 119 (2022) e2109420119. Here the walkers keep their frames: what is
trained on grows from round to round.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm as mm

from .data import TrainingData, fastestPlatform


@dataclass
class WalkerStatistics:
    """What the walkers did in one round."""

    frames: int
    acceptance: float
    nonFinite: int
    failed: int


class Walkers:
    """Independent simulations of a System, each with its own integrator."""

    def __init__(self, system: mm.System, positions: np.ndarray, starts: np.ndarray, atoms: list[int],
                 makeIntegrator: Callable[[int], Any], platform: str | None = None):
        """
        Parameters
        ----------
        positions : nm, of all particles: those that the flow does not move start there
        starts : nm [walkers, atoms, 3]
        atoms : the particles that starts and frames hold
        makeIntegrator : of the number of a walker
        platform : the faster of Reference and CPU by default
        """
        name = platform or fastestPlatform(system, positions)
        # Reference draws from random numbers that all Contexts of a process share.
        self._threads = 1 if name == "Reference" else min(len(starts), os.cpu_count() or 1)
        self.atoms = atoms
        self.integrators, self.contexts = [], []
        for number, start in enumerate(starts):
            integrator = makeIntegrator(number)
            context = mm.Context(system, integrator, mm.Platform.getPlatformByName(name),
                                 {"Threads": "1"} if name == "CPU" else {})
            x = positions.copy()
            x[atoms] = start
            context.setPositions(x)
            context.computeVirtualSites()
            context.setVelocitiesToTemperature(integrator.getTemperature(), number + 1)
            self.integrators.append(integrator)
            self.contexts.append(context)

    def run(self, framesPerWalker: int, stepsPerFrame: int,
            update: Callable[[], Any] = lambda: None) -> tuple[np.ndarray, np.ndarray, WalkerStatistics]:
        """Run all walkers.

        Returns
        -------
        positions : nm [walkers, frames, atoms, 3]
        energies : kJ/mol [walkers, frames]
        statistics : of the jumps of this run
        """
        def runOne(walker: int) -> tuple[np.ndarray, np.ndarray]:
            integrator, context = self.integrators[walker], self.contexts[walker]
            integrator.resetJumpStatistics()
            x, energies = np.empty((framesPerWalker, len(self.atoms), 3), np.float32), np.empty(framesPerWalker)
            for frame in range(framesPerWalker):
                integrator.step(stepsPerFrame)
                state = context.getState(positions=True, energy=True)
                x[frame] = state.getPositions(asNumpy=True)._value[self.atoms]
                energies[frame] = state.getPotentialEnergy()._value
                update()
            return x, energies

        with ThreadPoolExecutor(self._threads) as pool:
            results = list(pool.map(runOne, range(len(self.contexts))))
        counts = [integrator.getJumpStatistics() for integrator in self.integrators]
        trials = sum(count.trials for count in counts)
        return (np.stack([x for x, _ in results]), np.stack([u for _, u in results]),
                WalkerStatistics(len(results) * framesPerWalker, sum(c.accepted for c in counts) / max(trials, 1),
                                 sum(c.nonFinite for c in counts), sum(c.failed for c in counts)))


def addFrames(data: TrainingData, positions: np.ndarray, energies: np.ndarray) -> TrainingData:
    """Data with frames of equal weight drawn at its temperature added.

    Both parts are sets of weighted samples of the same ensemble; each counts as its effective size.

    Parameters
    ----------
    positions : nm [frames, atoms, 3]
    energies : kJ/mol [frames]
    """
    old, new = data.getEffectiveSize(), len(positions)
    return TrainingData(
        positions=np.concatenate([data.positions, positions.astype(np.float32)]),
        logWeights=np.concatenate([data.logWeights + np.log(old / (old + new)), np.full(new, -np.log(old + new))]),
        energies=np.concatenate([data.energies, energies]),
        sampledTemperature=np.concatenate([data.sampledTemperature, np.full(new, data.temperature)]),
        temperature=data.temperature, atoms=data.atoms, cpuMinutes=data.cpuMinutes,
        steps=data.steps)
