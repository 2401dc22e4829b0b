# SPDX-License-Identifier: MIT
"""Free energy differences between Systems: a chain of four atoms, whose internal coordinates are independent, so that it can be
sampled and integrated exactly."""
import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import torch
from openmm import unit
from openmmflow import BoltzmannGenerator
from openmmflow.bridge import SystemBridge, freeEnergyBetweenSystems, freeEnergyThroughLatent
from openmmflow.data import R, TrainingData
from openmmflow.freeenergy import barEstimate

from test_freeenergy import SEEDS, expectCalibrated

T = 300.0
LENGTH, ANGLE = 0.15, 1.9
SMALL = {"layers": 2, "hiddenSizes": [8], "platform": "Reference", "numContexts": 1}


class Chain:
    """u = K_b (b - b0)^2/2, three of them, K_a (a - a0)^2/2, two, and a torsion's; all in kT."""

    def __init__(self, bond, length, angle, torsion):
        """bond, angle: 1/nm^2 and 1/rad^2; torsion: {periodicity: k}, of k cos(n phi)"""
        self.bond, self.length, self.angle, self.torsion = bond, length, angle, torsion

    def makeSystem(self, constraint=0.0, masses=(12.0, 12.0, 12.0, 12.0)):
        kT, system = R * T, mm.System()
        bonds, angles, torsions = mm.HarmonicBondForce(), mm.HarmonicAngleForce(), mm.PeriodicTorsionForce()
        for i, mass in enumerate(masses):
            system.addParticle(mass)
            if i == 3 and constraint:
                system.addConstraint(2, 3, constraint)
            elif i:
                bonds.addBond(i - 1, i, self.length, self.bond * kT)
            if i > 1:
                angles.addAngle(i - 2, i - 1, i, ANGLE, self.angle * kT)
        for n, k in self.torsion.items():
            torsions.addTorsion(0, 1, 2, 3, n, 0.0, k * kT)  # k (1 + cos(n phi))
        for force in (bonds, angles, torsions):
            system.addForce(force)
        return system

    def _weights(self):
        """(grid, density) of a bond, an angle and the torsion, with their volume elements."""
        b, a, p = np.linspace(0.05, 0.3, 20_001), np.linspace(0.2, 3.1, 20_001), np.linspace(-np.pi, np.pi, 20_001)
        return ((b, b**2 * np.exp(-0.5 * self.bond * (b - self.length)**2)), (a, np.sin(a) * np.exp(-0.5 * self.angle * (a - ANGLE)**2)),
                (p, np.exp(-sum(k * (1 + np.cos(n * p)) for n, k in self.torsion.items()))))

    def freeEnergy(self, numBonds=3):
        bond, angle, torsion = (np.log(np.trapezoid(y, x)) for x, y in self._weights())
        return -(numBonds * bond + 2 * angle + torsion)

    def sample(self, count, random, chart):
        """Independent frames, nm [count, 4, 3]."""
        draw = lambda x, y: np.interp(random.uniform(size=count), np.cumsum(y) / np.sum(y), x)  # noqa: E731
        columns = [draw(*self._weights()[kind]) for kind in (0, 0, 0, 1, 1, 2)]
        return chart.forward(torch.tensor(np.array(columns).T)).value.numpy().reshape(count, 4, 3)


# Case J: ln Z of exp(-2 (1 + cos)) and of exp(-2 cos p - 1.5 cos 3p); the constants of OpenMM's torsions come on top.
A, B = Chain(8000.0, LENGTH, 60.0, {1: 2.0}), Chain(14_000.0, 0.153, 90.0, {1: 2.0, 3: 1.5})
EXACT = B.freeEnergy() - A.freeEnergy()
START = np.array([[0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0], [0.35, 0.15, 0.05]])


@pytest.fixture(scope="module")
def chart():
    return of.InternalCoordinates.fromSystem(A.makeSystem(), [0, 1, 2, 3], [mm.Vec3(*row) for row in START.tolist()])


