# SPDX-License-Identifier: MIT
"""phi^4 on the lattice by flows: free energies, dropped modes, and a continuous flow beside the published one.

    python phi4.py                                # all parts; --short runs through everything in minutes
    python phi4.py --parts continuous --iterations 3000

    sites       64 x 8, kappa = 0: F of independent sites by the q-estimator against the closed form
    exact       2 x 8, kappa = 0.3: against the transfer matrix
    ladder      8 x 8, kappa = 0.2: one trained flow against a ladder of Hamiltonian Monte Carlo chains from kappa = 0
    modes       8 x 8, kappa = 0.3, broken phase: couplings without Z2 symmetry, trained by reverse KL, drop a mode
    continuous  12 x 12, m^2 = -4, lambda = 5.276: effective sample size against the published 0.9966

lambda = 0.022 in the first four. Continuous flows have the lattice's symmetries (LatticeVelocityField). They are trained first by
flow matching on chains, a forward loss, and then by the reverse KL divergence with path gradients. Errors are standard errors; costs
are CPU seconds of one thread. Writes phi4.json into --output, flows beside it; with --resume the last part goes on with its flow.
"""
import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import openmmflow as of
import torch
from openmmflow.lattice import hmcChain, hmcLadder
from openmmflow.testsystems import LatticePhi4

LAMBDA = 0.022
PUBLISHED = 0.9966  # Vaitl, Nicoli, Nakajima and Kessel (2022), path gradients


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["sites", "exact", "ladder", "modes", "continuous"])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--iterations", type=int, default=1200, help="of `continuous`, by path gradients; may be 0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("phi4"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    file = options.output / "phi4.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for part in options.parts:
        start = time.process_time()
        found = globals()[f"run{part.capitalize()}"](options)
        results[part] = found | {"cpuSeconds": time.process_time() - start, "hardware": nameProcessor()}
        file.write_text(json.dumps(results, indent=1))
        print(f"{part}: " + ", ".join(f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}"
                                      for key, value in results[part].items()), flush=True)


def nameProcessor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"one thread of {names[0] if names else platform.machine()}"


def rungeKutta(steps):
    return of.OdeOptions(method=of.OdeMethod.RungeKutta4, steps=steps)


def makeContinuousFlow(extents, sigma, steps=6, **field):
    """From independent Gaussians of about the fields' variance, which leaves the flow less to do."""
    velocity = of.LatticeVelocityField(extents, of.LatticeVelocityFieldOptions(**field))
    return of.Flow(of.GaussianPrior(velocity.getSize(), sigma), of.ContinuousFlow(velocity, rungeKutta(steps)))


