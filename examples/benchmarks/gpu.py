# SPDX-License-Identifier: MIT
"""What OpenMM-Flow costs on a device, over what OpenMM or plain tensor operations cost there.

    python gpu.py                            # about 24,000 atoms of water on CUDA
    python gpu.py --platform OpenCL --short  # a small stand-in

- A trial of a jump of alanine dipeptide in TIP3P water, over an energy evaluation of that Context.
- A step with jumps off, and a step at a stage of an annealed jump, over one of LangevinMiddleIntegrator of the same System.
- log q and samples of the flow of spline_flow.py: plain tensor operations over fused kernels (with CUDA; else nothing differs).

A normal density of the molecule's coordinates stands for its flow.
"""
import json
import subprocess
import sys

import numpy as np
import openmm as mm
import openmmflow as of
import timing
import torch
from annealed_steps import SOLUTE, makeFlow
from openmm import app, unit
from spline_flow import SIZE, makeOurFlow

PRECISION = {"CUDA": {"Precision": "mixed"}, "OpenCL": {"Precision": "single"}}


def addOptions(parser):
    parser.add_argument("--platform", default="CUDA")
    parser.add_argument("--box", type=float, default=6.2, help="nm")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--stages", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50, help="at each stage")
    parser.add_argument("--batch", type=int, default=1024)


def makeWater(box):
    """Alanine dipeptide in water: System, and positions in nm."""
    pdb = app.PDBFile(str(timing.REPOSITORY / "examples" / "alanine-dipeptide.pdb"))
    forcefield = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(forcefield, model="tip3p", boxSize=mm.Vec3(box, box, box) * unit.nanometer)
    system = forcefield.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer,
                                     constraints=app.HBonds)
    return system, np.array(modeller.positions.value_in_unit(unit.nanometer))


def makeContext(system, positions, integrator, platform):
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName(platform), PRECISION.get(platform, {}))
    context.setPositions(positions)
    if platform != "OpenCL":  # on PoCL the minimizer crashes
        mm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    context.setVelocitiesToTemperature(300, 1)
    return context


def makeIntegrator(flow, trials=1):
    integrator = of.FlowLangevinIntegrator(300, 1, 0.002, flow)
    integrator.setJumpInterval(0)
    integrator.setTrialsPerJump(trials)
    return integrator


def measure(options):
    if options.short:
        options.box, options.trials, options.stages, options.steps, options.batch = 2.2, 2, 1, 2, 64
    print("\n".join(f"{name}: {description}" for name, description in of.describePlatforms().items()), flush=True)
    water = makeWater(options.box)
    flow = makeFlow(*water)
    yield measureJump(water, flow, options)
    if options.platform == "CUDA":
        yield measureJump(water, flow.to("cuda"), options)
    yield from measureSteps(water, flow, options)
    yield from measureFlow("cuda" if options.platform == "CUDA" else "cpu", options)


def measureJump(water, flow, options):
    integrator = makeIntegrator(flow, options.trials)
    context = makeContext(*water, integrator, options.platform)
    integrator.step(options.steps)
    times = timing.timeInTurns({"energy": lambda: context.getState(energy=True), "trial": integrator.jump}, options.seconds)
    statistics = integrator.getJumpStatistics()
    part = statistics.accepted / statistics.trials
    return timing.makeRow(f"a trial, {options.trials} at a jump, {part:.2f} accepted, {water[0].getNumParticles()} particles, "
                          f"flow on {flow.getDevice()}, {integrator.getJumpPlatform()}", times, ("trial", "energy"),
                          counts={"trial": options.trials})


def measureSteps(water, flow, options):
    """Steps of OpenMM's integrator, of ours, and of ours at the stages of an annealed jump, of one alchemical System."""
    protocol = of.alchemicalProtocol(options.stages, 0, options.steps, 0.002, lastElectrostatics=0.9)
    protocol.setMiddleJump(of.MiddleJump.Always)
    system = of.alchemicalSystem(water[0], SOLUTE)
    plain, ours, annealed = mm.LangevinMiddleIntegrator(300, 1, 0.002), makeIntegrator(flow), makeIntegrator(flow)
    annealed.setAnnealedProtocol(protocol)
    contexts = [makeContext(system, water[1], integrator, options.platform) for integrator in (plain, ours, annealed)]
    steps = 2 * options.stages * options.steps

    def walk(integrator, context):
        integrator.step(steps)
        context.getState(energy=True)  # waits for the device

    jump = timing.Counted(annealed.jump)
    times = timing.timeInTurns({"plain": lambda: walk(plain, contexts[0]), "jumps off": lambda: walk(ours, contexts[1]),
                                "stage": jump}, options.seconds)
    done = annealed.getJumpStatistics().stageSteps / jump.calls
    yield timing.makeRow("a step with jumps off", times, ("jumps off", "plain"), counts=dict.fromkeys(times, steps))
    yield timing.makeRow("a step at a stage", times, ("stage", "plain"), counts={"plain": steps, "stage": max(done, 1)})


def measureFlow(device, options):
    fused = timeFlow(device, options.batch, options.seconds)
    plain = timeWithoutKernels(device, options.batch, options.seconds)
    for name in fused:
        rounds = min(len(fused[name]), len(plain[name]))
        yield timing.makeRow(f"{name}, batch {options.batch}, on {device}",
                             {"plain": plain[name][:rounds], "fused": fused[name][:rounds]}, ("plain", "fused"))


@torch.no_grad()
def timeFlow(device, batch, seconds):
    flow, random = makeOurFlow().to(device), of.Random(1)
    x = torch.randn(batch, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(device)

    def waitFor(action):
        action()
        if device != "cpu":
            torch.cuda.synchronize()

    return timing.timeInTurns({"log q": lambda: waitFor(lambda: flow.logQ(x)),
                               "samples": lambda: waitFor(lambda: flow.sample(batch, random))}, seconds)


def timeWithoutKernels(device, batch, seconds):
    """The same in a process whose openmmflow has loaded no libraries of kernels."""
    code = ("import json, openmm; openmm.Platform.loadPluginLibrary = lambda path: None\n"
            f"import gpu, torch; torch.set_num_threads(1); print(json.dumps(gpu.timeFlow({device!r}, {batch}, {seconds})))")
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=timing.FOLDER)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    timing.run("gpu", __doc__, measure, addOptions)
