# SPDX-License-Identifier: MIT
"""What crosses between Python and C++: tensors, lists, units, errors, copies, ownership."""

import copy
import gc
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import torch
from openmm import unit
from openmmflow import _build, _version_check


def makeFlow(seed=1, size=4, atoms=()):
    options = of.ConditionerOptions(hiddenSizes=[8], seed=seed)
    couplings = [of.AffineCoupling(size, [0, 1], options), of.AffineCoupling(size, [2, 3], options)]
    flow = of.Flow(of.GaussianPrior(size), of.Sequence([*couplings, of.Scaling([1.0] * size, [0.5] * size)]), atoms)
    for tensor in flow.getParameters().values():
        tensor.data += 0.1 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=tensor.dtype)
    return flow


def makeFlowOfAtoms():
    return makeFlow(size=6, atoms=[0, 1])


def makeChain(numAtoms=4):
    """A bonded chain with springs to fixed points: (System, positions in nm)."""
    system, bonds, tether = mm.System(), mm.HarmonicBondForce(), mm.CustomExternalForce("50*((x-x0)^2+y^2+z^2)")
    tether.addPerParticleParameter("x0")
    positions = [mm.Vec3(0.1 * i, 0.05 * (i % 2), 0.03 * (i % 3)) for i in range(numAtoms)]
    for i in range(numAtoms):
        system.addParticle(10)
        tether.addParticle(i, [0.1 * i])
        if i:
            bonds.addBond(i - 1, i, 0.12, 1e4)
    system.addForce(bonds)
    system.addForce(tether)
    return system, positions


# Tensors

@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy(), lambda x: x.tolist(), lambda x: x.float(),
                                     lambda x: x.numpy().astype(np.float32), lambda x: tuple(map(tuple, x.tolist())),
                                     lambda x: np.asfortranarray(x.numpy()), lambda x: x.flip(0).numpy()[::-1]])
def testArgumentsMayBeTensorsArraysAndLists(convert):
    prior, z = of.GaussianPrior(3, 2.0), torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], dtype=torch.float64)
    expected = -0.5 * (z / 2).square().sum(1) - 3 * math.log(2 * math.sqrt(2 * math.pi))
    logDensity = prior.logDensity(convert(z))
    assert logDensity.dtype == torch.float64
    torch.testing.assert_close(logDensity, expected, rtol=1e-14, atol=1e-14)


def testTensorsAndArraysAreNotCopied():
    x = torch.zeros((2, 4), dtype=torch.float64)
    assert of.Sequence([of.Permutation([0, 1, 2, 3])]).place(x, x).data_ptr() == x.data_ptr()
    array = np.zeros((2, 4))
    placed = of.Permutation([0, 1, 2, 3]).place(array, array)
    placed[0, 0] = 7.0
    assert array[0, 0] == 7.0


def testArraysThatCannotBeWrittenAreTakenWithoutAWarning(recwarn):
    array = np.broadcast_to(np.zeros(3), (2, 3))
    assert of.GaussianPrior(3).logDensity(array).shape == (2,)
    assert not recwarn.list


