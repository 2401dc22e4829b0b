# SPDX-License-Identifier: MIT
"""The free energy of one basin over another by Bennett's acceptance ratio through the flow (of 01_train_and_sample.py).

Frames of each basin are enough, from runs that never cross between them.
"""
from pathlib import Path

import numpy as np
from openmm import app

from openmmflow import BoltzmannGenerator, temperedData

pdb = app.PDBFile(str(Path(__file__).with_name("alanine-dipeptide.pdb")))
system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=app.HBonds)
generator = BoltzmannGenerator("flow.safetensors", system, pdb.positions)

phi = [4, 6, 8, 14]
left, right = generator.state(phi, -180, 0), generator.state(phi, 0, 180)

# One run in each basin, at 300 K; the second starts from a sample of the flow.
samples = generator.evaluate(20_000)
start = samples.positions[np.argmax(np.where(right.contains(samples.positions), samples.logWeights, -np.inf))]
runs = [temperedData(system, x, [300], framesPerTemperature=1000, stepsPerFrame=200) for x in (pdb.positions, start)]
frames = np.concatenate([run.atTemperature() for run in runs])

difference = generator.freeEnergy(left, right, frames, evaluation=samples)
print(f"F(phi > 0) - F(phi < 0) = {difference} kT, overlaps {difference.overlapA:.2f} and {difference.overlapB:.2f}")
