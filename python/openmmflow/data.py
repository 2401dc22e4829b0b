# SPDX-License-Identifier: MIT
"""Training frames from plain OpenMM: parallel tempering, or dynamics at other temperatures with weights."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openmm as mm
from openmm import unit
from tqdm import tqdm

R = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
"""The gas constant, kJ/(mol K)."""


def inUnit(value: Any, unitOf: unit.Unit) -> Any:
    """A number of the given unit: quantities are converted, plain numbers are taken to be in it."""
    return value.value_in_unit(unitOf) if unit.is_quantity(value) else value


def toNanometers(positions: Any) -> np.ndarray:
    """Positions as a float64 array in nm, whatever OpenMM calls positions."""
    return np.asarray(inUnit(positions, unit.nanometer)).astype(np.float64)


def writeNpz(file: str | Path, **arrays: Any) -> None:
    """numpy.savez, whole or not at all."""
    file = Path(file)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


@dataclass
class TrainingData:
    """Frames with log weights that make them samples of the canonical ensemble at one temperature.

    Attributes
    ----------
    positions : float32 [frames, atoms, 3], nm
    logWeights : float64 [frames], normalised: their exponentials sum to 1
    energies : float64 [frames], kJ/mol
    sampledTemperature : float64 [frames], K: where each frame was drawn
    temperature : K: what the weights are for
    atoms : the particles of the System that the frames hold
    cpuMinutes, steps : what the frames cost; a time step of one replica is an evaluation of the forces
    """

    positions: np.ndarray
    logWeights: np.ndarray
    energies: np.ndarray
    sampledTemperature: np.ndarray
    temperature: float
    atoms: list[int] = field(default_factory=list)
    cpuMinutes: float = 0.0
    steps: int = 0

    @staticmethod
    def fromFrames(positions: Any, temperature: Any, atoms: Sequence[int] | None = None) -> TrainingData:
        """Frames of equal weight, such as those of a trajectory, without energies.

        Parameters
        ----------
        positions : nm [frames, atoms, 3], of the canonical ensemble, in time order
        temperature : K
        atoms : the particles of the System that the frames hold; the first ones by default
        """
        x, kelvin = toNanometers(positions), float(inUnit(temperature, unit.kelvin))
        if x.ndim != 3 or x.shape[2] != 3 or len(x) == 0:
            raise ValueError(f"TrainingData.fromFrames: shape of positions is {x.shape}, but must be (frames, atoms, 3)")
        count, atoms = len(x), list(range(x.shape[1]) if atoms is None else map(int, atoms))
        if len(atoms) != x.shape[1]:
            raise ValueError(f"TrainingData.fromFrames: number of atoms is {len(atoms)}, but must be that of the positions, {x.shape[1]}")
        return TrainingData(x.astype(np.float32), np.full(count, -np.log(count)), np.full(count, np.nan), np.full(count, kelvin), kelvin,
                            atoms)

    def getEffectiveSize(self) -> float:
        """Kish's effective number of frames."""
        return float(1 / np.sum(np.exp(2 * self.logWeights)))

    def resample(self, count: int, seed: int = 0) -> np.ndarray:
        """Frames of equal weight, nm [count, atoms, 3], by systematic resampling: it repeats frames as rarely as can be."""
        edges = np.cumsum(np.exp(self.logWeights))
        offset = np.random.default_rng(seed or None).uniform()
        chosen = np.searchsorted(edges / edges[-1], (np.arange(count) + offset) / count)
        return self.positions[np.minimum(chosen, len(edges) - 1)].astype(np.float64)

    def atTemperature(self) -> np.ndarray:
        """The frames that were drawn at the temperature itself, in time order, nm [frames, atoms, 3]."""
        return self.positions[np.isclose(self.sampledTemperature, self.temperature)].astype(np.float64)

    def save(self, file: str | Path) -> None:
        """Write the frames to an .npz file, whole or not at all."""
        writeNpz(file, **vars(self))

    @staticmethod
    def load(file: str | Path) -> TrainingData:
        """Read what save() wrote."""
        names = TrainingData.__dataclass_fields__
        try:
            with np.load(file, allow_pickle=False) as saved:
                missing = [name for name in names if name not in saved]
                values = {name: saved[name] for name in names if name in saved}
        except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error):
            raise ValueError(f"{file} is damaged, or not a file of training data") from None
        if missing:
            raise ValueError(f"{file} has no {', '.join(missing)}: it is not a file of training data")
        return TrainingData(**values | {"temperature": float(values["temperature"]), "atoms": values["atoms"].tolist(),
                                        "cpuMinutes": float(values["cpuMinutes"]), "steps": int(values["steps"])})