@pytest.mark.parametrize("wrong, message", [(None, "not None"), ("text", "could not convert"), ([[1, 2], [3]], "inhomogeneous")])
def testArgumentsThatAreNotNumbersAreRefused(wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        of.GaussianPrior(2).logDensity(wrong)


def testGradientsPassThroughFlowsInBothDirections():
    flow = makeFlow()
    flow.setParameterType(torch.float64)
    parameters = list(flow.getParameters().values())
    z = torch.randn((3, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: tuple(flow.getTransform().forward(z)), z)
    assert torch.autograd.gradcheck(flow.logQ, z)
    flow.logQ(z).sum().backward()
    assert all(parameter.grad is not None for parameter in parameters)
    assert all(tensor.grad is not None for tensor in flow.getParameters().values())  # the grad belongs to the tensor


def testATrainingLoopInPythonLearnsAShiftedGaussian():
    flow = makeFlow(seed=3)
    flow.setParameterType(torch.float64)
    random = torch.Generator().manual_seed(4)
    mean, sigma = torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.tensor([0.3, 1.2, 0.7, 0.4])
    draw = lambda n: (mean + sigma * torch.randn((n, 4), generator=random)).double()  # noqa: E731
    optimizer = torch.optim.Adam(flow.getParameters().values(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        loss = -flow.logQ(draw(256)).mean()
        loss.backward()
        optimizer.step()
    entropy = 4 * 0.5 * math.log(2 * math.pi * math.e) + float(sigma.log().sum())  # the least a loss can be
    with torch.no_grad():
        losses = -flow.logQ(draw(20000))
    excess = float(losses.mean()) - entropy
    assert -4 * float(losses.std()) / math.sqrt(20000) < excess < 0.1


def testParametersAreHandlesInAFixedOrder():
    flow = makeFlow()
    names = list(flow.getParameters())
    assert names == list(flow.getParameters()) and len(names) == 8
    flow.getParameters()[names[0]].data.fill_(0.25)
    assert torch.all(flow.getParameters()[names[0]] == 0.25)


def testSettingTheTypeOfParametersTakesATorchDtype():
    flow = makeFlow()
    assert {t.dtype for t in flow.getParameters().values()} == {torch.float32}
    flow.setParameterType(torch.float64)
    assert {t.dtype for t in flow.getParameters().values()} == {torch.float64}
    with pytest.raises((TypeError, RuntimeError)):
        flow.setParameterType("float64")


def testResultsUnpack():
    value, logDet = of.Scaling([1, 2], [3, 4]).forward([[1.0, 1.0]])
    assert value.tolist() == [[4.0, 6.0]] and logDet.tolist() == pytest.approx([math.log(12)])


def testSplinesKeepTheTypesOfTheirParameters():
    x = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    raw = torch.zeros((1, 2 * of.RationalQuadraticSpline.countParameters(4)), dtype=torch.float32)
    result = of.RationalQuadraticSpline.apply(x, raw, torch.tensor([False, True]), 4, 5.0, False)
    torch.testing.assert_close(result.value, x, rtol=0, atol=1e-6)


# Lists, dictionaries, enums, settings

def testListsOfIntegers():
    for order in ([2, 0, 1], (2, 0, 1), np.array([2, 0, 1]), np.array([2, 0, 1], dtype=np.uint8), torch.tensor([2, 0, 1])):
        assert of.Permutation(order).forward([[10.0, 20.0, 30.0]]).value.tolist() == [[30.0, 10.0, 20.0]]
    assert of.Permutation(range(3)).getInputSize() == 3
    with pytest.raises(TypeError, match="integers are needed"):
        of.Permutation([0.0, 1.0])
    with pytest.raises(ValueError, match="out of range"):
        of.Permutation([0, 2**40])


def testArchitecturesAreDictionaries():
    prior = of.Prior.create({"type": "ProductPrior", "factors": [{"type": "GaussianPrior", "size": 2, "sigma": 0.5},
                                                                 {"type": "UniformTorusPrior", "size": 1}]})
    assert isinstance(prior, of.ProductPrior)
    first, second = prior.getFactors()
    assert isinstance(first, of.GaussianPrior) and isinstance(second, of.UniformTorusPrior)
    assert of.Prior.create(prior.getArchitecture()).getSize() == 3
    chart = of.Transform.create(of.Scaling([1], [2]).getArchitecture())
    assert isinstance(chart, of.Scaling) and chart.getScale().tolist() == [2.0]


def testObjectsComeBackAsTheClassTheyAre():
    flow = makeFlow()
    assert type(flow.getPrior()) is of.GaussianPrior
    assert [type(t) for t in flow.getTransform().getTransforms()] == [of.AffineCoupling, of.AffineCoupling, of.Scaling]
    assert type(of.Flow(of.GaussianPrior(2), of.Inverse(of.Permutation([1, 0]))).getTransform()) is of.Inverse


def testEnumsAreIntEnums():
    integrator = of.FlowLangevinIntegrator(300, 1, 0.001, makeFlowOfAtoms())
    assert integrator.getJumpKind() is of.JumpKind.Independence
    integrator.setJumpKind(of.JumpKind_RandomWalk)
    assert integrator.getJumpKind() is of.JumpKind.RandomWalk
    integrator.setJumpKind(1)
    assert integrator.getJumpKind() == of.JumpKind.PriorPreserving == 1
    with pytest.raises(ValueError, match="7 is not a valid JumpKind"):
        integrator.setJumpKind(7)
    assert pickle.loads(pickle.dumps(of.JumpKind.RandomWalk)) is of.JumpKind.RandomWalk


def testOptionsTakeKeywordsAndRefuseUnknownOnes():
    options = of.TrainerOptions(iterations=7, learningRate=0.5)
    assert (options.iterations, options.learningRate, options.gradientClip) == (7, 0.5, 100.0)
    assert "iterations=7" in repr(options)
    with pytest.raises(AttributeError):
        options.learningrate = 1
    with pytest.raises(AttributeError):
        of.TrainerOptions(iteration=3)


def testOptionsWithinOptionsLiveAsLongAsTheyAreUsed():
    conditioner = of.SplineCouplingOptions().conditioner
    conditioner.hiddenSizes = [5, 6]
    gc.collect()
    _ = [of.SplineCouplingOptions() for _ in range(100)]
    assert conditioner.hiddenSizes == [5, 6]


# Units

def testQuantitiesAreTakenInTheirUnits():
    flow = makeFlowOfAtoms()
    integrator = of.FlowLangevinIntegrator(300 * unit.kelvin, 2 / unit.picosecond, 4 * unit.femtoseconds, flow)
    assert integrator.getTemperature() == 300 * unit.kelvin
    assert integrator.getFriction() == 2 / unit.picosecond
    assert integrator.getStepSize() == 0.004 * unit.picoseconds
    assert of.FlowForce(flow, 310 * unit.kelvin).getTemperature() == 310 * unit.kelvin
    flow.setTemperature(290 * unit.kelvin)
    assert flow.getTemperature() == 290


@pytest.mark.parametrize("convert", [lambda p: p, lambda p: p * unit.nanometer, lambda p: [10 * v for v in p] * unit.angstrom,
                                     lambda p: [v * unit.nanometer for v in p], lambda p: np.array(p),
                                     lambda p: unit.Quantity(np.array(p), unit.nanometer)])
def testPositionsMayHaveUnits(convert):
    system, positions = makeChain()
    chart = of.InternalCoordinates.fromSystem(system, list(range(4)), convert(positions))
    x = np.array(positions).reshape(1, -1)
    expected = of.InternalCoordinates.fromSystem(system, list(range(4)), positions).inverse(x)
    torch.testing.assert_close(chart.inverse(x).value, expected.value)
    options = of.ContextPotentialOptions(platform="Reference", numContexts=1, referencePositions=convert(positions))
    assert np.array(options.referencePositions) == pytest.approx(np.array(positions))


def testPositionsOfAWrongShapeAreRefused():
    system, positions = makeChain()
    with pytest.raises(TypeError, match="rows of 3"):
        of.InternalCoordinates.fromSystem(system, [0, 1, 2, 3], [v[:2] for v in positions])


def testKeywordsNameArguments():
    system, positions = makeChain()
    chart = of.InternalCoordinates.fromSystem(system=system, atoms=[0, 1, 2, 3], referencePositions=positions,
                                              extraBonds=[(0, 3)] if False else [])
    flow = of.Flow(prior=of.GaussianPrior(size=6, sigma=0.5), transform=chart, atoms=[0, 1, 2, 3])
    assert flow.getAtoms() == [0, 1, 2, 3] and flow.sample(count=2, random=of.Random(seed=1)).x.shape == (2, 12)


# Energies

@pytest.fixture
def potential():
    system, positions = makeChain()
    return of.ContextPotential(system, 300, of.ContextPotentialOptions(platform="Reference", numContexts=2))


def testEnergiesAreThoseOfOpenMMAndDifferentiable(potential):
    system, positions = makeChain()
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    kT = (unit.MOLAR_GAS_CONSTANT_R * 300 * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
    x = torch.tensor(np.array(positions) + 0.01 * np.random.default_rng(1).normal(size=(3, 4, 3)), requires_grad=True)
    u = potential(x)
    u.sum().backward()
    for sample, value, gradient in zip(x.detach().numpy(), u.detach().numpy(), x.grad.numpy()):
        context.setPositions(sample)
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        assert value == pytest.approx(energy / kT, rel=1e-9)
        np.testing.assert_allclose(gradient, -forces / kT, rtol=1e-9, atol=1e-9)
    result = potential.evaluate(x)
    assert result.gradient is None and not result.u.requires_grad
    assert potential.evaluate(x, gradient=of.Gradient.Compute).gradient.shape == (3, 12)


def testNonFiniteSamplesAreCounted(potential):
    x = np.array(makeChain()[1])[None].repeat(3, axis=0)
    x[1, 0, 0] = np.nan
    result = potential.evaluate(x)
    assert result.nonFinite == 1 and torch.isinf(result.u).tolist() == [False, True, False]
    assert potential.getCounts().nonFinite == 1


def testPropertiesOfThePotential(potential):
    assert potential.getTemperature() == 300 * unit.kelvin
    assert potential.getPlatformName() == "Reference" and potential.getNumContexts() == 2
    assert potential.getAtoms() == [0, 1, 2, 3] and potential.getParameters() == {}
    assert repr(potential) == "ContextPotential(4 atoms, 300.0 K, 2 Contexts on Reference)"


def testTheGilIsFreeWhileEnergiesAreEvaluated(potential, turnsOfOtherThread):
    x = np.array(makeChain()[1])[None].repeat(60000, axis=0)
    assert turnsOfOtherThread(lambda: potential.evaluate(x)) > 3  # the other thread would have stood still


# Errors

def testErrorsOfTheLibraryAreOpenMMExceptions():
    with pytest.raises(mm.OpenMMException, match=r"^GaussianPrior::GaussianPrior: size is 0, but must be at least 1$"):
        of.GaussianPrior(0)
    with pytest.raises(mm.OpenMMException, match="shape of z"):
        of.GaussianPrior(2).logDensity([[1.0, 2.0, 3.0]])


def testErrorsOfTorchHaveNoBacktrace():
    with pytest.raises((RuntimeError, mm.OpenMMException)) as info:
        of.RationalQuadraticSpline.applyReference(torch.zeros((1, 2), dtype=torch.float64), torch.zeros((1, 3)),
                                                  torch.tensor([False, False]), 4, 5.0, False)
    assert "frame #" not in str(info.value) and "libtorch" not in str(info.value)


def testMissingFilesAreNamed(tmp_path):
    with pytest.raises(mm.OpenMMException, match="none.flow"):
        of.Flow.load(tmp_path / "none.flow")


def testBytesAreNotText():
    with pytest.raises(TypeError, match="bytes"):
        of.Flow.deserialize("text")


@pytest.mark.parametrize("package", ["openmm", "torch"])
def testAnotherVersionIsRefusedWithTheRepair(package, monkeypatch):
    installed = getattr(_build, package)
    monkeypatch.setattr(_build, package, "1.2.3")
    with pytest.raises(ImportError) as info:
        _version_check.check()
    message = str(info.value)
    assert f"{package} is {_version_check.version(package)}, but" in message and "was built with 1.2" in message
    assert "pip install --no-build-isolation" in message and f"{package}==1.2.*" in message
    monkeypatch.setattr(_build, package, installed)
    _version_check.check()


def testAMissingPackageIsNamed(monkeypatch):
    def find(package):
        if package == "torch":
            raise _version_check.PackageNotFoundError(package)
        return _build.openmm

    monkeypatch.setattr(_version_check, "version", find)
    with pytest.raises(ImportError, match="^torch is not installed, but openmmflow"):
        _version_check.check()


def testTheSourcesAreNotThePackage():
    sources = Path(__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", "import openmmflow"], cwd=sources, capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": str(sources)})
    assert result.returncode == 1 and "holds the sources of openmmflow" in result.stderr
    assert "During handling" not in result.stderr


# Copies

def checkSameFlow(a, b):
    assert a is not b and a.getParameters().keys() == b.getParameters().keys()
    x = 0.3 * torch.randn((3, a.getSize()), generator=torch.Generator().manual_seed(6))
    assert torch.equal(a.logQ(x), b.logQ(x))
    pointers = {t.data_ptr() for t in a.getParameters().values()}
    assert pointers.isdisjoint(t.data_ptr() for t in b.getParameters().values())


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f)),
                                       lambda f: of.Flow.deserialize(f.serialize())])
