# SPDX-License-Identifier: MIT
"""From a molecule to a flow that generates its Boltzmann distribution."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openmm as mm
import torch
from openmm import unit
from tqdm import tqdm

from . import openmmflow as api
from .adaptive import Walkers, WalkerStatistics, addFrames
from .analysis import Estimate, State, measure, summarize
from .data import R, TrainingData, inUnit, temperedData, toFrames, toNanometers, writeNpz
from .diagnostics import Cost, Diagnosis, diagnose
from .freeenergy import AbsoluteFreeEnergy, FreeEnergyDifference, absoluteFreeEnergy, describeMeasure, freeEnergyDifference

SOLVENT = frozenset("HOH WAT SOL TIP3 TIP3P TIP4 SPC NA CL K LI RB CS MG CA ZN Na+ Cl- K+ SOD CLA POT CES".split())


def findSolute(topology: Any, system: mm.System) -> list[int]:
    """The atoms that are not water, ions or virtual sites."""
    return [atom.index for atom in topology.atoms()
            if atom.residue.name not in SOLVENT and not system.isVirtualSite(atom.index)]


def listElements(topology: Any, atoms: Iterable[int]) -> str:
    """The elements of some atoms in their order, "H C H H": the metadata by which a flow's file tells what it was made for."""
    elements = [atom.element for atom in topology.atoms()]
    return " ".join(elements[i].symbol if elements[i] is not None else "X" for i in atoms)


@dataclass
class TrainingHistory:
    """What a training reported: losses at `iterations`, the held-out likelihood at `validationIterations`."""

    iterations: list[int] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    validationIterations: list[int] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    skipped: int = 0
    cpuMinutes: float = 0.0

    def getOverfitting(self) -> float:
        """How far the held-out loss has risen above its lowest value, in kT."""
        return self.validation[-1] - min(self.validation) if self.validation else 0.0


@dataclass
class AdaptiveHistory:
    """What an adaptive training did: the data at its end; for each round of this run, what training and walkers reported."""

    data: TrainingData
    training: list[TrainingHistory] = field(default_factory=list)
    walkers: list[WalkerStatistics] = field(default_factory=list)


