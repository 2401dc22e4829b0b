# SPDX-License-Identifier: MIT
"""Lattice fields against exact sums: transfer matrices and grids."""

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


def testHmcSamplesASmallLattice():
    lattice = phi4([2, 2], 0.3)
    functions = [lambda x: x.mean(-1).abs(), lambda x: x.square().mean(-1), lambda x: x[..., 0] * x[..., 3]]
    chain = hmcChain(lattice.createNativePotential(), torch.zeros(200, 4), 100, seed=3)
    assert 0.6 < chain.acceptance < 0.95
    assert torch.allclose(chain.u[5], lattice.createNativePotential().evaluate(chain.x[5]).u)
    assert chain.evaluations == 200 * (1 + 10 * (100 + 2 * 100))
    for function, expected in zip(functions, gridMeans(lattice, 6.5, 27, functions)):
        mean, error = meanOfWalkers(function(chain.x))
        assert error < 0.02 * abs(expected)
        assert abs(mean - expected) < 4 * error


# <phi^2> is the derivative of F by the coefficient of phi^2, over the number of sites.
def testHmcSamplesAStrip():
    options = phi4([2, 8], 0.25).getOptions()

    def logZ(quadratic):
        shifted = testsystems.LatticePhi4Options(extents=[2, 8], hopping=0.25, quadratic=quadratic, quartic=0.022)
        return testsystems.LatticePhi4(shifted).getLogZ()

    expected = (logZ(options.quadratic - 1e-4) - logZ(options.quadratic + 1e-4)) / 2e-4 / 16
    chain = hmcChain(phi4([2, 8], 0.25).createNativePotential(), torch.zeros(100, 16), 100, seed=4)
    mean, error = meanOfWalkers(chain.x.square().mean(-1))
    assert error < 0.02 * expected
    assert abs(mean - expected) < 4 * error


def testLadderIsTheTransferMatrix():
    lattices = [phi4([2, 8], kappa) for kappa in (0, 0.1, 0.18, 0.24, 0.27, 0.3)]
    potentials = [lattice.createNativePotential() for lattice in lattices]
    ladder = hmcLadder(potentials, torch.zeros(400, 16), 10, equilibration=40, seed=5)
    exact = np.array([lattices[0].getLogZ() - lattice.getLogZ() for lattice in lattices])
    errors = ladder.standardErrors
    assert errors[-1] < 0.1 and np.all(np.diff(errors) > 0)
    assert np.all(np.abs(ladder.freeEnergies - exact)[1:] < 4 * errors[1:])
    assert ladder.freeEnergies[0] == 0 and np.all(ladder.overlaps > 0.1)
    with pytest.raises(ValueError, match="number of potentials is 1"):
        hmcLadder([potentials[0]], torch.zeros(5, 16), 10)


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
