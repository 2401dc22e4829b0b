# SPDX-License-Identifier: MIT
import json

import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import torch
from openmm import app
from openmmflow import plots
from openmmflow.analysis import bondedCoordinates, measure
from openmmflow.diagnostics import Cost, diagnose, jensenShannon, tailIndex, tailIndexLimit
from openmmflow.lattice import hmcChain
from scipy import stats
from scipy.signal import lfilter

HEALTHY = {  # width of a normal flow per dimension of a standard normal target, and dimensions
    "a little wide": (1.2, 3), "wide, ten dimensions": (1.2, 10), "a little narrow": (0.9, 5), "narrow": (0.8, 2)}


def logWeight(x, width):
    return np.sum(x**2 / (2 * width**2) - x**2 / 2, axis=1)


def normals(random, samples, frames, width, size):
    """log w and a coordinate, of a normal flow and of its standard normal target."""
    x, y = width * random.normal(size=(samples, size)), random.normal(size=(frames, size))
    return logWeight(x, width), logWeight(y, width), x[:, 0], y[:, 0]


def lognormals(random, samples, frames, spread):
    """Weights whose logarithm is normal: under the target it has the same width, and a mean that is higher by the variance."""
    return spread * random.normal(size=samples), spread * random.normal(size=frames) + spread**2


def twoModes(random, samples, frames, left, flowLeft, width=1.1):
    """A target of modes at -4 and 4, the left one with a population `left`, and a flow that has other proportions."""
    x = np.where(random.uniform(size=samples) < flowLeft, -4, 4) + width * random.normal(size=samples)
    y = np.where(random.uniform(size=frames) < left, -4, 4) + random.normal(size=frames)

    def density(x, part, s):
        return part * stats.norm.pdf(x, -4, s) + (1 - part) * stats.norm.pdf(x, 4, s)

    return *(np.log(density(v, left, 1)) - np.log(density(v, flowLeft, width)) for v in (x, y)), x, y


def findings(diagnosis, severity=None):
    return [v.finding for v in diagnosis.verdicts() if severity in (None, v.severity)]


def expectFinding(diagnosis, text, severity):
    assert any(text in finding for finding in findings(diagnosis, severity)), diagnosis.verdicts()


# Numbers

@pytest.mark.parametrize("weights, expected", [  # of ArviZ (arviz-stats 0.8.0, psislw) for the same weights
    (stats.genpareto(0.3), 0.3234196135111027), (stats.genpareto(0.8), 0.7565560662780924),
    (stats.lognorm(1.5), 0.4760797138742919), (stats.uniform(), -0.8178163337057607)])
def testTailIndexIsArviZs(weights, expected):
    assert tailIndex(np.log(weights.ppf((np.arange(1000) + 0.5) / 1000))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [0.2, 0.6, 1.1])
def testTailIndexFindsTheExponentOfPowerLaws(k):
    random, count = np.random.default_rng(1), 4000
    found = np.array([tailIndex(3 + np.log(stats.genpareto.rvs(k, size=count, random_state=random))) for _ in range(60)])
    n = int(3 * np.sqrt(count))
    expected = (n * k + 5) / (n + 10)  # the prior is worth ten observations of 1/2
    assert abs(found.mean() - expected) < 4 * found.std() / np.sqrt(60) + 1 / n  # the estimator's own bias is of order 1/n


def testTailIndexHasLimits():
    assert tailIndex(np.full(100, 3.0)) == -np.inf and tailIndex(np.r_[np.full(50, -np.inf), np.zeros(50)]) == -np.inf
    with pytest.raises(ValueError, match="there are 24 log weights, but must be at least 25"):
        tailIndex(np.zeros(24))
    assert tailIndexLimit(10**6) == 0.7 and tailIndexLimit(100) == pytest.approx(0.5)


