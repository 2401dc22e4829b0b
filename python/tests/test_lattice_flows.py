# SPDX-License-Identifier: MIT
"""Flows of lattice fields from Python, and what the parts of examples/benchmarks/phi4.py show."""

import importlib.util
from argparse import Namespace
from pathlib import Path

import openmmflow as of
import pytest
import torch
from openmmflow.testsystems import LatticePhi4

PROGRAM = Path(__file__).parents[2] / "examples" / "benchmarks" / "phi4.py"
spec = importlib.util.spec_from_file_location("phi4", PROGRAM)
phi4 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(phi4)


def testContinuousFlowLearnsTheFreeEnergyOfASmallLattice():
    theory = LatticePhi4.fromKappa([2, 4], 0.2, 0.022)
    potential = theory.createNativePotential()
    flow = phi4.makeContinuousFlow([2, 4], 0.8, steps=4, frequencies=2, maxFrequency=1.0, timeFunctions=1)
    before = phi4.fromFlow(flow, potential, 2000, 5)
    phi4.train(flow, phi4.makeReverseLoss(potential, 64), 60, 1e-2, 3)
    F, error, ess = phi4.fromFlow(flow, potential, 2000, 5)
    assert before[2] < 0.5 < 0.9 < ess
    assert error < 0.01
    assert abs(F + theory.getLogZ()) < 4 * error


def testContinuousFlowComesBackFromItsBytes():
    flow = phi4.makeContinuousFlow([3, 4], 1.0, frequencies=2)
    twin = of.Flow.deserialize(flow.serialize())
    assert isinstance(twin.getTransform(), of.ContinuousFlow)
    assert set(twin.getParameters()) == {"kernel", "frequencies"}


def testCouplingsOfALatticeTakeAnyExtentsAndKeepTheSign():
    conditioner = of.ConditionerOptions(hiddenSizes=[5], extents=[3, 2, 4], seed=1)
    settings = of.RealNVPOptions(odd=True)
    settings.conditioner = conditioner
    transform = of.makeRealNVP(24, 1, settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in transform.getParameters().values():
            tensor += 0.3 * torch.randn(tensor.shape, generator=generator)
        z = torch.randn(2, 24, generator=generator, dtype=torch.float64)
        assert torch.equal(transform.forward(-z).value, -transform.forward(z).value)
        assert torch.abs(transform.inverse(transform.forward(z).value).value - z).max() < 1e-6
    assert of.Lattice([3, 2, 4]).getCheckerboard(True)[0] == 1


def runPart(name, directory, **settings):
    return getattr(phi4, name)(Namespace(**{"short": False, "resume": False, "seed": 1, "output": directory} | settings))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["runSites", "runExact"])
def testFreeEnergyOfOneFlowIsExact(name, tmp_path):
    found = runPart(name, tmp_path)
    assert abs(found["difference in errors"]) < 4
    assert found["standardError"] < 0.03
    assert found["ESS/N"] > 0.5


@pytest.mark.slow
def testFreeEnergyOfOneFlowIsThatOfAnHmcLadder(tmp_path):
    found = runPart("runLadder", tmp_path)
    assert abs(found["difference in errors"]) < 4
    assert found["smallest overlap"] > 0.03
    assert found["standardError"] < 0.1


# A flow that has lost one of two equal modes looks good from its own samples; samples of both show that half is covered.
@pytest.mark.slow
def testReverseKLInTheBrokenPhaseDropsAModeAndIsFoundOut(tmp_path):
    found = runPart("runModes", tmp_path)
    assert found["reverse ESS/N"] > 0.3
    assert found["forward ESS/N"] < 1e-6
    assert abs(found["covered"] - 0.5) < 4 * found["error of covered"] < 0.2
    assert found["F from the flow"] - found["F from the target"] == pytest.approx(0.693, abs=0.2)


@pytest.mark.slow
def testContinuousFlowWithPathGradientsLearnsThePublishedLattice(tmp_path):
    found = runPart("runContinuous", tmp_path, short=True)
    resumed = runPart("runContinuous", tmp_path, short=True, resume=True)
    assert resumed["ESS/N"] > found["ESS/N"] > 0.2
    assert resumed["training CPU s"] > found["training CPU s"]
    assert resumed["change of log w by halved steps"] < 0.1
