# SPDX-License-Identifier: MIT
"""The double well of Noe et al. (Science 365, eaaw1147, 2019), trained as there, against quadrature."""

import math

import numpy as np
import openmmflow as of
import pytest
import torch
from openmmflow import testsystems

pytestmark = pytest.mark.slow

UNIT_TEMPERATURE = testsystems.unitTemperature  # where kT = 1 kJ/mol


def makePotential(well, temperature=UNIT_TEMPERATURE):
    options = of.ContextPotentialOptions(platform="Reference")
    return of.SelectedColumns(of.ContextPotential(well.createSystem(), temperature, options), [0, 1], [0.0, 0.0, 0.0])


def makeFlow(transform=None):
    conditioner = of.ConditionerOptions(seed=3)
    return of.Flow(of.GaussianPrior(2), transform or of.makeRealNVP(2, 4, of.RealNVPOptions(conditioner=conditioner)))


def train(flow, losses, iterations, learningRate=1e-3):
    trainer = of.Trainer(flow, of.TrainerOptions(iterations=iterations, learningRate=learningRate, seed=1))
    for loss, weight in losses:
        trainer.addLoss(loss, weight)
    trainer.train(iterations)


def likelihood(flow, frames):
    loss = of.MaximumLikelihoodLoss(flow, of.MaximumLikelihoodLossOptions())
    loss.addData(frames)
    return loss


def energy(potential):
    return of.ReverseKLLoss(potential, of.ReverseKLLossOptions(energyCut=100, dropFraction=0))


@torch.no_grad()
def drawWeighted(flow, potential, count, seed=9):
    """@return x [count, 2], log w [count]"""
    sample = flow.sample(count, of.Random(seed))
    return sample.x, -potential.evaluate(sample.x).u - sample.logQ


@torch.no_grad()
def logWeightsOf(flow, potential, frames):
    return -potential.evaluate(frames).u - flow.logQ(frames)


def freeEnergyByReweighting(logWeights, right):
    return float(logWeights[~right].logsumexp(0) - logWeights[right].logsumexp(0))


def freeEnergyByBar(logWeights, right, logWeightsOfFrames, rightFrames):
    """Each well against the flow (F8): the work into a well is infinite for samples outside of it."""
    def toWell(inside, insideFrames):
        forward = torch.where(inside, -logWeights, math.inf)
        return of.bar(forward.tolist(), logWeightsOfFrames[insideFrames].tolist()).deltaF
    return toWell(right, rightFrames) - toWell(~right, ~rightFrames)


def testReverseKLDropsAWellAndFramesShowIt():
    well = testsystems.DoubleWell(testsystems.DoubleWellOptions(c=0.2))
    truth, potential, flow = well.getTruth(), makePotential(well), makeFlow()
    train(flow, [(energy(potential), 1)], 800)
    x, logWeights = drawWeighted(flow, potential, 20_000)
    found = (x[:, 0] < truth.barrier).double().mean().item()
    assert min(found, 1 - found) < 0.01  # one well only
    assert of.effectiveSampleSize(logWeights).getFraction() > 0.9  # and nothing in the weights tells of it
    # What tells: (mean of w over the flow's samples) x (mean of 1/w over the target's) is the share of what was found.
    frames = well.sample(20_000, of.Random(4))
    ofFrames = logWeightsOf(flow, potential, frames)
    share = math.exp(of.logMeanWeight(logWeights).value + of.logMeanWeight(-ofFrames).value)
    probability = truth.probabilityLeft if found > 0.5 else 1 - truth.probabilityLeft
    assert share == pytest.approx(probability, abs=0.03)


