# SPDX-License-Identifier: MIT
"""Alanine dipeptide from vacuum to implicit water (OBC2, all bonds free, 300 K): a trained map against a ladder.

    python solvation.py                    # some 25 CPU minutes; what --output holds already is not made again

Ladder: stages between the two, u = u_vacuum + lambda (u_water - u_vacuum), at 300 K, and above the vacuum stage four hotter ones
in vacuum, all in replica exchange; MBAR of the stages at 300 K. Uses no flow.
Map: frames of either end, each by parallel tempering of five temperatures; for each half of those at 300 K a map trained both ways
on the other half, and BAR of all works, as freeEnergyBetweenSystems does. Plain BAR: of the same frames, without a map.

Errors are those of blocks in time (jackknife), for all methods alike. Energy evaluations are counted in two ways: all of them, steps
of dynamics at both ends and at hotter replicas included; and those beyond the sampling of the two ends at 300 K and their
hotter replicas, which are the intermediate stages of the ladder, and training and works of the map. The table gives
evaluations * error^2, the cost at equal error, over that of the map.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import openmm as mm
import torch
from openmmflow import temperedData, testsystems
from openmmflow.analysis import importPymbar, torsion
from openmmflow.bridge import SystemBridge
from openmmflow.data import R, TrainingData, geometricTemperatures
from openmmflow.freeenergy import barEstimate, mbarFreeEnergies
from tqdm import trange

TEMPERATURE, TIMESTEP = 300.0, 0.001  # K, ps
STEPS, STEPS_OF_ENDS = 100, 20  # between frames; a map learns bonds and angles from many
HOT = geometricTemperatures(TEMPERATURE, 1000, 5)[:0:-1]
LAMBDAS = [0.0, 0.25, 0.5, 0.75, 1.0]
BLOCKS = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=8000, help="of each replica of the ladder, 0.1 ps between")
    parser.add_argument("--end-frames", type=int, default=24000, help="of each replica of the ends, 0.02 ps between")
    parser.add_argument("--iterations", type=int, default=500, help="of training")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("solvation"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = {"ladder": runLadder(options)}
    results |= runMap(options)
    report(results, options)


def makeSystem(strength):
    """Vacuum at 0 and implicit water at 1; between, the energy is linear: charges enter squared, the surface as it is."""
    molecule = testsystems.alanineDipeptide("vacuum" if strength == 0 else "implicit", constraints=None)
    system = molecule.createSystem()
    for force in system.getForces():
        if isinstance(force, mm.GBSAOBCForce):
            force.setSurfaceAreaEnergy(strength * force.getSurfaceAreaEnergy())
            for i in range(force.getNumParticles()):
                charge, radius, scale = force.getParticleParameters(i)
                force.setParticleParameters(i, np.sqrt(strength) * charge, radius, scale)
    return system, molecule


def makeContext(strength, temperature, seed):
    system, molecule = makeSystem(strength)
    integrator = mm.LangevinMiddleIntegrator(temperature, 1.0, TIMESTEP)
    integrator.setRandomNumberSeed(seed)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(molecule.getPositions())
    context.setVelocitiesToTemperature(temperature, seed)
    return context


def runLadder(options):
    file = options.output / "ladder.npz"
    if not file.exists():
        start = time.process_time()
        energies, swaps = sampleLadder(options.frames, options.seed)
        np.savez(file, energies=energies, swaps=swaps, minutes=(time.process_time() - start) / 60)
    with np.load(file) as saved:
        energies, swaps, minutes = (saved[name] for name in ("energies", "swaps", "minutes"))
    # Of vacuum and water in kT, [states, frames, 2]; all stages at 300 K in each other's energy.
    u = energies @ np.array([1 - np.array(LAMBDAS), LAMBDAS])
    frames = u.shape[1]

    def estimate(kept):
        part = u[:, kept]
        return mbarFreeEnergies(part.reshape(-1, len(LAMBDAS)).T, [part.shape[1]] * len(LAMBDAS))

    whole, error = estimate(slice(None)), jackknife(lambda kept: estimate(kept).difference.value, frames)
    total = (frames + frames // 10) * (len(HOT) + len(LAMBDAS)) * (STEPS + 2)
    return {"value": whole.difference.value, "error": error, "verdict": whole.verdict(), "swaps": swaps.tolist(), "CPU minutes": float(minutes),
            "evaluations": total, "evaluations beyond the ends": (frames + frames // 10) * (len(LAMBDAS) - 2) * (STEPS + 2)}


def sampleLadder(frames, seed):
    """Replica exchange. @return energies in vacuum and in water of the stages at 300 K, in kT [stages, frames, 2], and swap rates"""
    random = np.random.default_rng(seed)
    states = [(0.0, t) for t in HOT] + [(s, TEMPERATURE) for s in LAMBDAS]
    contexts = [makeContext(*state, int(number)) for state, number in zip(states, random.integers(1, 2**31, len(states)))]
    ends = [makeContext(strength, TEMPERATURE, 1) for strength in (0.0, 1.0)]
    beta, strengths = 1 / (R * np.array([t for _, t in states])), np.array([s for s, _ in states])
    kept, swaps = np.empty((len(LAMBDAS), frames, 2)), np.zeros((2, len(states) - 1))
    for frame in trange(-(frames // 10), frames, desc="ladder", unit="frame", mininterval=20):
        energies = np.empty((len(states), 2))
        for context, row in zip(contexts, energies):
            context.getIntegrator().step(STEPS)
            x = context.getState(positions=True).getPositions(asNumpy=True)
            for column, end in enumerate(ends):
                end.setPositions(x)
                row[column] = end.getState(energy=True).getPotentialEnergy()._value
        if frame >= 0:
            kept[:, frame] = energies[len(HOT):] / (R * TEMPERATURE)
        for i in range(frame % 2, len(states) - 1, 2):
            pair = [i, i + 1]
            u = beta[pair] * (energies[pair] @ np.array([1 - strengths[pair], strengths[pair]]))  # [configuration, state]
            accepted = np.log(random.uniform()) < np.trace(u) - np.trace(u[::-1])
            swaps[:, i] += 1, accepted
            if accepted:
                exchange(contexts[i], contexts[i + 1], np.sqrt(beta[i] / beta[i + 1]))
                energies[pair] = energies[pair[::-1]]
    return kept, swaps[1] / swaps[0]


def exchange(first, second, scale):
    """scale: of the velocities that go to the second."""
    a, b = (context.getState(positions=True, velocities=True) for context in (first, second))
    for context, state, factor in ((first, b, 1 / scale), (second, a, scale)):
        context.setPositions(state.getPositions(asNumpy=True))
        context.setVelocities(state.getVelocities(asNumpy=True) * factor)


def jackknife(estimate, frames):
    """The error of an estimate by leaving out blocks in time."""
    blocks = np.array_split(np.arange(frames), BLOCKS)
    values = [estimate(np.setdiff1d(np.arange(frames), block)) for block in blocks]
    return float(np.sqrt((BLOCKS - 1) / BLOCKS * np.sum((values - np.mean(values))**2)))


def runMap(options):
    data = [sampleEnd(strength, options) for strength in (0.0, 1.0)]
    frames = [part.atTemperature() for part in data]
    (vacuum, molecule), (water, _) = makeSystem(0.0), makeSystem(1.0)
    for name, x in zip(("vacuum", "water"), frames):
        print(f"P(phi > 0) in {name}: {np.mean(torsion(x, molecule.getTorsion('phi')) > 0):.3f}", flush=True)
    halves = np.array_split(np.arange(options.end_frames), 2)
    plain, mapped, spent, histories = [], [], 0, []
    for number, (held, others) in enumerate((halves, halves[::-1])):
        bridge = SystemBridge(vacuum, water, molecule.getPositions(), TEMPERATURE, tuple(frames), layers=options.layers,
                              hiddenSizes=[options.hidden] * 2, seed=options.seed + 2 * number, platform="Reference", numContexts=1)
        plain.append(bridge.works(*(x[held] for x in frames)))
        start = bridge.getEvaluations()
        histories.append(bridge.fit(*(x[others] for x in frames), iterations=options.iterations, learningRate=options.learning_rate,
                                    batchSize=options.batch_size, seed=options.seed + 2 * number + 1))
        mapped.append(bridge.works(*(x[held] for x in frames)))
        spent += int(np.sum(np.subtract(bridge.getEvaluations(), start)))
    sampling, works = sum(part.steps for part in data), 4 * options.end_frames
    return {"plain BAR": judge(plain) | {"evaluations": sampling + works, "evaluations beyond the ends": works},
            "map": judge(mapped) | {
                "evaluations": sampling + spent, "evaluations beyond the ends": spent,
                "works both ways, in training and of frames held out": [
                    (float(np.mean(h.losses["work both ways"][-20:])), h.validation[-1]) for h in histories],
                "CPU minutes": sum(h.cpuMinutes for h in histories), "CPU minutes of the frames": sum(part.cpuMinutes for part in data)}}


def sampleEnd(strength, options):
    file = options.output / f"end{strength:g}.npz"
    if file.exists():
        return TrainingData.load(file)
    system, molecule = makeSystem(strength)
    data = temperedData(system, molecule.getPositions(), [TEMPERATURE, *HOT[::-1]], framesPerTemperature=options.end_frames,
                        stepsPerFrame=STEPS_OF_ENDS, stepSize=TIMESTEP, seed=options.seed + 4, processes=1, platform="Reference")
    data.save(file)
    return data


def judge(works):
    """BAR, with the error of blocks in time. works: of each part, forth and back"""
    forward, reverse = (np.concatenate(side) for side in zip(*works))
    whole = barEstimate(forward, reverse)
    error = jackknife(lambda kept: barEstimate(forward[kept], reverse[kept]).value, min(len(forward), len(reverse)))
    return {"value": whole.value, "error": error, "error if works were independent": whole.standardError, "overlap": whole.overlap,
            "standard deviation of works": [float(np.std(w)) for w in works], "verdict": whole.verdict()}


def report(results, options):
    best = results["map"]
    for name, result in results.items():
        result["cost at equal error, over the map's"] = {
            key: result[key] * result["error"]**2 / (best[key] * best["error"]**2) for key in ("evaluations", "evaluations beyond the ends")}
        print(f"{name:10} F = {result['value']:8.3f} +- {result['error']:.3f} kT, {result['evaluations'] / 1e6:.2f} million evaluations, "
              f"{result['evaluations beyond the ends'] / 1e6:.2f} beyond the ends; cost at equal error "
              + " and ".join(f"{value:.1f}" for value in result["cost at equal error, over the map's"].values())
              + f" x the map's\n{'':10} {result['verdict']}")
    results["settings"] = {name: value for name, value in vars(options).items() if name != "output"}
    results["pymbar"] = importPymbar().__version__
    (options.output / "solvation.json").write_text(json.dumps(results, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
