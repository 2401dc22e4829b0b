# SPDX-License-Identifier: MIT
"""A dimer in a dense bath (testsystems.DimerInBath; Noe et al. 2019): its free energy profile with and without a flow.

    python dimer.py            # some half an hour on two cores; --short runs through everything in minutes, with large errors

Reference: umbrella windows along the dimer's length d, reweighted by MBAR; nothing of a flow. Their frames, which cover d evenly,
also train the flow, by likelihood, for the target -ln p = u - ln sum_k N_k exp(f_k - b_k(d)) that they are samples of. Then the
profile once more, (1) from samples of the flow, brought to that target by sequential Monte Carlo and reweighted to u, and (2) from
Langevin dynamics with jumps in this flattened ensemble, whose bias is known. Last, in the unbiased ensemble, crossings of d = 1.5 per
CPU second with jumps, and with plain dynamics. The latter are too rare to be counted; in equilibrium they are p(1.5) <|d'|> per unit
of time, p from the reference and <|d'|> = sqrt(4 kT/(pi m)) for two particles of mass m.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import openmm as mm
import openmmflow as of
import torch
from openmmflow import testsystems
from openmmflow.analysis import importPymbar
from openmmflow.generator import buildCouplings
from tqdm import tqdm, trange

TEMPERATURE = testsystems.unitTemperature  # kT = 1 kJ/mol
STRENGTH = 500.0  # of an umbrella, kT/nm^2
CENTERS = np.arange(0.70, 2.401, 0.06)
EDGES = np.arange(0.775, 2.30, 0.05)
BARRIER = 1.5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("dimer"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scale = 0.05 if options.short else 1
    well = testsystems.DimerInBath()

    umbrella = cached(options.output / "umbrella.npz", lambda: runUmbrella(well, round(96_000 * scale)))
    print(f"{len(umbrella['frames'])} frames of {len(CENTERS)} windows, two passes; "
          f"{umbrella['minutes']:.1f} CPU minutes", flush=True)
    reference, bias = analyse(umbrella)
    flow = train(well, umbrella["frames"], options.output, scale)
    reweighted = anneal(well, flow, bias, max(512, round(24_576 * scale) // 512 * 512))
    jumps = runJumps(well, flow, bias, round(50_000 * scale))
    rates = countCrossings(well, flow, reference[0], round(6_000 * scale))
    report(options.output, reference, reweighted, jumps, rates)


def cached(file, make):
    if not file.exists():
        found = make()
        np.savez(file.with_suffix(".part.npz"), **found)
        file.with_suffix(".part.npz").replace(file)
    with np.load(file) as saved:
        return dict(saved)


def length(x):
    """d of the dimer. x: [..., particles, 2 or 3]"""
    return np.hypot(*np.moveaxis(x[..., 1, :2] - x[..., 0, :2], -1, 0))


def makeSystem(well, bias=None, umbrella=False):
    """The System with a tabulated bias on d, or with a harmonic umbrella at the global parameter `center`."""
    system = well.createSystem()
    if umbrella:
        force = mm.CustomCompoundBondForce(2, f"{STRENGTH / 2}*(sqrt((x1-x2)^2+(y1-y2)^2)-center)^2")
        force.addGlobalParameter("center", CENTERS[0])
    elif bias is not None:
        force = mm.CustomCompoundBondForce(2, "bias(min(max(sqrt((x1-x2)^2+(y1-y2)^2),0.5),2.6))")
        force.addTabulatedFunction("bias", mm.Continuous1DFunction(bias.tolist(), 0.5, 2.6))
    else:
        return system
    force.addBond([0, 1])
    system.addForce(force)
    return system


def makeContext(system, positions, integrator):
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    return context


def positionsOf(context):
    return context.getState(getPositions=True).getPositions(asNumpy=True)._value


# Reference


def runUmbrella(well, stepsPerWindow, interval=60):
    """Every window twice: on a way from short to long, and on one back. @return frames [all, particles, 2], window of each"""
    start = time.process_time()
    integrator = mm.LangevinMiddleIntegrator(TEMPERATURE, 1, 0.006)
    integrator.setRandomNumberSeed(11)
    context = makeContext(makeSystem(well, umbrella=True), np.array([list(v) for v in well.getPositions()]), integrator)
    frames, windows, passes = [], [], []
    for way, order in enumerate((range(len(CENTERS)), reversed(range(len(CENTERS))))):
        for window in tqdm(list(order), desc=f"umbrella {way + 1}/2", unit="window"):
            context.setParameter("center", CENTERS[window])
            integrator.step(stepsPerWindow // 5)
            for _ in range(stepsPerWindow // interval):
                integrator.step(interval)
                frames.append(positionsOf(context)[:, :2].copy())
                windows.append(window)
                passes.append(way)
    return {"frames": np.array(frames), "windows": np.array(windows), "passes": np.array(passes),
            "minutes": (time.process_time() - start) / 60}


def analyse(umbrella):
    """The profile and its error from the passes' difference, and the bias that makes the pooled frames' ensemble: u + bias(d)."""
    profiles = []
    for chosen in (umbrella["passes"] == 0, umbrella["passes"] == 1, slice(None)):
        d, windows = length(umbrella["frames"][chosen]), umbrella["windows"][chosen]
        counts = np.bincount(windows, minlength=len(CENTERS))
        umbrellas = 0.5 * STRENGTH * (d[:, None] - CENTERS)**2
        f = importPymbar().MBAR(umbrellas[np.argsort(windows, kind="stable")].T, counts).f_k
        mixture = lambda r, f=f, counts=counts: np.logaddexp.reduce(  # noqa: E731
            np.log(counts / counts.sum()) + f - 0.5 * STRENGTH * (np.atleast_1d(r)[:, None] - CENTERS)**2, axis=1)
        profiles.append(profileOf(d, -mixture(d)))
    error = np.abs(profiles[0] - profiles[1]) / 2
    grid = np.linspace(0.5, 2.6, 421)
    return (profiles[2], error), -mixture(grid)


def profileOf(d, logWeights):
    """-ln p(d) in bins; the free energy of the short state, d < 1.5, is 0."""
    weights = np.exp(logWeights - np.max(logWeights))
    counts, _ = np.histogram(d, bins=EDGES, weights=weights)
    with np.errstate(divide="ignore"):
        return -np.log(counts / weights[d < BARRIER].sum())


def profileWithError(d, logWeights, numBlocks=10):
    """With the error of a jackknife over consecutive blocks."""
    blocks = np.array_split(np.arange(len(d)), numBlocks)
    without = np.array([profileOf(np.delete(d, block), np.delete(logWeights, block)) for block in blocks])
    with np.errstate(invalid="ignore"):
        error = np.sqrt((numBlocks - 1) * np.mean((without - without.mean(axis=0))**2, axis=0))
    return profileOf(d, logWeights), error


# Flow


def makePotential(well, bias=None):
    positions = [mm.Vec3(0, 0, 0)] * well.getNumParticles()
    options = of.ContextPotentialOptions(platform="Reference", referencePositions=positions)
    return of.SelectedColumns(of.ContextPotential(makeSystem(well, bias), TEMPERATURE, options), well.getColumns(),
                              [0.0] * (3 * well.getNumParticles()))


def train(well, frames, output, scale):
    """A flow of x and y of all particles, of the windows' frames together, in one order of identical particles."""
    file = output / "flow.safetensors"
    if file.exists():
        return of.Flow.load(str(file))
    particles = well.getNumParticles()
    reference = frames[np.argmin(np.abs(length(frames) - BARRIER))]
    ordering = of.ParticleOrdering(torch.as_tensor(reference), [[0, 1], list(range(2, particles))])
    mirrored = np.concatenate([frames * np.array(signs) for signs in ((1, 1), (-1, 1), (1, -1), (-1, -1))])
    x = torch.cat([ordering.inverse(part).value for part in torch.as_tensor(mirrored.reshape(len(mirrored), -1)).split(4096)])
    random = np.random.default_rng(3)
    transforms, prior = buildCouplings(2 * particles, [], 10, 8, 5.0, [256, 256], random)
    flow = of.Flow(prior, of.Sequence([*transforms, of.Whitening.fromData(x), ordering]))
    likelihood = of.MaximumLikelihoodLoss(flow, of.MaximumLikelihoodLossOptions())
    likelihood.addData(x)
    iterations = round(8000 * scale)
    trainer = of.Trainer(flow, of.TrainerOptions(iterations=iterations, learningRate=1e-3, seed=4, gradientClip=20))
    trainer.addLoss(likelihood)
    for _ in trange(50, desc="training"):
        trainer.train(math.ceil(iterations / 50))
    flow.save(str(file))
    return flow


