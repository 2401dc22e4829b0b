# SPDX-License-Identifier: MIT
"""Refuses libraries of another version than those that the package was built with: their C++ interfaces change."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    from . import _build
except ImportError:
    raise ImportError(f"{Path(__file__).parent} holds the sources of openmmflow, not the package: build it with\n"
                      "    pip install --no-build-isolation ./python\n"
                      "in the folder of the sources, and start Python in another folder than python/.") from None

REPAIR = ("Build it again for the installed versions, in the folder of its sources:\n"
          "    pip install --no-build-isolation --force-reinstall --no-deps ./python\n"
          "or install those that it was built with:\n"
          "    pip install {wanted}")


def minor(text: str) -> str:
    """'2.15.0+cu132' -> '2.15'"""
    return ".".join(text.split("+")[0].split(".")[:2])


def check() -> None:
    """Throw ImportError if OpenMM or torch is missing, or of another minor version than at build time."""
    wrong, wanted = [], []
    for package, built in (("openmm", _build.openmm), ("torch", _build.torch)):
        try:
            installed = version(package)
        except PackageNotFoundError:
            installed = "not installed"
        if minor(installed) != minor(built):
            wrong.append(f"{package} is {installed}, but openmmflow {_build.version} was built with {minor(built)}.")
        wanted.append(f"'{package}=={minor(built)}.*'")
    if wrong:
        raise ImportError("\n".join([*wrong, REPAIR.format(wanted=" ".join(wanted))]))
