# SPDX-License-Identifier: MIT
import mdtraj
import numpy as np
import openmm as mm
import openmmflow as of
import pymbar
import pytest
from openmm import app, unit
from openmmflow.analysis import (Estimate, State, blockPopulation, findBackboneTorsions,
                                 freeEnergyFromPopulation, freeEnergyProfile, mbarLogWeights, torsion,
                                 weightedPopulation)
from openmmflow.data import R, TrainingData, geometricTemperatures, temperedData
from openmmflow.freeenergy import freeEnergyDifference
from scipy.integrate import quad
from scipy.stats import norm


def makeTrajectory(frames=50):
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(4):
        topology.add_atom("C", mdtraj.element.carbon, residue)
    return mdtraj.Trajectory(np.random.default_rng(1).normal(size=(frames, 4, 3)).astype(np.float32), topology)


def testTorsionEqualsMdtraj():
    trajectory = makeTrajectory()
    expected = mdtraj.compute_dihedrals(trajectory, [[2, 0, 3, 1]])[:, 0]
    np.testing.assert_allclose(torsion(trajectory.xyz.astype(float), [2, 0, 3, 1]), expected, atol=2e-6)


def testStateRangesWrapAndHalvesAreComplementary():
    x = makeTrajectory(500).xyz
    degrees = np.degrees(torsion(x, [0, 1, 2, 3]))
    inside = State((0, 1, 2, 3), 120, -100).contains(x)
    np.testing.assert_array_equal(inside, (degrees >= 120) | (degrees < -100))
    left, right = State((0, 1, 2, 3), -180, 0).contains(x), State((0, 1, 2, 3), 0, 180).contains(x)
    assert np.all(left ^ right) and State((0, 1, 2, 3), -180, 180).contains(x).all()


def testFindsBackboneTorsionsOfADipeptide():
    topology = app.Topology()
    chain = topology.addChain()
    names = {"ACE": ["CH3", "C", "O"], "ALA": ["N", "CA", "C", "O"], "NME": ["N", "C"]}
    for residue, atoms in names.items():
        added = topology.addResidue(residue, chain)
        for name in atoms:
            topology.addAtom(name, app.Element.getBySymbol(name[0]), added)
    assert findBackboneTorsions(topology) == {"phi": [[1, 3, 4, 5]], "psi": [[3, 4, 5, 7]]}


def testWeightedPopulationOfAShiftedGaussianWithItsError():
    # Samples of N(0, 1) weighted to N(0.7, 1): P(x > 0) = Phi(0.7). Standardised errors have variance 1.
    random, deviations = np.random.default_rng(2), []
    for _ in range(400):
        x = random.normal(size=2000)
        found = weightedPopulation(x > 0, 0.7 * x + 3)
        deviations.append((found.value - norm.cdf(0.7)) / found.standardError)
    assert abs(np.mean(deviations)) < 4 / 20
    assert abs(np.var(deviations) - 1) < 4 * np.sqrt(2 / 400)


def testWeightedPopulationIgnoresZeroWeightsAndRefusesOnlyZeros():
    assert weightedPopulation([True, False, True], [0.0, 0.0, -np.inf]).value == pytest.approx(0.5)
    with pytest.raises(ValueError, match="must be finite"):
        weightedPopulation([True], [-np.inf])
    for inside in (True, False):  # what was never seen has an error, too
        found = weightedPopulation([inside] * 98, np.zeros(98))
        assert (found.value, found.standardError) == (inside, pytest.approx(0.01))
        found = blockPopulation([inside] * 100, numBlocks=8)
        assert (found.value, found.standardError) == (inside, pytest.approx(0.1))


def testBlockPopulationHasTheErrorOfTheCorrelatedSeries():
    # A two-state Markov chain that stays with probability 0.9: g = (1 + 0.8) / (1 - 0.8) = 9.
    random, steps, deviations = np.random.default_rng(3), 10_000, []
    for _ in range(100):
        series = (np.cumsum(random.uniform(size=steps) > 0.9) + random.integers(2)) % 2
        found = blockPopulation(series, numBlocks=20)
        deviations.append((found.value - 0.5) / np.sqrt(9 * 0.25 / steps))
        assert found.standardError < 3 * np.sqrt(9 * 0.25 / steps)
    assert abs(np.mean(deviations)) < 4 / 10
    errors = [blockPopulation((np.cumsum(random.uniform(size=steps) > 0.9)) % 2, numBlocks=20).standardError**2
              for _ in range(100)]
    assert np.mean(errors) == pytest.approx(9 * 0.25 / steps, rel=4 * np.sqrt(2 / 19 / 100) + 0.02)


def testFreeEnergyFromPopulation():
    found = freeEnergyFromPopulation(Estimate(0.2, 0.01))
    assert found.value == pytest.approx(np.log(4)) and found.standardError == pytest.approx(0.01 / 0.16)
    with pytest.raises(ValueError, match="strictly between"):
        freeEnergyFromPopulation(Estimate(0.0, 0.0))


