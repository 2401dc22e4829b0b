# SPDX-License-Identifier: MIT
"""How often alanine dipeptide in vacuum at 300 K goes between its basins phi < 0 and phi > 0 in a second of CPU time: by Langevin
dynamics with jumps of a trained flow, and by Langevin dynamics alone.

    python crossings.py [--plain 120] [--jumping 30]      # CPU seconds of each

A crossing is a way from the core of a basin (phi in [-170, -30] or [30, 120] degrees) to that of the other. CPU seconds are those of
all threads, and of the steps alone. Where plain dynamics crosses fewer than ten times, its rate is bounded from above (95 %, Poisson).
Training the flow is not counted in; its CPU minutes are printed.
"""
import time

import jump
import molecules
import numpy as np
import openmm as mm
import timing
from openmm import unit
from openmmflow import FlowLangevinIntegrator
from openmmflow.analysis import torsion
from scipy.stats import chi2

INTERVAL, TRIALS = 50, 8
SLICES = 10  # in which the two take turns


def addOptions(parser):
    parser.add_argument("--plain", type=float, default=120, help="CPU seconds")
    parser.add_argument("--jumping", type=float, default=30, help="CPU seconds")


class Walk:
    """A simulation, the CPU seconds it took, and its crossings."""

    def __init__(self, integrator):
        self.integrator, self.context = jump.makeSimulation(integrator)
        self.seconds, self.crossings, self.basin = 0.0, 0, -1
        integrator.step(1000)

    def go(self, seconds):
        end = self.seconds + seconds
        while self.seconds < end:
            start = time.process_time()
            self.integrator.step(INTERVAL)
            self.seconds += time.process_time() - start
            positions = self.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            phi = float(np.degrees(torsion(positions[None], molecules.PHI)[0]))
            basin = -1 if -170 < phi < -30 else 1 if 30 < phi < 120 else self.basin
            self.crossings += basin != self.basin
            self.basin = basin


def measure(options):
    generator = molecules.trainedFlow(options.output, options.short)
    print(f"The flow: {float(generator.flow.getMetadata()['CPU minutes']):.1f} CPU minutes of frames and training")
    integrator = FlowLangevinIntegrator(300, 1, jump.STEP, generator.flow)
    integrator.setJumpInterval(INTERVAL)
    integrator.setTrialsPerJump(TRIALS)
    integrator.setJumpRandomNumberSeed(3)
    # Not at the same time: Reference's random numbers are shared, which is as good, and so is the processor.
    jumping, plain = Walk(integrator), Walk(mm.LangevinMiddleIntegrator(300, 1, jump.STEP))
    for _ in range(SLICES):
        jumping.go((1 if options.short else options.jumping) / SLICES)
        plain.go((4 if options.short else options.plain) / SLICES)
    print(f"acceptance {integrator.getJumpStatistics().getAcceptanceRate():.3f}; crossings with jumps {jumping.crossings} in "
          f"{jumping.seconds:.1f} CPU s, alone {plain.crossings} in {plain.seconds:.1f} CPU s")
    yield compare(jumping, plain)


def compare(jumping, plain):
    """Rates, with the interval that a Poisson count of plain crossings leaves: those of jumps are far better known."""
    few = plain.crossings < 10
    low = chi2.ppf(0.025, 2 * plain.crossings) / 2 / plain.seconds if plain.crossings > 0 else 0.0
    high = chi2.ppf(0.95 if few else 0.975, 2 * plain.crossings + 2) / 2 / plain.seconds
    rate, plainRate = jumping.crossings / jumping.seconds, high if few else plain.crossings / plain.seconds
    name = "Langevin alone" + (", at most" if few else "")
    return {"what": "crossings of alanine dipeptide per CPU second", "unit": "1/s", "spread": "95 %",
            "alternatives": {"with jumps": {"median": rate}, name: {"median": plainRate}},
            "ratio of times": [name, "with jumps"],
            "ratio": {"median": rate / plainRate, "quartiles": [rate / high, rate / low if low > 0 else float("inf")]},
            "crossings": {"with jumps": jumping.crossings, "Langevin alone": plain.crossings},
            "required": ">= 100", "reached": bool(rate / plainRate >= 100)}


if __name__ == "__main__":
    timing.run("crossings", __doc__, measure, addOptions)
