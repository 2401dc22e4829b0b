# SPDX-License-Identifier: MIT
"""Augmented variables from Python."""

import math

import openmmflow as of
import torch


def testAnAugmentedPotentialAddsANormalDensityAndJumpsDrawItAnew():
    well = of.DoubleWell()
    whole = of.ContextPotential(well.createSystem(), 300, of.ContextPotentialOptions(platform="Reference"))
    physical = of.SelectedColumns(whole, [0, 1], [0.0, 0.0, 0.0])
    potential = of.AugmentedPotential(physical, 2)
    assert potential.getSize() == 4 and isinstance(potential.getPhysical(), of.SelectedColumns)
    x = torch.tensor([[0.1, 0.2], [-0.3, 0.1]], dtype=torch.float64)
    y = potential.augment(x, of.Random(3))
    assert torch.equal(potential.takePhysical(y), x)
    expected = physical.evaluate(x).u + 0.5 * (y[:, 2:] ** 2).sum(1) + math.log(2 * math.pi)
    torch.testing.assert_close(potential.evaluate(y).u, expected, rtol=0, atol=1e-12)
    flow = of.Flow(of.GaussianPrior(4), of.Scaling([0.0] * 4, [1.0] * 4))
    jump = of.LatentJump(flow, potential, of.LatentJumpOptions(seed=1))
    state = jump.start(y)
    jump.step(state)
    assert (state.x[:, 2:] != y[:, 2:]).all()
