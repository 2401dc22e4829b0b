# SPDX-License-Identifier: MIT
"""Estimates of free energies on cases with known answers, over many seeds: right within their errors, and errors of the right size."""
import numpy as np
import openmm as mm
import openmmflow as of
import pymbar
import pytest
import torch
from openmmflow import testsystems
from openmmflow.freeenergy import (BarEstimate, Estimate, absoluteFreeEnergy, barEstimate, describeMeasure, freeEnergyDifference,
                                   mbarFreeEnergies, toAlchemlyb, worksToAlchemlyb)
from pymbar.testsystems import ExponentialTestCase, HarmonicOscillatorsTestCase, gaussian_work_example

SEEDS = 300


def expectCalibrated(estimates, exact):
    """The deviations in standard errors: no bias, and as wide as they claim."""
    z = np.array([(found.value - exact) / found.standardError for found in estimates])
    assert len(z) >= 200 and np.all(np.abs(z) < 4), z[np.abs(z) >= 4]
    # 300 seeds have a standard error of 0.058 in the mean of z, and of 0.041 in its deviation; 200 of 0.071 and 0.05.
    assert abs(z.mean()) < 0.15, z.mean()
    assert 0.85 < z.std(ddof=1) < 1.15, z.std(ddof=1)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 2.5])
def testGaussianWorksOfPymbar(sigma):
    expectCalibrated([barEstimate(*gaussian_work_example(400, 250, mu_F=None, DeltaF=-3.2, sigma_F=sigma, seed=seed))
                      for seed in range(SEEDS)], -3.2)


def testExponentialTestCaseOfPymbar():
    case = ExponentialTestCase(rates=(1.0, 3.0))
    exact = case.analytical_free_energies()
    expectCalibrated([barEstimate(*case.sample([300, 500], mode="wFwR", seed=seed)[:2]) for seed in range(SEEDS)], exact[1] - exact[0])


def sampleOscillators(seed):
    case = HarmonicOscillatorsTestCase(O_k=(0, 0.7, 1.1), K_k=(1, 2.5, 4))
    return case.sample(np.array([200, 150, 250]), mode="u_kn", seed=seed)[1:3] + (case.analytical_free_energies(),)


def testHarmonicOscillatorsOfPymbar():
    found = []
    for seed in range(SEEDS):
        u, counts, exact = sampleOscillators(seed)
        first, second = u[:, :200], u[:, 200:350]
        found.append(barEstimate(first[1] - first[0], second[0] - second[1]))
    assert exact[1] - exact[0] == pytest.approx(0.5 * np.log(2.5), abs=1e-12)  # case C
    expectCalibrated(found, 0.5 * np.log(2.5))
    # The overlap matrix of two states is BAR's overlap.
    two, three = mbarFreeEnergies(u[:2, :350], [200, 150]), mbarFreeEnergies(u, counts)
    assert two.neighbourOverlap[0] == pytest.approx(found[-1].overlap, abs=1e-6)
    assert two.difference.value == pytest.approx(found[-1].value, abs=1e-6)
    assert three.difference.value == pytest.approx(exact[2] - exact[0], abs=4 * three.difference.standardError)
    assert "smallest overlap of neighbours" in three.verdict()


@pytest.mark.slow
def testMbarOfHarmonicOscillatorsIsCalibrated():
    found = [mbarFreeEnergies(*sampleOscillators(seed)[:2]).difference for seed in range(SEEDS)]
    exact = sampleOscillators(0)[2]
    expectCalibrated(found, exact[2] - exact[0])


def testTheDoubleWellFromAFlowIsAbsolutelyRight():
    """Case N: from a flow to system A1, F = -12.064929, wherever the flow is worse than a fit."""
    well, flow = testsystems.DoubleWell(), of.Flow(of.GaussianPrior(2), of.Scaling([-1.6, 0.1], [1.6, 1.3]))
    potential, random = well.createPotential(of.ContextPotentialOptions(platform="Reference", numContexts=1)), of.Random(11)
    drawn, exact = flow.sample(SEEDS * 300, random), well.sample(SEEDS * 300, random)
    with torch.no_grad():
        ofFlow = (-potential.evaluate(drawn.x).u - drawn.logQ).numpy().reshape(SEEDS, -1)
        ofTarget = (-potential.evaluate(exact).u - flow.logQ(exact)).numpy().reshape(SEEDS, -1)
    found = [absoluteFreeEnergy(*logWeights, describeMeasure(flow)) for logWeights in zip(ofFlow, ofTarget)]
    expectCalibrated(found, -12.06492900)
    expectCalibrated([one.forward for one in found], -12.06492900)
    assert all(one.lowerBound.value < -12.0649 < one.upperBound.value for one in found)
    assert found[0].measure == "dx over its 2 columns" and "no objection" in found[0].verdict()


