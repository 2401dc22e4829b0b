# SPDX-License-Identifier: MIT
"""Flows that Python computes, in everything that takes a flow."""

import math
import pickle

import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import torch
from openmm import unit
from openmmflow import testsystems


class Sinh:
    """x = sinh(z), written with torch's functions."""

    def forward(self, z):
        return torch.sinh(z), torch.log(torch.cosh(z)).sum(1)

    def inverse(self, x):
        return torch.asinh(x), -0.5 * torch.log1p(x.square()).sum(1)


class Stretch(torch.nn.Module):
    """x = exp(s) z, with parameters in float32."""

    def __init__(self, size):
        super().__init__()
        self.s = torch.nn.Parameter(torch.zeros(size))

    def forward(self, z):
        return z * self.s.exp(), self.s.sum().expand(len(z))

    def inverse(self, x):
        return x * (-self.s).exp(), -self.s.sum().expand(len(x))


class Failing(Sinh):
    def __init__(self, result):
        self.result = result

    def forward(self, z):
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result(z)


def testAPythonObjectIsATransform():
    flow = of.Flow(of.GaussianPrior(3), of.PythonTransform(Sinh(), 3))
    drawn = flow.sample(1000, of.Random(1))
    torch.testing.assert_close(drawn.x, torch.sinh(drawn.z), rtol=1e-14, atol=0)
    x = drawn.x
    expected = -0.5 * torch.asinh(x).square().sum(1) - 1.5 * math.log(2 * math.pi) - 0.5 * torch.log1p(x * x).sum(1)
    torch.testing.assert_close(flow.logQ(x), expected, rtol=1e-12, atol=1e-12)
    assert isinstance(flow.getTransform().getObject(), Sinh)


def testGradientsPassThroughPythonTransforms():
    transform = of.Sequence([of.Scaling([0.1, 0.2], [0.5, 2.0]), of.PythonTransform(Sinh(), 2)])
    z = torch.tensor([[0.3, -0.2], [1.0, 0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: tuple(transform.forward(z)), z)
    assert torch.autograd.gradcheck(lambda z: tuple(transform.inverse(z)), z)


def testLogQWithGradientPassesThroughPythonTransforms():
    flow = of.Flow(of.GaussianPrior(2), of.Sequence([of.Scaling([0.1, 0.2], [0.5, 2.0]), of.PythonTransform(Sinh(), 2)]))
    x = torch.tensor([[0.3, -0.2], [1.0, 0.4]], dtype=torch.float64)
    logQ, gradient = flow.logQWithGradient(x)
    x.requires_grad_()
    expected = flow.logQ(x)
    torch.testing.assert_close(logQ, expected.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), x)[0], rtol=1e-13, atol=1e-13)


