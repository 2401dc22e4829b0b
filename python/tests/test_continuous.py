# SPDX-License-Identifier: MIT
"""Continuous flows and their losses from Python."""

import openmmflow as of
import torch


def makeFlow():
    options = of.ContinuousFlowOptions()
    options.field.network.hiddenSizes = [16]
    options.field.network.seed = 3
    options.solver.absoluteTolerance = options.solver.relativeTolerance = 1e-6
    return of.Flow(of.GaussianPrior(2), of.Sequence([of.ContinuousFlow(2, [], options), of.Scaling([1, 0], [0.5, 2])]))


def makeData():
    return torch.randn(2000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.4 + 2


def testFlowMatchingTrains():
    flow, options = makeFlow(), of.FlowMatchingLossOptions()
    options.coupling = of.FlowMatchingCoupling.OptimalTransport
    options.batchSize = 32
    loss = of.FlowMatchingLoss(flow, options)
    loss.addData(makeData())
    settings = of.TrainerOptions()
    settings.iterations, settings.learningRate, settings.seed = 100, 1e-2, 1
    trainer = of.Trainer(flow, settings)
    trainer.addLoss(loss)
    before = flow.logQ(makeData()).mean()
    trainer.train(100)
    assert flow.logQ(makeData()).mean() > before + 1


def testContinuousFlowComesBackFromItsBytes():
    flow = of.Flow.deserialize(makeFlow().serialize())
    transform = flow.getTransform().getTransforms()[0]
    assert isinstance(transform, of.ContinuousFlow)
    assert transform.getSolver().method == of.OdeMethod.DormandPrince
