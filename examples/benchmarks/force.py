# SPDX-License-Identifier: MIT
"""What a bias by the density of a flow costs in dynamics: FlowForce against OpenMM's PythonForce with the same flow of zuko.

60 degrees of freedom (20 particles), 8 spline couplings of 8 bins, networks of two hidden layers of 128, LangevinMiddleIntegrator,
one thread. The zuko flow computes log q(x) and its gradient by autograd in float32. Times are those of a step less those of one
without a flow.

    OMP_NUM_THREADS=1 python force.py [--platform CPU]
"""
import numpy as np
import openmm as mm
import openmmflow as of
import timing
import torch
from openmm import unit
from spline_flow import SIZE, makeOurFlow, makeZuko

TEMPERATURE, STEPS = 300.0, 10


def makeContext(force, platform):
    system = mm.System()
    for _ in range(SIZE // 3):
        system.addParticle(12.0)
    if force is not None:
        system.addForce(force)
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond)
    properties = {"Threads": "1"} if platform == "CPU" else {}
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName(platform), properties)
    context.setPositions(np.random.default_rng(3).normal(size=(SIZE // 3, 3)))
    return context


def makeZukoForce():
    logProb = makeZuko()[0]
    kT = (unit.MOLAR_GAS_CONSTANT_R * TEMPERATURE * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)

    def compute(state):
        x = torch.tensor(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=torch.float32)
        x = x.reshape(1, SIZE).requires_grad_()
        logQ = logProb(x).sum()
        gradient, = torch.autograd.grad(logQ, x)
        return -kT * logQ.item(), kT * gradient.reshape(-1, 3).numpy()

    return mm.PythonForce(compute)


def addOptions(parser):
    parser.add_argument("--platform", default="CPU")


def measure(options):
    if not hasattr(mm, "PythonForce"):
        raise SystemExit("This OpenMM has no PythonForce: there is nothing to compare with.")
    flow = makeOurFlow(range(SIZE // 3))
    contexts = {"no flow": makeContext(None, options.platform),
                "FlowForce": makeContext(of.FlowForce(flow, TEMPERATURE * unit.kelvin), options.platform),
                "PythonForce, zuko": makeContext(makeZukoForce(), options.platform)}
    times = timing.timeInTurns({name: lambda c=context: c.getIntegrator().step(STEPS) for name, context in contexts.items()},
                               options.seconds)
    plain = np.median(times["no flow"])
    added = {name: np.array(times[name]) - plain for name in times}
    yield timing.makeRow("a flow's density as a force, in a step", added, ("PythonForce, zuko", "FlowForce"),
                         counts={name: STEPS for name in added}, required=">= 17")


if __name__ == "__main__":
    timing.run("force", __doc__, measure, addOptions)
