# SPDX-License-Identifier: MIT
"""A flow written in PyTorch, trained and used as any other: here for a particle in a double well."""
import math

import openmm as mm
import torch

from openmmflow import (ContextPotential, Flow, GaussianPrior, MaximumLikelihoodLoss, MaximumLikelihoodLossOptions, Random,
                        ReverseKLLoss, ReverseKLLossOptions, TorchFlowAdapter, Trainer, TrainerOptions, effectiveSampleSize,
                        logMeanWeight)


class Couplings(torch.nn.Module):
    """Affine couplings that change one of three variables after the other: forward is z -> x, inverse is x -> z."""

    def __init__(self, layers):
        super().__init__()
        self.networks = torch.nn.ModuleList(torch.nn.Sequential(
            torch.nn.Linear(3, 32), torch.nn.SiLU(), torch.nn.Linear(32, 32), torch.nn.SiLU(), torch.nn.Linear(32, 2))
            for _ in range(layers))

    def predict(self, layer, y):
        """Scale and shift of one variable, from the others; the variable as a row of 0 and 1."""
        active = torch.nn.functional.one_hot(torch.tensor(layer % 3), 3).to(y)
        scale, shift = self.networks[layer](y * (1 - active)).unbind(1)
        return 2 * torch.tanh(scale), shift, active

    def forward(self, z):
        logDet = 0
        for layer in range(len(self.networks)):
            scale, shift, active = self.predict(layer, z)
            z = z * (1 - active) + (z * scale.exp()[:, None] + shift[:, None]) * active
            logDet = logDet + scale
        return z, logDet

    def inverse(self, x):
        logDet = 0
        for layer in reversed(range(len(self.networks))):
            scale, shift, active = self.predict(layer, x)
            x = x * (1 - active) + ((x - shift[:, None]) * (-scale).exp()[:, None]) * active
            logDet = logDet - scale
        return x, logDet


torch.set_num_threads(1)  # small networks
torch.manual_seed(1)
flow = Flow(GaussianPrior(3), TorchFlowAdapter(Couplings(9)).transform(3))

system = mm.System()
system.addParticle(1)
well = mm.CustomExternalForce("x^4/4 - 3*x^2 + x + y^2/2 + 50*z^2")
well.addParticle(0)
system.addForce(well)
temperature = 1 / 0.00831446261815324  # kT = 1 kJ/mol

# On the energy alone a flow stays in the well that it finds first: frames of both, however many of each, keep it in both.
integrator = mm.LangevinMiddleIntegrator(temperature, 1, 0.02)
context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
frames = []
for start in -2.5, 2.3:
    context.setPositions([(start, 0, 0)])
    for _ in range(2000):
        integrator.step(20)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True)[0]._value)
likelihood = MaximumLikelihoodLoss(flow, MaximumLikelihoodLossOptions())
likelihood.addData(frames)
potential = ContextPotential(system, temperature)
trainer = Trainer(flow, TrainerOptions(iterations=800, learningRate=3e-3, seed=1))
trainer.addLoss(likelihood)
trainer.addLoss(ReverseKLLoss(potential, ReverseKLLossOptions()))
trainer.train(800)

with torch.no_grad():
    samples = flow.sample(50_000, Random(2))
logWeights = -potential.evaluate(samples.x).u - samples.logQ
found = logMeanWeight(logWeights)
exact = 12.064929 + 0.5 * math.log(2 * math.pi / 100)  # in the plane, by quadrature; across it
print(f"ln Z = {found.value:.4f} +- {found.standardError:.4f}, exactly {exact:.4f}; "
      f"effective samples {effectiveSampleSize(logWeights).getFraction():.0%}")