def testFreeEnergyProfileOfAKnownDensity():
    angles = np.random.default_rng(4).vonmises(0.5, 2.0, size=200_000)
    centers, profile, error = freeEnergyProfile(angles, bins=36)
    exact = -2.0 * np.cos(np.radians(centers) - 0.5)
    assert np.all(np.abs(profile - (exact - exact.min())) < 5 * error + 0.02)  # 0.02: curvature within a bin


def sampleByGrid(energy, low, high, count, random):
    """Exact draws of exp(-energy) on an interval, by its inverse distribution function."""
    x = np.linspace(low, high, 200_001)
    cumulative = np.cumsum(np.exp(-energy(x)))
    return np.interp(random.uniform(size=count), cumulative / cumulative[-1], x)


def testFreeEnergyDifferenceOfTheDoubleWell():
    # a = 1, b = 6, c = 1, split at the barrier. The flow is a mixture of two Gaussians that fits neither well.
    barrier = 0.167449
    def energy(x):
        return x**4 / 4 - 3 * x**2 + x

    def logQ(x):
        return np.logaddexp(np.log(0.6) + norm.logpdf(x, -2.3, 0.5), np.log(0.4) + norm.logpdf(x, 2.2, 0.6))

    left, right = (quad(lambda x: np.exp(-energy(x) - 12), *ends)[0] for ends in ((-5, barrier), (barrier, 5)))
    assert np.log(left / right) == pytest.approx(4.77755032, abs=1e-6)
    random, deviations = np.random.default_rng(5), []
    for _ in range(30):
        side = random.uniform(size=4000) < 0.6
        x = np.where(side, random.normal(-2.3, 0.5, 4000), random.normal(2.2, 0.6, 4000))
        inA, inB = sampleByGrid(energy, -5, barrier, 1000, random), sampleByGrid(energy, barrier, 5, 1000, random)
        found = freeEnergyDifference(-energy(x) - logQ(x), x < barrier, x >= barrier, -energy(inA) - logQ(inA),
                                     -energy(inB) - logQ(inB))
        deviations.append((found.value - 4.77755032) / found.standardError)
        assert found.standardError < 0.1
    assert abs(np.mean(deviations)) < 4 / np.sqrt(30)
    assert np.std(deviations) < 1.6