def testFlowsAreCopied(duplicate):
    flow = makeFlow()
    flow.setTemperature(300)
    flow.setMetadata("name", "value")
    other = duplicate(flow)
    checkSameFlow(flow, other)
    assert other.getTemperature() == 300 and other.getMetadata() == {"name": "value"}


def testFlowsAreSavedToPaths(tmp_path):
    flow = makeFlow()
    flow.save(tmp_path / "flöw")
    checkSameFlow(flow, of.Flow.load(str(tmp_path / "flöw")))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f)),
                                       lambda f: mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(f)),
                                       mm.XmlSerializer.clone])
def testForcesAndIntegratorsAreCopied(duplicate):
    flow = makeFlowOfAtoms()
    force = of.FlowForce(flow, 310)
    force.setScaleParameter("lambda")
    force.setForceGroup(3)
    other = duplicate(force)
    assert type(other) is of.FlowForce and other.thisown and other.getForceGroup() == 3
    assert other.getScaleParameter() == "lambda" and other.getTemperature() == 310 * unit.kelvin
    checkSameFlow(flow, other.getFlow())
    integrator = of.FlowLangevinIntegrator(300, 2, 0.001, flow)
    integrator.setJumpInterval(17)
    integrator.setProposalPreparation(of.ProposalPreparation.Ahead)
    other = duplicate(integrator)
    assert other.getProposalPreparation() is of.ProposalPreparation.Ahead
    assert type(other) is of.FlowLangevinIntegrator and other.thisown and other.getJumpInterval() == 17
    assert other.getFriction() == 2 / unit.picosecond
    checkSameFlow(flow, other.getFlow())


