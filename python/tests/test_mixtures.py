# SPDX-License-Identifier: MIT
"""Mixtures of flows from Python."""

import math

import openmmflow as of
import torch


def testAMixtureOfFlowsIsTheSumOfItsDensitiesAndIsSaved():
    flows = []
    for seed, middle in ((1, -2.0), (2, 3.0)):
        coupling = of.AffineCoupling(2, [1], of.ConditionerOptions(hiddenSizes=[4], seed=seed))
        flows.append(of.Flow(of.GaussianPrior(2), of.Sequence([coupling, of.Scaling([middle, 0.0], [1.0, 2.0])])))
    mixture = of.MixturePrior([of.FlowPrior(flow) for flow in flows], [1.0, 3.0])
    flow = of.Flow(mixture, of.Scaling([0.0, 0.0], [1.0, 1.0]))
    sample = flow.sample(20, of.Random(4))
    first, second = (f.logQ(sample.x) for f in flows)
    expected = torch.logaddexp(first + math.log(0.25), second + math.log(0.75))
    torch.testing.assert_close(sample.logQ, expected, rtol=0, atol=1e-12)
    copy = of.Flow.deserialize(flow.serialize())
    assert isinstance(copy.getPrior(), of.MixturePrior)
    assert isinstance(copy.getPrior().getComponents()[0], of.FlowPrior)
    assert torch.equal(copy.logQ(sample.x), sample.logQ)
