# SPDX-License-Identifier: MIT
"""What a step at a stage of an annealed jump costs, over a plain Langevin step of the same simulation, in turns.

    python annealed_steps.py [--rounds 5] [--threads 1]

Alanine dipeptide in vacuum, whose stages go from its energy to the flow's, and in 600 particles of water, whose stages decouple
it; a normal density of its coordinates stands for the flow. The jump itself, switching and redrawing are part of the price.
"""

import argparse
import statistics
import time

import numpy as np
import openmm as mm
import openmmflow as of
from openmm import app, unit

SOLUTE, STAGES, STEPS = list(range(22)), 10, 10


def molecules():
    """(name, System, positions in nm, protocol)"""
    vacuum = of.testsystems.alanineDipeptide("vacuum", constraints=app.HBonds)
    forcefield = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(vacuum.topology, vacuum.getPositions() * unit.nanometer)
    modeller.addSolvent(forcefield, model="tip3p", boxSize=mm.Vec3(2, 1.9, 1.8) * unit.nanometer)
    water = forcefield.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.7 * unit.nanometer,
                                    constraints=app.HBonds)
    protocol = of.AnnealedProtocol(STEPS, 0.002)
    protocol.addParameter("scale", of.alchemy.stages(STAGES))
    system = vacuum.createSystem()
    scaled = mm.CustomExternalForce("scale*0")
    scaled.addGlobalParameter("scale", 1.0)
    system.addForce(scaled)
    yield "vacuum", vacuum.createSystem(), system, vacuum.getPositions(), protocol
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    yield ("water", water, of.alchemicalSystem(water, SOLUTE), positions,
           of.alchemicalProtocol(STAGES // 2, STAGES // 2, STEPS, 0.002))


def makeFlow(system, positions):
    chart = of.InternalCoordinates.fromSystem(system, SOLUTE, [mm.Vec3(*row) for row in positions.tolist()])
    z = chart.inverse(positions[SOLUTE].reshape(1, -1)).value[0].tolist()
    scaling = of.Scaling(z, [1e-3] * len(z))
    return of.Flow(of.GaussianPrior(len(z)), of.Sequence([scaling, chart]), SOLUTE)


def timeInTurns(rounds, actions):
    times = {name: [] for name in actions}
    for turn in range(rounds + 1):  # the first is not counted
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name] += [time.perf_counter() - start] if turn else []
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="1")
    options = parser.parse_args()
    print(f"{'system':8} {'dynamics':20} {'plain step, ms':>15} {'alchemical/plain':>17} {'stage step/plain':>17}")
    for name, plain, system, positions, protocol in molecules():
        protocol.setMiddleJump(of.MiddleJump.Always)
        flow = makeFlow(plain, positions)
        for dynamics in of.StageDynamics:
            protocol.setStageDynamics(dynamics)
            integrators = []
            for each in (plain, system):
                integrator = of.FlowLangevinIntegrator(300, 1, 0.002, flow)
                integrator.setJumpInterval(0)
                if each is system:
                    integrator.setAnnealedProtocol(protocol)
                context = mm.Context(each, integrator, mm.Platform.getPlatformByName("CPU"), {"Threads": options.threads})
                context.setPositions(positions)
                mm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
                context.setVelocitiesToTemperature(300, 1)
                integrators.append((integrator, context))
            numSteps = 2 * STAGES * STEPS
            times = timeInTurns(options.rounds, {"plain": lambda: integrators[0][0].step(numSteps),
                                                 "alchemical": lambda: integrators[1][0].step(numSteps),
                                                 "annealed": lambda: integrators[1][0].jump()})
            done = integrators[1][0].getJumpStatistics().stageSteps / (options.rounds + 1)
            print(f"{name:8} {dynamics.name:20} {1e3 * times['plain'] / numSteps:15.4f} "
                  f"{times['alchemical'] / times['plain']:17.2f} {times['annealed'] / done * numSteps / times['plain']:17.2f}",
                  flush=True)


if __name__ == "__main__":
    main()
