# SPDX-License-Identifier: MIT
"""Systems with known answers, and the losses that are tried on them."""

import gc
import math

import openmm as mm
import openmmflow as of
import pytest
import torch
from openmmflow import testsystems

SYSTEMS = {
    "double well": (testsystems.DoubleWell(), 1),
    "many-well": (testsystems.ManyWell(testsystems.ManyWellOptions(numPairs=3)), 3),
    "mixture": (testsystems.GaussianMixture([1, 2], [-1, 1], [0, 0.5], [0.3, 0.6]), 1),
    "cluster": (testsystems.LennardJonesCluster(testsystems.LennardJonesClusterOptions(numParticles=4)), 4),
    "dimer": (testsystems.DimerInBath(), 38),
    "phi^4": (testsystems.LatticePhi4.fromKappa([2, 3], 0.25, 0.022), 6),
    "Ising": (testsystems.IsingTorus(testsystems.IsingTorusOptions(rows=3, columns=4)), 12),
}


def makeFlow(size=2):
    options = of.ConditionerOptions(hiddenSizes=[8], seed=1)
    couplings = [of.AffineCoupling(size, [0], options), of.AffineCoupling(size, [1], options)]
    return of.Flow(of.GaussianPrior(size), of.Sequence(couplings))


def evaluate(loss, flow, seed=3):
    return loss.evaluate(flow, of.Random(seed))


@pytest.mark.parametrize("name", SYSTEMS)
def testSystemsBelongToTheCallerAndHaveTheirPotential(name):
    analytic, particles = SYSTEMS[name]
    system = analytic.createSystem()
    assert isinstance(system, mm.System) and system.getNumParticles() == particles
    copy = mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(system))
    del system
    gc.collect()
    context = mm.Context(copy, mm.VerletIntegrator(0.001), mm.Platform.getPlatform("Reference"))
    context.setPositions(analytic.getPositions())
    energy = context.getState(energy=True).getPotentialEnergy()._value
    flat = torch.tensor([list(v) for v in analytic.getPositions()], dtype=torch.float64).reshape(1, -1)
    potential = analytic.createPotential()
    assert isinstance(potential, of.SelectedColumns)
    assert potential(flat[:, analytic.getColumns()]).item() == pytest.approx(energy, rel=1e-5)


def testTruthOutlivesItsSystem():
    truth = testsystems.DoubleWell().getTruth()
    gc.collect()
    assert truth.logZ == pytest.approx(12.06492900, abs=1e-8)
    assert testsystems.ManyWell().getLogZ() == pytest.approx(164.695675, abs=1e-6)
    assert testsystems.unitTemperature * 0.00831446261815324 == pytest.approx(1)
    assert testsystems.DimerInBath().getBareTruth().deltaF == pytest.approx(testsystems.DimerInBath().getBareTruth().deltaF)


def testLossesOfTheEnergyCanBeTrained():
    well = testsystems.DoubleWell()
    potential, random = well.createPotential(), of.Random(1)
    frames = well.sample(100, random)
    latent = of.LatentAcceptanceLoss(potential, of.LatentAcceptanceLossOptions(batchSize=16))
    symmetric = of.SymmetricAcceptanceLoss(potential, of.SymmetricAcceptanceLossOptions(batchSize=16))
    latent.addData(frames)
    symmetric.addData(frames)
    kernel = of.HamiltonianKernelOptions(stepSize=0.1, numSteps=2)
    alpha = of.AlphaDivergenceLoss(potential, of.AlphaDivergenceLossOptions(
        batchSize=16, numStages=3, kernel=kernel, bufferCapacity=64, minimumPoints=32))
    losses = [latent, symmetric, alpha,
              of.ReweightedForwardKLLoss(potential, of.ReweightedForwardKLLossOptions(batchSize=16)),
              of.ReactionCoordinateEntropyLoss(lambda x: x[:, 0], of.ReactionCoordinateEntropyLossOptions(batchSize=16))]
    trainer = of.Trainer(makeFlow(), of.TrainerOptions(iterations=3, seed=1))
    for loss in losses:
        trainer.addLoss(loss)
    progress = trainer.train(3)
    assert progress.skipped == 0 and all(math.isfinite(value) for value in progress.losses)
    assert alpha.getNumEvaluations() == 16 * 2 * (1 + 2 * 2) and len(alpha.getAcceptance()) == 2


def testReactionCoordinateIsAnyFunction():
    flow = makeFlow()
    loss = of.ReactionCoordinateEntropyLoss(torch.nn.Sequential(torch.nn.Linear(2, 1, dtype=torch.float64), torch.nn.Flatten(0)),
                                            of.ReactionCoordinateEntropyLossOptions(batchSize=16, bandwidth=0.5))
    gc.collect()
    value = evaluate(loss, flow)
    value.backward()
    assert any(tensor.grad.abs().max() > 0 for tensor in flow.getParameters().values())

    def broken(x):
        raise ValueError("not today")

    with pytest.raises(mm.OpenMMException, match="not today"):
        evaluate(of.ReactionCoordinateEntropyLoss(broken, of.ReactionCoordinateEntropyLossOptions()), flow)
    with pytest.raises(TypeError, match="a function is needed"):
        of.ReactionCoordinateEntropyLoss(3, of.ReactionCoordinateEntropyLossOptions())


def testAnnealedSampler():
    wide = testsystems.GaussianMixture([1], [0], [0], [1.0]).createPotential()
    narrow = testsystems.GaussianMixture([1], [0.5], [0], [0.5]).createPotential()
    path = of.PotentialPath(wide, narrow)
    kernel = of.HamiltonianKernel(of.HamiltonianKernelOptions(stepSize=0.4, numSteps=3))
    random = of.Random(2)
    result = of.AnnealedSampler(path, kernel, of.AnnealedSampler.equalSteps(4)).run(random.normal(500, 2), random)
    weights = result.logWeight.exp()
    assert weights.mean().item() == pytest.approx(1, abs=4 * weights.std().item() / math.sqrt(500))
    assert len(result.acceptance) == 3 and path.getNumEvaluations() == 2 * 500 * (1 + 3 * 3)


def testReplayBuffer():
    buffer = of.PrioritisedReplayBuffer(3)
    buffer.add([[1.0], [2.0]], [0.0, 1.0], [-1.0, -1.0])
    draw = buffer.draw(5, of.Random(1))
    assert draw.rows.dtype == torch.int64 and draw.x.shape == (5, 1)
    buffer.update(torch.tensor([1]), [-1.5])
    assert buffer.getLogWeights().tolist() == [0.0, 1.5]