def testChainFractionOfTwoWeights():
    """A part p of the proposals weighs r, the others 1. A chain leaves a sample with probability A(w) = E[min(1, w'/w)], and
    tau_int = E_target[1/A] - 1/2 for a label that each sample draws on its own."""
    p, r, count = 0.05, 8.0, 50_000
    random = np.random.default_rng(2)
    logW = np.where(random.uniform(size=count) < p, np.log(r), 0.0)
    heavy = p * r / (p * r + 1 - p)
    expected = 1 / (2 * (heavy / (p + (1 - p) / r) + 1 - heavy) - 1)
    assert diagnose(logW).chain == pytest.approx(expected, rel=0.03)
    states = of.independenceChain(logW.tolist(), 1).states
    tau = of.autocorrelationTime(random.normal(size=count)[states].tolist())
    assert diagnose(logW).chain == pytest.approx(1 / (2 * tau.tau), rel=4 * tau.standardError / tau.tau)
    assert [1 / (2 * of.rejectionAutocorrelationTime(chain).value) for chain in (list(range(7)), [3] * 5)] == [1, 0.2]


def testJensenShannonOfKnownHistograms():
    assert jensenShannon([3, 1, 0], [6, 2, 0]) == 0 and jensenShannon([1, 0], [0, 5]) == 1
    assert jensenShannon([1, 1], [1, 0]) == pytest.approx(1.5 - 0.75 * np.log2(3))  # H(3/4, 1/4) - H(1/2, 1/2)/2
    x, y = (np.histogram(np.random.default_rng(s).normal(m, 1, 10**6), np.linspace(-6, 6, 100))[0] for s, m in ((1, 0), (2, 1 / 3)))
    assert jensenShannon(x, y) == pytest.approx(0.02, rel=0.05)  # DEVIATING


def testNumbersAreThoseOfTheEstimators():
    x, y, *_ = normals(np.random.default_rng(3), 5000, 1000, 1.2, 3)
    d = diagnose(x, y, sampleCost=Cost(1, 0.002), frameCost=Cost(100, 0.5))
    free, samples = of.flowFreeEnergy(x.tolist(), y.tolist()), x.tolist()
    assert d.reverse == of.effectiveSampleSize(samples).getFraction()
    assert d.clipped == of.clippedEffectiveSampleSize(samples, 1e-4).getFraction()
    assert d.acceptance.value == of.independenceAcceptance(samples).value
    assert d.longestRun == of.independenceChain(samples, 1).longestRun and d.stays.sum() == 5000
    assert d.largestShare == pytest.approx(np.exp(x.max()) / np.exp(x).sum())
    bar = of.bar(-x, y)
    assert (d.data.forward, d.data.bar.value, d.data.overlap) == (free.forwardFraction, bar.deltaF, bar.overlap)
    assert d.data.covered.value == pytest.approx(np.exp(bar.deltaF - free.fromFlow.value))
    assert d.data.covered.value * d.data.inside.value == pytest.approx(free.covered.value)
    assert d.data.lowerBound.value < d.data.bar.value < d.data.upperBound.value
    assert (d.flowCost.energyEvaluations, d.flowCost.cpuSeconds) == pytest.approx((1 / d.reverse, 0.002 / d.reverse))
    assert d.dynamicsCost == Cost(100 * d.data.inefficiency, 0.5 * d.data.inefficiency)
    json.dumps(d.asDict(), allow_nan=False)


def testInefficiencyIsThatOfTheSlowestCoordinate():
    random, rho, frames = np.random.default_rng(4), 0.9, 20_000
    logW, target, x, y = normals(random, 5000, frames, 1.2, 3)
    slow = lfilter([1], [1, -rho], random.normal(size=frames))
    for name, coordinate, periods in (("slow", slow, {}), ("at the cut", 0.1 * slow % 6, {"at the cut": 6.0})):
        d = diagnose(logW, target, coordinates={"fast": (x, y), name: (x, coordinate)}, periods=periods)
        assert d.data.slowest == name and d.data.inefficiency == pytest.approx((1 + rho) / (1 - rho), rel=0.2)
        assert d.data.independent == pytest.approx(frames / d.data.inefficiency)


# Verdicts, each with what calls for it and what does not