def testTheTrainerTrainsTheParametersOfAModule():
    module = Stretch(2)
    flow = of.Flow(of.GaussianPrior(2), of.TorchFlowAdapter(module).transform(2, constantLogDet=True))
    assert list(flow.getParameters()) == ["map.s"] and flow.getTransform().isConstantLogDet()
    sigma = torch.tensor([0.5, 3.0], dtype=torch.float64)
    x = sigma * torch.randn((5000, 2), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    trainer = of.Trainer(flow, of.TrainerOptions(iterations=500, learningRate=0.02, warmup=10, seed=1))
    loss = of.MaximumLikelihoodLoss(flow, of.MaximumLikelihoodLossOptions(batchSize=1000, validationFraction=0.0))
    loss.addData(x)
    trainer.addLoss(loss)
    trainer.train(500)
    best = x.square().mean(0).sqrt()  # of the likelihood; batches of the data scatter around it
    torch.testing.assert_close(module.s.detach().exp().double(), best, rtol=5 / math.sqrt(2 * 1000), atol=0)


@pytest.mark.parametrize("result, message", [
    (ValueError("no such thing"), r"PythonTransform::forward: the Python object raised ValueError: no such thing"),
    (lambda z: z, r"result is Tensor, but must be a tuple \(value, logDet\)"),
    (lambda z: (z.numpy(), z.sum(1)), r"type of value is numpy.ndarray, but must be torch.Tensor"),
    (lambda z: (z[:, :1], z.sum(1)), r"shape of value is \[2, 1\], but must be \[batch, 3\]"),
    (lambda z: (z, z), r"shape of logDet is \[2, 3\], but must be \[batch\]"),
])
def testWhatGoesWrongIsAnOpenMMException(result, message):
    with pytest.raises(mm.OpenMMException, match=message):
        of.PythonTransform(Failing(result), 3).forward(torch.zeros((2, 3)))


def testArgumentsAreCheckedBeforePythonSeesThem():
    with pytest.raises(mm.OpenMMException, match=r"shape of the argument is \[2, 2\], but must be \[batch, 3\]"):
        of.PythonTransform(Sinh(), 3).forward(torch.zeros((2, 2)))
    with pytest.raises(mm.OpenMMException, match="inputSize is 0"):
        of.PythonTransform(Sinh(), 0)
    with pytest.raises(mm.OpenMMException, match="must be one with the methods forward and inverse"):
        of.PythonTransform(object(), 3)


def testCtrlCIsPassedOn():
    transform = of.PythonTransform(Failing(KeyboardInterrupt()), 3)
    with pytest.raises(KeyboardInterrupt):
        try:
            transform.forward(torch.zeros((2, 3)))
        except mm.OpenMMException:
            for _ in range(1000):
                pass


def testPythonTransformsCannotBeSaved(tmp_path):
    flow = of.Flow(of.GaussianPrior(3), of.PythonTransform(Sinh(), 3), [0])
    for save in (lambda: flow.save(tmp_path / "file"), flow.clone, lambda: pickle.dumps(flow),
                 lambda: mm.XmlSerializer.serialize(of.FlowForce(flow, 300))):
        with pytest.raises(mm.OpenMMException, match="can't be saved or copied"):
            save()
    assert not list(tmp_path.iterdir())


def testAdaptersCastToTheTypeOfTheParameters():
    adapter = of.TorchFlowAdapter(Stretch(2))
    value, logDet = adapter.forward(torch.ones((3, 2), dtype=torch.float64))
    assert value.dtype == logDet.dtype == torch.float64
    assert of.TorchFlowAdapter(Sinh()).forward(torch.ones((3, 2), dtype=torch.float64))[0].dtype == torch.float64


def makeZuko(size):
    zuko = pytest.importorskip("zuko", reason="zuko is not installed")
    torch.manual_seed(1)
    return zuko.flows.NSF(size, transforms=2, hidden_features=[16]).double()


def makeNflows(size):
    pytest.importorskip("nflows", reason="nflows is not installed")
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform, ReversePermutation
    from nflows.transforms import MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Spline
    torch.manual_seed(1)
    layers = [Spline(size, 16, num_bins=8, tails="linear", tail_bound=4), ReversePermutation(size),
              Spline(size, 16, num_bins=8, tails="linear", tail_bound=4)]
    return Flow(CompositeTransform(layers), StandardNormal([size])).double()


def makeNormflows(size):
    normflows = pytest.importorskip("normflows", reason="normflows is not installed")
    torch.manual_seed(1)
    Spline = normflows.flows.CoupledRationalQuadraticSpline
    layers = [Spline(size, 1, 16, tail_bound=4), normflows.flows.Permute(size, mode="swap"), Spline(size, 1, 16, tail_bound=4)]
    return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(size, trainable=False), layers).double()


LIBRARIES = [(makeZuko, of.fromZuko, lambda flow, x: flow().log_prob(x)),
             (makeNflows, of.fromNflows, lambda flow, x: flow.log_prob(x)),
             (makeNormflows, of.fromNormflows, lambda flow, x: flow.log_prob(x))]


