# SPDX-License-Identifier: MIT
"""What is wrong with a flow, and what to try: from the log weights of its samples and of data.

Everything is on plain arrays, so that it serves molecules, lattices and any other flow with a density. log w = -u - log q (F1);
a constant added to all log weights changes only the free energies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import openmm as mm
from scipy import special, stats

from .analysis import Estimate, inefficiency
from .freeenergy import LEAST_OVERLAP

#: An average over fewer effective samples has an error above a tenth of the spread of what is averaged.
FEW_EFFECTIVE = 100
#: Kish's ESS is at most 1/share^2: with a weight above this it is below FEW_EFFECTIVE whatever the others are.
DOMINANT_SHARE = 0.1
#: ESS/N below which training on own samples (BoltzmannGenerator.refine) has too few of them in a batch of some hundreds.
LOW_FRACTION = 0.01
#: Part of the flow's samples without any weight, or where the target is not; each of them is lost work.
MANY_ZERO = 0.1
#: Standard errors. Those of the delta method are too small where weights are skewed; at 4 healthy flows give no false alarm in
#: some hundred seeds (tests).
SIGNIFICANT = 4.0
#: Part of the target that matters: 1 % of a population.
RELEVANT = 0.01
#: Accepted part of independence jumps below which annealed stages may pay.
LOW_ACCEPTANCE = 0.01
#: Independent frames below which data can't tell what a flow lacks: the error of a population of one half is 7 %.
FEW_FRAMES = 50
#: Jensen-Shannon divergence in bits; that of a Gaussian that is shifted by a third of its width.
DEVIATING = 0.02
#: Samples of the flow, or frames, without which nothing can be said.
FEWEST_SAMPLES = 25
#: Bins of a marginal's histogram, one for so many frames; and blocks in time of the data, which are split into halves in all ways
#: to learn the noise.
MOST_BINS, FEWEST_BINS, FRAMES_PER_BIN, BLOCKS = 40, 6, 25, 8


@dataclass(frozen=True)
class Verdict:
    """severity: "problem" (results can't be trusted), "warning", or "note"."""

    severity: str
    finding: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.finding}. {self.advice}."


@dataclass
class Cost:
    """Energy evaluations and CPU seconds; NaN where not known."""

    energyEvaluations: float = np.nan
    cpuSeconds: float = np.nan

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.energyEvaluations * factor, self.cpuSeconds * factor)


@dataclass
class Marginal:
    """The distribution of one coordinate, and how far the flow's is from the data's.

    Attributes
    ----------
    divergence, reweighted : Jensen-Shannon, in bits, of the flow's samples and of the weighted ones to the data
    noise, reweightedNoise : what either would be, at most, without a difference: the largest divergence between two halves of
        the data, and in the second the part of the weighted samples' own noise besides
    edges, flow, weighted, data : bins, and the probabilities of each
    """

    name: str
    divergence: float
    reweighted: float
    noise: float
    reweightedNoise: float
    edges: np.ndarray = field(repr=False)
    flow: np.ndarray = field(repr=False)
    weighted: np.ndarray = field(repr=False)
    data: np.ndarray = field(repr=False)

    def asDict(self) -> dict[str, float]:
        return {"Jensen-Shannon divergence of the flow": self.divergence, "noise": self.noise,
                "of the reweighted flow": self.reweighted, "noise of that": self.reweightedNoise}


@dataclass
class DataDiagnosis:
    """What samples of the target say.

    Attributes
    ----------
    frames, inefficiency, slowest : how many, and how many of them are worth one, by the slowest of log w and the coordinates
    forward : ESS/N of the flow from samples of the target, 1 / (mean_y(w) mean_y(1/w))
    fromFlow, fromTarget, bar : F = -ln Z in kT, by the q-estimator, the p-estimator and BAR; bar NaN without overlap
    upperBound, lowerBound : of F
    covered : the part of the target that the flow's samples reach, exp(F - F_q), F by BAR; NaN without overlap
    inside : the part of the flow where the target's samples are, exp(F_p - F); a flow that clashes covers its target none the
        less. The mode-dropping estimator of the lattice literature is their product, exp(F_p - F_q)
    overlap : of BAR
    beyond : the part of the frames that weigh more than every sample of the flow; outside: where the flow has no density
    tailIndex : of 1/w, on which F_p hangs
    """

    frames: int
    inefficiency: float
    slowest: str
    forward: float
    fromFlow: Estimate
    fromTarget: Estimate
    bar: Estimate
    upperBound: Estimate
    lowerBound: Estimate
    covered: Estimate
    inside: Estimate
    overlap: float
    beyond: float
    outside: float
    tailIndex: float

    @property
    def independent(self) -> float:
        """The number of independent frames."""
        return self.frames / self.inefficiency

    def isBelow(self, part: Estimate, limit: float) -> bool:
        """Whether a part is significantly below one, and below the limit; where frames are few it takes more errors (Student)."""
        return part.value < limit and np.log(part.value) < -self._significant() * part.standardError / part.value

    def isAboveOne(self, part: Estimate) -> bool:
        """Whether a part is significantly above one."""
        return part.value > 1 + RELEVANT and np.log(part.value) > self._significant() * part.standardError / part.value

    def _significant(self) -> float:
        return float(stats.t.isf(stats.norm.sf(SIGNIFICANT), max(self.independent - 1, 1)))