@pytest.mark.parametrize("flow", HEALTHY, ids=str)
def testHealthyFlowsAreNotBlamed(flow):
    width, size = HEALTHY[flow]
    x, y, *_ = normals(np.random.default_rng(5), 20_000, 2000, width, size)
    z = np.random.default_rng(6)
    d = diagnose(x, y, coordinates={"a": (z.normal(size=20_000), z.normal(size=2000))}, sampleCost=Cost(1, 1e-3), frameCost=Cost(9, 1e-2))
    assert d.verdicts() == [] and d.summarize()["verdicts"] == "nothing wrong was found"


def testAPerfectFlowIsNotBlamed():
    noise = np.random.default_rng(7)
    d = diagnose(2 + 1e-14 * noise.normal(size=2000), 2 + 1e-14 * noise.normal(size=500))
    assert d.verdicts() == [] and d.reverse == pytest.approx(1) and d.chain == pytest.approx(1, abs=0.01)


def correlated(random, samples, frames, rho=0.8):
    """A healthy flow in three dimensions, and data from an autoregressive process."""
    y = lfilter([np.sqrt(1 - rho**2)], [1, -rho], random.normal(size=(100 + frames, 3)), axis=0)[100:]
    return logWeight(1.2 * random.normal(size=(samples, 3)), 1.2), logWeight(y, 1.2)


def testTheModeDropTestDoesNotCryWolf():
    """Healthy flows, with weights up to a spread of 1.5 kT (ESS/N 0.1), independent and correlated frames: 200 seeds."""
    kinds = [*(lambda r, w=w, n=n: normals(r, 4000, 500, w, n)[:2] for w, n in HEALTHY.values()),
             *(lambda r, s=s: lognormals(r, 4000, 500, s) for s in (0.3, 0.7, 1.0, 1.5)),
             lambda r: twoModes(r, 4000, 500, 0.3, 0.5)[:2], lambda r: twoModes(r, 4000, 500, 0.03, 0.2)[:2]]
    alarms = 0
    for group in ([kind for kind in kinds for _ in range(15)], [lambda r: correlated(r, 4000, 500)] * 50):
        deviations = []
        for seed, kind in enumerate(group):
            d = diagnose(*kind(np.random.default_rng([seed, len(group)])))
            alarms += any(text in finding for finding in findings(d) for text in ("lacks", "do not fit", "weigh more"))
            deviations.append([np.log(part.value) * part.value / part.standardError for part in (d.data.covered, d.data.inside)])
        # The errors are what they say, and not just large; the estimators are skewed.
        assert np.all(np.abs(np.std(deviations, axis=0) - 1) < 4 / np.sqrt(2 * len(group)))
        assert np.all(np.abs(np.mean(deviations, axis=0)) < 0.3 + 4 / np.sqrt(len(group)))
    assert alarms == 0


@pytest.mark.parametrize("samples, frames", [(300, 3000), (3000, 300)])
def testErrorsKnowThatTheEstimatesShareSamples(samples, frames):
    """With many frames BAR is all but F_p, and with many samples F_q: their differences have small errors."""
    deviations = []
    for seed in range(60):
        data = diagnose(*normals(np.random.default_rng([27, seed]), samples, frames, 1.2, 3)[:2]).data
        deviations.append([np.log(part.value) * part.value / part.standardError for part in (data.covered, data.inside)])
    assert np.all(np.abs(np.std(deviations, axis=0) - 1) < 4 / np.sqrt(120))


def testMarginalsDoNotCryWolf():
    """180 coordinates whose distribution is that of the data, which are worth 100 to 2000 frames."""
    for seed, rho in enumerate([0.0, 0.5, 0.9] * 3):
        random = np.random.default_rng([24, seed])
        y = lfilter([np.sqrt(1 - rho**2)], [1, -rho], random.normal(size=(2100, 20)), axis=0)[100:]
        d = diagnose(logWeight(1.1 * random.normal(size=(5000, 3)), 1.1), logWeight(random.normal(size=(2000, 3)), 1.1),
                     coordinates={str(i): (random.normal(size=1000), y[:, i]) for i in range(20)})  # of the first samples
        assert not any("deviates" in finding or "disagree" in finding for finding in findings(d))


