# SPDX-License-Identifier: MIT
"""Rigid bodies from Python."""

import math

import openmmflow as of
import torch


def testRigidBodiesRunBothWaysAndAreSaved():
    reference = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [-0.02, 0.1, 0.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    bodies = of.RigidBodies(reference, [[0, 1, 2]])
    assert bodies.getInputSize() == 9 and list(bodies.getCircularIndices()) == [7, 8]
    prior = of.ProductPrior([of.GaussianPrior(6, 0.1), of.GaussianPrior(1), of.UniformTorusPrior(2)])
    flow = of.Flow(prior, bodies, [0, 1, 2, 3])
    sample = flow.sample(10, of.Random(3))
    expected = of.GaussianPrior(6, 0.1).logDensity(sample.z[:, :6]) - math.log(8 * math.pi**2)
    torch.testing.assert_close(sample.logQ, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(flow.toLatent(sample.x).z, sample.z, rtol=0, atol=1e-8)
    copy = of.Flow.deserialize(flow.serialize())
    assert isinstance(copy.getTransform(), of.RigidBodies)
    assert torch.equal(copy.fromLatent(sample.z).x, sample.x)
    moved = sample.x.clone()
    moved[0, 0] += 0.01
    assert flow.logQ(moved)[0] == -math.inf
