# SPDX-License-Identifier: MIT
"""A program that runs Langevin dynamics for data.py: one process per core, because Reference's random numbers are
shared by all Contexts of a process. It reads pickled jobs from stdin and answers on stdout; it ends when stdin does.
It needs OpenMM only, so that it starts fast, and is a program of its own so that scripts need no main guard."""

import os
import pickle
import sys
import time

import numpy as np
import openmm as mm
from openmm import unit


def makeContext(systemXml: str, stepSize: float, friction: float, seed: int, platform: str) -> mm.Context:
    system = mm.XmlSerializer.deserialize(systemXml)
    integrator = mm.LangevinMiddleIntegrator(300.0, friction, stepSize)
    integrator.setRandomNumberSeed(seed)
    properties = {"Threads": "1"} if platform == "CPU" else {}
    return mm.Context(system, integrator, mm.Platform.getPlatformByName(platform), properties)


def advance(context: mm.Context, random: np.random.Generator, x: np.ndarray, v: np.ndarray | None, temperature: float,
            steps: int) -> tuple:
    """Run one replica. Units are nm, nm/ps, K and kJ/mol. v = None draws velocities, after a short minimisation."""
    integrator = context.getIntegrator()
    integrator.setTemperature(temperature)
    context.setPositions(x)
    if v is None:
        mm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
        context.setVelocitiesToTemperature(temperature, int(random.integers(1, 2**31)))
    else:
        context.setVelocities(v)
    integrator.step(steps)
    state = context.getState(positions=True, velocities=True, energy=True)
    return (state.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
            state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond),
            state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints goes to stderr, not into the answers
    setup = pickle.load(sys.stdin.buffer)
    context, random = None, np.random.default_rng(setup["seed"])
    while True:
        try:
            jobs = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        start = time.process_time()
        try:
            context = context or makeContext(**setup)
            results = [advance(context, random, *job) for job in jobs]
        except Exception as error:  # told to the parent, which raises it
            results = str(error)
        pickle.dump((results, time.process_time() - start), answers)
        answers.flush()


if __name__ == "__main__":
    main()
