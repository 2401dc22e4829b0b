# SPDX-License-Identifier: MIT
"""How long an annealed jump should be: what pilot runs say of a protocol, and what they predict for others (F7).

The way out and back through the stages is its own reverse, so that the reduced work W of those that come to their end obeys
P(W) exp(-W) = P(-W), and the mean acceptance is E[min(1, exp(-W))] = 2 P(W < 0). Were W normal with mean m, its variance would be
2 m and the acceptance erfc(sqrt(m)/2). So m = 4 erfcinv(acceptance)^2 measures the dissipation of any protocol. It falls with
the number of stages K and with the steps s at each:

    1/m = a + K b s/(s + c)

the limits being a switch at once (a), stages that are long for the relaxation of the System (s >> c), where dissipation falls as
1/K, and short ones, where it falls as 1/(K s). a, b and c are fitted to pilots of different K and s.

    pilots = [runPilot(simulation, makeProtocol(K, s), jumps=100) for K, s in ((4, 2), (8, 2), (8, 10))]
    tuning = tune(pilots)
    best = tuning.best
    integrator.setAnnealedProtocol(respace(pilots[1], best.numStages, best.stepsPerStage))
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import erfc, erfcinv
from tqdm import trange

from .alchemy import copyProtocol, parametersOf
from .analysis import Estimate

STAGES, STEPS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128), (1, 2, 5, 10, 20, 50, 100)


@dataclass
class Pilot:
    """What the jumps of a pilot run did.

    Attributes
    ----------
    protocol : that of the run
    jumps : how many there were
    middle : the part of them whose way out ended in a jump at the last stage
    acceptance : the mean probability to be accepted of those
    works : their reduced works W, protocol and shadow, less logAlpha of a middle jump that is always made; +inf where a work was
        not finite [jumped]
    stageWorks : the protocol work of each switch of the parameters, 1 to K and back; NaN where it was not reached [jumps, 2 K]
    seconds : of a jump on average
    steps : dynamics steps and switches of one that comes to its end, 2 K (s + 1)
    """

    protocol: Any
    jumps: int
    middle: Estimate
    acceptance: Estimate
    works: np.ndarray
    stageWorks: np.ndarray
    seconds: float
    steps: int

    def asDict(self) -> dict[str, Any]:
        """For JSON; with mean and standard deviation of the work of each switch."""
        count = self.protocol.getNumStages()
        stages = {f"stage {k} {way}": {"mean": float(np.nanmean(column)), "standard deviation": float(np.nanstd(column))}
                  for (k, way), column in zip([(k, "out") for k in range(1, count + 1)] +
                                              [(k, "back") for k in range(count, 0, -1)], self.stageWorks.T)
                  if np.isfinite(column).any()}
        finite = self.works[np.isfinite(self.works)]
        quantiles = {str(p): float(np.quantile(finite, p)) for p in (0, 0.1, 0.5, 0.9)} if len(finite) else {}
        return {"stages": count, "steps per stage": self.protocol.getStepsPerStage(), "jumps": self.jumps,
                "middle jumps made": vars(self.middle), "acceptance of these": vars(self.acceptance),
                "quantiles of W": quantiles, "work of the switches": stages, "seconds per jump": self.seconds}


@dataclass
class Prediction:
    """Of a protocol with K stages and s steps at each: acceptance of a jump (middle and way together), its seconds, and the
    accepted jumps per second."""

    numStages: int
    stepsPerStage: int
    acceptance: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.acceptance / self.seconds


@dataclass
class Tuning:
    """Pilots, the fit of 1/m to them, and what it predicts."""

    pilots: list[Pilot]
    coefficients: np.ndarray
    secondsPerStep: float

    def predict(self, numStages: int, stepsPerStage: int) -> Prediction:
        a, b, c = self.coefficients
        dissipation = 1 / (a + numStages * b * stepsPerStage / (stepsPerStage + c))
        middle = sum(pilot.middle.value * pilot.jumps for pilot in self.pilots) / sum(pilot.jumps for pilot in self.pilots)
        return Prediction(numStages, stepsPerStage, middle * float(erfc(np.sqrt(dissipation) / 2)),
                          self.secondsPerStep * 2 * numStages * (stepsPerStage + 1) * (1 + middle) / 2)

    def table(self, stages: Iterable[int] = STAGES, steps: Iterable[int] = STEPS) -> list[Prediction]:
        steps = list(steps)
        return [self.predict(K, s) for K in stages for s in steps]

    @property
    def best(self) -> Prediction:
        """The one with most accepted jumps per second, among STAGES and STEPS."""
        return max(self.table(), key=lambda prediction: prediction.rate)

    def getRemarks(self, bare: Bare) -> list[str]:
        """What to know before the best is used."""
        remarks, best = [], self.best
        if bare.acceptance.value / bare.seconds > best.rate:
            remarks.append("bare jumps are accepted more often per second than any annealed ones are predicted to be")
        longest = max(pilot.protocol.getNumStages() * pilot.protocol.getStepsPerStage() for pilot in self.pilots)
        if best.numStages * best.stepsPerStage > 4 * longest:
            remarks.append("the proposal is more than four times as long as the longest pilot: run a pilot of its length")
        return remarks


def runPilot(simulation: Any, protocol: Any, jumps: int = 100, interval: int = 100, progress: bool = True) -> Pilot:
    """Jump with a protocol now and then in a running simulation, which goes on being exact, and note works and time.

    Its statistics and records grow by those of the pilot. The predictions are those of Metropolis' test.

    Parameters
    ----------
    simulation : Simulation whose integrator is a FlowLangevinIntegrator; its protocol, jump interval and recordTrials are put back
    protocol : AnnealedProtocol
    jumps : number of jumps, at least 2
    interval : steps of dynamics between them
    """
    if jumps < 2:
        raise ValueError(f"runPilot: jumps is {jumps}, but must be at least 2")
    integrator = simulation.integrator
    first = len(integrator.getAnnealedRecords())
    title = f"{protocol.getNumStages()} stages of {protocol.getStepsPerStage()} steps"
    with _settings(integrator, protocol, recordTrials=True):
        _, seconds = _jump(simulation, jumps, interval, title, progress)
    return summarizePilot(protocol, integrator.getAnnealedRecords()[first:], seconds)


@dataclass
class Bare:
    """Bare jumps: the part of them with a trial accepted, and the seconds of each."""

    acceptance: Estimate
    seconds: float

    def asDict(self) -> dict[str, Any]:
        return {"acceptance": vars(self.acceptance), "seconds per jump": self.seconds,
                "accepted per second": self.acceptance.value / self.seconds}


def runBare(simulation: Any, jumps: int = 100, interval: int = 100, progress: bool = True) -> Bare:
    """Jumps without a protocol in a running simulation, to compare with. Parameters as in runPilot()."""
    with _settings(simulation.integrator, None, simulation.integrator.getRecordTrials()):
        accepted, seconds = _jump(simulation, jumps, interval, "bare jumps", progress)
    return Bare(_mean(np.array(accepted) > 0), seconds)


@contextmanager
def _settings(integrator: Any, protocol: Any, recordTrials: bool) -> Iterator[None]:
    """A protocol, jumps only when called for, and whether trials are recorded; what was set before comes back at the end."""
    before = integrator.getAnnealedProtocol(), integrator.getJumpInterval(), integrator.getRecordTrials()
    try:
        integrator.setAnnealedProtocol(protocol)
        integrator.setJumpInterval(0)
        integrator.setRecordTrials(recordTrials)
        yield
    finally:
        integrator.setAnnealedProtocol(before[0])
        integrator.setJumpInterval(before[1])
        integrator.setRecordTrials(before[2])


def _jump(simulation: Any, jumps: int, interval: int, title: str, progress: bool) -> tuple[list[int], float]:
    """@return what each jump accepted, and the seconds of one"""
    accepted, seconds = [], 0.0
    for _ in trange(jumps, desc=title, unit="jump", disable=not progress):
        simulation.step(interval)
        start = time.perf_counter()
        accepted.append(simulation.integrator.jump())
        seconds += time.perf_counter() - start
    return accepted, seconds / jumps


def summarizePilot(protocol: Any, records: Sequence[Any], secondsPerJump: float) -> Pilot:
    """The Pilot of some AnnealedRecords."""
    count = protocol.getNumStages()
    jumped = [record for record in records if record.jumped]
    works = np.array([-record.logAlpha for record in jumped])
    probabilities = np.exp(-np.maximum(works, 0))
    stageWorks = np.full((len(records), 2 * count), np.nan)
    for row, record in zip(stageWorks, records):
        row[:len(record.stageWorks)] = record.stageWorks
    return Pilot(protocol, len(records), _mean([record.jumped for record in records]), _mean(probabilities),
                 works, stageWorks, secondsPerJump, 2 * count * (protocol.getStepsPerStage() + 1))


def _mean(values: Any) -> Estimate:
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        return Estimate(0.0, float("nan"))
    return Estimate(float(values.mean()), float(values.std() / np.sqrt(max(1, len(values) - 1))))


def tune(pilots: Sequence[Pilot]) -> Tuning:
    """Fit the pilots' dissipation, and predict that of other protocols.

    Parameters
    ----------
    pilots : at least 2 with some acceptance, of different numbers of stages or steps; the more they differ, the further the
        prediction reaches
    """
    used = [pilot for pilot in pilots if pilot.acceptance.value > 0]
    if len({(p.protocol.getNumStages(), p.protocol.getStepsPerStage()) for p in used}) < 2:
        raise ValueError(f"tune: number of pilots with an acceptance is {len(used)}, but must be at least 2 of different lengths: "
                         "take more stages, more steps at each, or a better flow")
    K = np.array([p.protocol.getNumStages() for p in used], float)
    s = np.array([p.protocol.getStepsPerStage() for p in used], float)
    # An acceptance of 1 has no dissipation: what its error allows is the least that is known of it.
    acceptance = np.array([min(p.acceptance.value, 1 - 0.5 / len(p.works)) for p in used])
    y = erfcinv(acceptance)  # m = 4 y^2
    inverse = 1 / (4 * y**2)
    errors = np.array([p.acceptance.standardError for p in used])
    # |d ln m / d acceptance| = sqrt(pi) exp(y^2)/y
    error = np.where(errors > 0, np.maximum(np.sqrt(np.pi) * np.exp(y**2) / y * errors, 0.02), 1.0)

    def residuals(x: np.ndarray) -> np.ndarray:
        a, b, c = np.exp(x)
        return (np.log(a + K * b * s / (s + c)) - np.log(inverse)) / error

    guesses = [(np.log(inverse.min() / 10), np.log(inverse.max() / K.max()), np.log(c)) for c in (0.1, 3.0, 100.0)]
    # Weak ties keep what the pilots don't determine within reason.
    fits = [least_squares(lambda x, x0=np.array(guess): np.append(residuals(x), (x - x0) / 5), guess) for guess in guesses]
    best = min(fits, key=lambda fit: fit.cost)
    seconds = sum(p.seconds * p.jumps for p in pilots) / sum(p.steps * p.jumps * (1 + p.middle.value) / 2 for p in pilots)
    return Tuning(list(pilots), np.exp(best.x), seconds)


def respace(pilot: Pilot, numStages: int, stepsPerStage: int | None = None) -> Any:
    """A protocol with the parameters of a pilot's on the way, at stages of equal thermodynamic length.

    The length of a switch is the spread of its work, out and back taken together: from the quartiles, as a clash makes works of
    any size. The values of the parameters are interpolated in the length so far (Sivak and Crooks, PRL 108, 190602, 2012).

    Parameters
    ----------
    numStages : K of the new protocol
    stepsPerStage : as the pilot's by default
    """
    count = pilot.protocol.getNumStages()
    pairs = zip(pilot.stageWorks[:, :count].T, pilot.stageWorks[:, :count - 1:-1].T)  # out, and the same switch back
    columns = [[way[np.isfinite(way)] for way in pair] for pair in pairs]
    if any(len(out) < 4 for out, _ in columns):
        raise ValueError("respace: there are switches that fewer than four jumps of the pilot have reached: take more jumps")
    lengths = np.array([np.mean([np.subtract(*np.quantile(way, [0.75, 0.25])) for way in pair if len(way) >= 4])
                        for pair in columns])
    at = np.concatenate([[0], np.cumsum(np.maximum(lengths, 1e-6 * lengths.max() + 1e-300))])
    at /= at[-1]
    new = np.linspace(0, 1, numStages + 1)
    protocol = copyProtocol(pilot.protocol, {name: np.interp(new, at, values).tolist()
                                             for name, values in parametersOf(pilot.protocol).items()})
    if stepsPerStage is not None:
        protocol.setStepsPerStage(stepsPerStage)
    return protocol
