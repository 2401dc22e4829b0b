# SPDX-License-Identifier: MIT
"""The Ising model by its dual and by autoregressive spins, against Kaufman's solution and sums over all states."""

import itertools

import numpy as np
import openmmflow as of
import pytest
import torch
from openmmflow import testsystems
from openmmflow.spins import AutoregressiveSpins, trainSpins
from test_lattice import anneal

COUPLING = 0.44


def ising(rows, columns, coupling=COUPLING, shift=0.0):
    return testsystems.IsingTorus(testsystems.IsingTorusOptions(rows=rows, columns=columns, coupling=coupling, shift=shift))


def allSpins(sites):
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=sites)))


def excite(network, seed=4, scale=0.5):
    """Random weights everywhere: an untrained network has none in its last layer."""
    with torch.no_grad():
        network.second += scale * of.Random(seed).normal(*network.second.shape[:2]).unsqueeze(2)
    return network


def annealDual(size, walkers, stages, seed):
    """ln Z from independent spins, whose dual is a mixture of normal densities."""
    random, end = of.Random(seed), ising(size, size, shift=2)
    start = ising(size, size, coupling=1e-12, shift=2)
    spins = torch.where(random.uniform(walkers, size * size) < 0.5, -1.0, 1.0)
    result = anneal(start, start.sampleGivenSpins(spins, random), end, stages, random)
    return size * size * np.log(2) + result.logZRatio, result.logZRatioError, end.getLogZ()


def testDualByAnnealingIsKaufmans():
    value, error, exact = annealDual(4, walkers=1000, stages=40, seed=1)
    assert error < 0.05 and abs(value - exact) < 4 * error


@pytest.mark.slow
def testDualByAnnealingIsKaufmansNearCriticality():
    value, error, exact = annealDual(16, walkers=1200, stages=120, seed=1)
    assert exact == pytest.approx(238.38724720, abs=1e-8)
    assert error < 0.4 and abs(value - exact) < 4 * error


def testDensityIsNormalisedAndSymmetric():
    network = excite(AutoregressiveSpins(3, 4, COUPLING, hiddenSize=5, seed=2))
    spins = allSpins(12)
    logQ = network.logQ(spins)
    assert torch.logsumexp(logQ, 0).item() == pytest.approx(0, abs=1e-5)
    assert torch.allclose(logQ, network.logQ(-spins), atol=1e-5)
    assert logQ.std() > 0.5
    # Each conditional density depends on earlier spins alone.
    changed = spins[:1].clone()
    changed[0, 7] *= -1
    padded = [torch.nn.functional.pad(s, (0, 1)) for s in (spins[:1], changed)]
    h, other = (network._fields(s, slice(None))[:, 0] for s in padded)
    assert torch.equal(h[:8], other[:8]) and not torch.equal(h[8:], other[8:])


# Where v_i is all that matters, a network can be exact: the part of the field by spins before is.
def testUntrainedFieldIsThatOfTheNeighboursBefore():
    network = AutoregressiveSpins(3, 3, COUPLING)
    s = torch.tensor([[1.0, -1, 1, 1, 1, -1, -1, 1, 1]])
    h = network._fields(torch.nn.functional.pad(s, (0, 1)), slice(None))[:, 0] / COUPLING
    # Row by row: above, left; at the end of a row its first site, and in the last row the first row.
    assert h.tolist() == pytest.approx([0, 1, 0, 1, 0, 3, 2, -1, -1 + 1 + 1 - 1])


def testSamplesAreOfTheDensity():
    network = excite(AutoregressiveSpins(3, 3, 0.3, hiddenSize=4, seed=3))
    states, count = allSpins(9), 40000
    samples = network.sample(count, of.Random(5))
    index = ((samples > 0).long() * 2 ** torch.arange(8, -1, -1)).sum(1)
    expected = count * network.logQ(states).exp().detach()
    chiSquared = float(((torch.bincount(index, minlength=512) - expected)**2 / expected).sum())
    assert abs(chiSquared - 511) < 4 * np.sqrt(2 * 511)


def testEnergyAndWeightsAreThoseOfTheModel():
    network = excite(AutoregressiveSpins(3, 4, COUPLING, hiddenSize=4, seed=3), scale=0.1)
    spins = allSpins(12)
    assert torch.logsumexp(-network.energy(spins), 0).item() == pytest.approx(ising(3, 4).getLogZ(), abs=1e-9)
    mean = of.logMeanWeight(network.logWeights(4000, of.Random(6)).tolist())
    assert abs(mean.value - ising(3, 4).getLogZ()) < 4 * mean.standardError


# The estimate of the gradient against the derivative of the divergence, a sum over all states.
def testTrainingFollowsTheGradientOfTheDivergence():
    network = excite(AutoregressiveSpins(3, 3, 0.3, hiddenSize=2, seed=3))
    states = allSpins(9)
    divergence = (network.logQ(states).exp() * (network.energy(states) + network.logQ(states))).sum()
    divergence.backward()
    exact = network.second.grad.clone()
    before = network.second.detach().clone()
    trainSpins(network, 1, batchSize=10000, learningRate=1e-3, seed=7)
    # Adam's first step has the size of the learning rate and the sign of the gradient.
    step = (network.second.detach() - before).flatten()
    clear = exact.flatten().abs() > 0.03
    assert clear.sum() >= 4
    assert torch.equal(torch.sign(step[clear]), -torch.sign(exact.flatten()[clear]))
    assert step.abs().max().item() == pytest.approx(1e-3, rel=1e-2)


def testTrainedSpinsKnowTheFreeEnergy():
    network = AutoregressiveSpins(4, 4, COUPLING, hiddenSize=8, seed=1)
    training = trainSpins(network, 150, batchSize=200, learningRate=1e-2, seed=2)
    assert training.bounds[-10:].mean() >= -ising(4, 4).getLogZ() and training.deviations[-1] < training.deviations[0] / 3
    logWeights = network.logWeights(2000, of.Random(3)).tolist()
    mean = of.logMeanWeight(logWeights)
    assert of.effectiveSampleSize(logWeights).getFraction() > 0.9
    assert mean.standardError < 0.01 and abs(mean.value - ising(4, 4).getLogZ()) < 4 * mean.standardError
    with pytest.raises(ValueError, match="lattice is 2 x 4"):
        AutoregressiveSpins(2, 4, COUPLING)


@pytest.mark.slow
def testTrainedSpinsKnowTheFreeEnergyNearCriticality():
    network = AutoregressiveSpins(16, 16, COUPLING, hiddenSize=16, seed=1)
    trainSpins(network, 400, batchSize=250, learningRate=3e-3, seed=3)
    logWeights = network.logWeights(8000, of.Random(2)).tolist()
    mean = of.logMeanWeight(logWeights)
    assert of.effectiveSampleSize(logWeights).getFraction() > 0.3
    assert mean.standardError < 0.03 and abs(mean.value - 238.38724720) < 4 * mean.standardError
    # A Metropolis chain of the same samples, and what it is worth.
    chain = of.independenceChain(logWeights, 5)
    tau, expected = of.rejectionAutocorrelationTime(chain.states), of.independenceAutocorrelationTime(logWeights)
    assert abs(tau.value - expected.value) < 4 * np.hypot(tau.standardError, expected.standardError)