def testForcesInSystemsAreRecognised():
    system = mm.System()
    system.addForce(mm.HarmonicBondForce())
    force = of.FlowForce(makeFlowOfAtoms(), 300)
    system.addForce(force)
    assert not force.thisown
    found = system.getForce(1)
    assert type(found) is of.FlowForce and not found.thisown
    assert type(system.getForces()[0]) is mm.HarmonicBondForce
    restored = mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(system))
    assert type(restored.getForce(1)) is of.FlowForce
    assert of.FlowForce.isinstance(found) and not of.FlowForce.isinstance(system.getForce(0))
    with pytest.raises(mm.OpenMMException, match="FlowForce::cast"):
        of.FlowForce.cast(system.getForce(0))
    nested = mm.CustomCVForce("q")
    nested.addCollectiveVariable("q", of.FlowForce(makeFlowOfAtoms(), 300))
    assert type(nested.getCollectiveVariable(0)) is of.FlowForce
    compound = mm.CompoundIntegrator()
    compound.addIntegrator(of.FlowLangevinIntegrator(300, 1, 0.001, makeFlowOfAtoms()))
    compound.addIntegrator(mm.LangevinMiddleIntegrator(300, 1, 0.001))
    assert type(compound.getIntegrator(0)) is of.FlowLangevinIntegrator
    assert type(compound.getIntegrator(1)) is mm.LangevinMiddleIntegrator