@pytest.mark.parametrize("left", [0.48, 0.97])
def testADroppedModeIsFound(left):
    """A flow of one mode, and perfect there."""
    x, y, *coordinate = twoModes(np.random.default_rng(8), 20_000, 4000, left, 1.0)
    d = diagnose(x, y, coordinates={"x": coordinate})
    assert d.reverse > 0.95 and d.tailIndex < tailIndexLimit(20_000)
    assert d.data.covered.value == pytest.approx(left, abs=4 * d.data.covered.standardError)
    expectFinding(d, f"the flow lacks {1 - d.data.covered.value:.0%} of the target", "problem")
    assert "on frames of all states" in d.verdicts()[0].advice
    if left == 0.48:
        expectFinding(d, "the flow deviates from the data in x", "warning")
        expectFinding(d, "data and reweighted samples disagree in x", "warning")
    assert findings(diagnose(x)) == ["no data: what the flow has dropped can't be seen, and the ESS does not show it"]


def testAModeTooRareForTheTestIsSeenInTheWeightsOfTheData():
    x, y, *_ = twoModes(np.random.default_rng(9), 20_000, 4000, 0.995, 1.0)
    d = diagnose(x, y)
    assert not d.data.isBelow(d.data.covered, 0.99) and d.data.beyond == pytest.approx(0.005, abs=4 * np.sqrt(0.005 / 4000))
    expectFinding(d, "of the data weigh more than each of 20,000 samples", "warning")


def testWrongProportionsOfTheFlowAreNoDroppedMode():
    x, y, *coordinate = twoModes(np.random.default_rng(10), 20_000, 4000, 0.3, 0.6)
    d = diagnose(x, y, coordinates={"x": coordinate})
    assert [f[:40] for f in findings(d)] == ["the flow deviates from the data in x (0."]


def testFramesWhereTheFlowHasNoDensityCount():
    x, y, *_ = normals(np.random.default_rng(11), 5000, 1000, 1.2, 3)
    y[::10] = np.inf
    d = diagnose(x, y)
    assert d.data.outside == 0.1 and d.data.covered.value == pytest.approx(0.9, abs=4 * d.data.covered.standardError)
    expectFinding(d, "the flow lacks", "problem")
    with pytest.raises(mm.OpenMMException, match="where the flow has a density is 0"):
        diagnose(x, np.full(100, np.inf))


@pytest.mark.parametrize("clash", [-50.0, -np.inf])
def testAFlowThatClashesCoversItsTargetNoneTheLess(clash):
    """A fifth of its samples weigh next to nothing, and nothing: no frame is there."""
    x, y, *_ = normals(np.random.default_rng(25), 10_000, 2000, 1.2, 3)
    x, y = x + np.log(1.25), y + np.log(1.25)  # the flow's density is less elsewhere
    x[::5] = clash
    d = diagnose(x, y)
    assert of.flowFreeEnergy(x, y).covered.value == pytest.approx(0.8, abs=0.03)
    assert d.data.covered.value == pytest.approx(1, abs=4 * d.data.covered.standardError)
    assert d.data.inside.value == pytest.approx(0.8, abs=4 * d.data.inside.standardError)
    assert [f.partition(",")[0].partition(":")[0] for f in findings(d)] == [
        "20% of the flow lie where the target is not" if clash > -np.inf else "20% of the flow's samples have no weight"]


def testDataOfAnotherTargetAreFound():
    """Frames of one mode in place of both: the flow seems to cover more than there is. With the same shape of modes and parts p and q
    of them, BAR's equation is Z = sum_modes [p q/(N q + M p/Z)] / [q/(N q + M p/Z)] of the left mode."""
    x, y, _, where = twoModes(np.random.default_rng(12), 20_000, 4000, 0.5, 0.9)
    y = y[where < 0]
    d = diagnose(x, y)
    p, q, Z = 0.5, np.array([0.9, 0.1]), 1.0
    for _ in range(50):
        alpha = 1 / (len(x) * q + len(y) * p / Z)
        Z = np.sum(alpha * p * q) / (alpha * q)[0]
    assert d.data.covered.value == pytest.approx(1 / Z, rel=0.01) and Z < 0.9
    expectFinding(d, "data and flow do not fit", "problem")