class _RoundFiles:
    """The files of adaptive training: data and flow of each round. The flow is written last and marks a whole round."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def data(self, number: int) -> Path:
        return self.folder / f"round{number}.npz"

    def flow(self, number: int) -> Path:
        return self.folder / f"round{number}.flow"

    def findLast(self) -> int:
        """The last whole round; -1 if there is none."""
        number = -1
        while self.flow(number + 1).exists():
            number += 1
        return number


@dataclass
class Evaluation:
    """How good a flow is, from independent samples of it.

    Attributes
    ----------
    positions : float32 [samples, atoms, 3], nm
    logWeights : [samples], log w = -u - log q; -inf where a sample has no weight
    effectiveSize, clippedEffectiveSize : Kish's, and after clipping the largest 1e-4 of the weights
    acceptance : the mean acceptance of independence jumps in equilibrium
    logWeightQuantiles : {probability: log w}, relative to the median
    populations : of the states asked for
    """

    positions: np.ndarray
    logWeights: np.ndarray
    effectiveSize: float
    clippedEffectiveSize: float
    acceptance: Estimate
    logWeightQuantiles: dict[float, float]
    populations: dict[str, Estimate]
    zeroWeights: int
    energyEvaluations: int
    cpuMinutes: float

    def asDict(self) -> dict[str, Any]:
        """Everything but the arrays, for JSON."""
        count = len(self.logWeights)
        return {"samples": count, "ESS/N": self.effectiveSize / count,
                "ESS/N clipped 1e-4": self.clippedEffectiveSize / count, "acceptance": vars(self.acceptance),
                "log w quantiles - median": {str(p): q for p, q in self.logWeightQuantiles.items()},
                "populations": {name: vars(value) for name, value in self.populations.items()},
                "zero weights": self.zeroWeights, "energy evaluations": self.energyEvaluations,
                "CPU minutes": self.cpuMinutes}


class BoltzmannGenerator:
    """A flow of some atoms of a System, with what is needed to train it, judge it and use it.

    Examples
    --------
    >>> data = temperedData(system, positions, geometricTemperatures(300, 1000, 6))
    >>> generator = BoltzmannGenerator.fromTopology(topology, system, positions, 300, data=data)
    >>> generator.fit(data)
    >>> print(generator.evaluate(100_000).asDict())
    >>> integrator = generator.integrator(1 / picosecond, 0.002 * picoseconds)
    """

    def __init__(self, flow: Any, system: mm.System, positions: Any, temperature: Any = None, *,
                 platform: str | None = None, numContexts: int = 0):
        """
        Parameters
        ----------
        flow : the Flow, or the name of a file that holds one; on a GPU where it was put there, as by Flow.load(file).to("cuda")
        system : System; energies leave out its barostats, thermostats and CMMotionRemover
        positions : nm, of all particles: where the atoms that the flow does not move stay
        temperature : K; that of the flow by default
        platform : for energies; the faster of Reference and CPU by default
        numContexts : Contexts that evaluate energies, each in a thread; one per core by default
        """
        self.flow = api.Flow.load(str(flow)) if isinstance(flow, (str, Path)) else flow
        self.system, self.positions = system, toNanometers(positions)
        self.temperature = float(self.flow.getTemperature() if temperature is None
                                 else inUnit(temperature, unit.kelvin))
        self.atoms = list(self.flow.getAtoms())
        api.checkFlow(self.flow, system, "BoltzmannGenerator")
        if self.positions.shape != (system.getNumParticles(), 3):
            raise ValueError(f"BoltzmannGenerator: shape of positions is {self.positions.shape}, but must be "
                             f"{(system.getNumParticles(), 3)}")
        self._platform, self._numContexts = platform or "", numContexts
        self._potential: Any = None

    @classmethod
    def fromTopology(cls, topology: Any, system: mm.System, positions: Any, temperature: Any,
                     atoms: Sequence[int] | None = None, **options: Any) -> BoltzmannGenerator:
        """Build the generator of a molecule; the flow is untrained.

        Parameters
        ----------
        topology : openmm.app.Topology; its bonds are used beside those of the System
        atoms : the particles to generate, connected by bonds; all that are not water or ions by default

        The other parameters are those of fromSystem().
        """
        if atoms is None:
            atoms = findSolute(topology, system)
        chosen = set(atoms)
        bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()
                 if bond[0].index in chosen and bond[1].index in chosen]
        generator = cls.fromSystem(system, positions, temperature, atoms, extraBonds=bonds, **options)
        generator.flow.setMetadata("elements", listElements(topology, atoms))
        return generator

    @classmethod
    def fromSystem(cls, system: mm.System, positions: Any, temperature: Any, atoms: Sequence[int] | None = None, *,
                   data: TrainingData | None = None, layers: int = 8, bins: int = 8, bound: float = 5.0,
                   hiddenSizes: Sequence[int] = (128, 128), extraBonds: Sequence[tuple[int, int]] = (), seed: int = 0,
                   platform: str | None = None, numContexts: int = 0) -> BoltzmannGenerator:
        """Build the generator of some atoms; the flow is untrained: each coordinate follows its own distribution.

        The flow is: Gaussian and uniform latent variables; spline couplings, each of which changes a random half of the
        variables, and the next one the other half; turns of the circular variables after each two; a scaling; the chart
        of internal coordinates.

        Parameters
        ----------
        system : System, whose bonds and constraints make the chart
        positions : nm, of all particles: settle chirality, and where all other atoms stay
        temperature : K
        atoms : the particles to generate, connected by bonds; all that are not virtual sites by default
        data : settles mean and width of bonds, angles and offsets; a short run at the temperature by default
        layers, bins, bound, hiddenSizes : number of couplings, and of each its bins, the half-width of its interval (in
            standard deviations) and its network
        extraBonds : bonds that no force of the System shows
        seed : 0 chooses
        platform, numContexts : see the constructor
        """
        if layers < 2:
            raise ValueError(f"BoltzmannGenerator: layers is {layers}, but must be at least 2, to change all variables")
        if atoms is None:
            atoms = [i for i in range(system.getNumParticles()) if not system.isVirtualSite(i)]
        atoms, temperature = [int(atom) for atom in atoms], float(inUnit(temperature, unit.kelvin))
        if data is None:
            data = temperedData(system, positions, [temperature], atoms=atoms, framesPerTemperature=400,
                                stepsPerFrame=50, equilibrationFrames=100, platform=platform, seed=seed, progress=False)
        if data.atoms != atoms:
            raise ValueError("BoltzmannGenerator: the data hold other atoms than those to generate")
        nm = toNanometers(positions)
        chart = api.InternalCoordinates.fromSystem(system, atoms, [mm.Vec3(*row) for row in nm.tolist()],
                                                   [(int(i), int(j)) for i, j in extraBonds])
        transforms, prior = buildCouplings(chart.getInputSize(), chart.getCircularIndices(), layers, bins, bound,
                                            list(hiddenSizes), np.random.default_rng(seed or None))
        transform = api.Sequence([*transforms, estimateScaling(chart, data.positions, data.logWeights), chart])
        flow = api.Flow(prior, transform, atoms)
        flow.setTemperature(temperature)
        return cls(flow, system, positions, temperature, platform=platform, numContexts=numContexts)

    @property
    def potential(self) -> Any:
        """The ContextPotential that evaluates the atoms, made when first used."""
        if self._potential is None:
            self._potential = makePotential(self.system, self.temperature, self.positions, self.atoms, self._platform, self._numContexts)
        return self._potential

    def save(self, file: str | Path) -> None:
        """Write the flow to a file, whole or not at all."""
        self.flow.save(str(file))

    def state(self, torsion: Sequence[int], low: float, high: float) -> State:
        """The configurations with the torsion of four particles of the System between two angles in degrees."""
        if len(torsion) != 4:
            raise ValueError(f"BoltzmannGenerator: number of particles of a torsion is {len(torsion)}, but must be 4")
        if missing := [atom for atom in torsion if atom not in self.atoms]:
            raise ValueError(f"BoltzmannGenerator: particles {missing} of a torsion are not among the flow's")
        low, high = (float(inUnit(angle, unit.degree)) for angle in (low, high))
        return State(tuple(self.atoms.index(atom) for atom in torsion), low, high)

    def fit(self, data: TrainingData | None, *, iterations: int = 5000, batchSize: int = 256,
            learningRate: float = 1e-3, energyWeight: float = 0.0, energyCut: float | None = None,
            dropFraction: float = 0.02, gradientClip: float = 20.0, numThreads: int = 1, seed: int = 0,
            file: str | Path | None = None, progress: bool = True,
            callback: Callable[[TrainingHistory], Any] | None = None) -> TrainingHistory:
        """Train by maximum likelihood on data, by reverse KL on the energy (with path gradients), or by both.

        Parameters
        ----------
        data : frames and their weights; None trains on the energy alone
        iterations, batchSize, learningRate : of Adam, whose learning rate falls to 0 as a cosine
        energyWeight : the weight of reverse KL, in [0, 1]; the likelihood's is what it lacks to 1. Near 1 it starves rare
            states; refine() does not
        energyCut, dropFraction : see ReverseKLLoss; the cut is 100 above the data's mean by default, where they have energies
        gradientClip : largest norm of the gradient
        numThreads : for the networks, beside those of the energies; 0 leaves torch's setting alone
        seed : 0 chooses
        file : a checkpoint: written every minute, at the end, and on Ctrl-C; an existing one is continued
        progress : whether to show a progress bar
        callback : called with the history so far, about 500 times in all; what it raises ends the training
        """
        if not 0 <= energyWeight <= 1:
            raise ValueError(f"BoltzmannGenerator.fit: energyWeight is {energyWeight}, but must be between 0 and 1")
        if data is None:
            energyWeight = 1.0
        trainer = makeTrainer(self.flow, iterations, learningRate, gradientClip, numThreads, seed)
        names = []
        if energyWeight < 1:
            settings = api.MaximumLikelihoodLossOptions()
            settings.batchSize = batchSize
            likelihood = api.MaximumLikelihoodLoss(self.flow, settings)
            likelihood.addData(_toTensor(data.positions), torch.as_tensor(data.logWeights))
            trainer.addLoss(likelihood, 1 - energyWeight)
            names.append(likelihood.getName())
        if energyWeight > 0:
            settings = api.ReverseKLLossOptions()
            settings.batchSize, settings.dropFraction = batchSize, dropFraction
            if energyCut is not None:
                settings.energyCut = energyCut
            elif data is not None and np.isfinite(data.energies).all():
                settings.energyCut = 100 + np.exp(data.logWeights) @ data.energies / (R * self.temperature)
            energy = api.PathGradientLoss(self.potential, settings)
            trainer.addLoss(energy, energyWeight)
            names.append(energy.getName())
        return runTraining(trainer, names, energyWeight < 1, iterations, file, progress, callback)

    def refine(self, *, iterations: int = 4000, batchSize: int = 512, learningRate: float = 5e-4,
               gradientClip: float = 20.0, numThreads: int = 1, seed: int = 0, file: str | Path | None = None,
               progress: bool = True, callback: Callable[[TrainingHistory], Any] | None = None) -> TrainingHistory:
        """Train a flow that is good already on its own samples, reweighted by the energy: see ReweightedForwardKLLoss.

        Every sample is new, so that nothing is overfitted, and states keep the populations that their weights give them:
        unlike reverse KL this starves no rare state. It can't find a state that the flow does not reach, and it needs
        weights that are not too wide (ESS/N of some percent): train with fit() first.

        Parameters
        ----------
        iterations, batchSize, learningRate : of Adam, whose learning rate falls to 0 as a cosine
        gradientClip, numThreads, seed, file, progress, callback : see fit()
        """
        trainer = makeTrainer(self.flow, iterations, learningRate, gradientClip, numThreads, seed)
        loss = api.ReweightedForwardKLLoss(self.potential, api.ReweightedForwardKLLossOptions(batchSize=batchSize))
        trainer.addLoss(loss)
        return runTraining(trainer, [loss.getName()], False, iterations, file, progress, callback)

    def anneal(self, temperatures: Iterable[Any], *, folder: str | Path | None = None,
               **refining: Any) -> list[TrainingHistory]:
        """Cool the flow down: refine() it at each temperature in turn, starting from the samples of the one before.

        At a high temperature barriers are low, and reverse KL finds all states without any data: fit(None) there, then
        anneal() to the temperature of interest (Schopmans and Friederich, ICML 2025: temperature-annealed Boltzmann
        generators). The ratio of neighbours should leave ESS/N of some percent; 1.3 is a start for a small peptide.

        Parameters
        ----------
        temperatures : K, each a target; the generator and its flow end at the last
        folder : for a checkpoint of each temperature; those that are there are continued
        refining : arguments of refine(), for each temperature
        """
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        history = []
        for number, temperature in enumerate(temperatures):
            self.setTemperature(temperature)
            history.append(self.refine(file=folder and Path(folder) / f"temperature{number}.checkpoint", **refining))
        return history

    def setTemperature(self, temperature: Any) -> None:
        """Make another temperature (K) the target. The flow stays what it is until it is trained again."""
        self.temperature = float(inUnit(temperature, unit.kelvin))
        self.flow.setTemperature(self.temperature)
        self._potential = None

    def fitAdaptively(self, data: TrainingData, friction: Any, stepSize: Any, *, rounds: int = 5, walkers: int = 4,
                      framesPerWalker: int = 2000, stepsPerFrame: int = 100, trialsPerJump: int = 4, seed: int = 0,
                      folder: str | Path | None = None, progress: bool = True, **training: Any) -> AdaptiveHistory:
        """Train on data; then, round by round, let walkers run dynamics that jumps with the flow, add their frames to
        the data, and train again.

        The walkers start from frames of the data and go on from round to round. They sample the target whatever the flow
        is worth (once they have forgotten where they started), so that frames from few temperatures or a short run
        are enough to begin with.

        Parameters
        ----------
        data : the frames to begin with
        friction, stepSize : 1/ps and ps, of the walkers' dynamics
        rounds, walkers : number of each
        framesPerWalker, stepsPerFrame : in one round; a jump of trialsPerJump proposals comes before each frame
        seed : 0 chooses
        folder : where each round leaves its data and its flow; the rounds that are there already are not repeated
        progress : whether to show progress bars
        training : arguments of fit(), for each round, but for file: see folder

        Returns
        -------
        AdaptiveHistory
        """
        if rounds < 1 or walkers < 1:
            raise ValueError(f"BoltzmannGenerator.fitAdaptively: rounds and walkers are {rounds} and {walkers}, but must be "
                             "at least 1")
        if training.get("file") is not None:
            raise ValueError(f"BoltzmannGenerator.fitAdaptively: file is {training['file']}, but must be none: rounds can't share a "
                             "checkpoint; give a folder")
        seeds = np.random.default_rng(seed or None).integers(1, 2**31, size=(rounds + 1, 2 + walkers)).tolist()
        files = None if folder is None else _RoundFiles(folder)
        history = AdaptiveHistory(data)
        done = -1  # round 0 trains on the data as they are
        if files is not None and (done := files.findLast()) >= 0:
            self.flow = api.Flow.load(str(files.flow(done))).to(self.flow.getDevice())
            history.data = TrainingData.load(files.data(done)) if done > 0 else data
        last = history.data.positions[-walkers * framesPerWalker:].reshape(walkers, framesPerWalker, -1, 3)[:, -1] \
            if done > 0 else data.resample(walkers, seeds[0][0])
        group: Walkers | None = None
        for number in range(done + 1, rounds + 1):
            if number > 0:
                group = group or Walkers(self.system, self.positions, last, self.atoms, partial(
                    self._makeWalker, friction, stepSize, stepsPerFrame, trialsPerJump, seeds[number][2:]),
                                         self._platform or None)
                with tqdm(total=walkers * framesPerWalker, desc=f"walkers, round {number}", unit="frame",
                          disable=not progress) as bar:
                    positions, energies, statistics = group.run(framesPerWalker, stepsPerFrame, bar.update)
                history.walkers.append(statistics)
                history.data = addFrames(history.data, positions.reshape(-1, *positions.shape[2:]), energies.ravel())
            history.training.append(self.fit(history.data, seed=seeds[number][1], progress=progress, **training))
            if files is not None:
                history.data.save(files.data(number))
                self.save(files.flow(number))
        return history

    def _makeWalker(self, friction: Any, stepSize: Any, jumpInterval: int, trialsPerJump: int, seeds: list[int],
                    walker: int) -> Any:
        integrator = self.integrator(friction, stepSize, jumpInterval=jumpInterval, trialsPerJump=trialsPerJump,
                                     seed=seeds[walker])
        integrator.setRandomNumberSeed(seeds[walker])
        return integrator

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw configurations of the atoms, unweighted, on the frame of the reference positions.

        Returns
        -------
        float64 [count, atoms, 3], nm
        """
        drawn = self.flow.sample(count, api.Random(seed))
        return self._place(drawn.x).numpy(force=True).reshape(count, -1, 3)

    @torch.no_grad()
    def logWeights(self, positions: Any) -> np.ndarray:
        """log w = -u - log q of configurations of the atoms. positions: nm [frames, atoms, 3]."""
        x = self._toFlow(positions)
        parts = [-self.potential.evaluate(part).u - self.flow.logQ(part) for part in x.split(4096)]
        return torch.cat(parts).numpy(force=True)

    @torch.no_grad()
    def evaluate(self, numSamples: int = 100_000, states: Mapping[str, State] | None = None, *, seed: int = 0,
                 batchSize: int = 4096, progress: bool = True) -> Evaluation:
        """Draw samples and weigh them.

        Parameters
        ----------
        states : whose populations to estimate, by name; see state()
        """
        random, start = api.Random(seed), time.process_time()
        positions, weights = [], []
        with tqdm(total=numSamples, desc="samples", unit="sample", disable=not progress) as bar:
            for first in range(0, numSamples, batchSize):
                drawn = self.flow.sample(min(numSamples - first, batchSize), random)
                x = self._place(drawn.x)
                logW = -self.potential.evaluate(x).u - drawn.logQ
                weights.append(torch.where(torch.isfinite(logW), logW, -torch.inf).numpy(force=True))
                positions.append(x.numpy(force=True).astype(np.float32).reshape(len(x), -1, 3))
                bar.update(len(x))
        return self._judge(np.concatenate(positions), np.concatenate(weights), states or {},
                           (time.process_time() - start) / 60)

    def _judge(self, positions: np.ndarray, logWeights: np.ndarray, states: Mapping[str, State],
               cpuMinutes: float) -> Evaluation:
        values, probabilities = logWeights.tolist(), [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
        acceptance = api.independenceAcceptance(values)
        found = np.array(api.quantiles(values, probabilities))
        middle = found[3] if np.isfinite(found[3]) else 0.0
        return Evaluation(positions, logWeights, api.effectiveSampleSize(values).size,
                          api.clippedEffectiveSampleSize(values, 1e-4).size,
                          Estimate(acceptance.value, acceptance.standardError),
                          dict(zip(probabilities, (found - middle).tolist())), summarize(states, positions, logWeights),
                          int(np.sum(np.isneginf(logWeights))), len(logWeights), cpuMinutes)

    def diagnose(self, evaluation: Evaluation, frames: Any = None, *, coordinates: Mapping[str, Sequence[int]] | None = None,
                 frameCost: Cost | None = None, dynamicsCost: Cost | None = None) -> Diagnosis:
        """Say what is wrong with the flow, and what to try; plots.diagnostics() draws the result.

        Parameters
        ----------
        evaluation : of evaluate()
        frames : nm [frames, atoms, 3], of equal weight, from the target ensemble, in time order
        coordinates : {name: two, three or four columns of the positions}, a bond, an angle or a torsion whose distributions are
            compared; see analysis.bondedCoordinates()
        frameCost, dynamicsCost : see diagnostics.diagnose()
        """
        samples = len(evaluation.logWeights)
        cost = Cost(evaluation.energyEvaluations / samples, 60 * evaluation.cpuMinutes / samples)
        if frames is None:
            return diagnose(evaluation.logWeights, sampleCost=cost, dynamicsCost=dynamicsCost)
        columns = coordinates or {}
        drawn = evaluation.positions[:20_000]  # enough for histograms
        return diagnose(evaluation.logWeights, self.logWeights(frames), sampleCost=cost, frameCost=frameCost,
                        dynamicsCost=dynamicsCost,
                        coordinates={name: (measure(drawn, c), measure(frames, c)) for name, c in columns.items()},
                        periods={name: 360.0 for name, c in columns.items() if len(c) == 4})

    def freeEnergy(self, stateA: State, stateB: State, frames: Any, numSamples: int = 100_000, *,
                   evaluation: Evaluation | None = None, seed: int = 0, progress: bool = True) -> FreeEnergyDifference:
        """F_B - F_A in kT, by BAR from the latent state to each state: see freeEnergyDifference() for the works.

        Blind to parts of a state that neither the flow nor the frames reach. The frames have to be right within each
        state, not between them.

        Parameters
        ----------
        stateA, stateB : see state()
        frames : nm [frames, atoms, 3], of equal weight, from the target ensemble, in time order, some in each state; or TrainingData,
            of which those at the temperature
        numSamples : of the flow
        evaluation : samples of this flow to use in their place
        """
        evaluation = evaluation or self.evaluate(numSamples, seed=seed, progress=progress)
        frames = toFrames(frames)
        parts = {}
        for name, state in (("A", stateA), ("B", stateB)):
            inside = frames[state.contains(frames)]
            if len(inside) < 2:
                raise ValueError(f"BoltzmannGenerator.freeEnergy: {len(inside)} frames are in state {name}, but must "
                                 "be at least 2")
            parts[name] = self.logWeights(inside)
        x = evaluation.positions
        return freeEnergyDifference(evaluation.logWeights, stateA.contains(x), stateB.contains(x), parts["A"],
                                    parts["B"])

    def absoluteFreeEnergy(self, frames: Any, numSamples: int = 100_000, *, evaluation: Evaluation | None = None, seed: int = 0,
                           progress: bool = True) -> AbsoluteFreeEnergy:
        """F = -ln Z of the System in kT, by BAR between the flow and frames of the target.

        Z is the integral of exp(-U/kT) over what the flow describes: for all atoms of a System without constraints their
        positions in nm less rigid motions, so that F - ln(8 pi^2 V) is that in a volume V (see `measure`); the other
        atoms, if there are any, stay where they are.

        Parameters
        ----------
        frames : nm [frames, atoms, 3], of equal weight, from the target ensemble, in time order
        numSamples, evaluation : see freeEnergy()
        """
        evaluation = evaluation or self.evaluate(numSamples, seed=seed, progress=progress)
        return absoluteFreeEnergy(evaluation.logWeights, self.logWeights(toFrames(frames)), describeMeasure(self.flow))

    def integrator(self, friction: Any, stepSize: Any, *, jumpInterval: int = 100, trialsPerJump: int = 1,
                   seed: int = 0) -> Any:
        """A FlowLangevinIntegrator that jumps with this flow.

        Parameters
        ----------
        friction : 1/ps
        stepSize : ps
        jumpInterval : Langevin steps between jumps
        trialsPerJump : proposals at each jump
        seed : of the jumps; 0 chooses
        """
        integrator = api.FlowLangevinIntegrator(self.temperature, inUnit(friction, unit.picosecond**-1),
                                                inUnit(stepSize, unit.picosecond), self.flow)
        integrator.setJumpInterval(jumpInterval)
        integrator.setTrialsPerJump(trialsPerJump)
        integrator.setJumpRandomNumberSeed(seed)
        return integrator

    def _place(self, x: torch.Tensor) -> torch.Tensor:
        return self.flow.place(x, self._toFlow(self.positions[None, self.atoms]))

    def _toFlow(self, positions: Any) -> torch.Tensor:
        return _toTensor(positions).to(self.flow.getDevice())


def _toTensor(positions: Any) -> torch.Tensor:
    """nm [frames, atoms, 3] -> float64 [frames, 3 atoms]."""
    x = torch.as_tensor(toNanometers(positions))
    return x.reshape(len(x), -1)


def makeSplineCouplings(size: int, circular: list[int], layers: int, bins: int, bound: float, hiddenSizes: list[int],
                        random: np.random.Generator) -> Iterator[Any]:
    """Couplings of which each changes a random half of the variables and the next one the other half, made one by one."""
    half: set[int] = set()
    for layer in range(layers):
        half = set(range(size)) - half if layer % 2 else set(random.permutation(size)[:(size + 1) // 2].tolist())
        options = api.SplineCouplingOptions(bins=bins, bound=bound)
        options.conditioner.hiddenSizes, options.conditioner.seed = hiddenSizes, int(random.integers(1, 2**31))
        yield api.SplineCoupling(size, sorted(half), circular, options)


def buildCouplings(size: int, circular: Iterable[int], layers: int, bins: int, bound: float, hiddenSizes: list[int],
                    random: np.random.Generator) -> tuple[list[Any], Any]:
    """The trainable part of a flow, in the order of the chart's columns, and the prior."""
    circular = sorted(circular)
    opened = [i for i in range(size) if i not in set(circular)]
    factors = [api.GaussianPrior(len(opened))] if opened else []
    factors += [api.UniformTorusPrior(len(circular))] if circular else []
    transforms: list[Any] = []
    latentOrder = [*opened, *circular]  # what latent variable i stands for
    if latentOrder != list(range(size)):
        transforms.append(api.Permutation(np.argsort(latentOrder).tolist()))
    for layer, coupling in enumerate(makeSplineCouplings(size, circular, layers, bins, bound, hiddenSizes, random)):
        transforms.append(coupling)
        if circular and layer % 2 == 1 and layer < layers - 1:
            shift = random.uniform(-np.pi, np.pi, len(circular)).tolist()
            transforms.append(api.CircularShift(size, circular, shift))
    return transforms, api.ProductPrior(factors)


def estimateScaling(chart: Any, positions: np.ndarray, logWeights: np.ndarray) -> Any:
    """Mean and standard deviation of the coordinates that are not circular; circular ones stay."""
    inverted = chart.inverse(_toTensor(positions))
    valid = torch.isfinite(inverted.logDet).numpy()
    weight = np.exp(logWeights) * valid
    if weight.sum() == 0:
        raise ValueError("BoltzmannGenerator: no frame of the data is inside the chart's domain: were they drawn from "
                         "another stereoisomer than the positions show?")
    weight /= weight.sum()
    xi = inverted.value.numpy()
    mean = weight @ xi
    scale = np.sqrt(weight @ (xi - mean)**2)
    circular = list(chart.getCircularIndices())
    mean[circular], scale[circular] = 0.0, 1.0
    return api.Scaling(mean.tolist(), np.maximum(scale, 1e-6).tolist())


def makePotential(system: mm.System, temperature: float, positions: np.ndarray, atoms: list[int], platform: str,
                  numContexts: int) -> Any:
    """The ContextPotential of some atoms; the others stay where positions (nm) have them."""
    options = api.ContextPotentialOptions(platform=platform, numContexts=numContexts, atoms=atoms)
    options.referencePositions = [mm.Vec3(*row) for row in positions.tolist()]
    return api.ContextPotential(system, temperature, options)


def makeTrainer(flow: Any, iterations: int, learningRate: float, gradientClip: float, numThreads: int, seed: int) -> Any:
    options = api.TrainerOptions()
    options.iterations, options.learningRate, options.seed = iterations, learningRate, seed
    options.gradientClip, options.numThreads, options.warmup = gradientClip, numThreads, min(100, iterations // 10)
    return api.Trainer(flow, options)


def runTraining(trainer: Any, names: list[str], hasData: bool, iterations: int, file: str | Path | None,
                 progress: bool, callback: Callable[[TrainingHistory], Any] | None) -> TrainingHistory:
    history = TrainingHistory(losses={name: [] for name in names})
    if file is not None and Path(file).exists():
        trainer.loadCheckpoint(str(file))
        _loadHistory(history, _historyFile(file), trainer.getProgress().iteration)
    every = max(1, iterations // 500)
    start = now = time.process_time()
    saved = time.monotonic()

    def save() -> None:
        if file is not None:
            trainer.saveCheckpoint(str(file))
            writeNpz(_historyFile(file), iterations=history.iterations, validation=history.validation,
                     validationIterations=history.validationIterations, cpuMinutes=history.cpuMinutes,
                     **{f"loss.{name}": values for name, values in history.losses.items()})

    done = trainer.getProgress().iteration
    with tqdm(total=iterations, initial=done, desc="training", unit="it", disable=not progress) as bar:
        try:
            while done < iterations:
                state = trainer.train(min(every, iterations - done))
                bar.update(state.iteration - done)
                done = state.iteration
                history.iterations.append(done)
                for name, value in zip(names, state.losses):
                    history.losses[name].append(value)
                history.skipped = state.skipped
                bar.set_postfix({name: f"{history.losses[name][-1]:.2f}" for name in names}, refresh=False)
                if hasData and (len(history.iterations) % 20 == 0 or done == iterations):
                    history.validationIterations.append(done)
                    history.validation.append(trainer.validate()[0])
                now = time.process_time()
                history.cpuMinutes, start = history.cpuMinutes + (now - start) / 60, now
                if time.monotonic() - saved > 60:
                    save()
                    saved = time.monotonic()
                if callback is not None:
                    callback(history)
        except KeyboardInterrupt:
            save()
            raise
    save()
    return history


def _historyFile(file: str | Path) -> Path:
    return Path(f"{file}.history.npz")


def _loadHistory(history: TrainingHistory, file: Path, iteration: int) -> None:
    """Take up the part of a history that lies before the checkpoint."""
    if not file.exists():
        return
    with np.load(file, allow_pickle=False) as saved:
        kept = int(np.searchsorted(saved["iterations"], iteration, side="right"))
        history.iterations = saved["iterations"][:kept].tolist()
        for name in history.losses:
            history.losses[name] = saved[f"loss.{name}"][:kept].tolist()
        checked = int(np.searchsorted(saved["validationIterations"], iteration, side="right"))
        history.validationIterations = saved["validationIterations"][:checked].tolist()
        history.validation = saved["validation"][:checked].tolist()
        history.cpuMinutes = float(saved["cpuMinutes"])