def testSeparateFramesOfBothWellsGiveTheirFreeEnergyDifference():
    well = testsystems.DoubleWell()
    truth, potential, flow = well.getTruth(), makePotential(well), makeFlow()
    exact = well.sample(1_000_000, of.Random(3))
    right = exact[:, 0] > truth.barrier
    # As many frames of each well: nothing that was trained on tells how probable they are.
    frames = torch.cat([exact[~right][:4000], exact[right][:4000]])
    train(flow, [(likelihood(flow, frames), 1), (energy(potential), 1)], 2000)
    x, logWeights = drawWeighted(flow, potential, 1_000_000)
    inRight = x[:, 0] > truth.barrier
    assert freeEnergyByReweighting(logWeights, inRight) == pytest.approx(truth.deltaF, abs=0.02)
    unseen = exact[10_000:]
    difference = freeEnergyByBar(logWeights, inRight, logWeightsOf(flow, potential, unseen), unseen[:, 0] > truth.barrier)
    assert difference == pytest.approx(truth.deltaF, abs=0.02)

    # Latent Monte Carlo crosses, and finds the population of the rare well from the other one.
    for kind, stepSize in ((of.JumpKind.Independence, 1.0), (of.JumpKind.PriorPreserving, 0.6)):
        jump = of.LatentJump(flow, potential, of.LatentJumpOptions(kind=kind, stepSize=stepSize, seed=5))
        state = jump.start(exact[~right][:4000])
        fractions, crossings = [], 0
        for step in range(150):
            before = state.x[:, 0] > truth.barrier
            jump.step(state)
            after = state.x[:, 0] > truth.barrier
            crossings += int((before != after).sum())
            fractions.append(after.double().mean().item())
        assert crossings > 1000
        mean, error = np.mean(fractions[50:]), np.std(fractions[50:]) / math.sqrt(10)  # at least ten are independent
        assert mean == pytest.approx(1 - truth.probabilityLeft, abs=4 * error)


def testEntropyOfTheCoordinateFindsTheOtherWellFromOneSidedFrames():
    well = testsystems.DoubleWell()
    truth, potential, flow = well.getTruth(), makePotential(well), makeFlow()
    exact = well.sample(8_000, of.Random(3))
    train(flow, [(likelihood(flow, exact[exact[:, 0] < truth.barrier]), 1)], 500)
    x, _ = drawWeighted(flow, potential, 10_000)
    assert not (x[:, 0] > truth.barrier).any()
    entropy = of.ReactionCoordinateEntropyLoss(lambda x: x[:, 0].clamp(-3.5, 3.5),  # where samples are welcome
                                               of.ReactionCoordinateEntropyLossOptions(bandwidth=0.3))
    train(flow, [(energy(potential), 1), (entropy, 1.5)], 2500)
    x, logWeights = drawWeighted(flow, potential, 1_000_000)
    assert freeEnergyByReweighting(logWeights, x[:, 0] > truth.barrier) == pytest.approx(truth.deltaF, abs=0.02)


def testVolumePreservingFlowsSampleOtherTemperatures():
    """F9: NICER, trained at one temperature, takes its quality to others by the variance of the prior; RealNVP does not."""
    well = testsystems.DoubleWell(testsystems.DoubleWellOptions(a=1, b=3, c=0.2, d=1))
    frames = well.sample(20_000, of.Random(3))
    grid = np.linspace(-7, 7, 200_001)
    energies = grid**4 / 4 - 1.5 * grid**2 + 0.2 * grid
    conditioner = of.ConditionerOptions(hiddenSizes=[100], activation=of.Activation.ReLU, seed=3)
    flows = {"NICER": makeFlow(of.makeNICER(2, of.NICEROptions(conditioner=conditioner))), "RealNVP": makeFlow()}
    acceptance = {}
    for name, flow in flows.items():
        train(flow, [(likelihood(flow, frames), 1)], 2500, 2e-3)
        flow.setTemperature(UNIT_TEMPERATURE)
        assert flow.canScaleTemperature() == (name == "NICER")
        for factor in (1.0, 0.5, 2.0):
            temperature = factor * UNIT_TEMPERATURE
            if flow.canScaleTemperature():
                scaled = flow.atTemperature(temperature)
            else:  # the same recipe, without its justification
                scaled = of.Flow(of.GaussianPrior(2, math.sqrt(factor)), flow.getTransform())
            potential = makePotential(well, temperature)
            x, logWeights = drawWeighted(scaled, potential, 200_000)
            acceptance[name, factor] = of.independenceAcceptance(logWeights).value
            # Reweighted, the mean energy is that of quadrature whatever the flow.
            u = potential.evaluate(x).u * factor
            weight = logWeights.softmax(0)
            mean = float((weight * u).sum())
            error = float((weight**2 * (u - mean)**2).sum().sqrt())
            boltzmann = np.exp(-(energies - energies.min()) / factor)
            exact = float((energies * boltzmann).sum() / boltzmann.sum()) + factor / 2
            assert mean == pytest.approx(exact, abs=4 * error)
    # At its own temperature either is good; at others only NICER stays so.
    assert min(acceptance["NICER", 1.0], acceptance["RealNVP", 1.0]) > 0.8
    for factor in (0.5, 2.0):
        assert acceptance["NICER", factor] > acceptance["NICER", 1.0] - 0.2
        assert acceptance["RealNVP", factor] < acceptance["RealNVP", 1.0] - 0.15
        assert acceptance["NICER", factor] > acceptance["RealNVP", factor] + 0.1
