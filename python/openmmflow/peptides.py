# SPDX-License-Identifier: MIT
"""Capped peptides built from their sequence: in vacuum, in implicit and in explicit water."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import openmm as mm
from openmm import app, unit
from openmm.app.internal.customgbforces import GBSAOBC2Force

FORCE_FIELDS = {
    "vacuum": ("amber14-all.xml",),
    "implicit": ("amber14-all.xml",),  # and OBC2, in createSystem()
    "explicit": ("amber14-all.xml", "amber14/tip3p.xml"),
}
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
_BACKBONE = {"phi": ((-1, "C"), (0, "N"), (0, "CA"), (0, "C")), "psi": ((0, "N"), (0, "CA"), (0, "C"), (1, "N")),
             "omega": ((-1, "CA"), (-1, "C"), (0, "N"), (0, "CA"))}


class CappedPeptide:
    """ACE-sequence-NME of L-amino acids with trans peptide bonds, extended, as charged as they are in water at pH 7.

    Heavy atoms are placed by PeptideBuilder (Tien et al., PeerJ 1, e80, 2013; `pip install PeptideBuilder`), hydrogens
    and water by OpenMM's Modeller; then the energy is minimised.

    Attributes
    ----------
    topology : openmm.app.Topology
    forcefield : openmm.app.ForceField, AMBER's ff14SB, with TIP3P for explicit water

    Examples
    --------
    >>> peptide = CappedPeptide("A", "implicit")
    >>> system, positions = peptide.createSystem(), peptide.getPositions()
    >>> phi, psi = peptide.getTorsion("phi"), peptide.getTorsion("psi")
    """

    def __init__(self, sequence: str, solvent: str = "vacuum", *, constraints: Any = None, padding: float = 1.0):
        """
        Parameters
        ----------
        sequence : one-letter codes of the twenty amino acids
        solvent : vacuum, implicit or explicit
        constraints : for createSystem(), such as openmm.app.HBonds; water is rigid in any case
        padding : nm of water around the peptide, at least
        """
        if not sequence or (unknown := set(sequence) - set(RESIDUES)):
            shown = f"has {', '.join(sorted(unknown))}" if sequence else "is empty"
            raise ValueError(f"CappedPeptide: sequence {shown}, but must be made of {RESIDUES}")
        if solvent not in FORCE_FIELDS:
            raise ValueError(f"CappedPeptide: solvent is {solvent!r}, but must be one of {', '.join(FORCE_FIELDS)}")
        self.sequence, self.solvent, self._constraints = sequence, solvent, constraints
        self.forcefield = app.ForceField(*FORCE_FIELDS[solvent])
        modeller = app.Modeller(*_placeHeavyAtoms(sequence))
        platform = mm.Platform.getPlatformByName("Reference")
        state = random.getstate()
        random.seed(1)  # Modeller places hydrogens at random and then minimises
        try:
            modeller.addHydrogens(self.forcefield, platform=platform)
        finally:
            random.setstate(state)
        if solvent == "explicit":
            modeller.addSolvent(self.forcefield, model="tip3p", padding=padding * unit.nanometer, neutralize=True)
        self.topology = modeller.topology
        self._positions = _minimize(self.createSystem(), modeller.positions)

    def createSystem(self) -> mm.System:
        """A new System: all interactions in vacuum and implicit water (OBC2), PME in explicit water."""
        settings: dict[str, Any] = {"nonbondedMethod": app.NoCutoff}
        if self.solvent == "explicit":
            settings = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.9 * unit.nanometer}
        system = self.forcefield.createSystem(self.topology, constraints=self._constraints, **settings)
        if self.solvent == "implicit":
            system.addForce(_makeImplicitWater(self.topology, system))
        return system

    def getPositions(self) -> np.ndarray:
        """nm [particles, 3], at a minimum of the energy."""
        return self._positions.copy()

    def getTorsion(self, name: str, residue: int = 0) -> list[int]:
        """The four atoms of phi, psi or omega (the bond before) of a residue of the sequence, counted from 0."""
        if name not in _BACKBONE or not 0 <= residue < len(self.sequence):
            raise ValueError(f"CappedPeptide.getTorsion: ({name!r}, {residue}) is not one of {', '.join(_BACKBONE)} and "
                             f"a residue from 0 to {len(self.sequence) - 1}")
        atoms = {(atom.residue.index, atom.name): atom.index for atom in self.topology.atoms()}
        # Residue 0 of the topology is ACE, whose CH3 stands for the alpha carbon.
        return [atoms[residue + 1 + shift, "CH3" if residue + 1 + shift == 0 and atom == "CA" else atom]
                for shift, atom in _BACKBONE[name]]


def _makeImplicitWater(topology: app.Topology, system: mm.System) -> mm.GBSAOBCForce:
    """The energy of implicit/obc2.xml, which makes a CustomGBForce, at a fraction of its cost."""
    nonbonded = next(force for force in system.getForces() if isinstance(force, mm.NonbondedForce))
    force = mm.GBSAOBCForce()
    force.setSolventDielectric(78.5)  # its default is 78.3
    for index, (radius, scale) in enumerate(GBSAOBC2Force.getStandardParameters(topology)):
        force.addParticle(nonbonded.getParticleParameters(index)[0], radius, scale)
    return force


def alanineDipeptide(solvent: str = "vacuum", **options: Any) -> CappedPeptide:
    """ACE-Ala-NME, 22 atoms."""
    return CappedPeptide("A", solvent, **options)


def alanineTetrapeptide(solvent: str = "vacuum", **options: Any) -> CappedPeptide:
    """ACE-Ala-Ala-Ala-NME, 42 atoms."""
    return CappedPeptide("AAA", solvent, **options)


def _placeHeavyAtoms(sequence: str) -> tuple[app.Topology, Any]:
    """An extended chain with a glycine at either end, of which the caps keep what they share with it."""
    try:
        import PeptideBuilder
        from PeptideBuilder import Geometry
    except ImportError:
        raise ImportError("CappedPeptide: PeptideBuilder was not found: pip install PeptideBuilder") from None
    structure = PeptideBuilder.initialize_res("G")
    for code in sequence + "G":
        geometry = Geometry.geometry(code)
        geometry.phi, geometry.psi_im1 = -75 if code == "P" else -120, 140
        PeptideBuilder.add_residue(structure, geometry)
    residues = list(structure.get_residues())
    topology, positions = app.Topology(), []
    chain = topology.addChain()
    for number, residue in enumerate(residues):
        names = {"ACE": {"CA": "CH3", "C": "C", "O": "O"}, "NME": {"N": "N", "CA": "C"}}
        name = {0: "ACE", len(residues) - 1: "NME"}.get(number, residue.get_resname())
        added = topology.addResidue(name, chain)
        for atom in residue:
            if (kept := names.get(name, {}).get(atom.get_name(), None if name in names else atom.get_name())) is not None:
                topology.addAtom(kept, app.Element.getBySymbol(atom.element), added)
                positions.append(0.1 * atom.coord.astype(float))
    topology.createStandardBonds()
    return topology, np.array(positions) * unit.nanometer


def _minimize(system: mm.System, positions: Any) -> np.ndarray:
    integrator = mm.VerletIntegrator(0.001)
    name = "CPU" if system.getNumParticles() > 500 else "Reference"
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName(name))
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context, maxIterations=500)
    return context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
