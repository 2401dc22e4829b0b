# SPDX-License-Identifier: MIT
"""Jumps of a molecule in TIP3P water, by stages that take its charges and a part of its sterics out of the water and back.

    python explicit_water.py                                  # alanine dipeptide, half an hour of one core: a small box, few jumps
    python explicit_water.py --molecule disulfide             # the same of dimethyl disulfide
    python explicit_water.py --parts umbrella                 # the reference: umbrella sampling and MBAR
    python explicit_water.py --box 2.85 --parts plain --plain 2.4 &                     # some 700 waters,
    python explicit_water.py --box 2.85 --parts annealed --jumps 75 --interval 5000 &   # two hours of two cores

PME, rigid bonds to hydrogen, 2 fs, a barostat between jumps; K x s steps of 2 fs out and back (unadjusted Langevin dynamics, or
--dynamics Metropolised). At the last stage many of the flow's trials are decided in turn: some fit into the cavity that is left to the
molecule. Printed and written, for dynamics alone, bare and annealed jumps: the part of jumps that found a conformation at the last
stage, the works, the acceptance, what an accepted jump and a change of state cost, and the populations of states.

Alanine dipeptide: the flow is trained in implicit solvent, and a torsionBias() gives the molecule the conformations of implicit solvent
at the last stage, too. Dimethyl disulfide, CH3-S-S-CH3: the flow is trained in vacuum; its states are mirror images, of probability 1/2
each, with a barrier of 11 kT between them.
"""
import argparse
import copy
import io
import json
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmm import app, unit
from openmmflow import (BoltzmannGenerator, Flow, FlowLangevinIntegrator, StageDynamics, alchemicalProtocol, alchemicalSystem,
                        temperedData, testsystems, torsionBias, tuning)
from openmmflow.analysis import Estimate, blockPopulation, importPymbar, inefficiency, torsion
from openmmflow.data import R, geometricTemperatures
from tqdm import tqdm, trange


class AlanineDipeptide:
    states = ("beta", "alpha right", "alpha left")
    stages, last, power, steps, trials = (60, 15), (0.0, 0.75), 0.75, 66, 512

    def __init__(self):
        self.vacuum, self.implicit = (testsystems.alanineDipeptide(solvent, constraints=app.HBonds) for solvent in ("vacuum", "implicit"))
        self.topology, self.positions = self.vacuum.topology, self.vacuum.getPositions()
        self.torsions = [self.vacuum.getTorsion(name) for name in ("phi", "psi")]

    def findState(self, angles):
        phi, psi = angles
        return 2 if 0 < phi < 140 else 1 if -120 < psi < 50 else 0

    def isCore(self, angles):
        phi, psi = angles
        return 30 < phi < 100 or -80 < psi < 10 or not -150 < psi < 90

    def makeForceField(self, *files):
        return app.ForceField("amber14-all.xml", *files)

    def prepare(self, folder):
        vacuum, implicit = (drawFrames(molecule.createSystem(), molecule.getPositions(), folder / f"{molecule.solvent}.npz")
                            for molecule in (self.vacuum, self.implicit))
        flow = trainFlow(self.topology, self.implicit.createSystem(), self.implicit.getPositions(), implicit, folder)
        return flow, torsionBias(self.torsions, vacuum, implicit)


class DimethylDisulfide:
    """With the parameters of a disulfide bridge; CYX's charges, but for the carbons', which make the molecule neutral."""

    states = ("left", "right")
    stages, last, power, steps, trials = (10, 16), (0.0, 0.5), 1.0, 100, 64
    torsions = [[0, 4, 9, 5]]  # C S S C

    def __init__(self):
        halves = [[f"C{i}", f"H{i}1", f"H{i}2", f"H{i}3", f"S{i}"] for i in (1, 2)]
        names = sum(halves, [])
        bonds = [(half[0], other) for half in halves for other in half[1:]] + [("S1", "S2")]
        kinds = {"C": ("protein-CT", -0.1649), "H": ("protein-H1", 0.091), "S": ("protein-S", -0.1081)}
        self.template = "<ForceField><Residues><Residue name='DMDS'>" + "".join(
            f"<Atom name='{name}' type='{kinds[name[0]][0]}' charge='{kinds[name[0]][1]}'/>" for name in names) + "".join(
            f"<Bond atomName1='{a}' atomName2='{b}'/>" for a, b in bonds) + "</Residue></Residues></ForceField>"
        self.topology = app.Topology()
        residue = self.topology.addResidue("DMDS", self.topology.addChain())
        atoms = {name: self.topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in names}
        for a, b in bonds:
            self.topology.addBond(atoms[a], atoms[b])
        # One half by hand, along the S-S bond; the other by a turn of 180 degrees about an axis through the middle of that bond.
        half = np.array([[0.18, 0.1, 0], [0.15, 0.2, 0], [0.25, 0.1, 0.08], [0.25, 0.1, -0.08], [0.1, 0, 0]])
        turned = np.stack([-half[:, 0], half[:, 2], half[:, 1]], axis=1)
        simulation = app.Simulation(self.topology, self.createSystem(), mm.VerletIntegrator(0.001),
                                    mm.Platform.getPlatformByName("Reference"))
        simulation.context.setPositions(np.concatenate([half, turned]))
        simulation.minimizeEnergy()
        self.positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value

    def createSystem(self):
        return self.makeForceField().createSystem(self.topology, constraints=app.HBonds)

    def findState(self, angles):
        return int(angles[0] > 0)

    def isCore(self, angles):
        return 45 < abs(angles[0]) < 135

    def makeForceField(self, *files):
        return app.ForceField("amber14-all.xml", *files, io.StringIO(self.template))

    def prepare(self, folder):
        data = drawFrames(self.createSystem(), self.positions, folder / "vacuum.npz")
        return trainFlow(self.topology, self.createSystem(), self.positions, data, folder), None


