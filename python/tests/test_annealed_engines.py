# SPDX-License-Identifier: MIT
"""Annealed stages from Python: paths, kernels and engines on Systems with known free energies."""

import math

import openmm as mm
import openmmflow as of
import pytest
import torch
from openmmflow import testsystems

KELVIN = 1 / 0.00831446261815324  # kT = 1 kJ/mol


def spring(k):
    """(k/2) r^2 of one particle, k a global parameter."""
    system = mm.System()
    system.addParticle(1)
    force = mm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    force.addGlobalParameter("k", k)
    force.addParticle(0)
    system.addForce(force)
    return of.ContextPotential(system, KELVIN, of.ContextPotentialOptions(platform="Reference", numContexts=1))


def hamiltonian(stepSize=0.3, numSteps=3):
    return of.HamiltonianKernel(of.HamiltonianKernelOptions(stepSize=stepSize, numSteps=numSteps, targetAcceptance=0))


def check(result, exact, largestError):
    assert result.logZRatio == pytest.approx(exact, abs=4 * result.logZRatioError)
    assert 0 < result.logZRatioError < largestError
    assert sum(result.logZIncrements) == pytest.approx(result.logZRatio)


def springPath():
    """k from 1 to 4, with u scaled from 1 to 1/2 in the second half: at the end the spring is 2."""
    path = of.ParameterPath(spring(7.0), [0, 0.5, 1])
    path.addParameter("k", [1, 4, 4])
    path.setScale([1, 1, 0.5])
    return path


def testParameterPath():
    path = springPath()
    assert path.getSize() == 3
    assert path.getParameters(0.25) == {"k": 2.5} and path.getScale(0.75) == 0.75
    x = torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    state = path.evaluate(x, 0.25, gradient=of.Gradient.Compute)
    assert state.logDensity.item() == pytest.approx(-0.5 * 2.5 * 9)
    torch.testing.assert_close(state.gradient, -2.5 * x)
    assert path.atLambda(state, 1.0).logDensity.item() == pytest.approx(-0.5 * 2 * 9)
    assert (path.getNumEvaluations(), path.getNumGradients()) == (2, 1)
    with pytest.raises(mm.OpenMMException, match="name is q, but must be a parameter of the System"):
        path.addParameter("q", [0, 0, 0])


