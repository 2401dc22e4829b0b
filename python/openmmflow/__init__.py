# SPDX-License-Identifier: MIT
"""OpenMM-Flow: molecular dynamics that jumps with a normalizing flow.

The classes of the C++ library, documented there, and what is built on them in Python: BoltzmannGenerator, adapters for flows
of other libraries, reporters and analysis. Arguments may carry OpenMM's units; numbers without are nm, ps, K and kJ/mol.
Tensors are torch's, in float64; arrays and lists are taken in their place.
"""

from . import _version_check

_version_check.check()

import openmm as _openmm  # both before our library, which links theirs
import torch as _torch

from . import _build, _extend, _platforms
from .openmmflow import *

_extend.extend()
_platforms.load()

from . import testsystems
from ._platforms import describePlatforms
from .adapters import TorchFlowAdapter, fromNflows, fromNormflows, fromZuko
from .alchemy import (alchemicalProtocol, alchemicalSystem, annealedProtocol, annealedSystem,
                      heatingProtocol, torsionBias)
from .analysis import State
from .bridge import SystemBridge, freeEnergyBetweenSystems
from .data import TrainingData, geometricTemperatures, temperedData
from .freeenergy import barEstimate, mbarFreeEnergies
from .generator import BoltzmannGenerator
from .reporters import JumpReporter

__version__ = _build.version
# Names that hide those of OpenMM from scripts that import all of both.
__all__ = [name for name in dir() if not name.startswith("_") and name not in ("bar", "State")]
