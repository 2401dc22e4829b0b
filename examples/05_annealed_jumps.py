# SPDX-License-Identifier: MIT
"""A flow of the molecule in vacuum (of 01_train_and_sample.py) jumps in implicit water: stages take the water away and back."""
from pathlib import Path

import openmm as mm
from openmm import app
from openmm.unit import kelvin, picosecond, picoseconds

from openmmflow import Flow, FlowLangevinIntegrator, alchemicalProtocol, alchemicalSystem

pdb = app.PDBFile(str(Path(__file__).with_name("alanine-dipeptide.pdb")))
water = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(pdb.topology, constraints=app.HBonds)

system = alchemicalSystem(water, solute=range(22))
integrator = FlowLangevinIntegrator(300 * kelvin, 1 / picosecond, 0.002 * picoseconds, Flow.load("flow.safetensors"))
integrator.setAnnealedProtocol(alchemicalProtocol(8, 0, stepsPerStage=10, stepSize=0.002 * picoseconds))
integrator.setJumpInterval(100)

simulation = app.Simulation(pdb.topology, system, integrator, mm.Platform.getPlatformByName("CPU"))
simulation.context.setPositions(pdb.positions)
simulation.minimizeEnergy()
simulation.context.setVelocitiesToTemperature(300 * kelvin)
simulation.step(1000)
for title in ("annealed", "bare"):
    if title == "bare":
        integrator.setAnnealedProtocol(None)
    integrator.resetJumpStatistics()
    simulation.step(15_000)
    statistics = integrator.getJumpStatistics()
    print(f"{title}: {statistics.accepted} of {statistics.trials} jumps accepted")