def toFrames(frames: Any) -> np.ndarray:
    """float64 [frames, atoms, 3], nm: of TrainingData those that were drawn at its temperature."""
    return frames.atTemperature() if isinstance(frames, TrainingData) else toNanometers(frames)


def geometricTemperatures(lowest: Any, highest: Any, count: int) -> list[float]:
    """Temperatures (K) in geometric progression, both ends included."""
    return np.geomspace(inUnit(lowest, unit.kelvin), inUnit(highest, unit.kelvin), count).tolist()


def fastestPlatform(system: mm.System, positions: Any, candidates: Sequence[str] = ("Reference", "CPU")) -> str:
    """The platform on which a step of this System takes the least time, each with one thread."""
    timings = {name: secondsPerStep(system, positions, name) for name in candidates}
    return min(timings, key=timings.get)


def secondsPerStep(system: mm.System, positions: Any, platform: str) -> float:
    """What a step of Langevin dynamics takes, with one thread on CPU. The step is too short to move anything."""
    integrator = mm.LangevinMiddleIntegrator(300.0, 1.0, 1e-6)
    properties = {"Threads": "1"} if platform == "CPU" else {}
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName(platform), properties)
    context.setPositions(positions)
    integrator.step(2)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.2:
        integrator.step(5)
        steps += 5
    return (time.perf_counter() - start) / steps


def withoutCouplings(system: mm.System) -> mm.System:
    """A copy without barostats, thermostats and CMMotionRemover: what is left is the potential energy."""
    copy = mm.XmlSerializer.clone(system)
    names = ("Barostat", "Thermostat", "CMMotionRemover")
    for index in reversed(range(copy.getNumForces())):
        if any(name in copy.getForce(index).getName() for name in names) or \
           any(name in type(copy.getForce(index)).__name__ for name in names):
            copy.removeForce(index)
    return copy