def testTooWideWeightsAreFound():
    random = np.random.default_rng(13)
    d = diagnose(*lognormals(random, 5000, 1000, 2.6))
    expectFinding(d, "the weights are too wide", "problem")
    many = diagnose(2.5 * random.normal(size=100_000))  # many samples help averages, but the flow is what it is
    expectFinding(many, "the weights are too wide", "warning")
    assert not any("too wide" in finding for finding in findings(diagnose(*lognormals(random, 5000, 1000, 1.5))))


def testHeavyTailsOfTheWeightsAreFound():
    """A flow of width s of a normal target has weights with k = 1 - s^2: no variance below s = 0.71."""
    narrow = diagnose(*normals(np.random.default_rng(23), 20_000, 2000, 0.55, 1)[:2])
    assert tailIndexLimit(20_000) < narrow.tailIndex < 1
    expectFinding(narrow, "the weights have a heavy tail (k = 0.", "warning")


def testADominatingWeightIsFound():
    x, y, *_ = normals(np.random.default_rng(14), 2000, 500, 1.2, 3)
    x[700] = np.log(np.exp(x).sum() / 4)
    d = diagnose(x, y)
    assert d.largestShare == pytest.approx(0.2, rel=0.01)
    expectFinding(d, "one sample of 2,000 carries 20% of all weight", "problem")
    assert f"rejects {d.longestRun:,} proposals" in findings(d)[0] and d.longestRun > 100
    x[700] = np.log(np.exp(np.delete(x, 700)).sum() / 20)
    assert not any("carries" in finding for finding in findings(diagnose(x, y)))


def testWhatHangsOnTheMeanWeightIsLeftOutWhereThereIsNone():
    """With 17 effective samples the mean weight is too low, and the flow seems to cover a third of what it covers."""
    random = np.random.default_rng(24)
    x, y = lognormals(random, 1000, 4000, 3.5)
    d = diagnose(x, y, coordinates={"x": (random.normal(size=1000), random.normal(size=4000))})
    assert d.effective < 20 and d.data.isBelow(d.data.covered, 0.99) and d.marginals[0].reweighted > 0.1
    assert not any(text in finding for finding in findings(d) for text in ("lacks", "fit", "disagree", "lie where"))


def testCoordinatesOfTheFirstSamplesAreWeightedByTheirWeights():
    x, y, flow, data = normals(np.random.default_rng(26), 20_000, 4000, 1.5, 1)
    d = diagnose(x, y, coordinates={"x": (flow[:5000], data)})
    assert d.marginals[0].divergence > 0.04 and d.marginals[0].reweighted < d.marginals[0].noise


def testZeroWeightsAndNaNAreCounted():
    x, y, *_ = normals(np.random.default_rng(15), 2000, 500, 1.2, 3)
    x[:300], x[300:400] = -np.inf, np.nan
    d = diagnose(x, y)
    assert (d.zeroFraction, d.notNumbers) == (0.2, 100)
    expectFinding(d, "20% of the flow's samples have no weight, 100 of them NaN", "warning")
    x[:300] = 0
    assert not any("no weight" in finding for finding in findings(diagnose(x, y)))
    for wrong in (np.full(50, -np.inf), np.r_[x, np.inf]):
        with pytest.raises(mm.OpenMMException):
            diagnose(wrong)


def testRareAcceptanceIsFound():
    random = np.random.default_rng(16)
    expectFinding(diagnose(4.5 * random.normal(size=5000)), "of jumps would be accepted", "warning")
    assert not any("accepted" in finding for finding in findings(diagnose(2 * random.normal(size=5000))))


