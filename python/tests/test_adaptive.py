# SPDX-License-Identifier: MIT
"""Adaptive training on a double well whose two sides dynamics alone never joins."""
import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import torch
from openmmflow.adaptive import addFrames
from openmmflow.data import R, TrainingData
from openmmflow.generator import BoltzmannGenerator

T = 300.0


def makeSystem():
    """U/kT = 10 ((x/0.1)^2 - 1)^2 + 0.5 x/0.1 + (y^2 + z^2)/(2 0.05^2): a barrier of 10, wells that differ by 1."""
    system = mm.System()
    system.addParticle(12.0)
    force = mm.CustomExternalForce("kT*(10*((x/0.1)^2 - 1)^2 + tilt*x/0.1 + (y^2 + z^2)/0.005)")
    force.addGlobalParameter("kT", R * T)
    force.addGlobalParameter("tilt", 0.5)
    force.addParticle(0)
    system.addForce(force)
    return system


def rightFraction():
    x = np.linspace(-3, 3, 60001)
    weight = np.exp(-10 * (x**2 - 1)**2 - 0.5 * x)
    return weight[x > 0].sum() / weight.sum()


def makeGenerator():
    options = of.SplineCouplingOptions(bins=12, bound=6.0)
    options.conditioner.hiddenSizes, options.conditioner.seed = [8], 4
    flow = of.Flow(of.GaussianPrior(3), of.Sequence([of.SplineCoupling(3, [0], [], options),
                                                     of.Scaling([0.0] * 3, [0.1, 0.05, 0.05])]), [0])
    flow.setTemperature(T)
    return BoltzmannGenerator(flow, makeSystem(), np.zeros((1, 3)), T, platform="Reference")


def makeData(count=4000, wrongFraction=0.5):
    """Frames of both wells at a wrong ratio."""
    random = np.random.default_rng(3)
    side = np.where(random.uniform(size=count) < wrongFraction, 0.1, -0.1)
    x = np.stack([side + random.normal(0, 0.012, count), *random.normal(0, 0.05, (2, count))], 1)[:, None, :]
    return TrainingData(positions=x.astype(np.float32), logWeights=np.full(count, -np.log(count)), energies=np.zeros(count),
                        sampledTemperature=np.full(count, T), temperature=T, atoms=[0])


def testWalkersCorrectWrongPopulations(tmp_path):
    torch.manual_seed(0)
    generator = makeGenerator()
    arguments = dict(rounds=2, walkers=4, framesPerWalker=2000, stepsPerFrame=20, trialsPerJump=4, seed=7, iterations=400,
                     batchSize=256, learningRate=1e-2, progress=False)
    history = generator.fitAdaptively(makeData(), 5.0, 0.002, folder=tmp_path, **arguments)
    assert [round.frames for round in history.walkers] == [8000, 8000]
    assert history.walkers[-1].acceptance > 0.3
    assert len(history.data.positions) == 4000 + 16000 and len(history.training) == 3
    right = history.data.positions[-8000:, 0, 0].reshape(4, 2000) > 0
    blocks = right.reshape(40, 200).mean(1)
    error = blocks.std(ddof=1) / np.sqrt(len(blocks))
    assert abs(right.mean() - rightFraction()) < 4 * error and error < 0.03
    # Rounds that are there are not repeated, one that lacks is run.
    (tmp_path / "round2.flow").unlink()
    resumed = makeGenerator()
    again = resumed.fitAdaptively(makeData(), 5.0, 0.002, folder=tmp_path, **arguments)
    assert len(again.walkers) == 1 and len(again.training) == 1
    assert len(again.data.positions) == 20000
    finished = makeGenerator()
    assert not finished.fitAdaptively(makeData(), 5.0, 0.002, folder=tmp_path, **arguments).walkers
    assert finished.flow.serialize() == resumed.flow.serialize()


def testAddedFramesCountAsManyAsTheyAre():
    data = makeData(100)
    data.logWeights = np.log(np.arange(1, 101) / 5050)
    grown = addFrames(data, np.zeros((50, 1, 3)), np.zeros(50))
    assert np.exp(grown.logWeights).sum() == pytest.approx(1, abs=1e-12)
    assert grown.getEffectiveSize() == pytest.approx(data.getEffectiveSize() + 50, rel=1e-12)


@pytest.mark.parametrize("rounds, walkers", [(0, 1), (1, 0)])
def testAdaptiveTrainingRefusesNothingToDo(rounds, walkers):
    with pytest.raises(ValueError, match="must be at least 1"):
        makeGenerator().fitAdaptively(makeData(), 5.0, 0.002, rounds=rounds, walkers=walkers)
