# SPDX-License-Identifier: MIT
"""Jumps of alanine dipeptide in TIP3P water, by stages that take its interactions with the water away and back.

    python explicit_water.py                     # some minutes on two cores: a small box, few jumps
    python explicit_water.py --box 2.85 --jumps 2000 --steps 100     # 750 waters: for a GPU

The flow is trained in vacuum, where the last stage is. PME, rigid bonds to hydrogen, 2 fs, a barostat between jumps, K x s steps
of 2 fs out and back (unadjusted Langevin dynamics, or --dynamics Metropolised). Printed for each length of the stages: the part of
jumps that found a conformation at the last stage, the works, the acceptance, crossings of phi = 0 per hour of wall time with
jumps, and those of plain dynamics in the time between jumps.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from openmmflow import (BoltzmannGenerator, Flow, StageDynamics, alchemicalProtocol, alchemicalSystem, temperedData, testsystems,
                        tuning)
from openmmflow.analysis import torsion
from openmmflow.data import geometricTemperatures
from tqdm import trange

SOLUTE = list(range(22))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=float, default=2.2, help="nm")
    parser.add_argument("--cutoff", type=float, default=0.9, help="nm")
    parser.add_argument("--stages", type=int, nargs=2, default=[8, 16], help="of electrostatics and of sterics")
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 80], help="at each stage; several are tried in turn")
    parser.add_argument("--dynamics", choices=[kind.name for kind in StageDynamics], default="Langevin")
    parser.add_argument("--trials", type=int, default=16, help="in the middle of a jump")
    parser.add_argument("--jumps", type=int, default=12)
    parser.add_argument("--interval", type=int, default=500, help="steps of dynamics between jumps")
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--output", type=Path, default=Path("explicit_water"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    vacuum = testsystems.alanineDipeptide(constraints=app.HBonds)
    phi = vacuum.getTorsion("phi")
    flow = trainFlow(vacuum, options.output / "flow.safetensors")
    simulation = makeSimulation(vacuum, flow, options)
    print(f"{simulation.system.getNumParticles()} particles, {(simulation.system.getNumParticles() - 22) // 3} waters", flush=True)
    rows = []
    for steps in options.steps:
        protocol = alchemicalProtocol(*options.stages, steps, 0.002, stericPower=2.0, stageDynamics=StageDynamics[options.dynamics])
        rows.append(runJumps(simulation, protocol, phi, options))
        print(json.dumps(rows[-1]), flush=True)
    (options.output / "explicit_water.json").write_text(json.dumps(rows, indent=1) + "\n")


def trainFlow(vacuum, file):
    """In vacuum, on frames of parallel tempering and then on the flow's own samples."""
    if file.exists():
        return Flow.load(str(file))
    system, positions = vacuum.createSystem(), vacuum.getPositions()
    data = temperedData(system, positions, geometricTemperatures(300, 1000, 7), framesPerTemperature=8000, stepsPerFrame=50, seed=1)
    generator = BoltzmannGenerator.fromTopology(vacuum.topology, system, positions, 300, data=data, seed=2)
    generator.fit(data, iterations=1000, seed=3)
    generator.refine(iterations=300, seed=4)
    judged = generator.evaluate(20_000, seed=5)
    print(f"The flow in vacuum: ESS/N {judged.effectiveSize / 20_000:.3f}, acceptance {judged.acceptance}", flush=True)
    generator.save(file)
    return generator.flow


def makeSimulation(vacuum, flow, options):
    from openmmflow import FlowLangevinIntegrator

    forcefield = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(vacuum.topology, vacuum.getPositions() * unit.nanometer)
    modeller.addSolvent(forcefield, model="tip3p", boxSize=mm.Vec3(*[options.box] * 3) * unit.nanometer)
    system = forcefield.createSystem(modeller.topology, nonbondedMethod=app.PME, constraints=app.HBonds,
                                     nonbondedCutoff=options.cutoff * unit.nanometer)
    system.addForce(mm.MonteCarloBarostat(1 * unit.bar, 300, 25))
    integrator = FlowLangevinIntegrator(300, 1, 0.002, flow)
    integrator.setJumpInterval(0)
    integrator.setTrialsPerJump(options.trials)
    simulation = app.Simulation(modeller.topology, alchemicalSystem(system, SOLUTE), integrator,
                                mm.Platform.getPlatformByName(options.platform))
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(5000)
    return simulation


def runJumps(simulation, protocol, phi, options):
    """Jumps with a protocol, and dynamics between them."""
    def angle():
        return torsion(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value[None], phi)[0]

    integrator = simulation.integrator
    integrator.setAnnealedProtocol(protocol)
    integrator.setRecordTrials(True)
    integrator.clearJumpRecords()
    crossings, dynamics, seconds = 0, 0, {"jumps": 0.0, "dynamics": 0.0}
    for _ in trange(options.jumps, desc=f"{protocol.getNumStages()} stages of {protocol.getStepsPerStage()} steps", unit="jump"):
        before, start = angle(), time.perf_counter()
        simulation.step(options.interval)
        middle, between = angle(), time.perf_counter()
        integrator.jump()
        after, end = angle(), time.perf_counter()
        dynamics += (before > 0) != (middle > 0)
        crossings += (middle > 0) != (after > 0)
        seconds["dynamics"] += between - start
        seconds["jumps"] += end - between
    pilot = tuning.summarizePilot(protocol, integrator.getAnnealedRecords(), seconds["jumps"] / options.jumps)
    accepted = [record.accepted for record in integrator.getAnnealedRecords()]
    return {"steps": protocol.getStepsPerStage(), "ps out and back": 2 * protocol.getNumStages() * protocol.getStepsPerStage() * 0.002,
            "jumps": options.jumps, "middle": pilot.middle.value, "works": [round(float(w), 1) for w in pilot.works],
            "mean probability of acceptance": pilot.acceptance.value, "accepted": int(np.sum(accepted)),
            "seconds per jump": pilot.seconds, "crossings": {"jumps": int(crossings), "dynamics between": int(dynamics)},
            "seconds": seconds}


if __name__ == "__main__":
    main()