@pytest.mark.parametrize("make, adapt, logProb", LIBRARIES, ids=["zuko", "nflows", "normflows"])
def testFlowsOfOtherLibrariesHaveTheirOwnDensity(make, adapt, logProb):
    other = make(4)
    flow = adapt(other)
    drawn = flow.sample(200, of.Random(3))
    torch.testing.assert_close(drawn.logQ, logProb(other, drawn.x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(flow.logQ(drawn.x), drawn.logQ, rtol=1e-6, atol=1e-6)
    assert sum(t.numel() for t in flow.getParameters().values()) == sum(p.numel() for p in other.parameters())


@pytest.mark.parametrize("make, adapt, logProb", LIBRARIES, ids=["zuko", "nflows", "normflows"])
def testFlowsOfOtherLibrariesTrain(make, adapt, logProb):
    other = make(4)
    flow = adapt(other)
    x = 0.5 * torch.randn((2000, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before = float(-logProb(other, x).mean().detach())
    loss = of.MaximumLikelihoodLoss(flow, of.MaximumLikelihoodLossOptions(batchSize=200))
    loss.addData(x)
    trainer = of.Trainer(flow, of.TrainerOptions(iterations=100, learningRate=5e-3, warmup=5, seed=1))
    trainer.addLoss(loss)
    trainer.train(100)
    after = float(-logProb(other, x).mean().detach())
    best = 4 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.5))
    assert after - best < 0.2 * (before - best)


class WithoutLogDet:
    """A map that forgets its volume element."""

    def __init__(self, transform):
        self.transform = transform

    def forward(self, z):
        return self.transform.forward(z).value, torch.zeros(len(z), dtype=torch.float64)

    def inverse(self, x):
        return self.transform.inverse(x).value, torch.zeros(len(x), dtype=torch.float64)


def deviationAfterJumps(flow, well, kind, count=20_000):
    """Walkers that start from exact samples of the target still are its samples after some jumps, or the kernel is wrong: the
    largest deviation of moments of x and y, and of the population of the left well, in standard errors."""
    jump = of.LatentJump(flow, well.createPotential(), of.LatentJumpOptions(kind=kind, stepSize=0.7, seed=8))
    state = jump.start(well.sample(count, of.Random(4)))
    accepted = sum(jump.step(state).numAccepted for _ in range(3))
    assert accepted > 0.2 * count  # one that stands still would pass
    truth = well.getTruth()
    grid = np.linspace(-6, 6, 100_001)
    p = np.exp(-(grid**4 / 4 - 1.5 * grid**2 + 0.2 * grid))
    x, y = state.x.T.numpy()
    found = [(x**k, grid**k @ p / p.sum(), grid**(2 * k) @ p / p.sum()) for k in range(1, 5)]
    found += [(y, 0, 1), (y**2, 1, 3), (x < truth.barrier, truth.probabilityLeft, truth.probabilityLeft)]
    return max(abs(values.mean() - mean) / math.sqrt((square - mean**2) / count) for values, mean, square in found)


@pytest.mark.parametrize("make, adapt, logProb", LIBRARIES, ids=["zuko", "nflows", "normflows"])
def testFlowsOfOtherLibrariesLeaveTheTargetInvariant(make, adapt, logProb):
    well = testsystems.DoubleWell(testsystems.DoubleWellOptions(a=1, b=3, c=0.2, d=1))
    flow = adapt(make(2), after=[of.Scaling([0.0, 0.0], [2.0, 1.2])])
    loss = of.MaximumLikelihoodLoss(flow, of.MaximumLikelihoodLossOptions(batchSize=200))
    loss.addData(well.sample(5000, of.Random(2)))
    trainer = of.Trainer(flow, of.TrainerOptions(iterations=100, learningRate=1e-2, warmup=5, seed=1))
    trainer.addLoss(loss)
    trainer.train(100)
    for kind in (of.JumpKind.Independence, of.JumpKind.PriorPreserving, of.JumpKind.RandomWalk):
        assert deviationAfterJumps(flow, well, kind) < 4
    wrong = of.Flow(of.GaussianPrior(2), of.PythonTransform(WithoutLogDet(flow.getTransform()), 2))
    assert deviationAfterJumps(wrong, well, of.JumpKind.Independence) > 6


def testOtherBasesAreRefused():
    zuko = pytest.importorskip("zuko", reason="zuko is not installed")
    flow = zuko.flows.NCSF(3, transforms=1)  # of circular variables: its base is uniform
    with pytest.raises(ValueError, match="standard normal"):
        of.fromZuko(flow)


def testAFlowOfAnotherLibraryDrivesJumpsAndForces():
    """Its density over a molecule's internal coordinates is the energy, so that it accepts nearly every jump."""
    other = makeZuko(3)
    system = mm.System()
    for _ in range(3):
        system.addParticle(12.0)
    bonds = mm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.1, 1e4)
    bonds.addBond(1, 2, 0.1, 1e4)
    positions = [mm.Vec3(0.1, 0, 0), mm.Vec3(0, 0, 0), mm.Vec3(-0.05, 0.08, 0)]
    system.addForce(bonds)
    chart = of.InternalCoordinates.fromSystem(system, [0, 1, 2], positions)
    system.removeForce(0)
    flow = of.fromZuko(other, after=[of.Scaling([0.1, 0.1, 1.8], [0.002, 0.002, 0.05]), chart], atoms=[0, 1, 2],
                       temperature=300)
    system.addForce(of.FlowForce(flow, 300 * unit.kelvin))
    integrator = of.FlowLangevinIntegrator(300, 1, 0.0005, flow)
    integrator.setJumpInterval(5)
    integrator.setTrialsPerJump(4)
    integrator.setProposalPreparation(of.ProposalPreparation.Ahead)  # which a thread without Python can't do for this flow
    integrator.setRecordTrials(True)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    with torch.no_grad():
        start = flow.place(flow.sample(1, of.Random(5)).x, np.array(positions).reshape(1, -1)).reshape(3, 3)
    context.setPositions(start.numpy())
    integrator.step(50)
    statistics = integrator.getJumpStatistics()
    assert statistics.preparedProposals == 0
    assert statistics.trials == 40 and statistics.accepted == 40  # -log q is the target: logAlpha is rounding
    assert max(abs(record.logAlpha) for record in integrator.getJumpRecords()) < 1e-6
