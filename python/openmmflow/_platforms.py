# SPDX-License-Identifier: MIT
"""The plugin libraries for OpenMM's Platforms that keep a simulation's state on a device. Each is part of the package where
it could be built, and is loaded where OpenMM has the Platform; without it everything works through the host."""

from __future__ import annotations

from pathlib import Path

import openmm as mm

_LIBRARIES = {"OpenCL": "libOpenMMFlowOpenCL.so", "CUDA": "libOpenMMFlowCUDA.so"}
_problems: dict[str, str] = {}


def platformNames() -> list[str]:
    return [mm.Platform.getPlatform(i).getName() for i in range(mm.Platform.getNumPlatforms())]


def load() -> None:
    """Load what can be loaded, and remember why the rest can't."""
    folder, present = Path(__file__).parent, platformNames()
    for name, library in _LIBRARIES.items():
        if name not in present:
            _problems[name] = f"OpenMM has no {name} Platform here"
        elif not (folder / library).exists():
            _problems[name] = f"this build of openmmflow has no {library}"
        else:
            try:
                mm.Platform.loadPluginLibrary(str(folder / library))
            except mm.OpenMMException as error:
                _problems[name] = f"{library} can't be loaded: {error}"


def describePlatforms() -> dict[str, str]:
    """Where jumps and FlowForce read and set the moved atoms, for each of OpenMM's Platforms and those that OpenMM-Flow has
    plugin libraries for. A FlowLangevinIntegrator in a Context says it for that Context: see its getJumpPlatform()."""
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
    return descriptions