@pytest.mark.parametrize("rho, short", [(0.99, True), (0.5, False)])
def testDataThatAreTooShortAreSaidToBe(rho, short):
    random = np.random.default_rng(17)
    y = lfilter([np.sqrt(1 - rho**2)], [1, -rho], random.normal(size=(5000, 3)), axis=0)[1000:]
    d = diagnose(logWeight(1.2 * random.normal(size=(5000, 3)), 1.2), logWeight(y, 1.2), coordinates={
        "slow": (random.normal(size=5000), y[:, 0])})
    if short:
        assert d.data.independent < 50
        expectFinding(d, "the data are too short to tell: 4,000 frames are worth", "warning")
    assert len(findings(d)) == short


def testOverlapThatIsMissingIsSaid():
    random = np.random.default_rng(18)
    d = diagnose(*lognormals(random, 1000, 1000, 7))
    assert d.data.overlap < 0.01
    expectFinding(d, "flow and target hardly overlap", "problem")
    none = diagnose(random.normal(size=1000), 1000 + random.normal(size=1000))  # BAR throws
    assert none.data.overlap == 0 and np.isnan(none.data.bar.value)
    expectFinding(none, "flow and target hardly overlap (0)", "problem")
    expectFinding(none, "100.0% of the data weigh more", "warning")


def testDeviationsAreMeasuredAgainstTheNoiseOfTheData():
    random = np.random.default_rng(19)
    x, y, *_ = normals(random, 20_000, 2000, 1.05, 2)
    same, shifted = ((random.normal(m, 1, 20_000), random.normal(size=2000)) for m in (0, 0.6))
    angle = (random.uniform(2, 4, 20_000) + 360, random.uniform(2, 4, 2000))
    d = diagnose(x, y, coordinates={"same": same, "shifted": shifted, "angle": angle}, periods={"angle": 360.0})
    assert [m.name for m in d.marginals][0] == "shifted"
    assert findings(d)[0].startswith("the flow deviates from the data in shifted (0.06)")
    assert all(m.divergence < m.noise for m in d.marginals[1:])


def testPlainDynamicsIsPreferredWhereItIsCheaper():
    x, y, *_ = normals(np.random.default_rng(20), 5000, 1000, 1.2, 3)
    expectFinding(diagnose(x, y, sampleCost=Cost(1, 0.5), frameCost=Cost(1, 0.01)), "by the flow and", "note")
    assert diagnose(x, y, sampleCost=Cost(1, 0.5), frameCost=Cost(1, 0.01), dynamicsCost=Cost(1e6, 50)).verdicts() == []


# The page

def testThePageIsDrawnWithAndWithoutData(tmp_path):
    x, y, *coordinate = twoModes(np.random.default_rng(21), 5000, 1000, 0.48, 1.0)
    y[:10] = np.inf
    full = diagnose(x, y, coordinates={"x": coordinate, "y": coordinate}, sampleCost=Cost(1, 1e-3), frameCost=Cost(9, 1e-2))
    bare = diagnose(np.r_[np.full(20, -np.inf), x])
    for name, diagnosis in {"full": full, "bare": bare}.items():
        plots.diagnostics(tmp_path / f"{name}.png", diagnosis)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def testBondsAnglesAndTorsionsOfAMolecule():
    """n-butane's heavy atoms and one hydrogen, trans and gauche."""
    topology = app.Topology()
    residue = topology.addResidue("BUT", topology.addChain())
    carbons = [topology.addAtom(f"C{i}", app.element.carbon, residue) for i in range(4)]
    hydrogen = topology.addAtom("H", app.element.hydrogen, residue)
    for i, j in ((1, 0), (1, 2), (3, 2)):
        topology.addBond(carbons[i], carbons[j])
    topology.addBond(carbons[1], hydrogen)
    assert bondedCoordinates(topology, [3, 0, 1, 2]) == {
        "C0-C1 1": (1, 2), "C1-C2 1": (2, 3), "C2-C3 1": (3, 0), "C0-C1-C2 1": (1, 2, 3), "C1-C2-C3 1": (2, 3, 0),
        "C0-C1-C2-C3 1": (1, 2, 3, 0)}
    found = bondedCoordinates(topology, [4, 3, 0, 1, 2])
    assert len(found) == 4 + 4 + 1 and found["C0-C1-C2-C3 1"] == (2, 3, 4, 1)
    c, s = np.cos(np.radians(60)), np.sin(np.radians(60))
    x = np.array([[[0.3, 0.2 * y, 0.2 * z], [0.0, 0.1, 0], [0, 0, 0], [0.3, 0, 0]] for y, z in ((-1, 0), (c, s))])
    np.testing.assert_allclose(measure(x, (3, 0)), 0.2)
    np.testing.assert_allclose(measure(x, (1, 2, 3)), 90)
    np.testing.assert_allclose(np.abs(measure(x, (1, 2, 3, 0))), [180, 60])


