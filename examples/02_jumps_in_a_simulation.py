# SPDX-License-Identifier: MIT
"""An ordinary OpenMM script in which one line is new: the integrator, which jumps with a flow (of 01_train_and_sample.py)."""
import sys
from pathlib import Path

import openmm as mm
from openmm import app
from openmm.unit import kelvin, picosecond, picoseconds

from openmmflow import Flow, FlowLangevinIntegrator, JumpReporter

pdb = app.PDBFile(str(Path(__file__).with_name("alanine-dipeptide.pdb")))
system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, constraints=app.HBonds)

integrator = FlowLangevinIntegrator(300 * kelvin, 1 / picosecond, 0.002 * picoseconds, Flow.load("flow.safetensors"))
integrator.setJumpInterval(100)
integrator.setTrialsPerJump(4)

simulation = app.Simulation(pdb.topology, system, integrator, mm.Platform.getPlatformByName("CPU"))
simulation.context.setPositions(pdb.positions)
simulation.context.setVelocitiesToTemperature(300 * kelvin)
simulation.reporters.append(app.DCDReporter("trajectory.dcd", 100))
simulation.reporters.append(app.StateDataReporter(sys.stdout, 10_000, step=True, potentialEnergy=True, speed=True))
simulation.reporters.append(JumpReporter("jumps.csv", 1000))
simulation.step(50_000)

statistics = integrator.getJumpStatistics()
print(f"{statistics.accepted} of {statistics.trials} trials accepted")