def testAForceIsOwnedOnce():
    force = of.FlowForce(makeFlowOfAtoms(), 300)
    system = mm.System()
    system.addForce(force)
    with pytest.raises(Exception, match="does not own"):
        mm.System().addForce(force)
    flow = system.getForce(0).getFlow()
    del system, force
    gc.collect()
    assert flow.getSize() == 6  # shared, so that it outlives the force


# Lifetime

def residentMegabytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


@pytest.mark.parametrize("make", [
    lambda: makeFlow(size=4).sample(100, of.Random(1)),
    lambda: of.FlowLangevinIntegrator(300, 1, 0.001, makeFlowOfAtoms()).getFlow().getTransform().getTransforms(),
    lambda: mm.XmlSerializer.clone(of.FlowForce(makeFlowOfAtoms(), 300)),
    lambda: pickle.loads(pickle.dumps(makeFlow())).getParameters(),
    lambda: of.GaussianPrior(50).logDensity(np.zeros((20, 50))).numpy(),
])
def testMemoryStaysFlat(make):
    sizes = []
    for _ in range(5):
        for _ in range(250):
            make()
        gc.collect()
        sizes.append(residentMegabytes())
    # 1000 leaked networks or samples would be several MB
    assert sizes[-1] - sizes[1] < 2.0, sizes