def testMeasuresAreNamed():
    def ofAtoms(atoms, latent, chart):
        return describeMeasure(of.Flow(of.GaussianPrior(latent), chart, atoms))

    rows = [of.ZMatrixRow()]
    rows[0].atom, rows[0].bond, rows[0].angle, rows[0].torsion = 3, 2, 1, 0
    chart = lambda lengths: of.InternalCoordinates(rows, [1, 0, 2], lengths)  # noqa: E731
    assert "less their rigid motions, in nm^9" in ofAtoms([0, 1, 2, 3], 6, chart([0.0] * 4))
    assert "1 bonds held rigid" in ofAtoms([0, 1, 2, 3], 5, chart([0.0, 0.0, 0.0, 0.15]))
    assert ofAtoms([4], 3, of.Scaling([0.0] * 3, [1.0] * 3)) == "dx over the 1 atoms, in nm^3"


def testInfiniteWorksOfOverlappingBoxes():
    """u = 0 on [0, 2] and on [1, 4]."""
    random = np.random.default_rng(12)
    found = [barEstimate(np.where(random.uniform(0, 2, 300) > 1, 0, np.inf), np.where(random.uniform(1, 4, 400) < 2, 0, np.inf))
             for _ in range(SEEDS)]
    expectCalibrated(found, -0.405465108)
    assert found[0].effectiveForward == pytest.approx(150, abs=50) and abs(found[0].convergence) < 0.3


def testFreeEnergyDifferenceThroughTheLatentStateIsCalibrated():
    """Two halves of a normal density at 0.4, seen from a flow at 0."""
    from scipy.stats import norm

    random, found = np.random.default_rng(13), []
    inRight = norm.cdf(0.4)
    for _ in range(SEEDS):
        x, y = random.normal(size=2000), 0.4 + random.normal(size=2000)
        logW = lambda at: 0.4 * at - 0.08  # noqa: E731
        found.append(freeEnergyDifference(logW(x), x < 0, x >= 0, logW(y[y < 0][:300]), logW(y[y >= 0][:300])))
    expectCalibrated(found, -np.log(inRight / (1 - inRight)))
    assert "A: no objection" in found[0].verdict()


def testPoorOverlapIsToldAndNoOverlapIsAnError():
    random = np.random.default_rng(14)
    far = lambda s, count: random.normal(s * s / 2, s, count)  # noqa: E731
    poor = barEstimate(far(5.5, 3000), far(5.5, 3000))
    assert poor.overlap < 0.03 and poor.verdict().startswith("not to be trusted: poor overlap")
    assert "one-sided estimates differ" in poor.verdict() and poor.covered.value < 0.1
    few = barEstimate(far(1, 30), far(1, 300))
    assert "few samples (30 independent works on one side" in few.verdict()
    unseen = barEstimate(np.full(100, 3.0), np.full(100, 3.0))  # all works exceed the estimate, 0, by 3 kT
    assert "the rare works that count were hardly seen" in unseen.verdict()
    assert not barEstimate(far(1, 1000), far(1, 1000)).getProblems()
    # As of frames that a flow was trained on: log w of them is too small by 0.5.
    trained = barEstimate(far(1, 1000), far(1, 1000) - 0.5)
    assert "contradict each other (the one from A is" in trained.verdict() and trained.covered.value > 1.2
    for works in ((far(1, 20) + 400, far(1, 20) + 400), (np.full(5, np.inf), far(1, 20))):
        with pytest.raises(mm.OpenMMException, match="no overlap"):
            barEstimate(*works)
    with pytest.raises(mm.OpenMMException, match="no overlap"):
        freeEnergyDifference(np.zeros(50), np.ones(50, bool), np.zeros(50, bool), np.zeros(9), np.zeros(9))


