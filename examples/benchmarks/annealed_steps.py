# SPDX-License-Identifier: MIT
"""What a step at a stage of an annealed jump costs, over a plain Langevin step of the same simulation, in turns.

    python annealed_steps.py [--threads 1]

Alanine dipeptide in vacuum on the Reference Platform, with stages that change nothing, and in 600 particles of water on the CPU
Platform, with stages that decouple it; a normal density of its coordinates stands for the flow. The jump itself, switching and redrawing
are part of the price.
"""

import numpy as np
import openmm as mm
import openmmflow as of
import timing
from openmm import app, unit

SOLUTE, STAGES, STEPS = list(range(22)), 10, 10


def molecules():
    """(name, Platform, System without and with stages, positions in nm, protocol)"""
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
    yield "vacuum", "Reference", vacuum.createSystem(), system, vacuum.getPositions(), protocol
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    yield ("water", "CPU", water, of.alchemicalSystem(water, SOLUTE), positions,
           of.alchemicalProtocol(STAGES // 2, STAGES // 2, STEPS, 0.002))


def makeFlow(system, positions):
    chart = of.InternalCoordinates.fromSystem(system, SOLUTE, [mm.Vec3(*row) for row in positions.tolist()])
    z = chart.inverse(positions[SOLUTE].reshape(1, -1)).value[0].tolist()
    scaling = of.Scaling(z, [1e-3] * len(z))
    return of.Flow(of.GaussianPrior(len(z)), of.Sequence([scaling, chart]), SOLUTE)


def makeSimulation(system, positions, flow, protocol, platform, threads):
    """The integrator, jumps off, with its Context."""
    integrator = of.FlowLangevinIntegrator(300, 1, 0.002, flow)
    integrator.setJumpInterval(0)
    integrator.setAnnealedProtocol(protocol)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName(platform), {"Threads": threads} if platform == "CPU" else {})
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(300, 1)
    return integrator, context


def addOptions(parser):
    parser.add_argument("--threads", default="1")


def measure(options):
    steps = 2 * STAGES * STEPS
    for name, platform, plain, system, positions, protocol in molecules():
        protocol.setMiddleJump(of.MiddleJump.Always)
        flow = makeFlow(plain, positions)
        for dynamics in of.StageDynamics:
            protocol.setStageDynamics(dynamics)
            simple, _keep = makeSimulation(plain, positions, flow, None, platform, options.threads)
            annealed, _alive = makeSimulation(system, positions, flow, protocol, platform, options.threads)
            jump = timing.Counted(annealed.jump)
            times = timing.timeInTurns({"plain": lambda: simple.step(steps), "alchemical": lambda: annealed.step(steps),
                                        dynamics.name: jump}, options.seconds)
            counts = {"plain": steps, "alchemical": steps, dynamics.name: annealed.getJumpStatistics().stageSteps / jump.calls}
            yield timing.makeRow(f"step at a stage, {name}", times, (dynamics.name, "plain"), counts=counts)
        yield timing.makeRow(f"step of the System with stages, {name}", times, ("alchemical", "plain"), counts=counts)


if __name__ == "__main__":
    timing.run("annealed_steps", __doc__, measure, addOptions, awake=True)
