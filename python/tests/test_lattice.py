# SPDX-License-Identifier: MIT
"""Lattice fields against exact sums: transfer matrices and grids."""

import gc

import numpy as np
import openmmflow as of
import pytest
import torch
from openmmflow import testsystems
from openmmflow.lattice import hmcChain, hmcLadder, walkersInefficiency


def phi4(extents, kappa, quartic=0.022):
    return testsystems.LatticePhi4.fromKappa(extents, kappa, quartic)


def meanOfWalkers(series):
    """A mean and its error from walkers that ran side by side, independent of each other."""
    means = np.asarray(series).mean(axis=0)
    return means.mean(), means.std(ddof=1) / np.sqrt(len(means))


def gridMeans(lattice, reach, nodes, functions):
    """Means of functions of the field over exp(-S), by a sum over a grid."""
    axis = torch.linspace(-reach, reach, nodes, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * lattice.getNumSites())
    weights = torch.softmax(-lattice.createNativePotential().evaluate(points).u, 0)
    return [float((weights * function(points)).sum()) for function in functions]


def anneal(start, x, end, stages, random, numSteps=8):
    """ln(Z_end/Z_start) by sequential Monte Carlo, from samples of the start."""
    kernel = of.HamiltonianKernel(of.HamiltonianKernelOptions(stepSize=0.2, numSteps=numSteps, targetAcceptance=0.7))
    path = of.PotentialPath(start.createNativePotential(), end.createNativePotential())
    options = of.SequentialSamplerOptions(numGroups=10)
    return of.SequentialSampler(path, kernel, of.AnnealedSampler.equalSteps(stages), options).run(x, random)


def meetTruth(lattice, softness, walkers, stages, largestError):
    options, random = lattice.getOptions(), of.Random(7)
    quadratic = 2 * options.hopping * len(options.extents) + softness
    free = testsystems.LatticePhi4(testsystems.LatticePhi4Options(extents=options.extents, hopping=options.hopping,
                                                                  quadratic=quadratic, quartic=0))
    result = anneal(free, free.sampleFree(walkers, random), lattice, stages, random)
    assert result.logZRatioError < largestError
    assert abs(free.getLogZ() + result.logZRatio - lattice.getLogZ()) < 4 * result.logZRatioError


def testHmcSamplesASmallLattice():
    lattice = phi4([2, 2], 0.3)
    functions = [lambda x: x.mean(-1).abs(), lambda x: x.square().mean(-1), lambda x: x[..., 0] * x[..., 3]]
    chain = hmcChain(lattice.createNativePotential(), torch.zeros(300, 4), 40, seed=3)
    assert 0.6 < chain.acceptance < 0.95
    assert torch.allclose(chain.u[5], lattice.createNativePotential().evaluate(chain.x[5]).u)
    assert chain.evaluations == 300 * (1 + 10 * (100 + 2 * 40))
    for function, expected in zip(functions, gridMeans(lattice, 6.5, 27, functions)):
        mean, error = meanOfWalkers(function(chain.x))
        assert error < 0.02 * abs(expected)
        assert abs(mean - expected) < 4 * error


# <phi^2> is the derivative of F by the coefficient of phi^2, over the number of sites.
def testHmcStartsNowhereWithoutDensity():
    start = torch.zeros(3, 4)
    start[1, 2] = torch.inf
    with pytest.raises(ValueError, match="u at the start of walker 1 is .*, but must be finite"):
        hmcChain(phi4([2, 2], 0.3).createNativePotential(), start, 5)


def testHmcSamplesAStrip():
    options = phi4([2, 8], 0.25).getOptions()

    def logZ(quadratic):
        shifted = testsystems.LatticePhi4Options(extents=[2, 8], hopping=0.25, quadratic=quadratic, quartic=0.022)
        return testsystems.LatticePhi4(shifted).getLogZ()

    expected = (logZ(options.quadratic - 1e-4) - logZ(options.quadratic + 1e-4)) / 2e-4 / 16
    chain = hmcChain(phi4([2, 8], 0.25).createNativePotential(), torch.zeros(200, 16), 40, seed=4)
    mean, error = meanOfWalkers(chain.x.square().mean(-1))
    assert error < 0.02 * expected
    assert abs(mean - expected) < 4 * error


