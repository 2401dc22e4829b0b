# SPDX-License-Identifier: MIT
"""Jumps of alanine dipeptide in TIP3P water, by stages that take its charges and a part of its sterics out of the water and back.

    python explicit_water.py                     # half an hour of one core: a small box, few jumps
    python explicit_water.py --box 2.85 --parts plain --plain 2.4 &                     # 750 waters,
    python explicit_water.py --box 2.85 --parts annealed --jumps 75 --interval 5000 &   # two hours of two cores

PME, rigid bonds to hydrogen, 2 fs, a barostat between jumps; K x s steps of 2 fs out and back (unadjusted Langevin dynamics, or
--dynamics Metropolised). The flow is trained in implicit solvent, and a torsionBias() gives the molecule the conformations of implicit
solvent at the last stage, too. There many of the flow's trials are decided in turn: some fit into the cavity that is left to the
molecule. Printed and written, for dynamics alone, bare and annealed jumps: the part of jumps that found a conformation at the last
stage, the works, the acceptance, what an accepted jump and a change of basin cost, and the populations of basins.
"""
import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from openmmflow import (BoltzmannGenerator, Flow, FlowLangevinIntegrator, StageDynamics, alchemicalProtocol, alchemicalSystem,
                        temperedData, testsystems, torsionBias, tuning)
from openmmflow.analysis import blockPopulation, torsion
from openmmflow.data import geometricTemperatures
from tqdm import trange

SOLUTE = list(range(22))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", choices=["plain", "bare", "annealed"], nargs="+", default=["plain", "bare", "annealed"])
    parser.add_argument("--box", type=float, default=2.0, help="nm")
    parser.add_argument("--cutoff", type=float, default=0.8, help="nm")
    parser.add_argument("--stages", type=int, nargs=2, default=[60, 15], help="of electrostatics and of sterics")
    parser.add_argument("--last", type=float, nargs=2, default=[0.0, 0.75], help="values of both at the last stage")
    parser.add_argument("--power", type=float, default=0.75, help="of the electrostatic stages: below 1 starts slowly")
    parser.add_argument("--steps", type=int, default=66, help="at each stage")
    parser.add_argument("--dynamics", choices=[kind.name for kind in StageDynamics], default="Langevin")
    parser.add_argument("--friction", type=float, default=0.1, help="1/ps, at the stages")
    parser.add_argument("--trials", type=int, default=512, help="in the middle of a jump, and of a bare one")
    parser.add_argument("--jumps", type=int, default=40)
    parser.add_argument("--interval", type=int, default=1000, help="steps of dynamics between jumps")
    parser.add_argument("--plain", type=float, default=0.2, help="ns of dynamics alone, to compare with")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--output", type=Path, default=Path("explicit_water"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    molecule = testsystems.alanineDipeptide(constraints=app.HBonds)
    flow, bias = prepare(molecule, options.output)
    for part in options.parts:
        simulation = makeSimulation(molecule, flow, bias, options)
        waters = (simulation.system.getNumParticles() - 22) // 3
        run = BasinRun(simulation, molecule, options.output / f"{part}-{waters}.json")
        if part == "plain":
            runPlain(run, round(options.plain * 5e5))
        else:
            runJumps(run, makeProtocol(options) if part == "annealed" else None, options)
        print(part, json.dumps(run.summary), flush=True)


def prepare(molecule, folder):
    """The flow and the bias, from frames of parallel tempering in vacuum and in implicit solvent."""
    implicit = testsystems.alanineDipeptide("implicit", constraints=app.HBonds)
    data = [temperedData(m.createSystem(), m.getPositions(), geometricTemperatures(300, 1000, 7), framesPerTemperature=12_000,
                         stepsPerFrame=50, seed=1, file=folder / f"{m.solvent}.npz") for m in (molecule, implicit)]
    bias = torsionBias([molecule.getTorsion(name) for name in ("phi", "psi")], *data)
    file = folder / "flow.safetensors"
    if file.exists():
        return Flow.load(str(file)), bias
    system, positions = implicit.createSystem(), implicit.getPositions()
    generator = BoltzmannGenerator.fromTopology(implicit.topology, system, positions, 300, data=data[1], seed=2)
    generator.fit(data[1], iterations=1000, seed=3)
    generator.refine(iterations=300, seed=4)
    judged = generator.evaluate(20_000, seed=5)
    print(f"The flow in implicit solvent: ESS/N {judged.effectiveSize / 20_000:.3f}, acceptance {judged.acceptance}", flush=True)
    generator.save(file)
    return generator.flow, bias


