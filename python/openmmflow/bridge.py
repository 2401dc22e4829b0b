# SPDX-License-Identifier: MIT
"""Free energy differences between two Systems over the same atoms: by a map from one to the other, or through latent states."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openmm as mm
import torch
from openmm import unit

from . import openmmflow as api
from .analysis import thin
from .data import TrainingData, inUnit, toFrames, toNanometers
from .freeenergy import BarEstimate, FreeEnergyDifference, barEstimate, differenceOfLegs
from .generator import (BoltzmannGenerator, TrainingHistory, estimateScaling, makePotential, makeSplineCouplings,
                        makeTrainer, runTraining)


def freeEnergyThroughLatent(generatorA: BoltzmannGenerator, framesA: Any, generatorB: BoltzmannGenerator, framesB: Any,
                            numSamples: int = 100_000, *, seed: int = 0, progress: bool = True) -> FreeEnergyDifference:
    """F_B - F_A of two Systems over the same atoms, each by BAR with the latent state of its own flow.

    Parameters
    ----------
    generatorA, generatorB : of the same atoms and constraints, at the same temperature; they may share a flow
    framesA, framesB : nm [frames, atoms, 3], of each System's ensemble, in time order
    numSamples : of each flow
    """
    if generatorA.atoms != generatorB.atoms or not np.isclose(generatorA.temperature, generatorB.temperature):
        raise ValueError("freeEnergyThroughLatent: the generators must be of the same atoms, at the same temperature")
    requireComparable(generatorA.system, generatorB.system)
    seeds = np.random.default_rng(seed or None).integers(1, 2**31, size=2).tolist()
    return differenceOfLegs(generatorA.absoluteFreeEnergy(framesA, numSamples, seed=seeds[0], progress=progress),
                            generatorB.absoluteFreeEnergy(framesB, numSamples, seed=seeds[1], progress=progress))


def requireComparable(systemA: mm.System, systemB: mm.System) -> None:
    """The measures of both have to be the same: particles, and constraints with their masses."""
    if systemA.getNumParticles() != systemB.getNumParticles():
        raise ValueError(f"the Systems have {systemA.getNumParticles()} and {systemB.getNumParticles()} particles, but must have the "
                         "same ones")

    def constraints(system: mm.System) -> list[tuple[Any, ...]]:
        parameters = (system.getConstraintParameters(i) for i in range(system.getNumConstraints()))
        return sorted((*sorted((i, j)), round(length._value, 9), round(system.getParticleMass(i)._value, 6),
                       round(system.getParticleMass(j)._value, 6)) for i, j, length in parameters)

    if constraints(systemA) != constraints(systemB):
        raise ValueError("the Systems have different constraints, but must have the same ones: their free energies are integrals over "
                         "different coordinates")


@dataclass
class SystemFreeEnergy(BarEstimate):
    """F_B - F_A of two Systems, and what it took.

    Attributes
    ----------
    stages : of the works; 1 where they are those of the map alone
    evaluationsA, evaluationsB : of each System's energy by training and works; the frames are not among them
    training : of each map
    """

    stages: int
    evaluationsA: int
    evaluationsB: int
    training: list[TrainingHistory] = field(default_factory=list, repr=False)

    def asDict(self) -> dict[str, Any]:
        return {name: value for name, value in super().asDict().items() if name != "training"}


class SystemBridge:
    """A map between two Systems over the same atoms, trained both ways, and the works along it.

        w_F = u_B(M x) - u_A(x) - log|det dM/dx|,   x sampled from A;    w_R = u_A(M^-1 y) - u_B(y) - log|det dM^-1/dy|,   y from B

    Targeted free energy perturbation (Jarzynski 2002; both ways Hahn and Then 2009; learnt Wirnsberger et al. 2020). M works on
    internal coordinates, in units of their standard deviations: spline couplings, the identity until trained. Stages go on from
    the image of A to B by annealed importance sampling, and back by the same protocol reversed: BAR of their works is Crooks'.
    Maps learn frames by heart sooner than flows do: small networks, and frames as often as every 20 fs, serve better. The map works on
    the processor.

    Examples
    --------
    >>> bridge = SystemBridge(vacuum, water, positions, 300, (framesA, framesB))
    >>> bridge.fit(trainingA, trainingB)
    >>> print(estimate := bridge.freeEnergy(framesA, framesB), estimate.verdict())
    """

    def __init__(self, systemA: mm.System, systemB: mm.System, positions: Any, temperature: Any, frames: tuple[Any, Any],
                 atoms: Sequence[int] | None = None, *, layers: int = 4, bins: int = 6, bound: float = 5.0,
                 hiddenSizes: Sequence[int] = (32, 32), extraBonds: Sequence[tuple[int, int]] = (), seed: int = 0,
                 platform: str | None = None, numContexts: int = 0):
        """
        Parameters
        ----------
        systemA, systemB : over the same particles, with the same constraints; the chart is that of A's bonds
        positions : nm, of all particles: settle chirality, and where all other atoms and the chart's frame stay, if there are
            others; then the free energies are those with these in place
        temperature : K, of both
        frames : of A and of B, nm [frames, atoms, 3]: settle mean and width of the coordinates
        atoms : the particles to map, connected by bonds; all that are not virtual sites by default
        layers, bins, bound, hiddenSizes, extraBonds, seed, platform, numContexts : see BoltzmannGenerator
        """
        requireComparable(systemA, systemB)
        if layers < 2:
            raise ValueError(f"SystemBridge: layers is {layers}, but must be at least 2, to change all coordinates")
        self.temperature, nm = float(inUnit(temperature, unit.kelvin)), toNanometers(positions)
        self.atoms = [i for i in range(systemA.getNumParticles()) if not systemA.isVirtualSite(i)] if atoms is None else list(atoms)
        vectors = [mm.Vec3(*row) for row in nm.tolist()]
        self._chart = api.InternalCoordinates.fromSystem(systemA, self.atoms, vectors, [(int(i), int(j)) for i, j in extraBonds])
        self._coordinates = api.Sequence([self._estimateScaling(frames), self._chart])
        self._contexts = [makePotential(system, self.temperature, nm, self.atoms, platform or "", numContexts)
                          for system in (systemA, systemB)]
        reference = nm[self.atoms].ravel().tolist()
        self.potentialA, self.potentialB = (api.TransformedPotential(whole, self._coordinates, reference) for whole in self._contexts)
        size, circular = self._chart.getInputSize(), list(self._chart.getCircularIndices())
        layersOfMap = _makeMap(size, circular, layers, bins, bound, list(hiddenSizes), np.random.default_rng(seed or None))
        self.flow = api.Flow(api.GaussianPrior(size), layersOfMap)

    def getEvaluations(self) -> tuple[int, int]:
        """Energy evaluations of A and of B so far."""
        return tuple(potential.getCounts().evaluations for potential in self._contexts)

    @torch.no_grad()
    def toCoordinates(self, frames: Any) -> torch.Tensor:
        """Internal coordinates of frames, in standard deviations [frames, coordinates]. Frames outside the chart's domain are left out,
        of which there may be one in a thousand: what is estimated is the free energy of what is inside."""
        x = torch.as_tensor(toNanometers(frames))
        inverted = self._coordinates.inverse(x.reshape(len(x), -1))
        inside = torch.isfinite(inverted.logDet)
        if (outside := len(x) - int(inside.sum())) > len(x) // 1000:
            raise ValueError(f"SystemBridge: number of frames outside the chart's domain is {outside} of {len(x)}, but must be at most "
                             "one in a thousand: were they drawn from another stereoisomer than the positions show?")
        return inverted.value[inside]

    def fit(self, framesA: Any, framesB: Any, *, iterations: int = 400, batchSize: int = 256, learningRate: float = 1e-3,
            validationFraction: float = 0.1, gradientClip: float = 20.0, numThreads: int = 1, seed: int = 0,
            file: str | Path | None = None, progress: bool = True) -> TrainingHistory:
        """Train the map to dissipate little both ways: see WorkLoss, whose value is in kT and 0 for a perfect map.

        Of the maps that were validated the best one is kept. Estimate the free energy from other frames, or from a later part of a
        run: the works of frames that were trained on are too small. The validation tells how much.

        Parameters
        ----------
        framesA, framesB : nm [frames, atoms, 3], of equal weight
        iterations, batchSize, learningRate : of Adam, whose learning rate falls to 0 as a cosine
        validationFraction : of the frames; 0 keeps the last map
        gradientClip, numThreads, seed, file, progress : see BoltzmannGenerator.fit(); the best map stays beside the file
        """
        trainer = makeTrainer(self.flow, iterations, learningRate, gradientClip, numThreads, seed)
        loss = api.WorkLoss(self.potentialA, self.potentialB, self.toCoordinates(framesA), self.toCoordinates(framesB),
                            api.WorkLossOptions(batchSize=batchSize, validationFraction=validationFraction))
        trainer.addLoss(loss)
        with tempfile.TemporaryDirectory() as folder:
            best = Path(f"{file}.best") if file is not None else Path(folder) / "best"
            if file is None or not Path(file).exists():
                best.unlink(missing_ok=True)

            def keepBest(history: TrainingHistory) -> None:
                if history.validation and history.validationIterations[-1] == history.iterations[-1] \
                        and history.validation[-1] == min(history.validation):
                    self.flow.save(str(best))

            history = runTraining(trainer, [loss.getName()], validationFraction > 0, iterations, file, progress, keepBest)
            if best.exists():
                kept = api.Flow.load(str(best)).getParameters()
                with torch.no_grad():
                    for name, tensor in self.flow.getParameters().items():
                        tensor.copy_(kept[name])
        return history

    @torch.no_grad()
    def works(self, framesA: Any, framesB: Any, *, stages: int = 1, stepSize: float = 0.1, numSteps: int = 5,
              seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Works from A to B of A's frames, and from B to A of B's, in kT.

        Parameters
        ----------
        stages : of annealing between the image of A and B; 1 is the map alone. Between stages each walker makes a Metropolised
            Hamiltonian trajectory, so that Crooks' relation is exact
        stepSize, numSteps : of the trajectories; the step size in standard deviations, at first: it is adapted on some frames
        """
        random, lambdas = api.Random(seed), api.AnnealedSampler.equalSteps(stages)
        image = api.TransformedPotential(self.potentialA, api.Inverse(self.flow.getTransform()))
        paths = [api.PotentialPath(*ends) for ends in ((image, self.potentialB), (self.potentialB, image))]
        zA, zB = self.toCoordinates(framesA), self.toCoordinates(framesB)
        starts = [torch.cat([self.flow.getTransform().forward(part).value for part in zA.split(2048)]), zB]
        sizes = [stepSize] if stages == 1 else self._adapt(paths[0], starts[0], lambdas, stepSize, numSteps, random)
        works = []
        for path, start, ofStages in zip(paths, starts, (sizes, sizes[:1] + sizes[:0:-1])):
            kernel = _makeKernel(stepSize, numSteps, 0.0)
            kernel.setStepSizes(ofStages)
            sampler = api.AnnealedSampler(path, kernel, lambdas)
            works.append(-torch.cat([sampler.run(part, random).logWeight for part in start.split(2048)]).numpy())
        return works[0], works[1]

    @staticmethod
    def _adapt(path: Any, start: torch.Tensor, lambdas: list[float], stepSize: float, numSteps: int, random: Any) -> list[float]:
        """A step size for each stage, from runs of some walkers that count for nothing else."""
        kernel = _makeKernel(stepSize, numSteps, 0.8)
        sampler = api.AnnealedSampler(path, kernel, lambdas)
        for _ in range(20):
            sampler.run(start[:64], random)
        return list(kernel.getStepSizes())

    def freeEnergy(self, framesA: Any, framesB: Any, *, stages: int = 1, seed: int = 0, **moves: Any) -> SystemFreeEnergy:
        """F_B - F_A in kT by BAR of the works of frames that the map was not trained on.

        Parameters
        ----------
        framesA, framesB : nm [frames, atoms, 3], of equal weight, in time order; works are thinned by their statistical inefficiency
        stages, moves : see works()
        """
        works = [thin(series) for series in self.works(framesA, framesB, stages=stages, seed=seed, **moves)]
        return SystemFreeEnergy(**vars(barEstimate(*works)), stages=stages,
                                **dict(zip(("evaluationsA", "evaluationsB"), self.getEvaluations())))

    def _estimateScaling(self, frames: tuple[Any, Any]) -> Any:
        count = [len(part) for part in frames]
        logWeights = np.concatenate([np.full(n, -np.log(2 * n)) for n in count])
        return estimateScaling(self._chart, np.concatenate([np.asarray(part) for part in frames]), logWeights)


