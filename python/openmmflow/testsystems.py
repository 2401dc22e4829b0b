# SPDX-License-Identifier: MIT
"""Small Systems about which much is known exactly, to try methods on: the C++ classes of energies/systems.

Each has createSystem(), getPositions(), getColumns() and createPotential(), and what is known of it at unitTemperature, where kT
is 1 kJ/mol:

    well = testsystems.DoubleWell()
    system, truth = well.createSystem(), well.getTruth()
    potential = well.createPotential()          # u of x and y, for a flow of two variables

Peptides are here as well: alanineDipeptide("implicit"), alanineTetrapeptide(), CappedPeptide("W"); see peptides.
"""

from .openmmflow import (
    AnalyticSystem,
    DimerInBath,
    DimerInBathBareTruth,
    DimerInBathOptions,
    DoubleWell,
    DoubleWellOptions,
    DoubleWellTruth,
    GaussianMixture,
    IsingTorus,
    IsingTorusOptions,
    LatticePhi4,
    LatticePhi4Options,
    LennardJonesCluster,
    LennardJonesClusterOptions,
    ManyWell,
    ManyWellOptions,
    unitTemperature,
)
from .peptides import CappedPeptide, alanineDipeptide, alanineTetrapeptide

__all__ = ["AnalyticSystem", "CappedPeptide", "DimerInBath", "DimerInBathBareTruth", "DimerInBathOptions", "DoubleWell",
           "DoubleWellOptions", "DoubleWellTruth", "GaussianMixture", "IsingTorus", "IsingTorusOptions", "LatticePhi4",
           "LatticePhi4Options", "LennardJonesCluster", "LennardJonesClusterOptions", "ManyWell", "ManyWellOptions",
           "alanineDipeptide", "alanineTetrapeptide", "unitTemperature"]
