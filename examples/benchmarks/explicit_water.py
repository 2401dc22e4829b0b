# SPDX-License-Identifier: MIT
"""Jumps of alanine dipeptide in TIP3P water, by stages that take most of its charges away from the water and back.

    python explicit_water.py                     # 20 minutes of one core: a small box, few jumps
    python explicit_water.py --box 2.85 --jumps 2000 --steps 200 --plain 50     # 750 waters: for a GPU

The flow is trained in vacuum. PME, rigid bonds to hydrogen, 2 fs, a barostat between jumps; K x s steps of 2 fs out and back
(unadjusted Langevin dynamics, or --dynamics Metropolised). At the last stage many of the flow's trials are decided in turn: some
fit into the cavity that the molecule has, so that the sterics stay as they are. Printed for each length of the stages: the part of
jumps that found a conformation at the last stage, the works, the acceptance, what an accepted jump and a change of basin cost,
and populations of basins beside those of --plain ns of dynamics alone.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from openmmflow import (BoltzmannGenerator, Flow, FlowLangevinIntegrator, StageDynamics, alchemicalProtocol, alchemicalSystem,
                        temperedData, testsystems, tuning)
from openmmflow.analysis import blockPopulation, torsion
from openmmflow.data import geometricTemperatures
from tqdm import trange

SOLUTE = list(range(22))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--box", type=float, default=2.0, help="nm")
    parser.add_argument("--cutoff", type=float, default=0.8, help="nm")
    parser.add_argument("--stages", type=int, nargs=2, default=[30, 0], help="of electrostatics and of sterics")
    parser.add_argument("--last", type=float, nargs=2, default=[0.4, 0.5], help="values of both at the last stage")
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 100], help="at each stage; several are tried in turn")
    parser.add_argument("--dynamics", choices=[kind.name for kind in StageDynamics], default="Langevin")
    parser.add_argument("--trials", type=int, default=512, help="in the middle of a jump")
    parser.add_argument("--jumps", type=int, default=16)
    parser.add_argument("--plain", type=float, default=0.1, help="ns of dynamics alone, to compare with")
    parser.add_argument("--interval", type=int, default=1000, help="steps of dynamics between jumps")
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--output", type=Path, default=Path("explicit_water"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    vacuum = testsystems.alanineDipeptide(constraints=app.HBonds)
    flow = trainFlow(vacuum, options.output / "flow.safetensors")
    simulation = makeSimulation(vacuum, flow, options)
    run = BasinRun(simulation, vacuum)
    print(f"{simulation.system.getNumParticles()} particles, {(simulation.system.getNumParticles() - 22) // 3} waters", flush=True)
    rows = [runPlain(run, round(options.plain * 5e5)), runJumps(run, None, options)]
    print(*map(json.dumps, rows), sep="\n", flush=True)
    for steps in options.steps:
        lastElectrostatics, lastSterics = options.last
        protocol = alchemicalProtocol(*options.stages, steps, 0.002, lastElectrostatics=lastElectrostatics, lastSterics=lastSterics,
                                      stageDynamics=StageDynamics[options.dynamics])
        rows.append(runJumps(run, protocol, options))
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


class BasinRun:
    """A simulation whose basin is noted after each block of dynamics and after each jump, with the CPU seconds of each."""

    NAMES = ("beta", "alpha right", "alpha left")

    def __init__(self, simulation, molecule):
        self.simulation, self.torsions = simulation, (molecule.getTorsion("phi"), molecule.getTorsion("psi"))
        self.start()

    def start(self):
        self.angles = self.measureAngles()
        self.basins, self.changes = [self.findBasin()], {"dynamics": 0, "jumps": 0}
        self.seconds = {"dynamics": 0.0, "jumps": 0.0}

    def measureAngles(self):
        x = self.simulation.context.getState(positions=True).getPositions(asNumpy=True)._value[None]
        return [round(float(np.degrees(torsion(x, atoms)[0]))) for atoms in self.torsions]

    def findBasin(self):
        phi, psi = self.angles
        return 2 if 0 < phi < 140 else 1 if -120 < psi < 50 else 0

    def do(self, kind, action):
        start = time.process_time()
        action()
        self.seconds[kind] += time.process_time() - start
        self.angles = self.measureAngles()
        self.basins.append(self.findBasin())
        self.changes[kind] += self.basins[-1] != self.basins[-2]

    def summarize(self):
        basins = np.array(self.basins[1:])
        populations = {name: str(blockPopulation(basins == i)) for i, name in enumerate(self.NAMES)} if len(basins) >= 20 else {}
        return {"populations": populations, "changes of basin": self.changes, "CPU seconds": self.seconds}


def runPlain(run, steps, block=100):
    run.start()
    for _ in trange(0, steps, block, desc="dynamics alone", unit="block"):
        run.do("dynamics", lambda: run.simulation.step(block))
    return {"plain ns": steps * 2e-6} | run.summarize()


def runJumps(run, protocol, options, block=100):
    """Jumps with a protocol, or bare ones, and dynamics between them."""
    integrator = run.simulation.integrator
    integrator.setAnnealedProtocol(protocol)
    integrator.setRecordTrials(True)
    integrator.clearJumpRecords()
    run.start()
    accepted, moves = [], []
    for _ in trange(options.jumps, desc="jumps", unit="jump"):
        for _ in range(0, options.interval, block):
            run.do("dynamics", lambda: run.simulation.step(block))
        before = run.angles
        run.do("jumps", lambda: accepted.append(integrator.jump() > 0))
        if accepted[-1]:
            moves.append([before, run.angles])
    result = {"jumps": options.jumps, "accepted": sum(accepted), "CPU seconds per jump": run.seconds["jumps"] / options.jumps,
              "CPU seconds per accepted jump": run.seconds["jumps"] / sum(accepted) if any(accepted) else None,
              "phi and psi before and after": moves} | run.summarize()
    if protocol is None:
        return {"steps": None} | result
    pilot = tuning.summarizePilot(protocol, integrator.getAnnealedRecords(), result["CPU seconds per jump"])
    return {"steps": protocol.getStepsPerStage(), "ps out and back": 2 * protocol.getNumStages() * protocol.getStepsPerStage() * 0.002,
            "middle": pilot.middle.value, "works": [round(float(w), 1) for w in pilot.works],
            "mean probability of acceptance": pilot.middle.value * pilot.acceptance.value} | result


if __name__ == "__main__":
    main()