# A flow that was trained

@pytest.fixture(scope="module")
def brokenPhase():
    """phi^4 on 4x4 sites at kappa = 0.3, lambda = 0.022: two modes of opposite sign with a barrier of 11 kT between constant fields.
    Its HMC samples, symmetrised, and a flow that reverse KL has trained from a start at positive fields."""
    potential = of.testsystems.LatticePhi4.fromKappa([4, 4], 0.3, 0.022).createNativePotential()
    start = torch.full((50, 16), 2.3, dtype=torch.float64)
    chain = hmcChain(potential, start, 80, seed=1)
    data = chain.x.transpose(0, 1).reshape(-1, 16)  # walker after walker
    data *= torch.as_tensor(np.random.default_rng(2).choice([-1.0, 1.0], len(data)))[:, None]
    options = of.RealNVPOptions()
    options.conditioner.seed = 6
    transform = of.Sequence([*of.makeRealNVP(16, 6, options).getTransforms(), of.Scaling([2.3] * 16, [0.7] * 16)])
    flow = of.Flow(of.GaussianPrior(16), transform)
    trainer = of.Trainer(flow, of.TrainerOptions(iterations=600, learningRate=2e-3, seed=3, gradientClip=20.0))
    trainer.addLoss(of.PathGradientLoss(potential, of.ReverseKLLossOptions(batchSize=256, dropFraction=0)))
    trainer.train(600)
    return potential, flow, data


@torch.no_grad()
def drawWeights(potential, flow, data, signs):
    """log w of 20,000 samples of a flow, with a sign drawn from `signs`, and of data."""
    x = flow.sample(20_000, of.Random(4)).x
    x = x * torch.as_tensor(np.random.default_rng(5).choice(signs, len(x)))[:, None]

    def logW(phi):
        logQ = flow.logQ(phi) if len(signs) == 1 else torch.logaddexp(flow.logQ(phi), flow.logQ(-phi)) - np.log(2)
        return (-potential.evaluate(phi).u - logQ).numpy()

    return diagnose(logW(x), logW(data), coordinates={"magnetisation": (x.mean(1), data.mean(1)), "field": (x[:, 0], data[:, 0])})


@pytest.mark.slow
def testReverseKLInTheBrokenPhaseIsFoundOut(brokenPhase, tmp_path):
    """The reverse ESS is high. By symmetry the flow lacks one half."""
    d = drawWeights(*brokenPhase, [1.0])
    assert d.reverse > 0.5 and d.tailIndex < tailIndexLimit(d.samples) and d.acceptance.value > 0.5
    assert d.data.covered.value == pytest.approx(0.5, abs=4 * d.data.covered.standardError) and d.data.forward < 1e-3
    assert d.data.fromFlow.value - d.data.fromTarget.value == pytest.approx(np.log(2), abs=5 * d.data.covered.standardError / 0.5)
    expectFinding(d, "the flow lacks", "problem")
    expectFinding(d, "the flow deviates from the data in magnetisation", "warning")
    plots.diagnostics(tmp_path / "dropped.png", d)


@pytest.mark.slow
def testTheSameFlowWithBothSignsIsNotBlamed(brokenPhase):
    d = drawWeights(*brokenPhase, [-1.0, 1.0])
    assert d.data.covered.value == pytest.approx(1, abs=4 * d.data.covered.standardError)
    assert d.verdicts() == []
