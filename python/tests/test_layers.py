# SPDX-License-Identifier: MIT
"""Every layer from Python: made with its options, run both ways, saved and loaded as what it is."""

import openmmflow as of
import pytest
import torch


def conditioner():
    return of.ConditionerOptions(hiddenSizes=[6], seed=3)


def makeLayers():
    smooth = of.SmoothCouplingOptions(components=3, conditioner=conditioner())
    spline = of.MaskedAutoregressiveOptions(map=of.AutoregressiveMap.Spline, bins=4, conditioner=conditioner())
    return [
        of.AdditiveCoupling(4, [0, 1], conditioner()),
        of.AdditiveCoupling(4, [0, 1], conditioner(), odd=True),
        of.AffineCoupling(4, [0, 1], conditioner(), scaleBound=2.0, odd=True),
        of.LearnedScaling(4),
        of.ExpScaling(4),
        of.SmoothCoupling(4, [0, 1], [1, 2], smooth),
        of.MaskedAutoregressive(4, [], of.MaskedAutoregressiveOptions(conditioner=conditioner())),
        of.MaskedAutoregressive(4, [1, 2], spline),
        of.makeNICER(4, of.NICEROptions(layers=2, scaling=of.ScalingLayer.Exponential, odd=True, conditioner=conditioner())),
        of.makeRealNVP(4, 2, of.RealNVPOptions(scaleBound=2.0, conditioner=conditioner())),
    ]


def gradientByAutograd(flow, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(flow.logQ(x).sum(), x)[0]


def testLogQWithGradientIsThatOfLogQForEveryLayer():
    x = torch.randn((3, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for layer in makeLayers():
        flow = of.Flow(of.GaussianPrior(4), layer)
        flow.setParameterType(torch.float64)
        with torch.no_grad():
            for parameter in flow.getParameters().values():
                parameter.add_(0.1 * torch.arange(parameter.numel()).reshape(parameter.shape).cos())
        logQ, gradient = flow.logQWithGradient(x)
        assert not logQ.requires_grad and not gradient.requires_grad
        torch.testing.assert_close(logQ, flow.logQ(x).detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient, gradientByAutograd(flow, x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("index", range(10))
def testLayersRunBothWaysAndAreSavedAsWhatTheyAre(index):
    layer = makeLayers()[index]
    flow = of.Flow(of.GaussianPrior(4), layer)
    generator = torch.Generator().manual_seed(1)
    for tensor in flow.getParameters().values():
        tensor.data += 0.1 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
    z = torch.tensor([[0.5, -1.0, 2.0, 0.1], [-0.3, 0.7, -2.0, 1.1]], dtype=torch.float64)
    x, logDet = layer.forward(z)
    back, minusLogDet = layer.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(minusLogDet, -logDet, rtol=0, atol=1e-9)
    copy = of.Flow.deserialize(flow.serialize())
    assert type(copy.getTransform()) is type(layer)
    assert torch.equal(copy.getTransform().forward(z).value, x)


def testNICERHasAConstantLogDetByDefaultOfTenLayers():
    flow = of.makeNICER(5)
    assert flow.isConstantLogDet() and len(flow.getTransforms()) == 21
    assert not of.makeRealNVP(5, 1).isConstantLogDet()
    assert of.NICEROptions().conditioner.hiddenSizes == [100]
