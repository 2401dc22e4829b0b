# SPDX-License-Identifier: MIT
"""A flow written in PyTorch, trained on an energy and used as any other: here for a particle in a double well.

The free energy is known: ln Z = 12.064929 in the plane, by quadrature, and ln sqrt(2 pi / 100) across it.
"""
import math

import numpy as np
import openmm as mm
import torch

from openmmflow import (ContextPotential, Flow, GaussianPrior, Random, ReverseKLLoss, ReverseKLLossOptions, TorchFlowAdapter,
                        Trainer, TrainerOptions, effectiveSampleSize, logMeanWeight)


class Couplings(torch.nn.Module):
    """Affine couplings that change one of three variables after the other: forward is z -> x, inverse is x -> z."""

    def __init__(self, layers):
        super().__init__()
        self.networks = torch.nn.ModuleList(torch.nn.Sequential(
            torch.nn.Linear(3, 32), torch.nn.SiLU(), torch.nn.Linear(32, 32), torch.nn.SiLU(), torch.nn.Linear(32, 2))
            for _ in range(layers))

    def parameters_of(self, layer, y):
        mask = torch.ones(3, dtype=y.dtype)
        mask[layer % 3] = 0
        scale, shift = self.networks[layer](y * mask).unbind(1)
        return 2 * torch.tanh(scale), shift

    def forward(self, z):
        logDet = 0
        for layer in range(len(self.networks)):
            scale, shift = self.parameters_of(layer, z)
            changed = torch.nn.functional.one_hot(torch.tensor(layer % 3), 3).to(z)
            z = z * (1 - changed) + (z * scale.exp()[:, None] + shift[:, None]) * changed
            logDet = logDet + scale
        return z, logDet

    def inverse(self, x):
        logDet = 0
        for layer in reversed(range(len(self.networks))):
            scale, shift = self.parameters_of(layer, x)
            changed = torch.nn.functional.one_hot(torch.tensor(layer % 3), 3).to(x)
            x = x * (1 - changed) + ((x - shift[:, None]) * (-scale).exp()[:, None]) * changed
            logDet = logDet - scale
        return x, logDet


torch.manual_seed(1)
flow = Flow(GaussianPrior(3), TorchFlowAdapter(Couplings(9)).transform(3))

system = mm.System()
system.addParticle(1)
well = mm.CustomExternalForce("x^4/4 - 3*x^2 + x + y^2/2 + 50*z^2")
well.addParticle(0)
system.addForce(well)
potential = ContextPotential(system, 1 / 0.00831446261815324)  # where kT = 1 kJ/mol

trainer = Trainer(flow, TrainerOptions(iterations=1500, learningRate=3e-3, seed=1))
trainer.addLoss(ReverseKLLoss(potential, ReverseKLLossOptions(batchSize=256)))
trainer.train(1500)

samples = flow.sample(50_000, Random(2))
logWeights = np.asarray(-potential.evaluate(samples.x).u - samples.logQ)
found = logMeanWeight(logWeights.tolist())
exact = 12.064929 + 0.5 * math.log(2 * math.pi / 100)
print(f"ln Z = {found.value:.4f} +- {found.standardError:.4f}, exactly {exact:.4f}; "
      f"effective samples {effectiveSampleSize(logWeights.tolist()).getFraction():.0%}")