@pytest.mark.parametrize("infinite", [0, 150])
@pytest.mark.parametrize("shift, offset", [(0.3, 0.0), (2.0, 40.0), (-3.5, -7.0)])
def testBarIsPymbars(shift, offset, infinite):
    """Between two Gaussians. To pymbar, which takes no infinities, a work of 600 is as hopeless as an infinite one."""
    random = np.random.default_rng(8)
    x, y = random.normal(size=900), shift + 0.7 * random.normal(size=400)
    works = [((at - shift) / 0.7)**2 / 2 + offset - at**2 / 2 for at in (x, y)]
    forward, reverse = works[0], -works[1]
    forward[:infinite] = reverse[:infinite // 3] = np.inf
    found = of.bar(forward, reverse)
    expected = pymbar.bar(*(np.where(np.isinf(w), 600.0, w) for w in (forward, reverse)), relative_tolerance=1e-14)
    assert found.deltaF == pytest.approx(expected["Delta_f"], rel=0, abs=1e-9)
    assert found.standardError == pytest.approx(expected["dDelta_f"], rel=0, abs=1e-9)
    assert (found.numForwardInfinite, found.numReverseInfinite) == (infinite, infinite // 3)
    if not infinite:
        assert found.deltaF == pytest.approx(offset - np.log(0.7), abs=4 * found.standardError)


def testMbarWeightsReproduceTheHarmonicEnergyAtTheTarget():
    # d harmonic modes: <U> = d k T / 2 at any T, whether T was sampled or not.
    random, d, frames = np.random.default_rng(6), 12, 4000
    ladder = [300.0, 400.0, 550.0]
    energies = np.concatenate([R * t * random.gamma(d / 2, size=frames) for t in ladder])
    for target in (300.0, 350.0):
        weights = np.exp(mbarLogWeights(energies, ladder, target))
        assert weights.sum() == pytest.approx(1)
        error = R * target * np.sqrt(d / 2) * np.sqrt(np.sum(weights**2))
        assert abs(weights @ energies - d * R * target / 2) < 4 * error
    single = np.exp(mbarLogWeights(energies[:frames], [300.0], 330.0))
    error = R * 330 * np.sqrt(d / 2) * np.sqrt(np.sum(single**2))
    assert abs(single @ energies[:frames] - d * R * 330 / 2) < 4 * error


def makeChain():
    """Four particles on harmonic bonds: nine internal degrees of freedom, three of them with energy."""
    system = mm.System()
    bonds = mm.HarmonicBondForce()
    for i in range(4):
        system.addParticle(12.0)
        if i:
            bonds.addBond(i - 1, i, 0.15, 50_000.0)
    system.addForce(bonds)
    positions = np.array([[0.15 * i, 0.05 * (i % 2), 0.03 * (i == 3)] for i in range(4)])
    return system, positions


TEMPERING = {"framesPerTemperature": 300, "stepsPerFrame": 40, "equilibrationFrames": 20, "seed": 11,
             "platform": "Reference", "processes": 2, "progress": False}


def testTemperedDataSamplesTheCanonicalEnsemble():
    system, positions = makeChain()
    data = temperedData(system, positions * unit.nanometer, [300, 380 * unit.kelvin, 480], **TEMPERING)
    assert data.positions.shape == (900, 4, 3) and data.atoms == [0, 1, 2, 3]
    assert data.steps == 3 * (20 + 300) * 40
    weights = np.exp(data.logWeights)
    # <U> = 3 kT / 2, up to the bonds' volume element r^2: 2 kT^2 / (k r0^2) each, which is below 1 %.
    exact = 1.5 * R * 300
    error = R * 300 * np.sqrt(1.5) * np.sqrt(np.sum(weights**2)) * np.sqrt(3)  # 3: the frames' statistical inefficiency
    assert abs(weights @ data.energies - exact) < 4 * error
    assert np.mean(data.energies[600:]) > np.mean(data.energies[:300])


def testTheSameSeedGivesTheSameFrames():
    system = mm.System()
    system.addParticle(1)
    force = mm.CustomExternalForce("50*(x^2+y^2+z^2)")
    force.addParticle(0)
    system.addForce(force)
    draw = lambda seed: temperedData(system, np.zeros((1, 3)), [300, 400], framesPerTemperature=20, stepsPerFrame=5,  # noqa: E731
                                     seed=seed, platform="Reference", processes=2, progress=False).positions
    first, second, other = draw(3), draw(3), draw(4)
    np.testing.assert_array_equal(first, second)
    assert not np.any(first[:, 0] == other[:, 0])


def testTemperedDataGoesOnWhereItWasInterrupted(tmp_path, monkeypatch):
    from openmmflow import data as module

    system, positions = makeChain()
    file = tmp_path / "tempering.npz"
    original, calls = module._Tempering.runRound, []

    def interrupt(self, *arguments, **keywords):
        if len(calls) == 100:
            raise KeyboardInterrupt
        calls.append(0)
        original(self, *arguments, **keywords)

    monkeypatch.setattr(module._Tempering, "runRound", interrupt)
    with pytest.raises(KeyboardInterrupt):
        temperedData(system, positions, [300, 400], file=file, **TEMPERING)
    with np.load(file) as saved:
        assert saved["counts"][0] == 100 and len(saved["frames"]) == 80
        first = saved["frames"][:, 0]
    monkeypatch.setattr(module._Tempering, "runRound", original)
    data = temperedData(system, positions, [300, 400], file=file, **TEMPERING)
    assert data.positions.shape == (600, 4, 3)
    np.testing.assert_array_equal(data.positions[:80], first)
    assert not np.array_equal(data.positions[80], data.positions[0])
    with pytest.raises(ValueError, match="other settings"):
        temperedData(system, positions, [300, 500], file=file, **TEMPERING)
    assert [path.name for path in tmp_path.iterdir()] == ["tempering.npz"]


def testTemperedDataReportsWhatFailedInAProcess():
    system, positions = makeChain()
    with pytest.raises(mm.OpenMMException, match="no registered Platform called"):
        temperedData(system, positions, [300], **TEMPERING | {"platform": "Abacus"})
    with pytest.raises(ValueError, match="must be positive"):
        temperedData(system, positions, [300, -1], **TEMPERING)


def testTrainingDataRoundTripAndResampling(tmp_path):
    random = np.random.default_rng(7)
    logWeights = np.log(random.dirichlet(np.ones(200)))
    data = TrainingData(random.normal(size=(200, 2, 3)).astype(np.float32), logWeights, random.normal(size=200),
                        np.repeat([300.0, 500.0], 100), 300.0, [4, 9], 1.5)
    data.save(tmp_path / "data.npz")
    read = TrainingData.load(tmp_path / "data.npz")
    assert read.atoms == [4, 9] and read.temperature == 300.0 and read.atTemperature().shape == (100, 2, 3)
    np.testing.assert_array_equal(read.positions, data.positions)
    # Systematic resampling takes each frame floor or ceil of its expected number of times.
    drawn = data.resample(1000, seed=1)
    counts = np.array([np.sum(np.all(drawn == frame.astype(float), axis=(1, 2))) for frame in data.positions])
    assert np.all(np.abs(counts - 1000 * np.exp(logWeights)) < 1)
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ValueError, match="not a file of training data"):
        TrainingData.load(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", random.normal(size=3))
    whole = (tmp_path / "data.npz").read_bytes()
    for content in (whole[:len(whole) // 2], whole[:-10], b"", b"ATOM      1", (tmp_path / "array.npy").read_bytes()):
        (tmp_path / "damaged.npz").write_bytes(content)
        with pytest.raises(ValueError, match="damaged.npz is damaged, or not a file of training data"):
            TrainingData.load(tmp_path / "damaged.npz")


def testGeometricTemperatures():
    assert geometricTemperatures(300, 1200, 3) == pytest.approx([300, 600, 1200])
    assert geometricTemperatures(300 * unit.kelvin, 1200, 3) == pytest.approx([300, 600, 1200])
