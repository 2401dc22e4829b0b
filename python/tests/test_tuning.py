# SPDX-License-Identifier: MIT
"""What pilots of annealed jumps say and predict, on works whose distribution is known and on a System."""

import math
from types import SimpleNamespace

import numpy as np
import openmm as mm
import openmmflow as of
import pytest
from openmm import app
from openmmflow import testsystems, tuning
from openmmflow.alchemy import annealedProtocol, annealedSystem, copyProtocol, parametersOf, protocolAsDict, protocolFromDict
from scipy.special import erfc

KELVIN = testsystems.unitTemperature


def makePilot(stages, steps, dissipation, jumps=4000, seed=1):
    """Of normal works: mean m, variance 2 m."""
    works = np.random.default_rng(seed).normal(dissipation, math.sqrt(2 * dissipation), jumps)
    protocol = of.AnnealedProtocol(steps, 0.01)
    protocol.addParameter("lambda", np.linspace(1, 0, stages + 1).tolist())
    records = [SimpleNamespace(jumped=True, logAlpha=-work, stageWorks=[work / (2 * stages)] * (2 * stages)) for work in works]
    return tuning.summarizePilot(protocol, records, 1e-3 * 2 * stages * (steps + 1))


def dissipationOf(stages, steps):
    return 1 / (0.05 + 0.1 * stages * steps / (steps + 4))


def testPredictionsFollowTheDissipationOfThePilots():
    tuned = tuning.tune([makePilot(K, s, dissipationOf(K, s), seed=K * s) for K, s in ((2, 1), (8, 1), (8, 8), (16, 4))])
    assert tuned.secondsPerStep == pytest.approx(1e-3)
    for K, s in ((4, 2), (24, 8), (64, 2)):
        prediction = tuned.predict(K, s)
        assert prediction.acceptance == pytest.approx(erfc(math.sqrt(dissipationOf(K, s)) / 2), rel=0.1)
        assert prediction.seconds == pytest.approx(2e-3 * K * (s + 1))
    assert tuned.best.rate == max(p.rate for p in tuned.table())


def testAPilotIsWhatItsRecordsSay():
    pilot = makePilot(3, 2, 1.5)
    assert pilot.acceptance.value == pytest.approx(erfc(math.sqrt(1.5) / 2), abs=4 * pilot.acceptance.standardError)
    assert pilot.acceptance.value == pytest.approx(2 * np.mean(pilot.works < 0), abs=0.05)  # P(W) exp(-W) = P(-W)
    assert pilot.middle.value == 1 and pilot.stageWorks.shape == (4000, 6)
    assert pilot.asDict()["work of the switches"]["stage 3 back"]["mean"] == pytest.approx(1.5 / 6, abs=0.02)
    rejected = SimpleNamespace(jumped=False, logAlpha=-math.inf, stageWorks=[0.1, 0.2, 0.3])
    half = tuning.summarizePilot(pilot.protocol, [rejected] * 5, 1.0)
    assert half.middle.value == half.acceptance.value == 0 and math.isnan(half.stageWorks[0, 3])
    with pytest.raises(ValueError, match="number of pilots with an acceptance is 1"):
        tuning.tune([pilot, half])
    assert parametersOf(tuning.respace(half, 2))["lambda"][0] == 1
    rejected.stageWorks = [0.1, 0.2]
    with pytest.raises(ValueError, match="switches that fewer than four jumps"):
        tuning.respace(tuning.summarizePilot(pilot.protocol, [rejected] * 5, 1.0), 4)


def testStagesOfEqualLength():
    protocol = of.AnnealedProtocol(1, 0.01)
    protocol.addParameter("a", [1.0, 0.5, 0.0])
    random = np.random.default_rng(2)
    records = [SimpleNamespace(jumped=True, logAlpha=0.0, stageWorks=list(random.normal(0, [3, 1, 1, 3]))) for _ in range(4000)]
    records[7].stageWorks[3] = 1e12  # a clash
    new = tuning.respace(tuning.summarizePilot(protocol, records, 1.0), 4, 7)
    assert new.getStepsPerStage() == 7
    # The first half is three times as long as the second: three of four stages are in it.
    np.testing.assert_allclose(parametersOf(new)["a"], [1, 1 - 0.5 / 3, 1 - 1 / 3, 0.5, 0], atol=0.02)


def testProtocolsAreSavedAndCopied():
    protocol = annealedProtocol(3, 5, 0.002, friction=2.0, stageDynamics=of.StageDynamics.Metropolised,
                                middleJump=of.MiddleJump.Always)
    values = protocolAsDict(protocol)
    assert protocolAsDict(protocolFromDict(values)) == values
    assert protocolAsDict(copyProtocol(protocol, parametersOf(protocol))) == values
    for wrong in ({}, values | {"more": 1}, values | {"stageDynamics": "Magic"}, values | {"parameters": [1]}):
        with pytest.raises(ValueError, match="protocolFromDict"):
            protocolFromDict(wrong)


def testPilotsOfARunningSimulationPredictALongerProtocol():
    """A narrow flow of a double well: the prediction from short protocols holds for one of twice the stages."""
    well = testsystems.DoubleWell(testsystems.DoubleWellOptions(a=1, b=3, c=0.2, d=1))
    flow = of.Flow(of.GaussianPrior(3), of.Scaling([-0.5, 0.0, 0.0], [1.2, 0.5, 1.0]), [0])
    integrator = of.FlowLangevinIntegrator(KELVIN, 1, 0.05, flow)
    integrator.setRandomNumberSeed(1)
    integrator.setJumpRandomNumberSeed(2)
    topology = app.Topology()
    topology.addAtom("X", None, topology.addResidue("X", topology.addChain()))
    simulation = app.Simulation(topology, annealedSystem(well.createSystem(), flow, KELVIN), integrator,
                                mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions([[-1.7, 0, 0]])
    integrator.setJumpInterval(3)

    def run(stages, steps, jumps=400):
        return tuning.runPilot(simulation, annealedProtocol(stages, steps, 0.1, stageDynamics=of.StageDynamics.Metropolised),
                               jumps, 20, progress=False)

    bare = tuning.runBare(simulation, 400, 20, progress=False)
    tuned = tuning.tune([run(2, 1), run(4, 1), run(4, 4), run(8, 2)])
    assert integrator.getJumpInterval() == 3 and integrator.getAnnealedProtocol() is None and not integrator.getRecordTrials()
    assert tuned.pilots[-1].acceptance.value > bare.acceptance.value
    longer = run(16, 4)
    assert tuned.predict(16, 4).acceptance == pytest.approx(longer.acceptance.value, abs=0.1)
    assert longer.acceptance.value > tuned.pilots[0].acceptance.value
    assert tuned.getRemarks(tuning.Bare(bare.acceptance, 1e-9))[0].startswith("bare jumps are accepted more often")
    with pytest.raises(ValueError, match="annealedSystem: particle 0 is not one of the flow's"):
        annealedSystem(well.createSystem(), of.Flow(of.GaussianPrior(3), of.Scaling([0.0] * 3, [1.0] * 3), [1]), KELVIN)