@pytest.fixture(scope="module")
def bridge(chart):
    random = np.random.default_rng(1)
    frames = (A.sample(2000, random, chart), B.sample(2000, random, chart))
    return SystemBridge(A.makeSystem(), B.makeSystem(), START, T, frames, seed=2, **SMALL)


def testTheTorsionsFreeEnergiesAreCaseJs():
    torsions = [np.trapezoid(y, x) for x, y in (chain._weights()[2] for chain in (A, B))]
    assert np.log(torsions[0]) == pytest.approx(0.6618706079, abs=1e-9)
    assert np.log(torsions[1]) == pytest.approx(3.2664180897 - 3.5, abs=1e-9)


def testWorksOfTheUntrainedMapAreEnergyDifferences(bridge, chart):
    frames = A.sample(5, np.random.default_rng(3), chart), B.sample(6, np.random.default_rng(4), chart)
    energies = [of.ContextPotential(system.makeSystem(), T, of.ContextPotentialOptions(platform="Reference")) for system in (A, B)]
    before = bridge.getEvaluations()
    works = bridge.works(*frames)
    for own, x, found in zip((0, 1), frames, works):
        u = [potential.evaluate(torch.tensor(x.reshape(len(x), -1))).u.numpy() for potential in energies]
        np.testing.assert_allclose(found, u[1 - own] - u[own], atol=2e-5)  # splines of float32 that are not trained
    assert np.subtract(bridge.getEvaluations(), before).tolist() == [11, 11]


@pytest.mark.parametrize("stages", [1, pytest.param(3, marks=pytest.mark.slow)])
def testWorksAreCalibrated(bridge, chart, stages):
    random = np.random.default_rng(5)
    works = bridge.works(A.sample(SEEDS * 80, random, chart), B.sample(SEEDS * 60, random, chart), stages=stages, seed=8, numSteps=3)
    expectCalibrated([barEstimate(*pair) for pair in zip(*(side.reshape(SEEDS, -1) for side in works))], EXACT)


def testAnnealedWorksAreRightAndOverlapMore(bridge, chart):
    """Crooks: the protocol back is the one forth, reversed."""
    random, estimates = np.random.default_rng(6), {}
    frames = A.sample(800, random, chart), B.sample(800, random, chart)
    for stages in (1, 5):
        estimates[stages] = bridge.freeEnergy(*frames, stages=stages, seed=7, stepSize=0.4, numSteps=8)
        assert estimates[stages].value == pytest.approx(EXACT, abs=4 * estimates[stages].standardError)
    assert estimates[5].overlap > 1.1 * estimates[1].overlap and estimates[5].standardError < 0.85 * estimates[1].standardError
    assert estimates[5].stages == 5 and estimates[5].evaluationsB > estimates[1].evaluationsB


def testATrainedMapHasNarrowerWorks(chart):
    random = np.random.default_rng(9)
    frames = A.sample(6000, random, chart), B.sample(6000, random, chart)
    options = {"seed": 3, "platform": "Reference", "numContexts": 1, "layers": 4, "hiddenSizes": [24], "progress": False}
    plain = freeEnergyBetweenSystems(A.makeSystem(), B.makeSystem(), *frames, T, iterations=0, **options)
    assert plain.training == [] and plain.numForward > 5000
    trained = freeEnergyBetweenSystems(A.makeSystem(), B.makeSystem(), *frames, T, iterations=200, batchSize=128, learningRate=5e-3,
                                       **options)
    for found in (plain, trained):
        assert found.value == pytest.approx(EXACT, abs=4 * found.standardError)
    assert trained.numForward > 5000 and trained.standardError < 0.4 * plain.standardError
    assert trained.overlap > 0.9 > plain.overlap and "no objection" in trained.verdict()
    for history in trained.training:
        losses = history.losses["work both ways"]
        assert losses[-1] < 0.2 * losses[0] and history.validation[-1] > 0
    assert len(trained.training) == 2 and "training" not in trained.asDict()
    # Of B: in each training the images of A's frames and B's frames once; and both ends of both sides' works.
    assert trained.evaluationsB == 2 * (200 * 128 + len(trained.training[0].validation) * 300 + 3000) + 2 * 6000


