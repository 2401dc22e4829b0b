# SPDX-License-Identifier: MIT
"""Train a flow of alanine dipeptide, sample it, and reweight the samples. Writes flow.safetensors for the next examples."""
from pathlib import Path

from openmm import app, unit

from openmmflow import BoltzmannGenerator, plots, temperedData
from openmmflow.analysis import torsion
from openmmflow.data import geometricTemperatures

pdb = app.PDBFile(str(Path(__file__).with_name("alanine-dipeptide.pdb")))
system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=app.HBonds)

# Frames from parallel tempering, weighted for 300 K, and a flow trained on them and then on its own reweighted samples.
data = temperedData(system, pdb.positions, geometricTemperatures(300, 1000, 5), framesPerTemperature=6000)
generator = BoltzmannGenerator.fromTopology(pdb.topology, system, pdb.positions, 300 * unit.kelvin, data=data)
generator.fit(data, iterations=800)
generator.refine(iterations=1000)
generator.save("flow.safetensors")

# Independent samples. Their weights make averages exact, and tell how good the flow is.
phi, psi = [4, 6, 8, 14], [6, 8, 14, 16]
result = generator.evaluate(20_000, {"phi > 0": generator.state(phi, 0, 180)})
print(f"{result.effectiveSize:.0f} effective samples of 20000; a jump would be accepted with {result.acceptance}")
print(f"P(phi > 0) = {result.populations['phi > 0']}")

angles = torsion(result.positions, phi), torsion(result.positions, psi)
plots.ramachandran("ramachandran.png", {"flow": (*angles, None), "reweighted": (*angles, result.logWeights)})
