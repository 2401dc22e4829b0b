# SPDX-License-Identifier: MIT
"""What CUDA needs here, and what of it is missing."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

import openmm as mm
import torch

KERNELS, PLUGIN = "libOpenMMFlowCUDAKernels.so", "libOpenMMFlowCUDA.so"


@dataclass(frozen=True)
class CudaFacts:
    """Versions are 'major.minor' or 'major'; None where there is none."""

    driver: str | None  # the newest CUDA that the driver knows
    torch: str | None  # that torch is built for
    openmm: str | None  # that OpenMM's CUDA Platform is built for
    devices: int  # that torch can use
    libraries: frozenset[str]  # of this build of openmmflow


def collectCudaFacts(folder: Path) -> CudaFacts:
    """folder: where openmmflow's libraries are"""
    return CudaFacts(driver=_findDriver(), torch=torch.version.cuda, openmm=_findOpenMM(),
                     devices=torch.cuda.device_count() if torch.version.cuda else 0,
                     libraries=frozenset(name for name in (KERNELS, PLUGIN) if (folder / name).exists()))


def _findDriver():
    try:
        library, version = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    except OSError:
        return None
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _findOpenMM():
    plugin = Path(mm.version.openmm_library_path, "plugins", "libOpenMMCUDA.so")
    found = re.search(rb"libnvrtc\.so\.(\d+)", plugin.read_bytes()) if plugin.exists() else None
    return found[1].decode() if found else None


def _major(version):
    return int(version.split(".")[0])


def _findDriverProblem(facts, name, version):
    """What is wrong with the driver for something that is built for a version of CUDA, or is not there: None."""
    if facts.driver is None:
        return "there is no NVIDIA driver: libcuda.so.1 was not found"
    if version is not None and _major(facts.driver) < _major(version):
        return f"the NVIDIA driver knows CUDA {facts.driver}, but {name} is built for CUDA {version}: update the driver"
    return None


def findTensorProblem(facts: CudaFacts) -> str | None:
    """Why flows have no fused kernels for torch's CUDA tensors here; None where they have."""
    if facts.torch is None:
        return "torch is built for processors only: install the build of it for CUDA"
    if problem := _findDriverProblem(facts, "torch", facts.torch):
        return problem
    if facts.devices == 0:
        return "torch finds no CUDA device"
    if KERNELS not in facts.libraries:
        return f"this build of openmmflow has no {KERNELS}: it was made without nvcc, or for a torch without CUDA"
    return None


def findPlatformProblem(facts: CudaFacts) -> str | None:
    """Why OpenMM's CUDA Platform has no kernels of OpenMM-Flow here; None where it has."""
    if problem := _findDriverProblem(facts, "OpenMM's CUDA Platform", facts.openmm):
        return problem
    if facts.openmm is None:
        return "OpenMM's CUDA Platform is not installed: pip install 'openmm[cuda13]'"
    if facts.torch is not None and _major(facts.torch) != _major(facts.openmm):
        return (f"torch is built for CUDA {facts.torch}, but OpenMM's CUDA Platform for CUDA {facts.openmm}: install "
                f"OpenMM-CUDA-{_major(facts.torch)}")
    if PLUGIN not in facts.libraries:
        return f"this build of openmmflow has no {PLUGIN}: it was made where OpenMM's CUDA Platform was not installed"
    return None