def anneal(well, flow, bias, count, groups=8):
    """Walkers from the flow to the flattened ensemble by sequential Monte Carlo with Hamiltonian moves: weighted samples of it."""
    random, drawn = of.Random(9), []
    while sum(map(len, drawn)) < count:
        sample = flow.sample(1024, random)
        drawn.append(sample.x[torch.isfinite(sample.logQ)])  # the others are in another order
    start = time.process_time()
    path = of.FlowPath(flow, makePotential(well, bias))
    kernel = of.HamiltonianKernel(of.HamiltonianKernelOptions(stepSize=0.03, numSteps=4, numMoves=1))
    sampler = of.SequentialSampler(path, kernel, [], of.SequentialSamplerOptions(numGroups=groups, targetCess=0.8))
    with torch.no_grad():
        result = sampler.run(torch.cat(drawn)[:count], random)
    print(f"{len(result.lambdas) - 1} stages, acceptance {min(result.acceptance):.2f} to {max(result.acceptance):.2f}, "
          f"smallest ESS/N {min(result.ess):.2f}, ln Z {result.logZRatio:.2f} +- {result.logZRatioError:.2f}, "
          f"{(time.process_time() - start) / 60:.1f} CPU minutes", flush=True)
    d = length(result.x.numpy().reshape(len(result.x), -1, 2))
    grid = np.linspace(0.5, 2.6, 421)
    return {"profile": profileWithError(d, result.logWeight.numpy() + np.interp(d, grid, bias), groups),
            "stages": len(result.lambdas) - 1, "energy evaluations": result.numEvaluations}