@dataclass
class Diagnosis:
    """Numbers on a flow; verdicts() says what they mean.

    Attributes
    ----------
    logWeights, targetLogWeights : of the flow's samples (-inf: no weight) and of the data
    notNumbers : NaN among the flow's log weights; they count as no weight
    reverse, clipped, chain : ESS/N: Kish's, the same with the largest 1e-4 of the weights clipped, and N/(2 tau_int) of an
        independence chain
    largestShare : of the largest weight in the sum of all
    tailIndex : Pareto k of the largest weights
    acceptance : of independence jumps in equilibrium
    stays : how long the independence chain was at each sample, in its order
    data : what samples of the target say, if there are any
    flowCost, dynamicsCost : of one independent sample; the flow's by its reverse ESS
    """

    logWeights: np.ndarray = field(repr=False)
    targetLogWeights: np.ndarray | None = field(repr=False)
    notNumbers: int
    quantiles: dict[float, float]
    reverse: float
    clipped: float
    chain: float
    largestShare: float
    tailIndex: float
    acceptance: Estimate
    stays: np.ndarray = field(repr=False)
    data: DataDiagnosis | None = None
    marginals: list[Marginal] = field(default_factory=list)
    flowCost: Cost = field(default_factory=Cost)
    dynamicsCost: Cost = field(default_factory=Cost)

    @property
    def samples(self) -> int:
        return len(self.logWeights)

    @property
    def effective(self) -> float:
        """The number of effective samples, Kish's."""
        return self.reverse * self.samples

    @property
    def zeroFraction(self) -> float:
        return float(np.mean(np.isneginf(self.logWeights)))

    @property
    def longestRun(self) -> int:
        """Of rejections of the chain."""
        return int(self.stays.max()) - 1

    def asDict(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        fractions = {"reverse": self.reverse, "reverse, clipped 1e-4": self.clipped, "independence chain": self.chain}
        result = {"samples": self.samples, "zero weights": self.zeroFraction, "NaN weights": self.notNumbers,
                  "ESS/N": fractions, "largest share of one weight": self.largestShare, "tail index": self.tailIndex,
                  "tail index, limit": tailIndexLimit(self.samples),
                  "log w quantiles - median": {str(p): q for p, q in self.quantiles.items()},
                  "acceptance": asdict(self.acceptance), "longest run of rejections": self.longestRun}
        if self.data is not None:
            d = self.data
            fractions["forward"] = d.forward
            result["data"] = {
                "frames": d.frames, "independent frames": d.independent, "slowest": d.slowest,
                "part of the target covered": asdict(d.covered), "part of the flow inside": asdict(d.inside),
                "exp(F_p - F_q)": float(np.exp(d.fromTarget.value - d.fromFlow.value)),
                "F in kT": {"from the flow": asdict(d.fromFlow), "from data": asdict(d.fromTarget), "BAR": asdict(d.bar),
                            "upper bound": asdict(d.upperBound), "lower bound": asdict(d.lowerBound)},
                "overlap": d.overlap, "heavier than all samples": d.beyond, "without density": d.outside,
                "tail index of 1/w": d.tailIndex}
        if self.marginals:
            result["marginals"] = {m.name: m.asDict() for m in self.marginals}
        result["cost of an independent sample"] = {"flow": asdict(self.flowCost), "plain dynamics": asdict(self.dynamicsCost)}
        result["verdicts"] = [asdict(verdict) for verdict in self.verdicts()]
        return result

    def summarize(self) -> dict[str, Any]:
        """The verdicts, and the numbers that data give, in a few lines."""
        found: dict[str, Any] = {"tail index": self.tailIndex, "longest run of rejections": self.longestRun}
        if self.data is not None:
            found |= {"ESS/N from data": self.data.forward, "part of the target covered": asdict(self.data.covered)}
        found["verdicts"] = {str(i): str(v) for i, v in enumerate(self.verdicts(), 1)} or "nothing wrong was found"
        return found

    def verdicts(self) -> list[Verdict]:
        """What is wrong and what to try, the gravest first; empty where nothing is."""
        found = [*_judgeWeights(self), *_judgeAcceptance(self), *_judgeData(self), *_judgeMarginals(self), *_judgeCost(self)]
        return sorted(found, key=lambda verdict: ("problem", "warning", "note").index(verdict.severity))


def diagnose(logWeights: Any, targetLogWeights: Any = None, *, coordinates: Mapping[str, tuple[Any, Any]] | None = None,
             periods: Mapping[str, float] | None = None, sampleCost: Cost | None = None, frameCost: Cost | None = None,
             dynamicsCost: Cost | None = None, seed: int = 1) -> Diagnosis:
    """Judge a flow.

    Parameters
    ----------
    logWeights : log w of independent samples of the flow [samples], at least 25; NaN counts as no weight
    targetLogWeights : log w of samples of the target, in time order [frames], at least 25; +inf where the flow has no density
    coordinates : {name: (values [samples], values [frames])}, whose distributions are compared; those of the first samples will do
    periods : {name: period} of those that are periodic
    sampleCost, frameCost : of one sample of the flow, and of the dynamics from one frame to the next
    dynamicsCost : of an independent sample by plain dynamics; from frameCost and the autocorrelation of the frames by default
    seed : of the independence chain
    """
    from . import (clippedEffectiveSampleSize, effectiveSampleSize, independenceAcceptance, independenceChain,
                   quantiles, rejectionAutocorrelationTime)

    given = np.asarray(logWeights, dtype=float)
    logW = np.where(np.isnan(given), -np.inf, given)
    probabilities = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    reverse = effectiveSampleSize(logW).getFraction()  # refuses +inf, and weights that are all zero
    weights = np.exp(logW - logW.max())
    found = np.array(quantiles(logW, probabilities))
    acceptance = independenceAcceptance(logW)
    states = independenceChain(logW, seed).states
    diagnosis = Diagnosis(
        logW, None, int(np.isnan(given).sum()),
        dict(zip(probabilities, (found - (found[3] if np.isfinite(found[3]) else 0)).tolist())), reverse,
        clippedEffectiveSampleSize(logW, 1e-4).getFraction(), 1 / (2 * rejectionAutocorrelationTime(states).value), float(weights.max() / weights.sum()),
        tailIndex(logW), Estimate(acceptance.value, acceptance.standardError), _stays(states))
    if targetLogWeights is not None:
        target = np.asarray(targetLogWeights, dtype=float)
        pairs = {name: (np.asarray(flow, dtype=float), np.asarray(data, dtype=float))
                 for name, (flow, data) in (coordinates or {}).items()}
        slowest = {"log w": inefficiency(target)} | {
            name: max(inefficiency(part) for part in _components(data, (periods or {}).get(name)))
            for name, (_, data) in pairs.items()}
        diagnosis.targetLogWeights, diagnosis.data = target, _diagnoseData(logW, target, slowest)
        compared = [_compare(name, flow, data, weights[:len(flow)], (periods or {}).get(name)) for name, (flow, data) in pairs.items()]
        diagnosis.marginals = sorted(compared, key=lambda m: m.noise - m.divergence)
    if sampleCost is not None:
        diagnosis.flowCost = sampleCost * (1 / reverse)
    if dynamicsCost is None and frameCost is not None and diagnosis.data is not None:
        dynamicsCost = frameCost * diagnosis.data.inefficiency
    diagnosis.dynamicsCost = dynamicsCost or Cost()
    return diagnosis


def tailIndex(logWeights: Any) -> float:
    """k of the generalised Pareto distribution of the largest weights, as Pareto-smoothed importance sampling estimates it.

    Weights have a variance where k < 1/2, and a mean where k < 1. Of N weights the largest 3 sqrt(N), at most N/5, less the
    next smaller one, are fitted by the posterior mean of Zhang and Stephens, Technometrics 51, 316 (2009), with a prior that is
    worth ten observations of k = 1/2: Vehtari, Simpson, Gelman, Yao and Gabry, J. Mach. Learn. Res. 25, 72 (2024).

    Parameters
    ----------
    logWeights : [samples], at least 25; -inf allowed

    Returns
    -------
    k; -infinity where the largest weights are all the same
    """
    ordered = np.sort(np.asarray(logWeights, dtype=float))
    count = len(ordered)
    if count < FEWEST_SAMPLES:
        raise ValueError(f"tailIndex: there are {count} log weights, but must be at least {FEWEST_SAMPLES}")
    n = int(3 * np.sqrt(count)) if count > 225 else count // 5
    top = ordered[-n - 1:] - ordered[-1]
    x = np.exp(top[1:]) - np.exp(top[0])
    x = x[x > 1e-12]  # equal but for rounding
    n = len(x)
    if n < 5:
        return -np.inf
    m = 30 + int(np.sqrt(n))
    b = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * x[int(n / 4 + 0.5) - 1])
    k = np.mean(np.log1p(-b[:, None] * x), axis=1)
    logLikelihood = n * (np.log(-b / k) - k - 1)
    posterior = np.exp(logLikelihood - logLikelihood.max())
    k = np.mean(np.log1p(-(b @ posterior / posterior.sum()) * x))
    return float((n * k + 10 * 0.5) / (n + 10))