MOLECULES = {"alanine": AlanineDipeptide, "disulfide": DimethylDisulfide}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecule", choices=MOLECULES, default="alanine")
    parser.add_argument("--parts", choices=["plain", "umbrella", "bare", "annealed"], nargs="+", default=["plain", "bare", "annealed"])
    parser.add_argument("--box", type=float, default=2.0, help="nm")
    parser.add_argument("--cutoff", type=float, default=0.8, help="nm")
    parser.add_argument("--stages", type=int, nargs=2, help="of electrostatics and of sterics")
    parser.add_argument("--last", type=float, nargs=2, help="values of both at the last stage")
    parser.add_argument("--power", type=float, help="of the electrostatic stages: below 1 starts slowly")
    parser.add_argument("--steps", type=int, help="at each stage")
    parser.add_argument("--dynamics", choices=[kind.name for kind in StageDynamics], default="Langevin")
    parser.add_argument("--friction", type=float, default=0.1, help="1/ps, at the stages")
    parser.add_argument("--trials", type=int, help="in the middle of a jump, and of a bare one")
    parser.add_argument("--jumps", type=int, default=40)
    parser.add_argument("--interval", type=int, default=1000, help="steps of dynamics between jumps")
    parser.add_argument("--plain", type=float, default=0.2, help="ns of dynamics alone, to compare with")
    parser.add_argument("--windows", type=int, default=18, help="of umbrella sampling along the last torsion")
    parser.add_argument("--window", type=float, default=0.06, help="ns in each of them, a fifth of which is left out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--output", type=Path, default=Path("explicit_water"))
    options = parser.parse_args()
    molecule = MOLECULES[options.molecule]()
    for name in ("stages", "last", "power", "steps", "trials"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(molecule, name))
    folder = options.output / options.molecule
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    flow, bias = molecule.prepare(folder)
    for part in options.parts:
        simulation = makeSimulation(molecule, flow, bias, options)
        waters = sum(residue.name == "HOH" for residue in simulation.topology.residues())
        run = StateRun(simulation, molecule, folder / f"{part}-{waters}.json")
        if part == "plain":
            runPlain(run, round(options.plain * 5e5))
        elif part == "umbrella":
            runUmbrella(run, options.windows, round(options.window * 5e5))
        else:
            runJumps(run, makeProtocol(bias, options) if part == "annealed" else None, options)
        print(part, json.dumps(run.summary), flush=True)


def drawFrames(system, positions, file):
    return temperedData(system, positions, geometricTemperatures(300, 1000, 7), framesPerTemperature=12_000, stepsPerFrame=50, seed=1,
                        file=file)


def trainFlow(topology, system, positions, data, folder):
    """On the frames, and then on the flow's own samples; from a file where there is one."""
    file = folder / "flow.safetensors"
    if file.exists():
        return Flow.load(str(file))
    generator = BoltzmannGenerator.fromTopology(topology, system, positions, 300, data=data, seed=2)
    generator.fit(data, iterations=1000, seed=3)
    generator.refine(iterations=300, seed=4)
    judged = generator.evaluate(20_000, seed=5)
    print(f"The flow where it was trained: ESS/N {judged.effectiveSize / 20_000:.3f}, acceptance {judged.acceptance}", flush=True)
    generator.save(file)
    return generator.flow


def makeSimulation(molecule, flow, bias, options):
    forcefield = molecule.makeForceField("amber14/tip3p.xml")
    modeller = app.Modeller(molecule.topology, molecule.positions * unit.nanometer)
    modeller.addSolvent(forcefield, model="tip3p", boxSize=mm.Vec3(*[options.box] * 3) * unit.nanometer)
    system = forcefield.createSystem(modeller.topology, nonbondedMethod=app.PME, constraints=app.HBonds,
                                     nonbondedCutoff=options.cutoff * unit.nanometer)
    system.addForce(mm.MonteCarloBarostat(1 * unit.bar, 300, 25))
    alchemical = alchemicalSystem(system, range(molecule.topology.getNumAtoms()))
    umbrella = mm.CustomTorsionForce("umbrella*(1-cos(theta-centre))")
    umbrella.addGlobalParameter("umbrella", 0)
    umbrella.addGlobalParameter("centre", 0)
    umbrella.addTorsion(*molecule.torsions[-1])
    alchemical.addForce(umbrella)
    if bias is not None:
        alchemical.addForce(copy.deepcopy(bias))
    integrator = FlowLangevinIntegrator(300, 1, 0.002, flow)
    integrator.setJumpInterval(0)
    integrator.setTrialsPerJump(options.trials)
    integrator.setRandomNumberSeed(options.seed)
    integrator.setJumpRandomNumberSeed(options.seed + 1)
    simulation = app.Simulation(modeller.topology, alchemical, integrator, mm.Platform.getPlatformByName(options.platform),
                                {"Threads": "1"} if options.platform == "CPU" else {})
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300, options.seed)
    simulation.step(10_000)
    return simulation