def testOfAnOverfittedMapTheBestOneIsKept(chart):
    """Forty frames, which a large map learns by heart."""
    random = np.random.default_rng(14)
    frames = A.sample(40, random, chart), B.sample(40, random, chart)
    large = SystemBridge(A.makeSystem(), B.makeSystem(), START, T, frames, seed=2, hiddenSizes=[64], platform="Reference", numContexts=1)
    history = large.fit(*frames, iterations=200, batchSize=40, learningRate=1e-2, validationFraction=0.5, seed=3, progress=False)
    assert history.validation[-1] > min(history.validation) + 0.5
    z = [large.toCoordinates(x) for x in frames]
    loss = of.WorkLoss(large.potentialA, large.potentialB, *z, of.WorkLossOptions(validationFraction=0.5))
    assert loss.validate(large.flow) == pytest.approx(min(history.validation), abs=1e-9)


def testMapsOfDifferentQualityArePooledInEqualParts(chart, monkeypatch):
    """The first half of A's run relaxes 25 times more slowly; the first map is good, the second is the identity."""
    random = np.random.default_rng(21)
    start, far = Chain(2e4, LENGTH, 100.0, {1: 2.0}), Chain(2e4, LENGTH, 100.0, {1: -2.0, 3: 1.5})
    a, b = start.sample(3000, random, chart), far.sample(3000, random, chart)
    a[:1500] = np.repeat(a[:60], 25, axis=0)
    fit = SystemBridge.fit
    monkeypatch.setattr(SystemBridge, "fit", lambda self, *args, seed, **rest:
                        fit(self, *args, seed=seed, **rest | ({"iterations": 1, "learningRate": 1e-9} if seed == 5 else {})))
    found = freeEnergyBetweenSystems(start.makeSystem(), far.makeSystem(), a, b, T, iterations=300, learningRate=2e-2, seed=4,
                                     progress=False, **SMALL | {"hiddenSizes": [32]})
    assert found.value == pytest.approx(far.freeEnergy() - start.freeEnergy(), abs=4 * found.standardError)
    assert found.numForward == pytest.approx(2 * 60, abs=30)


def testTheBestMapOfAnInterruptedTrainingIsKept(chart, tmp_path):
    random = np.random.default_rng(14)
    frames = A.sample(40, random, chart), B.sample(40, random, chart)
    parameters = []
    for _ in range(2):  # the second one finds a training that is done
        bridge = SystemBridge(A.makeSystem(), B.makeSystem(), START, T, frames, seed=2, hiddenSizes=[64], platform="Reference",
                              numContexts=1)
        history = bridge.fit(*frames, iterations=100, batchSize=40, learningRate=2e-2, validationFraction=0.5, seed=3,
                             file=tmp_path / "map", progress=False)
        assert history.validation[-1] > min(history.validation)
        parameters.append({name: tensor.detach().clone() for name, tensor in bridge.flow.getParameters().items()})
    assert all(torch.equal(tensor, parameters[1][name]) for name, tensor in parameters[0].items())


def testFramesMayBeTrainingData(chart):
    random = np.random.default_rng(10)
    data = [TrainingData(np.concatenate([chain.sample(300, random, chart)] * 2).astype(np.float32), np.zeros(600), np.zeros(600),
                         np.repeat([T, 500.0], 300), T, [0, 1, 2, 3]) for chain in (A, B)]
    found = freeEnergyBetweenSystems(A.makeSystem(), B.makeSystem(), *data, T, iterations=0, seed=1, **SMALL)
    assert found.numForward <= 300 and found.value == pytest.approx(EXACT, abs=4 * found.standardError)


