# SPDX-License-Identifier: MIT
"""Where jumps work on OpenMM's Platforms, and that the package says so."""

import subprocess
import sys

import openmm as mm
import openmmflow as of
import pytest
from openmmflow import _cuda, _platforms


def makeContext(platform):
    """Two particles in a well, and the flow of one of them."""
    system, well = mm.System(), mm.CustomExternalForce("x^2+y^2+z^2")
    for i in range(2):
        system.addParticle(1)
        well.addParticle(i)
    system.addForce(well)
    flow = of.Flow(of.GaussianPrior(3), of.Scaling([0.1] * 3, [1.0] * 3), [1])
    integrator = of.FlowLangevinIntegrator(300, 1, 0.001, flow)
    assert integrator.getJumpPlatform() == ""
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName(platform))
    context.setPositions([mm.Vec3(0, 0, 0), mm.Vec3(1, 0, 0)])
    return context, integrator


def testHostPlatformsSayThatTheyAreOnTheHost():
    descriptions = of.describePlatforms()
    for name in ("Reference", "CPU"):
        assert descriptions[name] == "on the host"
        assert makeContext(name)[1].getJumpPlatform() == f"{name}: on the host, as everything there"


@pytest.mark.parametrize("name", ["OpenCL", "CUDA"])
def testDevicePlatformsSayWhatIsUsed(name):
    description = of.describePlatforms()[name]
    if description.startswith("not available"):
        pytest.skip(description)
    try:
        context, integrator = makeContext(name)
    except mm.OpenMMException as error:
        pytest.skip(f"{name}: {error}")
    assert integrator.getJumpPlatform().startswith(f"{name}: {description.split(',')[0]}")
    integrator.jump()
    assert integrator.getJumpStatistics().trials == 1


def testWhatIsMissingIsSaid(monkeypatch, tmp_path):
    """A package without libraries, in an OpenMM with and without the Platforms."""
    monkeypatch.setattr(_platforms, "__file__", str(tmp_path / "_platforms.py"))
    monkeypatch.setattr(_platforms, "_problems", {})
    monkeypatch.setattr(_platforms, "platformNames", lambda: ["Reference", "OpenCL", "HIP"])
    complete = _cuda.CudaFacts("13.0", "13.0", "13", 1, frozenset({_cuda.KERNELS, _cuda.PLUGIN}))
    monkeypatch.setattr(_cuda, "collectCudaFacts", lambda folder: complete)
    (tmp_path / "libOpenMMFlowCUDA.so").write_bytes(b"not a library")
    _platforms.load()
    described = of.describePlatforms()
    assert described.pop("CUDA tensors").startswith(
        "plain tensor operations, because libOpenMMFlowCUDAKernels.so can't be loaded: Error loading library")
    assert described == {
        "Reference": "on the host",
        "OpenCL": "through the host, because this build of openmmflow has no libOpenMMFlowOpenCL.so",
        "HIP": "through the host, because OpenMM-Flow has no plugin library for it",
        "CUDA": "not available: OpenMM has no CUDA Platform here"}
    monkeypatch.setattr(_platforms, "platformNames", lambda: ["CUDA"])
    _platforms.load()
    assert of.describePlatforms()["CUDA"].startswith(
        "through the host, because libOpenMMFlowCUDA.so can't be loaded: Error loading library")


def testOpenMMAloneHasOneParticleOnOpenCL():
    """Why bodies on devices add a massless particle: with PoCL 3 this program, which has nothing of ours in it, crashes."""
    if of.describePlatforms()["OpenCL"].startswith("not available"):
        pytest.skip("no OpenCL")
    program = """
import openmm as mm
system = mm.System()
system.addParticle(1)
context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("OpenCL"))
context.setPositions([mm.Vec3(0, 0, 0)])
context.setVelocities([mm.Vec3(1, 0, 0)])
print(context.getState(energy=True).getKineticEnergy()._value)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode < 0:
        pytest.skip(f"OpenMM's own kernel for kinetic energies ends by signal {-done.returncode} on this OpenCL")
    if done.returncode > 0:
        pytest.skip(f"OpenCL does not work here: {done.stderr[-300:]}")
    assert float(done.stdout) == pytest.approx(0.5)
