# SPDX-License-Identifier: MIT
"""The plugin libraries for OpenMM's Platforms that keep a simulation's state on a device. Each is part of the package where
it could be built, and is loaded where OpenMM has the Platform; without it everything works through the host."""

from __future__ import annotations

from pathlib import Path

import openmm as mm

from . import _cuda

_LIBRARIES = {"OpenCL": "libOpenMMFlowOpenCL.so", "CUDA": _cuda.PLUGIN}
_problems: dict[str, str] = {}


def platformNames() -> list[str]:
    return [mm.Platform.getPlatform(i).getName() for i in range(mm.Platform.getNumPlatforms())]


def load() -> None:
    """Load what can be loaded, and remember why the rest can't."""
    folder, present = Path(__file__).parent, platformNames()
    facts = _cuda.collectCudaFacts(folder)
    _loadLibrary("CUDA tensors", folder / _cuda.KERNELS, _cuda.findTensorProblem(facts))
    for name, library in _LIBRARIES.items():
        problem = _cuda.findPlatformProblem(facts) if name == "CUDA" else None
        if name not in present:
            problem = problem or f"OpenMM has no {name} Platform here"
        elif not (folder / library).exists():
            problem = problem or f"this build of openmmflow has no {library}"
        _loadLibrary(name, folder / library, problem)


def _loadLibrary(name, library, problem):
    if problem is None:
        try:
            mm.Platform.loadPluginLibrary(str(library))
            return
        except mm.OpenMMException as error:
            problem = f"{library.name} can't be loaded: {error}"
    _problems[name] = problem


def describePlatforms() -> dict[str, str]:
    """Where jumps and FlowForce read and set the moved atoms, for each of OpenMM's Platforms and those that OpenMM-Flow has
    plugin libraries for; and, as "CUDA tensors", how flows compute on a GPU (see Flow.to). A FlowLangevinIntegrator in a Context
    says it for that Context: see its getJumpPlatform()."""
    descriptions = {}
    for name in [*platformNames(), *(name for name in _LIBRARIES if name not in platformNames())]:
        if name in ("Reference", "CPU"):
            descriptions[name] = "on the host"
        elif name in _LIBRARIES and name not in _problems:
            descriptions[name] = "on the device"
        elif name in platformNames():
            descriptions[name] = ("through the host, because "
                                  + _problems.get(name, "OpenMM-Flow has no plugin library for it"))
        else:
            descriptions[name] = f"not available: {_problems[name]}"
    problem = _problems.get("CUDA tensors")
    descriptions["CUDA tensors"] = "fused kernels" if problem is None else f"plain tensor operations, because {problem}"
    return descriptions