def testFreeEnergiesAreAbsoluteAndTheirDifferenceIsThatThroughTheLatentState(chart):
    random = np.random.default_rng(11)
    generators, frames = [], []
    for chain in (A, B):
        frames.append(chain.sample(3000, random, chart))
        data = TrainingData(frames[-1].astype(np.float32), np.full(3000, -np.log(3000)), np.zeros(3000), np.full(3000, T), T, [0, 1, 2, 3])
        generators.append(BoltzmannGenerator.fromSystem(chain.makeSystem(), START, T, data=data, seed=4, **SMALL))
    for chain, generator, x in zip((A, B), generators, frames):
        found = generator.absoluteFreeEnergy(x, 3000, seed=5, progress=False)
        assert found.value == pytest.approx(chain.freeEnergy(), abs=4 * found.standardError) and found.standardError < 0.1
        assert "less their rigid motions, in nm^9" in found.measure
    found = freeEnergyThroughLatent(generators[0], frames[0], generators[1], frames[1], 3000, seed=6, progress=False)
    assert found.value == pytest.approx(EXACT, abs=4 * found.standardError)
    # One flow for both.
    shared = BoltzmannGenerator(generators[0].flow, B.makeSystem(), START, platform="Reference", numContexts=1)
    found = freeEnergyThroughLatent(generators[0], frames[0], shared, frames[1], 3000, seed=7, progress=False)
    assert found.value == pytest.approx(EXACT, abs=4 * found.standardError)


def testARigidBondIsNoCoordinateOfEither(chart):
    """Bond 2-3 at its length: b^2 of it is a constant that cancels, and so does the mass metric's part of the angle."""
    random = np.random.default_rng(12)
    frames = []
    for chain in (A, B):
        x = chain.sample(4000, random, chart)
        bond = x[:, 3] - x[:, 2]
        x[:, 3] = x[:, 2] + LENGTH * bond / np.linalg.norm(bond, axis=1, keepdims=True)
        frames.append(x)
    systems = [chain.makeSystem(constraint=LENGTH) for chain in (A, B)]
    found = freeEnergyBetweenSystems(*systems, *frames, T, iterations=0, seed=1, **SMALL)
    assert found.value == pytest.approx(B.freeEnergy(2) - A.freeEnergy(2), abs=4 * found.standardError)
    with pytest.raises(ValueError, match="different constraints"):
        freeEnergyBetweenSystems(A.makeSystem(), systems[1], *frames, T, iterations=0, **SMALL)
    with pytest.raises(ValueError, match="different constraints"):
        freeEnergyBetweenSystems(systems[0], B.makeSystem(LENGTH, (12, 12, 12, 14)), *frames, T, iterations=0, **SMALL)


def testWhatDoesNotFitIsRefused(bridge, chart):
    frames = A.sample(20, np.random.default_rng(13), chart)
    larger = A.makeSystem()
    larger.addParticle(1.0)
    with pytest.raises(ValueError, match="have 4 and 5 particles"):
        SystemBridge(A.makeSystem(), larger, START, T, (frames, frames))
    with pytest.raises(ValueError, match="layers is 1, but must be at least 2"):
        SystemBridge(A.makeSystem(), B.makeSystem(), START, T, (frames, frames), layers=1)
    with pytest.raises(ValueError, match="folds is 1, but must be at least 2"):
        freeEnergyBetweenSystems(A.makeSystem(), B.makeSystem(), frames, frames, T, folds=1)
    with pytest.raises(ValueError, match="give positions of all particles where atoms are some"):
        freeEnergyBetweenSystems(A.makeSystem(), B.makeSystem(), frames, frames, T, atoms=[0, 1, 2])
    with pytest.raises(ValueError, match="number of frames outside the chart's domain is 1 of 20, but must be at most one in a thou"):
        bridge.works(np.concatenate([frames[:19], np.full((1, 4, 3), np.nan)]), frames)
    data = TrainingData(frames, np.zeros(20), np.zeros(20), np.full(20, 310.0), 310.0, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="temperature of the TrainingData is 310.0, but must be 300.0"):
        freeEnergyBetweenSystems(A.makeSystem(), B.makeSystem(), frames, data, T * unit.kelvin, iterations=0, **SMALL)
    apart = Chain(8000.0, 0.6, 60.0, {1: 2.0})
    with pytest.raises(mm.OpenMMException, match="no overlap"):
        freeEnergyBetweenSystems(A.makeSystem(), apart.makeSystem(), frames, frames + 0.1, T, iterations=0, **SMALL)