def train(flow, loss, iterations, learningRate, seed, clip=10.0, progress=None):
    if iterations == 0:
        return
    trainer = of.Trainer(flow, of.TrainerOptions(iterations=iterations, learningRate=learningRate, warmup=20, gradientClip=clip,
                                                 seed=seed))
    trainer.addLoss(loss)
    while trainer.getProgress().iteration < iterations:
        trainer.train(max(1, iterations // 10))
        if progress is not None:
            progress(trainer.getProgress().iteration)


def makeReverseLoss(potential, batchSize, kind=of.PathGradientLoss):
    """Nothing is cut off or left out: these energies are tame."""
    return kind(potential, of.ReverseKLLossOptions(batchSize=batchSize, energyCut=1e9, dropFraction=0.0))


def integrateFinely(flow, steps=12):
    flow.getTransform().setSolver(rungeKutta(steps))


def logWeights(flow, potential, count, seed):
    random = of.Random(seed)
    with torch.no_grad():
        parts = [flow.sample(n, random) for n in [1000] * (count // 1000) + [count % 1000] * (count % 1000 > 0)]
        return np.concatenate([(-potential.evaluate(s.x).u - s.logQ).numpy() for s in parts])


def compare(estimate, exact, error):
    return {"F": estimate, "standardError": error, "reference": exact, "difference in errors": (estimate - exact) / error}


def fromFlow(flow, potential, count, seed):
    """F by the q-estimator, its error, and the effective part of the samples."""
    logW = logWeights(flow, potential, count, seed)
    mean = of.logMeanWeight(logW)
    return -mean.value, mean.standardError, of.effectiveSampleSize(logW).getFraction()


def runSites(options):
    theory = LatticePhi4.fromKappa([64, 8], 0.0, LAMBDA)
    potential = theory.createNativePotential()
    flow = makeContinuousFlow([64, 8], 0.7, frequencies=3, maxFrequency=2.0, timeFunctions=1)
    train(flow, makeReverseLoss(potential, 16), 40 if options.short else 150, 3e-4, options.seed)
    F, error, ess = fromFlow(flow, potential, 500 if options.short else 4000, options.seed)
    return compare(F, -theory.getLogZ(), error) | {"ESS/N": ess}


def runExact(options):
    theory = LatticePhi4.fromKappa([2, 8], 0.3, LAMBDA)
    potential = theory.createNativePotential()
    flow = makeContinuousFlow([2, 8], 1.0, frequencies=6, maxFrequency=2.4, timeFunctions=3)
    pretrain(flow, potential, options, 1.0)
    train(flow, makeReverseLoss(potential, 64), 100 if options.short else 400, 2e-3, options.seed)
    integrateFinely(flow)
    F, error, ess = fromFlow(flow, potential, 2000 if options.short else 20_000, options.seed)
    return compare(F, -theory.getLogZ(), error) | {"ESS/N": ess}


def pretrain(flow, potential, options, scale, iterations=300, walkers=200):
    """By flow matching on chains, in which the sign of the field, a symmetry, is drawn at random."""
    random = torch.Generator().manual_seed(options.seed)
    size = flow.getSize()
    start = scale * torch.randn(walkers, size, generator=random, dtype=torch.float64)
    x = hmcChain(potential, start, 10, numSteps=8, equilibration=60, seed=options.seed).x.flatten(0, 1)
    signs = 2.0 * torch.randint(0, 2, (len(x), 1), generator=random) - 1
    loss = of.FlowMatchingLoss(flow, of.FlowMatchingLossOptions(batchSize=64))
    loss.addData(signs * x)
    train(flow, loss, iterations, 2e-3, options.seed)
    return signs * x


def runLadder(options):
    extents, kappa = [8, 8], 0.2
    theory = LatticePhi4.fromKappa(extents, kappa, LAMBDA)
    potential = theory.createNativePotential()
    start = time.process_time()
    flow = makeContinuousFlow(extents, 0.9, frequencies=4, maxFrequency=2.0, timeFunctions=2)
    train(flow, makeReverseLoss(potential, 32), 100 if options.short else 400, 1e-3, options.seed)
    integrateFinely(flow)
    F, error, ess = fromFlow(flow, potential, 1000 if options.short else 10_000, options.seed)
    ofFlow = time.process_time() - start
    kappas = np.linspace(0, kappa, 5)
    ladder = hmcLadder([LatticePhi4.fromKappa(extents, k, LAMBDA).createNativePotential() for k in kappas],
                       np.zeros((32, theory.getNumSites())), numSamples=10 if options.short else 60, seed=options.seed)
    reference = ladder.freeEnergies[-1] - LatticePhi4.fromKappa(extents, 0.0, LAMBDA).getLogZ()
    return compare(F, float(reference), float(np.hypot(error, ladder.standardErrors[-1]))) | {
        "error of the flow": error, "error of the ladder": float(ladder.standardErrors[-1]), "ESS/N": ess,
        "smallest overlap": float(min(ladder.overlaps)), "CPU s of the flow": ofFlow}


def runModes(options):
    """The flow starts near one of the two modes, as it would soon be by itself, and stays there."""
    extents, size = [8, 8], 64
    theory = LatticePhi4.fromKappa(extents, 0.3, LAMBDA)
    potential = theory.createNativePotential()
    conditioner = of.ConditionerOptions(hiddenSizes=[8], activation=of.Activation.Tanh, seed=options.seed)
    conditioner.extents = extents
    settings = of.RealNVPOptions(odd=False)
    settings.conditioner = conditioner
    flow = of.Flow(of.GaussianPrior(size), of.Sequence([of.makeRealNVP(size, 4, settings),
                                                        of.Scaling([2.0] * size, [0.7] * size)]))
    train(flow, makeReverseLoss(potential, 64, of.ReverseKLLoss), 100 if options.short else 600, 2e-3, options.seed)
    chain = hmcChain(potential, 2.0 * np.ones((100, size)), 5 if options.short else 20, numSteps=10, seed=options.seed)
    x = chain.x.flatten(0, 1)
    x = torch.cat([x[::2], -x[1::2]])  # the other mode, by symmetry
    forward = logWeights(flow, potential, len(x), options.seed)
    with torch.no_grad():
        backward = (-potential.evaluate(x).u - flow.logQ(x)).numpy()
    found = of.flowFreeEnergy(forward, backward)
    np.savez(options.output / "modes.npz", flow=forward, target=backward)
    flow.save(str(options.output / "modes.safetensors"))
    return {"reverse ESS/N": found.reverseFraction, "forward ESS/N": found.forwardFraction, "covered": found.covered.value,
            "error of covered": found.covered.standardError, "F from the flow": found.fromFlow.value,
            "F from the target": found.fromTarget.value, "N": len(x)}


def runContinuous(options):
    extents = [12, 12]
    potential = LatticePhi4.fromMass(extents, -4, 5.276).createNativePotential()
    file = options.output / "continuous.safetensors"
    flow = makeContinuousFlow(extents, 0.46, frequencies=8, maxFrequency=5.0, timeFunctions=4)
    start = time.process_time()
    if options.resume and file.exists():
        flow = of.Flow.load(str(file))
    else:
        pretrain(flow, potential, options, 0.4, iterations=500)
    earlier = float(flow.getMetadata().get("cpuSeconds", 0) if options.resume else 0)

    def report(iteration):
        cpu = earlier + time.process_time() - start
        flow.setMetadata("cpuSeconds", str(cpu))
        flow.save(str(file))
        F, error, ess = fromFlow(flow, potential, 1000, 77)
        print(f"  iteration {iteration}, {cpu:.0f} CPU s: F = {F:.4f} +- {error:.4f}, ESS/N of 1000 {ess:.4f}", flush=True)

    train(flow, makeReverseLoss(potential, 48), 50 if options.short else options.iterations, 1e-3, options.seed, progress=report)
    trained = earlier + time.process_time() - start
    integrateFinely(flow, 24)
    finer = logWeights(flow, potential, 500, options.seed)
    integrateFinely(flow)
    change = np.abs(logWeights(flow, potential, 500, options.seed) - finer).max()
    logW = logWeights(flow, potential, 1000 if options.short else 20_000, options.seed)
    blocks = [of.effectiveSampleSize(block).getFraction() for block in np.split(logW, 20)]
    mean = of.logMeanWeight(logW)
    return {"ESS/N": of.effectiveSampleSize(logW).getFraction(), "standardError": float(np.std(blocks) / np.sqrt(19)),
            "published": PUBLISHED, "N": len(logW), "F": -mean.value, "error of F": mean.standardError,
            "std of log w": float(np.std(logW)), "training CPU s": trained,
            "change of log w by halved steps": float(change)}


if __name__ == "__main__":
    main()
