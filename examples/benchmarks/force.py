# SPDX-License-Identifier: MIT
"""What a bias by the density of a flow costs in dynamics: FlowForce against OpenMM's PythonForce with the same flow of zuko.

60 degrees of freedom (20 particles), 8 spline couplings of 8 bins, networks of two hidden layers of 128, LangevinMiddleIntegrator,
one thread. The zuko flow computes log q(x) and its gradient by autograd in float32. Milliseconds per step, each having its turn.

    OMP_NUM_THREADS=1 python force.py [--platform CPU] [--seconds 30]
"""
import argparse

import numpy as np
import openmm as mm
import openmmflow as of
import torch
from openmm import unit
from spline_flow import SIZE, makeOurFlow, makeZuko, timeInTurns

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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    flow = makeOurFlow(range(SIZE // 3))
    contexts = {"no flow": makeContext(None, options.platform),
                "FlowForce": makeContext(of.FlowForce(flow, TEMPERATURE * unit.kelvin), options.platform)}
    if hasattr(mm, "PythonForce"):
        contexts["PythonForce with zuko"] = makeContext(makeZukoForce(), options.platform)
    else:
        print("This OpenMM has no PythonForce (it came with 8.4): FlowForce alone.")
    actions = [lambda c=context: c.getIntegrator().step(STEPS) for context in contexts.values()]
    times = dict(zip(contexts, (1e3 * t / STEPS for t in timeInTurns(actions, options.seconds))))
    for name, milliseconds in times.items():
        print(f"{name:24} {milliseconds:9.3f} ms per step, {milliseconds - times['no flow']:9.3f} of them the flow's")
    if len(times) == 3:
        theirs, own = (times[name] - times["no flow"] for name in ("PythonForce with zuko", "FlowForce"))
        print(f"PythonForce with zuko / FlowForce: {theirs / own:.1f}")


if __name__ == "__main__":
    main()