def makeSimulation(molecule, flow, bias, options):
    forcefield = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(molecule.topology, molecule.getPositions() * unit.nanometer)
    modeller.addSolvent(forcefield, model="tip3p", boxSize=mm.Vec3(*[options.box] * 3) * unit.nanometer)
    system = forcefield.createSystem(modeller.topology, nonbondedMethod=app.PME, constraints=app.HBonds,
                                     nonbondedCutoff=options.cutoff * unit.nanometer)
    system.addForce(mm.MonteCarloBarostat(1 * unit.bar, 300, 25))
    alchemical = alchemicalSystem(system, SOLUTE)
    alchemical.addForce(copy.deepcopy(bias))
    integrator = FlowLangevinIntegrator(300, 1, 0.002, flow)
    integrator.setJumpInterval(0)
    integrator.setTrialsPerJump(options.trials)
    integrator.setRandomNumberSeed(options.seed)
    integrator.setJumpRandomNumberSeed(options.seed + 1)
    platform = mm.Platform.getPlatformByName(options.platform)
    simulation = app.Simulation(modeller.topology, alchemical, integrator, platform,
                                {"Threads": "1"} if options.platform == "CPU" else {})
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300, options.seed)
    simulation.step(10_000)
    return simulation


def makeProtocol(options):
    lastElectrostatics, lastSterics = options.last
    return alchemicalProtocol(*options.stages, options.steps, 0.002, lastElectrostatics=lastElectrostatics, lastSterics=lastSterics,
                              electrostaticPower=options.power, torsionBias=True, friction=options.friction, stageDynamics=StageDynamics[options.dynamics])


class BasinRun:
    """A simulation whose basin is noted after each block of dynamics and after each jump, with the CPU seconds of each."""

    NAMES = ("beta", "alpha right", "alpha left")

    def __init__(self, simulation, molecule, file):
        self.simulation, self.file = simulation, file
        self.torsions = molecule.getTorsion("phi"), molecule.getTorsion("psi")
        self.summary = {}
        self.basins, self.changes = [], {"dynamics": 0, "jumps": 0}
        self.seconds = {"dynamics": 0.0, "jumps": 0.0}
        self.look()

    def look(self):
        x = self.simulation.context.getState(positions=True).getPositions(asNumpy=True)._value[None]
        self.angles = phi, psi = [round(float(np.degrees(torsion(x, atoms)[0]))) for atoms in self.torsions]
        self.basins.append(2 if 0 < phi < 140 else 1 if -120 < psi < 50 else 0)

    def do(self, kind, action):
        start = time.process_time()
        action()
        self.seconds[kind] += time.process_time() - start
        self.look()
        self.changes[kind] += self.basins[-1] != self.basins[-2]

    def write(self, values):
        """What is known so far, so that a run that is cut off leaves something."""
        basins = np.array(self.basins[1:])
        populations = {name: str(blockPopulation(basins == i)) for i, name in enumerate(self.NAMES)} if len(basins) >= 20 else {}
        self.summary = values | {"populations": populations, "changes of basin": self.changes, "CPU seconds": self.seconds}
        self.file.write_text(json.dumps(self.summary, indent=1) + "\n")


def runPlain(run, steps, block=100):
    for i in trange(0, steps, block, desc="dynamics alone", unit="block"):
        run.do("dynamics", lambda: run.simulation.step(block))
        if i % 10_000 == 0 or i + block >= steps:
            run.write({"ns": (i + block) * 2e-6})


def runJumps(run, protocol, options, block=100):
    """Jumps with a protocol, or bare ones, and dynamics between them."""
    integrator = run.simulation.integrator
    integrator.setAnnealedProtocol(protocol)
    integrator.setRecordTrials(protocol is not None)
    accepted, moves = [], []
    for _ in trange(options.jumps, desc="jumps", unit="jump"):
        for _ in range(0, options.interval, block):
            run.do("dynamics", lambda: run.simulation.step(block))
        before = run.angles
        run.do("jumps", lambda: accepted.append(integrator.jump() > 0))
        if accepted[-1]:
            moves.append([before, run.angles])
        result = {"jumps": len(accepted), "accepted": sum(accepted), "CPU seconds per jump": run.seconds["jumps"] / len(accepted),
                  "CPU seconds per accepted jump": run.seconds["jumps"] / sum(accepted) if any(accepted) else None,
                  "phi and psi before and after": moves}
        if protocol is not None:
            pilot = tuning.summarizePilot(protocol, integrator.getAnnealedRecords(), result["CPU seconds per jump"])
            result |= {"ps out and back": 2 * protocol.getNumStages() * protocol.getStepsPerStage() * 0.002, "middle": pilot.middle.value,
                       "works": [round(float(w), 1) for w in pilot.works],
                       "mean probability of acceptance": pilot.middle.value * pilot.acceptance.value}
        run.write(result)


if __name__ == "__main__":
    main()
