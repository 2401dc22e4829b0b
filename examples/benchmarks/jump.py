# SPDX-License-Identifier: MIT
"""What jumps cost, all included: alanine dipeptide in vacuum, 22 atoms, Reference platform, with a flow trained for it.

    python jump.py

- A proposal tried (64 at a jump, drawn in one batch, with energies, decisions and what an acceptance takes), in plain steps.
- The same where dynamics goes on between the jumps and an idle core prepares proposals, and their energies, beside it: what a
  jump adds to the wall-clock time of its block of dynamics.
- Dynamics with jumps turned off, over that of LangevinMiddleIntegrator.
"""
import molecules
import numpy as np
import openmm as mm
import timing
from openmmflow import FlowLangevinIntegrator, ProposalPreparation

STEP, TRIALS, BLOCK = 0.001, 64, 1000


def makeSimulation(integrator, platform="Reference"):
    """The integrator, in a Context that it needs alive."""
    integrator.setRandomNumberSeed(1)
    properties = {"Threads": "1"} if platform == "CPU" else {}
    context = mm.Context(molecules.makeSystem(), integrator, mm.Platform.getPlatformByName(platform), properties)
    context.setPositions(molecules.PDB.positions)
    context.setVelocitiesToTemperature(300, 2)
    return integrator, context


def makeJumping(flow, preparation=ProposalPreparation.WhenNeeded, interval=0, platform="Reference"):
    integrator = FlowLangevinIntegrator(300, 1, STEP, flow)
    integrator.setJumpInterval(interval)
    integrator.setTrialsPerJump(TRIALS)
    integrator.setJumpRandomNumberSeed(3)
    integrator.setProposalPreparation(preparation)
    return makeSimulation(integrator, platform)


def measure(options):
    flow = molecules.trainedFlow(options.output, options.short).flow
    plain, _context = makeSimulation(mm.LangevinMiddleIntegrator(300, 1, STEP))
    jumping, _other = makeJumping(flow)
    times = timing.timeInTurns({"plain step": lambda: plain.step(BLOCK), "proposal": jumping.jump}, options.seconds)
    yield timing.makeRow(f"a proposal, {TRIALS} at a jump", times, ("proposal", "plain step"), "us",
                         {"plain step": BLOCK, "proposal": TRIALS}, required="<= 60")
    yield from measurePrepared(flow, plain, options)
    yield from measureOff(flow, options)


def measurePrepared(flow, plain, options):
    """What jumps add to dynamics, for each way of preparing them."""
    runs = {kind.name: makeJumping(flow, kind, BLOCK) for kind in ProposalPreparation}
    actions = {"plain step": lambda: plain.step(BLOCK)} | {name: lambda i=run[0]: i.step(BLOCK) for name, run in runs.items()}
    times = timing.timeInTurns(actions, options.seconds)
    plainBlock = np.median(times["plain step"])
    added = {name: np.array(times[name]) - plainBlock for name in runs} | {"plain step": times["plain step"]}
    for name in runs:
        yield timing.makeRow(f"a proposal in dynamics, {TRIALS} in {BLOCK} steps, prepared {name}", added, (name, "plain step"),
                             "us", {name: TRIALS, "plain step": BLOCK})


def measureOff(flow, options):
    for platform in ("Reference", "CPU"):
        ours, _context = makeJumping(flow, platform=platform)
        theirs, _other = makeSimulation(mm.LangevinMiddleIntegrator(300, 1, STEP), platform)
        for block in (1, 100):
            steps = 500 if platform == "Reference" else 100

            def walk(integrator, steps=steps, block=block):
                for _ in range(steps // block):
                    integrator.step(block)

            times = timing.timeInTurns({"jumps off": lambda: walk(ours), "LangevinMiddleIntegrator": lambda: walk(theirs)},
                                       options.seconds / 2)
            yield timing.makeRow(f"a step with jumps off, {platform}, {block} a call", times, ("jumps off", "LangevinMiddleIntegrator"),
                                 "us", dict.fromkeys(times, steps), required="<= 1.02")


if __name__ == "__main__":
    timing.run("jump", __doc__, measure, awake=True)