@pytest.mark.parametrize("engine", ["annealed", "sequential", "adaptive", "exchange"])
def testSpringsOfAContext(engine):
    path, random = springPath(), of.Random(1)
    lambdas = of.AnnealedSampler.equalSteps(6)
    exact = -1.5 * math.log(2)  # ln(Z_1/Z_0) = (3/2) ln(1/2)
    if engine == "annealed":
        result = of.AnnealedSampler(path, hamiltonian(), lambdas).run(random.normal(600, 3), random)
        assert len(result.acceptance) == 5
    elif engine == "exchange":
        options = of.ReplicaExchangeOptions(numEquilibration=5, numSweeps=40, sampleInterval=4)
        result = of.ReplicaExchange(path, hamiltonian(), lambdas, options).run(random.normal(20, 3), 20, random)
        assert result.x.shape == (40 // 4 * 20, 3) and len(result.swapAcceptance) == len(result.overlap) == 6
    else:
        options = of.SequentialSamplerOptions(resampleBelow=0.7, numGroups=20, targetCess=0.85)
        chosen = lambdas if engine == "sequential" else []
        result = of.SequentialSampler(path, hamiltonian(), chosen, options).run(random.normal(600, 3), random)
        assert result.lambdas[0] == 0 and result.lambdas[-1] == 1
        assert of.equalCessLambdas(result, 4)[-1] == 1
    check(result, exact, 0.2)
    assert result.numEvaluations == path.getNumEvaluations() >= result.numGradients > 0
    weights = result.logWeight.softmax(0)
    squares = (result.x ** 2).sum(1)
    assert (weights * squares).sum().item() == pytest.approx(1.5, abs=0.35)


def testKernelsOnADoubleWell():
    """Every kernel keeps exact samples of A1; that the moments stay is tested in C++ with far more walkers."""
    well = testsystems.DoubleWell()
    random = of.Random(2)
    flow = of.Flow(of.GaussianPrior(2), of.Scaling([-2.0, 0.0], [1.5, 1.2]))
    path = of.FlowPath(flow, well.createPotential())
    kernels = [
        of.RandomWalkKernel(of.RandomWalkKernelOptions(stepSize=0.5)),
        of.LangevinKernel(of.LangevinKernelOptions(stepSize=0.4)),
        hamiltonian(),
        of.GeneralizedHamiltonianKernel(of.GeneralizedHamiltonianKernelOptions(stepSize=0.3, refreshment=0.5)),
        of.LatentKernel(flow, of.LatentKernelOptions(kind=of.JumpKind.RandomWalk, stepSize=0.4, numMoves=3)),
    ]
    kernels.append(of.KernelSequence(kernels))
    for kernel in kernels:
        x = well.sample(2000, random)
        state = path.evaluate(x, 1.0)
        acceptance = kernel.move(path, 1, 1.0, state, random)
        assert 0.1 < acceptance < 1 and (state.x != x).any()
        error = 4 * math.sqrt(well.getTruth().varianceX / 2000)
        assert state.x[:, 0].mean().item() == pytest.approx(well.getTruth().meanX, abs=error)
    assert state.momentum.shape == (2000, 2) and len(kernels[-1].getAcceptances()) == 5
    assert kernels[0].getStepSize(1) != 0.5  # adapted
    kernels[0].setAdaptive(False)
    kernels[0].setStepSizes([0.3])
    kernels[0].move(path, 4, 1.0, state, random)
    assert kernels[0].getStepSize(4) == 0.3


def testTemperaturePathAndSpacing():
    well = testsystems.DoubleWell()
    potential, random = well.createPotential(), of.Random(3)
    path = of.TemperaturePath(potential, 0.2, endScale=1)
    x = well.sample(50, random)
    state = path.evaluate(x, 1.0)
    torch.testing.assert_close(path.atLambda(state, 0.0).logDensity, 0.2 * state.logDensity)
    assert path.getNumEvaluations() == 50
    assert of.powerLambdas(2, 2) == [0, 0.25, 1]
    hot = path.atLambda(state, 0.0)
    step = of.nextLambda(path, hot, 0.8)
    assert 0 < step < 1 and of.conditionalEss(path, hot, step) == pytest.approx(0.8, abs=0.02)


def testStochasticFlowAndTrainedLayers():
    well = testsystems.DoubleWell()
    random = of.Random(4)
    start = of.Flow(of.GaussianPrior(2, 2.0), of.Scaling([0.0, 0.0], [1.0, 1.0]))
    path = of.FlowPath(start, well.createPotential())
    flow = of.StochasticFlow(path)
    flow.addMoves(hamiltonian(), 0.3)
    flow.addTransform(of.Scaling([0.0, 0.0], [1.05, 0.9]))
    flow.addMoves(hamiltonian(), 1.0, numMoves=2)
    assert flow.getNumBlocks() == 3
    check(flow.run(start.sample(4000, random).x, random), well.getTruth().logZ, 0.3)

    options = of.SequentialSamplerOptions(resampleBelow=0, numGroups=10)
    sampler = of.SequentialSampler(path, hamiltonian(), of.powerLambdas(2, 1), options)
    x = start.sample(2000, random).x
    before = sampler.run(x, random)
    sampler.setLayers([of.LearnedScaling(2), of.LearnedScaling(2)])
    training = of.AnnealedFlowTransport(sampler, start.getPrior(),
                                        of.AnnealedFlowTransportOptions(batchSize=200, learningRate=0.03, seed=1))
    progress = training.train(60)
    assert progress.iteration == 60 and progress.skipped == 0 and len(progress.losses) == 2
    after = sampler.run(x, random)
    assert after.ess[-1] > before.ess[-1]
    check(after, well.getTruth().logZ, 0.3)


def testAStateOutlivesItsResult():
    path, random = springPath(), of.Random(5)
    state = of.AnnealedSampler(path, hamiltonian(), [0, 1]).run(random.normal(4, 3), random).state
    x = state.x.clone()
    others = [of.AnnealedSampler(path, hamiltonian(), [0, 1]).run(random.normal(4, 3), random) for _ in range(5)]
    assert torch.equal(state.x, x) and state.lambda_ == 1 and len(others) == 5