# Texts

def testReprsSayWhatAnObjectIs():
    flow = makeFlowOfAtoms()
    flow.setTemperature(300)
    assert repr(flow) == "Flow(6 -> 6, 2 atoms, 300 K, 152 parameters)"
    assert repr(of.GaussianPrior(3)) == "GaussianPrior(size=3)"
    assert repr(of.Sequence([of.Permutation([1, 0])])) == "Sequence([Permutation(size=2)])"
    assert repr(of.FlowForce(flow, 300)) == f"FlowForce({flow!r}, 300.0 K)"
    assert "Independence, jumpInterval=100, trialsPerJump=1" in repr(of.FlowLangevinIntegrator(300, 1, 0.001, flow))
    assert repr(of.zwanzig([1.0, 2.0])).startswith("FreeEnergyResult(deltaF=")


def testDocumentationComesFromTheHeaders():
    assert "normalizing flow" in of.Flow.__doc__
    assert "log q(x)" in of.Flow.logQ.__doc__
    assert "Kish" in of.effectiveSampleSize.__doc__


# Charts

def testChartsBesideInternalCoordinates():
    random = np.random.default_rng(4)
    reference = np.array([[0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0], [0.34, 0.15, 0.06]])
    frames = (reference + 0.01 * random.normal(size=(100, 4, 3))).reshape(100, 12)
    chart = of.EckartCoordinates(reference)
    y = chart.inverse(frames).value
    whitening = of.Whitening.fromData(y)
    flow = of.Flow(of.GaussianPrior(6), of.Sequence([whitening, chart]), atoms=range(4))
    read = of.Flow.deserialize(flow.serialize())
    np.testing.assert_array_equal(read.logQ(frames), flow.logQ(frames))
    np.testing.assert_allclose(whitening.inverse(y).value.std(0, correction=0), 1, rtol=1e-12)

    ordering = of.ParticleOrdering(reference, [[0, 2], [1, 3]])
    swapped = frames.reshape(100, 4, 3)[:, [2, 3, 0, 1]].reshape(100, 12)
    np.testing.assert_array_equal(ordering.inverse(swapped).value, frames)
    assert ordering.getGroups() == [[0, 2], [1, 3]]
    with pytest.raises(mm.OpenMMException, match="a particle of a group is 4"):
        of.ParticleOrdering(reference, [[0, 4]])
