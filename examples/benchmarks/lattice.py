# SPDX-License-Identifier: MIT
"""ln Z of lattices and paths against exact values, with CPU seconds of one core: Hamiltonian Monte Carlo and MBAR, sequential
Monte Carlo, and autoregressive spins. Usage: python examples/benchmarks/lattice.py"""

import time

import numpy as np
import openmmflow as of
import torch
from openmmflow import testsystems
from openmmflow.lattice import hmcLadder
from openmmflow.spins import AutoregressiveSpins, trainSpins

torch.set_num_threads(1)
began = time.process_time()


def report(name, value, error, exact, note=""):
    global began
    print(f"{name:<44} {value:11.4f} +- {error:6.4f}   exact {exact:13.6f}   {(value - exact) / error:+5.1f} errors   "
          f"{time.process_time() - began:6.1f} s  {note}", flush=True)
    began = time.process_time()


def anneal(start, x, end, stages, random):
    kernel = of.HamiltonianKernel(of.HamiltonianKernelOptions(stepSize=0.2, numSteps=8, targetAcceptance=0.7))
    path = of.PotentialPath(start.createNativePotential(), end.createNativePotential())
    options = of.SequentialSamplerOptions(numGroups=10)
    return of.SequentialSampler(path, kernel, of.AnnealedSampler.equalSteps(stages), options).run(x, random)


def annealFromFreeField(name, lattice, softness, walkers=2000, stages=100):
    """From the Gaussian with the same bonds."""
    options, random = lattice.getOptions(), of.Random(1)
    options.quadratic, options.quartic = 2 * options.hopping * len(options.extents) + softness, 0
    free = testsystems.LatticePhi4(options)
    result = anneal(free, free.sampleFree(walkers, random), lattice, stages, random)
    report(name, free.getLogZ() + result.logZRatio, result.logZRatioError, lattice.getLogZ())


kappas = [0, 0.1, 0.18, 0.2, 0.24, 0.25, 0.27, 0.3]
lattices = [testsystems.LatticePhi4.fromKappa([2, 8], kappa, 0.022) for kappa in kappas]
ladder = hmcLadder([lattice.createNativePotential() for lattice in lattices], np.zeros((400, 16)), 10, seed=1)
for k in (3, 5, 7):
    report(f"phi^4 2 x 8, kappa {kappas[k]}, ladder from 0", lattices[0].getLogZ() - ladder.freeEnergies[k],
           ladder.standardErrors[k], lattices[k].getLogZ(), f"{ladder.evaluations} gradients")
for kappa in (0.2, 0.25, 0.3):
    for rows, columns in ((2, 2), (2, 8)):
        annealFromFreeField(f"phi^4 {rows} x {columns}, kappa {kappa}, annealed",
                            testsystems.LatticePhi4.fromKappa([rows, columns], kappa, 0.022), 0.6)
annealFromFreeField("phi^4 64 x 8, kappa 0, annealed", testsystems.LatticePhi4.fromKappa([64, 8], 0, 0.022), 1.05, 600, 40)
for mass in (2.75, 3):
    annealFromFreeField(f"double-well path of 64 slices, m0 {mass}", testsystems.LatticePhi4.quantumPath(64, 1, mass, -1, 1), 0.5,
                        stages=160)
annealFromFreeField("ring polymer of 64 beads, beta omega 8", testsystems.LatticePhi4.ringPolymer(64, 8, 1, 1), 0.03)

exact = testsystems.IsingTorus(testsystems.IsingTorusOptions()).getLogZ()
ising, free = (testsystems.IsingTorus(testsystems.IsingTorusOptions(coupling=k, shift=2)) for k in (0.44, 1e-12))
random = of.Random(1)
spins = torch.where(random.uniform(1200, 256) < 0.5, -1.0, 1.0)
result = anneal(free, free.sampleGivenSpins(spins, random), ising, 120, random)
report("Ising 16 x 16, beta .44, dual annealed", 256 * np.log(2) + result.logZRatio, result.logZRatioError, exact)
network = AutoregressiveSpins(16, 16, 0.44, hiddenSize=16, seed=1)
trainSpins(network, 400, seed=3)
logWeights = network.logWeights(8000, of.Random(2)).tolist()
mean, part = of.logMeanWeight(logWeights), of.effectiveSampleSize(logWeights).getFraction()
report("Ising 16 x 16, beta .44, autoregressive spins", mean.value, mean.standardError, exact, f"ESS/N {part:.2f}")
