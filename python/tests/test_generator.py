# SPDX-License-Identifier: MIT
from pathlib import Path

import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import torch
from openmm import app, unit
from openmmflow.data import TrainingData, temperedData
from openmmflow.generator import BoltzmannGenerator, buildCouplings
from safetensors import safe_open

PDB = Path(__file__).parents[2] / "examples" / "alanine-dipeptide.pdb"


@pytest.fixture(scope="module")
def dipeptide():
    pdb = app.PDBFile(str(PDB))
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff,
                                                            constraints=None)
    return pdb.topology, system, pdb.positions


@pytest.fixture(scope="module")
def data(dipeptide):
    _, system, positions = dipeptide
    return temperedData(system, positions, [300, 450, 700], framesPerTemperature=2000, stepsPerFrame=50, seed=5,
                        platform="Reference", progress=False)


def makeGenerator(dipeptide, data, **options):
    topology, system, positions = dipeptide
    settings = {"layers": 4, "hiddenSizes": [32], "seed": 3, "platform": "Reference"} | options
    return BoltzmannGenerator.fromTopology(topology, system, positions, 300 * unit.kelvin, data=data, **settings)


@pytest.fixture(scope="module")
def trained(dipeptide, data):
    generator = makeGenerator(dipeptide, data)
    history = generator.fit(data, iterations=300, batchSize=128, seed=1, progress=False)
    return generator, history


@pytest.mark.parametrize("layers", [2, 4, 8])
def testEveryVariableIsActiveEquallyOften(layers):
    transforms, prior = buildCouplings(11, [2, 7, 8], layers, 4, 5.0, [8], np.random.default_rng(1))
    couplings = [transform for transform in transforms if isinstance(transform, of.SplineCoupling)]
    assert len(couplings) == layers and prior.getSize() == 11
    z = torch.zeros((1, 11), dtype=torch.float64)
    active, random = np.zeros(11), torch.Generator().manual_seed(1)
    for coupling in couplings:
        for name, tensor in dict(coupling.getParameters()).items():
            tensor.data.normal_(generator=random)  # no longer the identity
        active += (coupling.forward(z).value[0].detach().numpy() != 0)
    np.testing.assert_array_equal(active, np.full(11, layers / 2))


def testLatentVariablesReachTheCoordinatesTheyBelongTo():
    circular = [0, 3, 4]
    transforms, prior = buildCouplings(6, circular, 2, 4, 5.0, [8], np.random.default_rng(1))
    z = torch.arange(6, dtype=torch.float64)[None] / 10
    x = of.Sequence(transforms).forward(z).value[0]
    latent = [prior.getCircularIndices()[0] - 3 + k for k in range(6)]
    assert latent == list(range(6))  # open variables first
    torch.testing.assert_close(x[[1, 2, 5, 0, 3, 4]], z[0])


def testAnUntrainedFlowHasTheMomentsOfTheData(dipeptide, data):
    generator = makeGenerator(dipeptide, data)
    chart = list(generator.flow.getTransform().getTransforms())[-1]
    x = torch.as_tensor(generator.sample(4000, seed=2)).reshape(4000, -1)
    drawn = chart.inverse(x).value.numpy()
    reference = chart.inverse(torch.as_tensor(data.positions, dtype=torch.float64).reshape(len(data.positions), -1))
    weights = np.exp(data.logWeights)
    bonds = slice(0, chart.getNumBonds())  # angles and offsets lose the samples outside their domain
    mean = weights @ reference.value.numpy()[:, bonds]
    scale = np.sqrt(weights @ (reference.value.numpy()[:, bonds] - mean)**2)
    assert np.all(np.abs(drawn[:, bonds].mean(axis=0) - mean) < 5 * scale / np.sqrt(4000))
    assert np.all(np.abs(drawn[:, bonds].std(axis=0) / scale - 1) < 5 / np.sqrt(8000))


def testTheSameSeedBuildsTheSameFlow(dipeptide, data):
    first, second, other = (makeGenerator(dipeptide, data, seed=seed).flow.serialize() for seed in (3, 3, 4))
    assert first == second and first != other


def testTrainingLowersTheLossAndRaisesTheAcceptance(dipeptide, data, trained):
    generator, history = trained
    assert history.validation[-1] < history.validation[0] - 4  # nats, of frames that were held out
    assert history.getOverfitting() < 0.5
    assert history.iterations[-1] == 300 and len(history.validation) == len(history.validationIterations)
    before = makeGenerator(dipeptide, data).evaluate(10_000, seed=1, progress=False)
    after = generator.evaluate(10_000, seed=1, progress=False)
    assert after.acceptance.value > 20 * (before.acceptance.value + 4 * before.acceptance.standardError)
    assert after.energyEvaluations == 10_000 and after.positions.shape == (10_000, 22, 3)