class _Workers:
    """Processes that advance replicas; see _replicas.py."""

    def __init__(self, count: int, setup: dict[str, Any], seeds: Sequence[int]):
        program = str(Path(__file__).with_name("_replicas.py"))
        start = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
        # A session of their own: Ctrl-C is for the parent, which saves and then closes their stdin.
        self.processes = [subprocess.Popen([sys.executable, "-c", start, program], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, start_new_session=True) for _ in range(count)]
        self.cpuSeconds = 0.0
        for process, seed in zip(self.processes, seeds):
            self._send(process, setup | {"seed": seed})

    @staticmethod
    def _send(process: subprocess.Popen, message: Any) -> None:
        try:
            pickle.dump(message, process.stdin)
            process.stdin.flush()
        except BrokenPipeError:
            raise mm.OpenMMException("a process that runs replicas ended early: see its message above") from None

    def advance(self, jobs: list[tuple]) -> list[tuple]:
        """Run (x, v, temperature, steps) jobs, spread over the processes. @return (x, v, U) each"""
        count = len(self.processes)
        for index, process in enumerate(self.processes):
            self._send(process, jobs[index::count])
        results: list = [None] * len(jobs)
        for index, process in enumerate(self.processes):
            try:
                answer, seconds = pickle.load(process.stdout)
            except EOFError:
                raise mm.OpenMMException("a process that runs replicas ended early: see its message above") from None
            if isinstance(answer, str):
                raise mm.OpenMMException(f"{answer} (a smaller time step or lower temperatures may help)")
            results[index::count] = answer
            self.cpuSeconds += seconds
        return results

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def _fingerprint(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


class _Tempering:
    """Parallel tempering: what has to be saved, and one round of it."""

    def __init__(self, positions: np.ndarray, temperatures: np.ndarray, seed: int):
        self.seed = seed or int.from_bytes(os.urandom(4), "little")
        self.random = np.random.default_rng([self.seed, 0])
        self.temperatures = temperatures
        self.replicas = [(positions, None)] * len(temperatures)
        self.frames: list[tuple[np.ndarray, np.ndarray]] = []  # positions and energies
        self.rounds = self.tries = self.swaps = 0
        self.cpuSeconds = 0.0

    def runRound(self, workers: _Workers, steps: int, atoms: list[int], keep: bool) -> None:
        jobs = [(x, v, t, steps) for (x, v), t in zip(self.replicas, self.temperatures)]
        before = workers.cpuSeconds
        results = workers.advance(jobs)
        self.cpuSeconds += workers.cpuSeconds - before
        energies = np.array([energy for _, _, energy in results])
        if not np.all(np.isfinite(energies)):
            raise mm.OpenMMException("temperedData: an energy is not finite: use a smaller time step")
        self.replicas = [(x, v) for x, v, _ in results]
        if keep:
            self.frames.append((np.stack([x[atoms] for x, _ in self.replicas]).astype(np.float32), energies))
        self._exchange(energies)
        self.rounds += 1

    def _exchange(self, energies: np.ndarray) -> None:
        """Neighbours swap with probability min(1, exp((beta_i - beta_j) (U_i - U_j))), even and odd pairs in turn."""
        beta = 1 / (R * self.temperatures)
        for i in range(self.rounds % 2, len(beta) - 1, 2):
            j = i + 1
            self.tries += 1
            if np.log(self.random.uniform()) < (beta[i] - beta[j]) * (energies[i] - energies[j]):
                self.swaps += 1
                scale = np.sqrt(self.temperatures[j] / self.temperatures[i])
                (xi, vi), (xj, vj) = self.replicas[i], self.replicas[j]
                self.replicas[i], self.replicas[j] = (xj, vj / scale), (xi, vi * scale)

    def save(self, file: str | Path, fingerprint: str) -> None:
        writeNpz(file, fingerprint=fingerprint, temperatures=self.temperatures,
                 x=np.stack([x for x, _ in self.replicas]), v=np.stack([v for _, v in self.replicas]),
                 frames=np.array([x for x, _ in self.frames]), energies=np.array([u for _, u in self.frames]),
                 counts=np.array([self.rounds, self.tries, self.swaps]), cpuSeconds=self.cpuSeconds)

    def load(self, file: str | Path, fingerprint: str) -> None:
        with np.load(file, allow_pickle=False) as saved:
            if "fingerprint" not in saved or str(saved["fingerprint"]) != fingerprint:
                raise ValueError(f"temperedData: {file} is of another System, or of other settings: delete it or name "
                                 "another file")
            self.replicas = list(zip(saved["x"], saved["v"]))
            self.frames = list(zip(saved["frames"], saved["energies"]))
            self.rounds, self.tries, self.swaps = saved["counts"].tolist()
            self.cpuSeconds = float(saved["cpuSeconds"])
        self.random = np.random.default_rng([self.seed, self.rounds])  # not the numbers of the start again


def temperedData(system: mm.System, positions: Any, temperatures: Sequence[Any], *, temperature: Any = None,
                 framesPerTemperature: int = 10_000, stepsPerFrame: int = 250, equilibrationFrames: int | None = None,
                 stepSize: Any = None, friction: Any = 1.0, atoms: Sequence[int] | None = None,
                 platform: str | None = None, processes: int | None = None, seed: int = 0,
                 file: str | Path | None = None, progress: bool = True) -> TrainingData:
    """Draw frames by parallel tempering, and weight all of them for one temperature by MBAR.

    One temperature gives plain Langevin dynamics; temperatures that do not include the target give reweighted dynamics.

    Parameters
    ----------
    system : System
        its barostats, thermostats and CMMotionRemover are left out
    positions : nm, of all particles
    temperatures : K, ascending for neighbours to exchange
    temperature : K, what the weights are for; the lowest of `temperatures` by default
    framesPerTemperature : frames kept for each temperature
    stepsPerFrame : time steps between frames, and between exchanges
    equilibrationFrames : frames left out at the start; a tenth of those kept by default
    stepSize : ps; 0.002 when the System has constraints and 0.001 when not, by default
    friction : 1/ps
    atoms : the particles to keep; all by default
    platform : the faster of Reference and CPU by default
    processes : one per core by default
    seed : 0 chooses
    file : an .npz that keeps the state: written every minute, at the end, and on Ctrl-C; an existing one is continued
    progress : whether to show a progress bar

    Returns
    -------
    TrainingData
    """
    ladder = np.array([float(inUnit(t, unit.kelvin)) for t in temperatures])
    if len(ladder) == 0 or not np.all(np.isfinite(ladder) & (ladder > 0)):
        raise ValueError(f"temperedData: temperatures is {list(temperatures)}, but must be positive numbers of K")
    target = float(ladder.min() if temperature is None else inUnit(temperature, unit.kelvin))
    system = withoutCouplings(system)
    x0 = toNanometers(positions)
    if x0.shape != (system.getNumParticles(), 3):
        raise ValueError(f"temperedData: positions are {x0.shape}, but must be {(system.getNumParticles(), 3)}")
    kept = list(range(system.getNumParticles())) if atoms is None else list(atoms)
    stepSize = inUnit(stepSize, unit.picosecond) or (0.002 if system.getNumConstraints() else 0.001)
    friction = inUnit(friction, unit.picosecond**-1)
    equilibration = framesPerTemperature // 10 if equilibrationFrames is None else equilibrationFrames

    xml = mm.XmlSerializer.serialize(system)
    fingerprint = _fingerprint(xml, ladder.tolist(), kept, stepsPerFrame, equilibration, stepSize, friction)
    run = _Tempering(x0, ladder, seed)
    if file is not None and Path(file).exists():
        run.load(file, fingerprint)
    total = equilibration + framesPerTemperature
    if run.rounds < total:
        count = min(len(ladder), processes or os.cpu_count() or 1)
        setup = {"systemXml": xml, "stepSize": stepSize, "friction": friction,
                 "platform": platform or fastestPlatform(system, x0)}
        with _Workers(count, setup, run.random.integers(1, 2**31 - 1, size=count).tolist()) as workers, \
                tqdm(total=total, initial=run.rounds, desc="tempering", unit="frame", disable=not progress) as bar:
            for _ in _runRounds(run, workers, stepsPerFrame, kept, equilibration, total, file, fingerprint):
                bar.update()
                if run.tries:
                    bar.set_postfix(swaps=f"{run.swaps / run.tries:.2f}", refresh=False)
    return _assemble(run, ladder, target, kept, framesPerTemperature, stepsPerFrame)


def _runRounds(run: _Tempering, workers: _Workers, steps: int, atoms: list[int], equilibration: int, total: int,
               file: str | Path | None, fingerprint: str) -> Iterator[None]:
    """Run to the last round, saving every minute and at the end, which may be a Ctrl-C or an error."""
    saved = time.monotonic()
    try:
        while run.rounds < total:
            run.runRound(workers, steps, atoms, keep=run.rounds >= equilibration)
            yield
            if file is not None and time.monotonic() - saved > 60:
                run.save(file, fingerprint)
                saved = time.monotonic()
    finally:
        if file is not None and run.rounds > 0:
            run.save(file, fingerprint)


def _assemble(run: _Tempering, ladder: np.ndarray, target: float, atoms: list[int], rounds: int,
              stepsPerFrame: int) -> TrainingData:
    from .analysis import mbarLogWeights

    # Temperature by temperature, each in the order of time.
    frames = np.array([x for x, _ in run.frames[:rounds]]).swapaxes(0, 1).reshape(-1, len(atoms), 3)
    energies = np.array([u for _, u in run.frames[:rounds]]).T.reshape(-1)
    return TrainingData(positions=frames, energies=energies, temperature=target, atoms=atoms,
                        logWeights=mbarLogWeights(energies, ladder, target),
                        sampledTemperature=np.repeat(ladder, rounds), cpuMinutes=run.cpuSeconds / 60,
                        steps=run.rounds * len(ladder) * stepsPerFrame)