# Dynamics


def embed(flow, well):
    """The flow as one of all three coordinates: the third are independent normal variables."""
    size = 3 * well.getNumParticles()
    transform = of.OnColumns(flow.getTransform(), size, well.getColumns())
    whole = of.Flow(of.GaussianPrior(size), transform, list(range(well.getNumParticles())))
    whole.setTemperature(TEMPERATURE)
    return whole


def makeJumping(well, flow, bias, interval, trials):
    integrator = of.FlowLangevinIntegrator(TEMPERATURE, 1, 0.006, embed(flow, well))
    integrator.setJumpInterval(interval)
    integrator.setTrialsPerJump(trials)
    integrator.setJumpRandomNumberSeed(5)
    start = np.array([list(v) for v in well.getPositions()])
    return integrator, makeContext(makeSystem(well, bias), start, integrator)


def runJumps(well, flow, bias, count):
    integrator, context = makeJumping(well, flow, bias, 20, 16)
    integrator.step(2000)
    integrator.resetJumpStatistics()
    d = []
    for _ in trange(count, desc="jumps, flattened"):
        integrator.step(20)
        d.append(length(positionsOf(context)))
    grid = np.linspace(0.5, 2.6, 421)
    return {"profile": profileWithError(np.array(d), np.interp(d, grid, bias)),
            "acceptance": integrator.getJumpStatistics().getAcceptanceRate()}


def countCrossings(well, flow, profile, count):
    """Crossings of the barrier per CPU second in the unbiased ensemble."""
    integrator, context = makeJumping(well, flow, None, 5, 64)
    integrator.step(500)
    found, start = [], time.process_time()
    for _ in trange(count, desc="jumps, unbiased"):
        integrator.step(5)
        found.append(length(positionsOf(context)) > BARRIER)
    seconds = time.process_time() - start
    jumping = {"crossings": int(np.count_nonzero(np.diff(found))), "CPU seconds": seconds, "long": float(np.mean(found)),
               "acceptance": integrator.getJumpStatistics().getAcceptanceRate()}
    plain, timestep = mm.LangevinMiddleIntegrator(TEMPERATURE, 1, 0.006), 0.006
    context = makeContext(well.createSystem(), positionsOf(context), plain)
    found, start, steps = [], time.process_time(), 0
    while time.process_time() - start < seconds / 4:
        plain.step(5)
        steps += 5
        found.append(length(positionsOf(context)) > BARRIER)
    spent = time.process_time() - start
    p = np.exp(-profile)
    density = np.interp(BARRIER, (EDGES[1:] + EDGES[:-1]) / 2, p) / p.sum() / (EDGES[1] - EDGES[0])
    expected = density * math.sqrt(4 / math.pi) * steps * timestep
    return jumping, {"crossings": int(np.count_nonzero(np.diff(found))), "CPU seconds": spent,
                     "expected crossings per CPU second": expected / spent}


def report(output, reference, reweighted, jumps, rates):
    centers = (EDGES[1:] + EDGES[:-1]) / 2
    expected, error = reference
    upTo = np.isfinite(expected) & (expected <= np.max(expected[(centers > 1.2) & (centers < 1.8)])) & (centers > 0.85) & (centers < 2.2)
    print(f"\n{'d / nm':>8}{'umbrella':>16}{'flow, reweighted':>20}{'jumps':>16}")
    for i in np.flatnonzero(upTo):
        print(f"{centers[i]:8.3f}{expected[i]:9.2f} ± {error[i]:4.2f}" +
              "".join(f"{p[i]:13.2f} ± {e[i]:4.2f}" for p, e in (reweighted["profile"], jumps["profile"])))
    summary = {}
    for name, found in (("flow, reweighted", reweighted), ("jumps", jumps)):
        profile, _ = found.pop("profile")
        difference = profile[upTo] - expected[upTo]
        summary[name] = found | {"largest deviation from the reference, kT": float(np.max(np.abs(difference))),
                                 "root mean square": float(np.sqrt(np.mean(difference**2)))}
    jumping, plain = rates
    summary["crossings"] = {"with jumps": jumping, "plain dynamics": plain,
                            "ratio of rates": jumping["crossings"] / jumping["CPU seconds"]
                                                / plain["expected crossings per CPU second"]}
    print(json.dumps(summary, indent=1))
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