def testTrainingResumesExactly(dipeptide, data, tmp_path, monkeypatch):
    settings = {"iterations": 60, "batchSize": 32, "seed": 9, "progress": False}
    whole = makeGenerator(dipeptide, data)
    whole.fit(data, **settings)
    calls, original = [], of.Trainer.train

    def interrupt(self, count):
        if len(calls) == 25:
            raise KeyboardInterrupt
        calls.append(count)
        return original(self, count)

    part = makeGenerator(dipeptide, data)
    monkeypatch.setattr(of.Trainer, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        part.fit(data, file=tmp_path / "checkpoint", **settings)
    monkeypatch.setattr(of.Trainer, "train", original)
    resumed = makeGenerator(dipeptide, data)
    history = resumed.fit(data, file=tmp_path / "checkpoint", **settings)
    assert resumed.flow.serialize() == whole.flow.serialize()
    assert history.iterations == list(range(1, 61)) and len(history.losses["likelihood"]) == 60


def testTrainingWithoutDataIsOnTheEnergyAlone(dipeptide, data):
    generator = makeGenerator(dipeptide, data)
    history = generator.fit(None, iterations=5, batchSize=16, progress=False)
    assert list(history.losses) == ["path gradient"] and history.validation == []


def testSamplesKeepTheFrameOfTheReference(dipeptide, trained):
    generator, _ = trained
    positions = np.array(dipeptide[2].value_in_unit(unit.nanometer))
    frame = list(list(generator.flow.getTransform().getTransforms())[-1].getFrame())
    x = generator.sample(10, seed=1)
    np.testing.assert_allclose(x[:, frame[0]], np.repeat(positions[None, frame[0]], 10, axis=0), atol=1e-12)
    direction = x[:, frame[1]] - x[:, frame[0]]
    expected = positions[frame[1]] - positions[frame[0]]
    np.testing.assert_allclose(np.cross(direction, expected), 0, atol=1e-12)


def testLogWeightsAreMinusUMinusLogQ(dipeptide, trained):
    generator, _ = trained
    _, system, positions = dipeptide
    x = np.array(positions.value_in_unit(unit.nanometer))
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(x)
    energy = context.getState(energy=True).getPotentialEnergy()
    u = energy / (unit.MOLAR_GAS_CONSTANT_R * 300 * unit.kelvin)
    with torch.no_grad():  # as logWeights does: with a graph, networks in float32 round in another order
        logQ = generator.flow.logQ(torch.as_tensor(x).reshape(1, -1))[0].item()
    assert generator.logWeights(x[None])[0] == pytest.approx(-u - logQ, abs=1e-6)


def testFreeEnergyByBarAgreesWithReweighting(trained, data):
    generator, _ = trained
    left, right = generator.state([4, 6, 8, 14], -180, -105), generator.state([4, 6, 8, 14], -105, -30)
    evaluation = generator.evaluate(20_000, {"left": left, "right": right}, seed=4, progress=False)
    bar = generator.freeEnergy(left, right, data.atTemperature(), evaluation=evaluation)
    a, b = evaluation.populations["left"], evaluation.populations["right"]
    direct = -np.log(b.value / a.value)
    error = np.hypot(a.standardError / a.value, b.standardError / b.value)  # more than that of the ratio
    assert abs(bar.value - direct) < 4 * np.hypot(error, bar.standardError)
    assert 0 < bar.standardError < 0.5 and min(bar.legA.overlap, bar.legB.overlap) > 0.03
    with pytest.raises(ValueError, match="0 frames are in state B"):
        generator.freeEnergy(left, generator.state([4, 6, 8, 14], 100, 101), data.atTemperature(),
                             evaluation=evaluation)


def testTheIntegratorHasTheGeneratorsSettings(trained):
    generator, _ = trained
    integrator = generator.integrator(1 / unit.picosecond, 2 * unit.femtosecond, jumpInterval=50, trialsPerJump=4,
                                      seed=7)
    assert integrator.getTemperature().value_in_unit(unit.kelvin) == 300
    assert integrator.getStepSize().value_in_unit(unit.picosecond) == pytest.approx(0.002)
    assert (integrator.getJumpInterval(), integrator.getTrialsPerJump()) == (50, 4)
    assert integrator.getJumpRandomNumberSeed() == 7


def testASavedFlowOpensInSafetensorsAndReadsBack(dipeptide, trained, tmp_path):
    generator, _ = trained
    file = tmp_path / "flow.safetensors"
    generator.save(file)
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["format"] == "openmm-flow"
        count = sum(opened.get_tensor(name).numel() for name in opened.keys())
    assert count == sum(tensor.numel() for tensor in dict(generator.flow.getParameters()).values())
    again = BoltzmannGenerator(file, dipeptide[1], dipeptide[2])
    assert again.temperature == 300
    np.testing.assert_array_equal(again.sample(5, seed=1), generator.sample(5, seed=1))


def testWrongArgumentsAreNamed(dipeptide, data):
    with pytest.raises(ValueError, match="layers is 1, but must be at least 2"):
        makeGenerator(dipeptide, data, layers=1)
    with pytest.raises(ValueError, match="other atoms"):
        makeGenerator(dipeptide, data, atoms=list(range(21)))
    mirrored = TrainingData(**vars(data) | {"positions": data.positions * np.array([1, 1, -1], dtype=np.float32)})
    with pytest.raises(ValueError, match="stereoisomer"):
        makeGenerator(dipeptide, mirrored)
    generator = makeGenerator(dipeptide, data)
    with pytest.raises(ValueError, match=r"particles \[40\] of a torsion"):
        generator.state([4, 6, 8, 40], 0, 180)
    with pytest.raises(ValueError, match="number of particles of a torsion is 3, but must be 4"):
        generator.state([4, 6, 8], 0, 180)
    topology, system, positions = dipeptide
    rigid = app.ForceField("amber14-all.xml").createSystem(topology, constraints=app.HBonds)
    with pytest.raises(mm.OpenMMException, match="BoltzmannGenerator: the constraint between moved particles .* is free in the flow"):
        BoltzmannGenerator(generator.flow, rigid, positions)
    with pytest.raises(mm.OpenMMException, match="not constrained in the System"):
        BoltzmannGenerator(BoltzmannGenerator.fromSystem(rigid, positions, 300, layers=2, hiddenSizes=[8]).flow, system, positions)
    with pytest.raises(ValueError, match=r"shape of positions is \(21, 3\), but must be \(22, 3\)"):
        BoltzmannGenerator(generator.flow, system, positions[:21])
    with pytest.raises(ValueError, match="file is here, but must be none"):
        generator.fitAdaptively(data, 1, 0.001, file="here")


def testFramesMayHaveUnitsOrBeTrainingData(dipeptide, data, trained):
    generator, _ = trained
    frames = data.atTemperature()[:200]
    expected = generator.logWeights(frames)
    for given in (frames * unit.nanometer, 10 * frames * unit.angstrom, torch.tensor(frames)):
        np.testing.assert_allclose(generator.logWeights(given), expected, rtol=0, atol=1e-9)
    own = TrainingData.fromFrames(10 * frames * unit.angstrom, 300 * unit.kelvin)
    assert own.atoms == generator.atoms and own.temperature == 300 and own.atTemperature().shape == (200, 22, 3)
    assert own.getEffectiveSize() == pytest.approx(200)
    evaluation = generator.evaluate(2000, seed=4, progress=False)
    assert generator.absoluteFreeEnergy(own, evaluation=evaluation).value == pytest.approx(
        generator.absoluteFreeEnergy(frames, evaluation=evaluation).value, abs=1e-3)
    left = generator.state([4, 6, 8, 14], -180 * unit.degree, -105 * unit.degree)
    assert left == generator.state([4, 6, 8, 14], -180, -105)
    # Frames without energies: the energy's cut is the loss's own.
    makeGenerator(dipeptide, data).fit(own, iterations=2, energyWeight=0.5, batchSize=16, seed=1, progress=False)
    with pytest.raises(ValueError, match=r"shape of positions is \(22, 3\)"):
        TrainingData.fromFrames(frames[0], 300)
    with pytest.raises(ValueError, match="number of atoms is 3, but must be that of the positions, 22"):
        TrainingData.fromFrames(frames, 300, [0, 1, 2])


def testTheCallbackSeesTheHistoryAndMayEndTheTraining(dipeptide, data):
    seen = []

    def stopAtFifty(history):
        seen.append((history.iterations[-1], history.losses["likelihood"][-1]))
        if history.iterations[-1] == 50:
            raise StopIteration

    with pytest.raises(StopIteration):
        makeGenerator(dipeptide, data).fit(data, iterations=100, batchSize=32, seed=1, progress=False,
                                           callback=stopAtFifty)
    assert [iteration for iteration, _ in seen] == list(range(1, 51))
    assert np.isfinite([loss for _, loss in seen]).all()