def makeProtocol(bias, options):
    lastElectrostatics, lastSterics = options.last
    return alchemicalProtocol(*options.stages, options.steps, 0.002, lastElectrostatics=lastElectrostatics, lastSterics=lastSterics,
                              electrostaticPower=options.power, torsionBias=bias is not None, friction=options.friction,
                              stageDynamics=StageDynamics[options.dynamics])


class StateRun:
    """A simulation whose state is noted after each block of dynamics and after each jump, with the CPU seconds of each."""

    def __init__(self, simulation, molecule, file):
        self.simulation, self.molecule, self.file = simulation, molecule, file
        self.summary = {}
        self.states, self.changes, self.last = [], {"dynamics": 0, "jumps": 0}, None
        self.seconds = {"dynamics": 0.0, "jumps": 0.0}
        self.look()

    def look(self):
        x = self.simulation.context.getState(positions=True).getPositions(asNumpy=True)._value[None]
        self.angles = [round(float(np.degrees(torsion(x, atoms)[0]))) for atoms in self.molecule.torsions]
        self.states.append(self.molecule.findState(self.angles))

    def do(self, kind, action):
        start = time.process_time()
        action()
        self.seconds[kind] += time.process_time() - start
        self.look()
        # From the core of one state to that of another: what turns round at the border has not changed its state.
        if self.molecule.isCore(self.angles):
            self.changes[kind] += self.last not in (None, self.states[-1])
            self.last = self.states[-1]

    def write(self, values, populations=None):
        """What is known so far, so that a run that is cut off leaves something."""
        states = np.array(self.states[1:])
        if populations is None and len(states) >= 20:
            populations = {name: str(blockPopulation(states == i)) for i, name in enumerate(self.molecule.states)}
        self.summary = values | {"populations": populations, "changes of state": self.changes, "CPU seconds": self.seconds}
        self.file.write_text(json.dumps(self.summary) + "\n")


def runPlain(run, steps, block=100):
    for i in trange(0, steps, block, desc="dynamics alone", unit="block"):
        run.do("dynamics", lambda: run.simulation.step(block))
        if i % 10_000 == 0 or i + block >= steps:
            run.write({"ns": (i + block) * 2e-6})


def runUmbrella(run, windows, steps, strength=100.0, block=100):
    """Populations from windows along the last torsion, one after the other, by MBAR."""
    kT, context = 300 * R, run.simulation.context
    context.setParameter("umbrella", strength)
    centres = np.linspace(180, -180, windows, endpoint=False)
    angles, inside, counts = [], [], []
    for centre in tqdm(centres, desc="umbrella sampling", unit="window"):
        context.setParameter("centre", float(np.radians(centre)))
        series = []
        for _ in range(0, steps, block):
            run.do("dynamics", lambda: run.simulation.step(block))
            series.append((np.radians(run.angles[-1]), run.states[-1]))
        series = np.array(series[len(series) // 5:])
        deviation = 1 - np.cos(series[:, 0] - np.radians(centre))
        kept = series[np.arange(0, len(series), inefficiency(deviation)).astype(int)]
        angles += kept[:, 0].tolist()
        inside += kept[:, 1].tolist()
        counts.append(len(kept))
    energies = strength / kT * (1 - np.cos(np.array(angles) - np.radians(centres)[:, None]))
    mbar = importPymbar().MBAR(energies, counts)
    populations, inside = {}, np.array(inside)
    for i in np.unique(inside):
        name, found = run.molecule.states[int(i)], mbar.compute_expectations((inside == i).astype(float), u_kn=np.zeros(len(inside)))
        populations[name] = str(Estimate(float(found["mu"][0]), float(found["sigma"][0])))
    run.write({"windows": windows, "ns": windows * steps * 2e-6, "samples": counts}, populations)


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
                  "torsions before and after": moves}
        if protocol is not None:
            pilot = tuning.summarizePilot(protocol, integrator.getAnnealedRecords(), result["CPU seconds per jump"])
            result |= {"ps out and back": 2 * protocol.getNumStages() * protocol.getStepsPerStage() * 0.002, "middle": pilot.middle.value,
                       "works": [round(float(w), 1) for w in pilot.works],
                       "mean probability of acceptance": pilot.middle.value * pilot.acceptance.value}
        run.write(result)


if __name__ == "__main__":
    main()