def testLadderIsTheTransferMatrix():
    lattices = [phi4([2, 8], kappa) for kappa in (0, 0.1, 0.18, 0.24, 0.27, 0.3)]
    potentials = [lattice.createNativePotential() for lattice in lattices]
    ladder = hmcLadder(potentials, torch.zeros(300, 16), 10, equilibration=30, seed=5)
    exact = np.array([lattices[0].getLogZ() - lattice.getLogZ() for lattice in lattices])
    errors = ladder.standardErrors
    assert errors[-1] < 0.1 and np.all(np.diff(errors) > 0)
    assert np.all(np.abs(ladder.freeEnergies - exact)[1:] < 4 * errors[1:])
    assert ladder.freeEnergies[0] == 0 and np.all(ladder.overlaps > 0.1)
    with pytest.raises(ValueError, match="number of potentials is 1"):
        hmcLadder([potentials[0]], torch.zeros(5, 16), 10)


# By sequential Monte Carlo from a free field with the same bonds.
@pytest.mark.parametrize("lattice, softness", [
    (phi4([2, 2], 0.2), 0.6),
    (phi4([2, 8], 0.25), 0.6),
    (phi4([2, 8], 0.3), 0.6),
    (testsystems.LatticePhi4.quantumPath(16, 1, 2.75, -1, 1), 0.5),
    (testsystems.LatticePhi4.quantumPath(16, 1, 3, -1, 1), 0.5),
    (testsystems.LatticePhi4.ringPolymer(32, 8, 1, 1), 0.05),
], ids=["phi4 2x2", "phi4 2x8 symmetric", "phi4 2x8 broken", "path m0=2.75", "path m0=3", "ring polymer"])
def testSequentialMonteCarloMeetsTheTruth(lattice, softness):
    meetTruth(lattice, softness, walkers=600, stages=30, largestError=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("mass", [2.75, 3])
def testSequentialMonteCarloOfALongPath(mass):
    meetTruth(testsystems.LatticePhi4.quantumPath(64, 1, mass, -1, 1), 0.5, walkers=4000, stages=160, largestError=0.1)


@pytest.mark.slow
def testSequentialMonteCarloFromTheFreeFieldToNoHopping():
    meetTruth(phi4([64, 8], 0), 1.05, walkers=600, stages=40, largestError=0.2)


def testInefficiencyOfWalkers():
    rng = np.random.default_rng(6)
    rho, x = 0.6, np.zeros((400, 100))
    for t in range(1, len(x)):
        x[t] = rho * x[t - 1] + rng.normal(size=100)
    assert walkersInefficiency(x[50:]) == pytest.approx((1 + rho) / (1 - rho), rel=0.1)
    assert walkersInefficiency(rng.normal(size=(100, 50))) == pytest.approx(1, abs=0.1)
    # Walkers that keep apart: no walker's own series would show it.
    assert walkersInefficiency(rng.normal(size=(100, 50)) + rng.choice([-3, 3], size=50)) > 50
    with pytest.raises(ValueError, match="variance of the series is 0"):
        walkersInefficiency(np.ones((5, 5)))


# A field that is a struct refers to its owner, whose memory another result may take.
def testStructsInResultsOutliveThem():
    rng = np.random.default_rng(8)
    logQ = rng.normal(size=2000).tolist()
    inside = of.effectiveSupport(logQ, logQ, 0.01).targetInside
    fromFlow = of.flowFreeEnergy([0.0, 0.0], [1.0, 2.0]).fromFlow
    gc.collect()
    others = [(of.effectiveSupport(logQ, [-9.0, -9.0], 0.01), of.flowFreeEnergy([5.0, 6.0], [7.0, 8.0])) for _ in range(100)]
    assert inside.value == pytest.approx(0.99) and fromFlow.value == 0
    assert others[0][0].targetInside.value == 0
    assert of.chainEffectiveSize(logQ).value == pytest.approx(2000, rel=0.2)
    options = phi4([2, 8], 0.25).getOptions()
    gc.collect()
    assert [phi4([3, 3], 0.1).getOptions().hopping, options.hopping] == [0.1, 0.25]
