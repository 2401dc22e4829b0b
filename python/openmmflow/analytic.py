# SPDX-License-Identifier: MIT
"""Training flows of the systems with known answers (openmmflow.testsystems) from their energy alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import openmmflow as api
from . import testsystems
from .diagnostics import Diagnosis, diagnose
from .generator import TrainingHistory, buildCouplings, runTraining

# Four Gaussians of unequal weights, far apart for their width.
_MIXTURE = [0.4, 0.3, 0.2, 0.1], [-4.0, 4.0, -4.0, 4.0], [-4.0, -4.0, 4.0, 4.0], [0.5, 0.8, 0.6, 0.4]

SYSTEMS = {
    "DoubleWell": testsystems.DoubleWell,
    "GaussianMixture": lambda: testsystems.GaussianMixture(*_MIXTURE),
    "ManyWell": testsystems.ManyWell,
}


def exactLogZ(system: Any) -> float:
    """ln Z of the columns that the system uses, at unitTemperature."""
    if isinstance(system, testsystems.DoubleWell):
        return system.getTruth().logZ
    return system.getLogZ() if isinstance(system, testsystems.ManyWell) else 0.0


class AnalyticGenerator:
    """A flow of the used columns of an AnalyticSystem, its losses, and its judgement by what is known.

    Attributes
    ----------
    system, potential : the AnalyticSystem, and u of its columns
    flow : couplings of splines between a Gaussian and x, scaled by `spread`
    energyEvaluations : of the trainings so far
    """

    def __init__(self, name: str, *, layers: int, bins: int, hiddenSizes: Sequence[int], spread: float, seed: int):
        """
        Parameters
        ----------
        name : of SYSTEMS
        spread : nm, the standard deviation of the untrained flow: it should reach all that is to be found
        """
        self.system = SYSTEMS[name]()
        self.potential = self.system.createPotential(api.ContextPotentialOptions(platform="Reference"))
        size = self.potential.getSize()
        transforms, prior = buildCouplings(size, [], layers, bins, 5.0, list(hiddenSizes),
                                           np.random.default_rng(seed or None))
        scaling = api.Scaling([0.0] * size, [spread] * size)
        self.flow = api.Flow(prior, api.Sequence([*transforms, scaling]))
        self.flow.setTemperature(testsystems.unitTemperature)
        self.energyEvaluations = 0

    def fit(self, *, loss: str, iterations: int, batchSize: int, learningRate: float, stages: int, seed: int, file: Path,
            progress: bool) -> TrainingHistory:
        """Train on the energy. loss: "alpha" (FAB, with as many stages of annealing), or "reverse" KL with path gradients."""
        if loss == "alpha":
            kernel = api.HamiltonianKernelOptions(stepSize=0.15, numSteps=4)
            chosen = api.AlphaDivergenceLoss(self.potential, api.AlphaDivergenceLossOptions(
                batchSize=batchSize, numStages=stages, kernel=kernel, stepsPerAnnealing=4))
        else:
            chosen = api.PathGradientLoss(self.potential, api.ReverseKLLossOptions(batchSize=batchSize, dropFraction=0))
        history = self._train(chosen, iterations, learningRate, seed, file, progress)
        self.energyEvaluations += chosen.getNumEvaluations() if loss == "alpha" else iterations * batchSize
        return history

    def refine(self, *, iterations: int, batchSize: int, learningRate: float, seed: int, file: Path,
               progress: bool) -> TrainingHistory:
        """Train on the flow's own samples, reweighted."""
        loss = api.ReweightedForwardKLLoss(self.potential, api.ReweightedForwardKLLossOptions(batchSize=batchSize))
        self.energyEvaluations += iterations * batchSize
        return self._train(loss, iterations, learningRate, seed, file, progress)

    def _train(self, loss: Any, iterations: int, learningRate: float, seed: int, file: Path,
               progress: bool) -> TrainingHistory:
        options = api.TrainerOptions(iterations=iterations, learningRate=learningRate, seed=seed, gradientClip=20.0)
        trainer = api.Trainer(self.flow, options)
        trainer.addLoss(loss)
        return runTraining(trainer, [loss.getName()], False, iterations, file, progress, None)

    @torch.no_grad()
    def judge(self, numSamples: int, seed: int) -> tuple[dict[str, Any], Diagnosis]:
        """From new samples of the flow and exact ones: ESS, acceptance, ln Z and what the flow misses; and what is wrong."""
        random = api.Random(seed)
        drawn = self.flow.sample(numSamples, random)
        exact = self.system.sample(min(numSamples, 20_000), random)
        logWeights = -self.potential.evaluate(drawn.x).u - drawn.logQ
        exactLogWeights = -self.potential.evaluate(exact).u - self.flow.logQ(exact)
        logZ, acceptance = api.logMeanWeight(logWeights.tolist()), api.independenceAcceptance(logWeights.tolist())
        inverse = api.logMeanWeight((-exactLogWeights).tolist())
        summary = {"samples": numSamples, "ESS/N": api.effectiveSampleSize(logWeights.tolist()).getFraction(),
                   "acceptance": {"value": acceptance.value, "standardError": acceptance.standardError},
                   "ln Z": {"value": logZ.value, "standardError": logZ.standardError}, "ln Z, exact": exactLogZ(self.system),
                   "part of the target that the flow reaches": float(np.exp(logZ.value + inverse.value))}
        columns = {f"x{i}": (drawn.x[:, i], exact[:, i]) for i in range(exact.shape[1])}
        return summary, diagnose(logWeights, exactLogWeights, coordinates=columns)