def tailIndexLimit(count: int) -> float:
    """The k up to which an average over so many weights is reliable: min(1 - 1/log10 N, 0.7), Vehtari et al. (2024)."""
    return min(1 - 1 / np.log10(count), 0.7)


def jensenShannon(p: Any, q: Any) -> float:
    """Jensen-Shannon divergence of two histograms in bits: 0 where they are the same, 1 where they have nothing in common."""
    p, q = (np.asarray(counts, dtype=float) / np.sum(counts) for counts in (p, q))
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(0.5 * sum(np.sum(np.where(part > 0, part * np.log2(part / middle), 0)) for part in (p, q)))


def _stays(states: Sequence[int]) -> np.ndarray:
    changes = np.flatnonzero(np.diff(np.asarray(states))) + 1
    return np.diff(np.concatenate([[0], changes, [len(states)]]))


def _components(values: np.ndarray, period: float | None) -> list[np.ndarray]:
    """A periodic coordinate as sine and cosine, so that it has no jump."""
    if period is None:
        return [values]
    return [np.sin(2 * np.pi / period * values), np.cos(2 * np.pi / period * values)]


def _diagnoseData(logW: np.ndarray, target: np.ndarray, inefficiencies: dict[str, float]) -> DataDiagnosis:
    from . import bar, flowFreeEnergy

    found = flowFreeEnergy(logW, target)
    # Where correlated values are averaged, the error grows with their inefficiency, whatever that of other coordinates is.
    growth = float(np.sqrt(max(inefficiency(target), inefficiency(np.exp(target.min() - target)))))
    estimate = lambda statistic, factor=1.0: Estimate(statistic.value, factor * statistic.standardError)  # noqa: E731
    slowest = max(inefficiencies, key=inefficiencies.get)
    nothing = Estimate(np.nan, np.nan)
    data = DataDiagnosis(len(target), inefficiencies[slowest], slowest, found.forwardFraction, estimate(found.fromFlow),
                         estimate(found.fromTarget, growth), nothing, estimate(found.upperBound), estimate(found.lowerBound, growth),
                         nothing, nothing, 0.0, float(np.mean(target > logW.max())), float(np.mean(np.isposinf(target))),
                         tailIndex(-target))
    try:
        result = bar(-logW, target)
    except mm.OpenMMException:  # it found no overlap
        return data
    data.bar, data.overlap = Estimate(result.deltaF, growth * result.standardError), result.overlap
    data.covered, data.inside = _coverage(logW, target, result.deltaF, found, growth)
    return data