def _makeKernel(stepSize: float, numSteps: int, targetAcceptance: float) -> Any:
    return api.HamiltonianKernel(api.HamiltonianKernelOptions(stepSize=stepSize, numSteps=numSteps, targetAcceptance=targetAcceptance))


def _makeMap(size: int, circular: list[int], layers: int, bins: int, bound: float, hiddenSizes: list[int],
             random: np.random.Generator) -> Any:
    """Couplings in each of which circular variables are turned and turned back; together the identity."""
    transforms: list[Any] = []
    for coupling in makeSplineCouplings(size, circular, layers, bins, bound, hiddenSizes, random):
        shift = random.uniform(-np.pi, np.pi, len(circular))
        transforms += [api.CircularShift(size, circular, shift.tolist()), coupling,
                       api.CircularShift(size, circular, (-shift).tolist())] if circular else [coupling]
    return api.Sequence(transforms)


def _framesAt(frames: Any, temperature: float) -> np.ndarray:
    if isinstance(frames, TrainingData) and not np.isclose(frames.temperature, temperature):
        raise ValueError(f"freeEnergyBetweenSystems: temperature of the TrainingData is {frames.temperature}, but must be {temperature}")
    return toFrames(frames)


def freeEnergyBetweenSystems(systemA: mm.System, systemB: mm.System, framesA: Any, framesB: Any, temperature: Any, *,
                             positions: Any = None, atoms: Sequence[int] | None = None, iterations: int = 400, folds: int = 2,
                             stages: int = 1, batchSize: int = 256, learningRate: float = 1e-3, seed: int = 0, progress: bool = True,
                             **flow: Any) -> SystemFreeEnergy:
    """F_B - F_A in kT of two Systems over the same atoms, from frames of both: solvation, mutation of parameters, another model.

    The frames are cut into parts in time. For each part a map from A to B is trained both ways on the other parts, and gives the works
    of this one, so that no frame's work comes from a map that has seen it. BAR of all works is the result: each map's works obey
    Crooks' relation with the same free energy. See SystemBridge for the formulas and sources. Configurations that neither set of
    frames has are not noticed.

    Parameters
    ----------
    systemA, systemB : over the same particles, with the same constraints
    framesA, framesB : nm [frames, atoms, 3], of equal weight, in time order; or TrainingData, of which those at the temperature
    temperature : K
    positions : nm, of all particles; the first frame of A by default, where atoms are all
    iterations : of each training; 0 for the map that changes nothing: plain BAR
    folds : parts of the frames, and maps
    stages : of annealing between the image of A and B, for where the map alone has too little overlap
    batchSize, learningRate : of the training
    flow : layers, bins, bound, hiddenSizes, extraBonds, platform, numContexts: see SystemBridge
    """
    if folds < 2 and iterations:
        raise ValueError(f"freeEnergyBetweenSystems: folds is {folds}, but must be at least 2")
    frames = [_framesAt(part, float(inUnit(temperature, unit.kelvin))) for part in (framesA, framesB)]
    if positions is None:
        if atoms is not None:
            raise ValueError("freeEnergyBetweenSystems: give positions of all particles where atoms are some")
        positions = frames[0][0]
    parts = [np.array_split(np.arange(len(x)), folds if iterations else 1) for x in frames]
    works, histories, evaluations = [], [], np.zeros(2, dtype=int)
    for fold, held in enumerate(zip(*parts)):
        bridge = SystemBridge(systemA, systemB, positions, temperature, tuple(frames), atoms, seed=seed and seed + fold, **flow)
        if iterations:
            histories.append(bridge.fit(*(np.delete(x, rows, axis=0) for x, rows in zip(frames, held)), iterations=iterations,
                                        batchSize=batchSize, learningRate=learningRate, seed=seed and seed + fold, progress=progress))
        works.append(bridge.works(*(x[rows] for x, rows in zip(frames, held)), stages=stages, seed=seed))
        evaluations += bridge.getEvaluations()
    pooled = (thin(*side) for side in zip(*works))  # BAR of maps of different quality wants the same part of A and of B from each
    return SystemFreeEnergy(**vars(barEstimate(*pooled)), stages=stages, evaluationsA=int(evaluations[0]),
                            evaluationsB=int(evaluations[1]), training=histories)