def testMbarTellsWhereStatesAreMissing():
    def sample(centres, counts, random):
        x = np.concatenate([random.normal(c, 1, n) for c, n in zip(centres, counts)])
        return 0.5 * (x - np.array(centres)[:, None])**2

    random = np.random.default_rng(15)
    found = mbarFreeEnergies(sample([0, 1, 7, 8], [500] * 4, random), [500] * 4)
    assert found.verdict().startswith("not to be trusted: poor overlap of states 1 and 2")
    fine = mbarFreeEnergies(sample([0, 1, 2], [500, 0, 500], random), [500, 0, 500])
    assert fine.verdict().startswith("no objection") and abs(fine.values[1]) < 4 * fine.errors[1]
    with pytest.raises(ValueError, match="no overlap"):
        mbarFreeEnergies(sample([0, 40], [50, 50], random), [50, 50])
    with pytest.raises(ValueError, match="reducedEnergies are .* but must be"):
        mbarFreeEnergies(np.zeros((2, 5)), [2, 2])
    with pytest.raises(ValueError, match="not finite"):
        mbarFreeEnergies([[0, np.inf], [0, 0]], [1, 1])


def testTemperaturesByMbar():
    """d harmonic modes at several temperatures: u = U/T, F(T) = -(d/2) ln T."""
    random, d, count = np.random.default_rng(16), 10, 1000
    temperatures = np.array([1.0, 1.3, 1.7])
    energies = np.concatenate([t * random.gamma(d / 2, size=count) for t in temperatures])
    found = mbarFreeEnergies(energies / temperatures[:, None], [count] * 3)
    assert found.difference.value == pytest.approx(-d / 2 * np.log(1.7), abs=4 * found.difference.standardError)
    assert 0 < found.difference.standardError < 0.1


def testAnEstimateAsADictionaryHoldsItsVerdict():
    found = BarEstimate(1.0, 0.1, 0.5, 0.0, Estimate(1.0, 0.1), Estimate(1.1, 0.1), 90.0, 80.0, 100, 100)
    shown = found.asDict()
    assert shown["forward"] == {"value": 1.0, "standardError": 0.1} and shown["verdict"] == found.verdict()
    assert found.covered.value == pytest.approx(np.exp(0.1))


def testEnergiesAsDataFrames():
    pandas = pytest.importorskip("pandas")
    frame = toAlchemlyb(np.arange(10.0).reshape(2, 5), [2, 3], 310, [0.0, 0.5])
    assert list(frame.columns) == [0.0, 0.5] and frame.index.names == ["time", "fep-lambda"]
    assert frame.loc[(1.0, 0.5), 0.0] == 3.0 and frame.attrs == {"temperature": 310.0, "energy_unit": "kT"}
    assert isinstance(frame, pandas.DataFrame)
    with pytest.raises(ValueError, match="reducedEnergies are"):
        toAlchemlyb(np.zeros((2, 5)), [2, 2], 300)


def testAlchemlybFindsTheSame():
    estimators = pytest.importorskip("alchemlyb.estimators")
    works = gaussian_work_example(400, 250, mu_F=None, DeltaF=1.3, sigma_F=1.0, seed=1)
    found, expected = estimators.BAR().fit(worksToAlchemlyb(*works, 300)), barEstimate(*works)
    assert found.delta_f_.loc[0.0, 1.0] == pytest.approx(expected.value, abs=1e-5)
    assert found.d_delta_f_.loc[0.0, 1.0] == pytest.approx(expected.standardError, abs=1e-5)
    case = HarmonicOscillatorsTestCase(O_k=(0, 0.7, 1.1), K_k=(1, 2.5, 4))
    _, u, counts, _ = case.sample(np.array([200, 150, 250]), mode="u_kn", seed=2)
    mbar, ours = estimators.MBAR().fit(toAlchemlyb(u, counts, 300)), mbarFreeEnergies(u, counts)
    np.testing.assert_allclose(mbar.delta_f_.iloc[0], ours.values, atol=1e-5)


def testPymbarIsTheReferenceOfBarEstimate():
    works = gaussian_work_example(300, 300, mu_F=None, DeltaF=0.4, sigma_F=2.0, seed=3)
    expected, found = pymbar.bar(*works), barEstimate(*works)
    assert found.value == pytest.approx(expected["Delta_f"], abs=1e-6)
    assert found.standardError == pytest.approx(expected["dDelta_f"], abs=1e-6)
    forward = pymbar.exp(works[0])
    assert found.forward.value == pytest.approx(forward["Delta_f"], abs=1e-9)