def _coverage(logW: np.ndarray, target: np.ndarray, F: float, found: Any, growth: float) -> tuple[Estimate, Estimate]:
    """exp(F - F_q) and exp(F_p - F), F by BAR and F_q, F_p of a FlowFreeEnergy, with errors of the delta method: F, F_q and F_p share their samples.

    With f(y) = 1/(1 + exp(y)), a_i = f(-log w_i + M - F) of the flow's N samples, b_j = f(log w_j - M + F) of the frames,
    M = ln(N/frames) and S = sum a (1 - a) + sum b (1 - b), each sample moves F by -(a_i - mean a)/S or (b_j - mean b)/S, F_q by
    -(w_i/mean w - 1)/N and F_p by (w_j^-1/mean w^-1 - 1)/frames.
    """
    shift = np.log(len(logW) / len(target)) - F
    a, b = special.expit(logW - shift), special.expit(shift - target)
    S = np.sum(a * (1 - a)) + np.sum(b * (1 - b))
    w, inverse = np.exp(logW - logW.max()), np.exp(target.min() - target)
    byFlow, byTarget = (a - a.mean()) / S, growth * (b - b.mean()) / S
    q, p = w / w.sum() - 1 / len(w), growth * (inverse / inverse.sum() - 1 / len(inverse))
    errors = (np.sqrt(np.sum((q - byFlow)**2) + np.sum(byTarget**2)), np.sqrt(np.sum(byFlow**2) + np.sum((p - byTarget)**2)))
    covered, inside = (Estimate(float(np.exp(d)), float(np.exp(d) * e)) for d, e in
                       zip((F - found.fromFlow.value, found.fromTarget.value - F), errors))
    return covered, inside


