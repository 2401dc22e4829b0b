# SPDX-License-Identifier: MIT
"""A BoltzmannGenerator whose flow is on a GPU, or on the stand-in of tests/contracts/TestDevice.h: in a process of its own, as torch
knows that device from then on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]
LIBRARY = Path(os.environ.get("OPENMMFLOW_BUILD", REPOSITORY / "build")) / "tests" / "libTestDevice.so"

SCRIPT = """
import ctypes
import sys
import types
import numpy as np
import openmm as mm
import openmmflow as of
import torch
from openmm import app
from openmmflow.data import temperedData
from openmmflow.generator import BoltzmannGenerator

name = "cuda"
if not torch.cuda.is_available():
    name = "strict"
    ctypes.CDLL(sys.argv[1]).registerStrictDevice()
    sys.modules["torch.strict"] = types.ModuleType("torch.strict")  # which torch asks for its module
    sys.modules["torch.strict"]._lazy_init = lambda: None
pdb = app.PDBFile(sys.argv[2])
system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=None)
data = temperedData(system, pdb.positions, [300], framesPerTemperature=300, stepsPerFrame=20, seed=5, platform="Reference", progress=False)
start = BoltzmannGenerator.fromTopology(pdb.topology, system, pdb.positions, 300, data=data, layers=2, hiddenSizes=[8], seed=3).flow
start.setParameterType(torch.float64)
state = BoltzmannGenerator(start, system, pdb.positions).state([4, 6, 8, 14], -180, 0)
found = []
for device in ("cpu", name):
    generator = BoltzmannGenerator(start.to(device), system, pdb.positions, platform="Reference", numContexts=1)
    assert generator.flow.getDevice() == device
    generator.fit(data, iterations=10, batchSize=50, seed=1, progress=False)
    generator.refine(iterations=3, batchSize=50, seed=2, progress=False)
    evaluation = generator.evaluate(200, {"left": state}, seed=4, progress=False)
    integrator = generator.integrator(1, 0.001, seed=5)
    integrator.setRandomNumberSeed(6)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(pdb.positions)
    integrator.step(50)
    energies = [integrator.jump(), context.getState(getEnergy=True).getPotentialEnergy()._value]
    weights = np.nan_to_num(evaluation.logWeights, neginf=-1e9)
    found.append([weights, evaluation.positions.ravel(), generator.logWeights(data.positions[:20]),
                  generator.sample(5, seed=7).ravel(), np.array(energies)])
for host, device in zip(*found):
    np.testing.assert_allclose(device, host, rtol=1e-5, atol=1e-5)
"""


@pytest.mark.skipif(not LIBRARY.exists() and not torch.cuda.is_available(), reason=f"there is no {LIBRARY.name}: the C++ tests are not built")
def testAGeneratorOnADeviceIsThatOnTheProcessor():
    done = subprocess.run([sys.executable, "-c", SCRIPT, LIBRARY, REPOSITORY / "examples" / "alanine-dipeptide.pdb"], text=True,
                          capture_output=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
