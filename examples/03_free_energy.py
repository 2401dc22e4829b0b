# SPDX-License-Identifier: MIT
"""The free energy of one basin over another by Bennett's acceptance ratio through the flow (of 01_train_and_sample.py).

Frames of each basin are enough, from runs that never cross between them. Here a wall holds each run in its basin: zero inside, it leaves
the distribution there as it is.
"""
from copy import deepcopy
from pathlib import Path

import numpy as np
import openmm as mm
from openmm import app

from openmmflow import BoltzmannGenerator, temperedData

pdb = app.PDBFile(str(Path(__file__).with_name("alanine-dipeptide.pdb")))
system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=app.HBonds)


def addWall(torsion, low, high):
    """The System with a wall around the angles of a torsion from low to high degrees."""
    wall = mm.CustomTorsionForce("5000*max(0, distance-half)^2; distance=min(d, 2*pi-d); d=abs(theta-middle)")
    for name, value in (("middle", np.radians((low + high) / 2)), ("half", np.radians((high - low) / 2)), ("pi", np.pi)):
        wall.addGlobalParameter(name, value)
    wall.addTorsion(*torsion)
    walled = deepcopy(system)
    walled.addForce(wall)
    return walled


generator = BoltzmannGenerator("flow.safetensors", system, pdb.positions)
phi = [4, 6, 8, 14]
left, right = generator.state(phi, -180, 0), generator.state(phi, 0, 180)

# One run in each basin, at 300 K; the second starts from a sample of the flow.
samples = generator.evaluate(100_000)
start = samples.positions[np.argmax(np.where(right.contains(samples.positions), samples.logWeights, -np.inf))]
runs = [temperedData(addWall(phi, *angles), x, [300], framesPerTemperature=1000, stepsPerFrame=200)
        for angles, x in (((-180, 0), pdb.positions), ((0, 180), start))]
frames = np.concatenate([run.atTemperature() for run in runs])

difference = generator.freeEnergy(left, right, frames, evaluation=samples)
print(f"F(phi > 0) - F(phi < 0) = {difference} kT; {difference.verdict()}")