def _compare(name: str, flow: np.ndarray, data: np.ndarray, weights: np.ndarray, period: float | None) -> Marginal:
    """Histograms of a coordinate. What lies outside their range is counted in the bins at the ends."""
    if period is not None:
        flow, data = _unwrap(flow, data, period)
    ends = np.quantile(np.concatenate([flow, data]), [0.001, 0.999])
    if period is not None and ends[1] - ends[0] > period / 2:
        flow, data = ((values + period / 2) % period - period / 2 for values in (flow, data))
        ends = np.array([-period / 2, period / 2])
    count = int(np.clip(len(data) // FRAMES_PER_BIN, FEWEST_BINS, MOST_BINS))
    edges = np.linspace(ends[0], max(ends[1], ends[0] + 1e-9), count + 1)
    bins = [np.clip(np.searchsorted(edges, values, side="right") - 1, 0, count - 1) for values in (flow, data)]
    blocks = np.array([np.bincount(part, minlength=count) for part in np.array_split(bins[1], BLOCKS)])
    total = blocks.sum(axis=0)
    halves = [blocks[list(chosen)].sum(axis=0) for chosen in combinations(range(BLOCKS), BLOCKS // 2) if 0 in chosen]
    noise = max(jensenShannon(half, total - half) for half in halves)
    plain = np.bincount(bins[0], minlength=count)
    weighted = np.bincount(bins[0], weights=weights, minlength=count)
    # Between histograms of n and m independent values of one distribution the mean is (bins - 1)/8 (1/n + 1/m) nats.
    each = (np.count_nonzero(total) - 1) / (8 * np.log(2))
    own = 3 * each * float(np.sum(weights**2) / np.sum(weights)**2)
    return Marginal(name, jensenShannon(plain, total), jensenShannon(weighted, total), noise, float(noise + own),
                    edges, plain / plain.sum(), weighted / weighted.sum(), total / total.sum())


def _unwrap(flow: np.ndarray, data: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Turned so that the cut lies opposite of the mean of the data."""
    turn = 2 * np.pi / period
    mean = np.angle(np.mean(np.exp(1j * turn * data))) / turn
    first, second = (mean + (values - mean + period / 2) % period - period / 2 for values in (flow, data))
    return first, second


def _judgeWeights(d: Diagnosis) -> Iterator[Verdict]:
    effective = d.effective
    if d.zeroFraction > MANY_ZERO:
        reason = f", {d.notNumbers:,} of them NaN" if d.notNumbers else ""
        yield Verdict("warning", f"{d.zeroFraction:.0%} of the flow's samples have no weight{reason}: clashes, or outside the "
                      "chart", "Train longer, or with energyWeight > 0, which teaches the flow to avoid them")
    if d.largestShare > DOMINANT_SHARE:
        yield Verdict("problem", f"one sample of {d.samples:,} carries {d.largestShare:.0%} of all weight: averages are those "
                      f"of this sample, and an independence chain rejects {d.longestRun:,} proposals in a row",
                      "Draw more samples to see whether it stays so; train on data where the flow is thin")
    elif d.tailIndex > tailIndexLimit(d.samples):
        yield Verdict("warning", f"the weights have a heavy tail (k = {d.tailIndex:.2f}, limit {tailIndexLimit(d.samples):.2f}): ESS "
                      "and averages depend on samples that are not there yet",
                      "Don't trust the errors; widen the flow where it is too narrow, by maximum likelihood or refine()")
    if effective < FEW_EFFECTIVE or d.reverse < LOW_FRACTION:
        severity = "problem" if effective < FEW_EFFECTIVE else "warning"
        yield Verdict(severity, f"the weights are too wide: {effective:.0f} effective samples of {d.samples:,} "
                      f"(ESS/N {d.reverse:.2g})",
                      "Train longer, with more layers or more frames; cool from a higher temperature (anneal); "
                      "or put annealed stages between flow and target")


def _judgeAcceptance(d: Diagnosis) -> Iterator[Verdict]:
    if d.acceptance.value < LOW_ACCEPTANCE:
        yield Verdict("warning", f"only {d.acceptance.value:.2%} of jumps would be accepted",
                      "Train longer, or anneal the jumps: `openmm-flow tune` finds how many stages pay")


def _judgeData(d: Diagnosis) -> Iterator[Verdict]:
    data = d.data
    if data is None:
        yield Verdict("note", "no data: what the flow has dropped can't be seen, and the ESS does not show it",
                      "Give frames of all states, such as those of parallel tempering (--frames)")
        return
    if data.independent < FEW_FRAMES:
        yield Verdict("warning", f"the data are too short to tell: {data.frames:,} frames are worth {data.independent:.0f} "
                      f"independent ones, by {data.slowest}",
                      "Run longer, or by parallel tempering or jumps")
    missing = 1 - data.covered.value
    measured = d.effective >= FEW_EFFECTIVE  # what hangs on the mean weight
    if measured and data.isBelow(data.covered, 1 - RELEVANT):
        yield Verdict("problem", f"the flow lacks {missing:.0%} of the target (it covers {data.covered}), whatever its ESS/N "
                      f"of {d.reverse:.2g}: modes are dropped, or tails", "Train it by forward KL (maximum likelihood) on frames of all states")
    elif _isTooMany(data.beyond, data.independent, max(5 * d.largestShare, RELEVANT / 10)):
        yield Verdict("warning", f"{data.beyond:.1%} of the data weigh more than each of {d.samples:,} samples of the flow: it is "
                      "too thin there", "Train it by forward KL on frames of all states; add frames of the rare ones")
    if measured and d.zeroFraction <= MANY_ZERO and data.isBelow(data.inside, 1 - MANY_ZERO):
        yield Verdict("warning", f"{1 - data.inside.value:.0%} of the flow lie where the target is not: clashes, or between its modes",
                      "Train longer, or with energyWeight > 0; it costs samples, no exactness")
    if measured and data.isAboveOne(data.covered):
        yield Verdict("problem", f"data and flow do not fit: the flow seems to cover {data.covered} of the target",
                      "Look whether the data are of this System and temperature, and have all states in their proportions")
    if data.overlap < LEAST_OVERLAP:
        yield Verdict("problem", f"flow and target hardly overlap ({data.overlap:.2g}): free energies can't be trusted",
                      "Train longer, or put annealed stages between them")


def _isTooMany(fraction: float, count: float, expected: float) -> bool:
    """Whether so large a fraction of that many independent frames is as unlikely as SIGNIFICANT errors, by the binomial law."""
    hits = fraction * count
    return hits > 0 and special.betainc(hits, count - hits + 1, min(expected, 1)) < stats.norm.sf(SIGNIFICANT)


def _judgeMarginals(d: Diagnosis) -> Iterator[Verdict]:
    if deviating := [f"{m.name} ({m.divergence:.2f})" for m in d.marginals if m.divergence > max(m.noise, DEVIATING)]:
        yield Verdict("warning", f"the flow deviates from the data in {_list(deviating)}, Jensen-Shannon divergence in bits",
                      "Train longer or with more bins and layers; weights correct it at a price")
    if disagreeing := [m.name for m in d.marginals if m.reweighted > max(m.reweightedNoise, DEVIATING)]:
        yield Verdict("warning", f"data and reweighted samples disagree in {_list(disagreeing)}: the flow or the data lack a part",
                      "See the mode-drop test; compare with data from other starts")


def _list(names: list[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _judgeCost(d: Diagnosis) -> Iterator[Verdict]:
    flow, dynamics = d.flowCost.cpuSeconds, d.dynamicsCost.cpuSeconds
    if flow > dynamics:
        yield Verdict("note", f"an independent sample costs {flow:.2g} CPU s by the flow and {dynamics:.2g} by plain dynamics",
                      "Use plain dynamics, unless it has not crossed all barriers")
