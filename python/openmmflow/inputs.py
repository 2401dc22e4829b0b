# SPDX-License-Identifier: MIT
"""What the command line reads: molecules and frames."""

from __future__ import annotations

import argparse
import xml.parsers.expat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm as mm
from openmm import app, unit

from ._platforms import platformNames
from .config import UserError
from .data import TrainingData, toNanometers
from .generator import SOLVENT, findSolute
from .peptides import CappedPeptide

UNKNOWN = "MOL"  # the residue of a Topology that only a System is known of


@dataclass
class Molecule:
    """A System, its Topology, and positions in nm [particles, 3]."""

    topology: app.Topology
    system: mm.System
    positions: np.ndarray


def loadMolecule(options: argparse.Namespace) -> Molecule:
    """From --system and --state, with the topology of --pdb where it is given; else from --sequence, or from --pdb and
    --forcefield."""
    if options.platform is not None and options.platform not in platformNames():
        raise UserError(f"there is no platform {options.platform}: this machine has {', '.join(platformNames())}")
    if options.sequence is not None:
        if options.pdb is not None or options.system is not None:
            raise UserError("give --sequence, or --pdb, or --system")
        peptide = CappedPeptide(options.sequence, options.solvent, constraints=_constraints(options))
        return Molecule(peptide.topology, peptide.createSystem(), peptide.getPositions())
    if options.system is None:
        if options.pdb is None:
            raise UserError("give --pdb, or --sequence, or --system and --state")
        if options.state is not None:
            raise UserError("--state goes with --system")
        return _fromPdb(options)
    system = readXml(options.system, "System")
    if options.state is None:
        raise UserError("give --state with --system: it holds the positions")
    state = readXml(options.state, "State")
    positions = toNanometers(state.getPositions(asNumpy=True))
    if len(positions) != system.getNumParticles():
        raise UserError(f"{options.state} has {len(positions)} positions, but {options.system} has "
                        f"{system.getNumParticles()} particles")
    system.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    topology = app.PDBFile(str(options.pdb)).topology if options.pdb else makeTopology(system)
    if topology.getNumAtoms() != system.getNumParticles():
        raise UserError(f"{options.pdb} has {topology.getNumAtoms()} atoms, but {options.system} has "
                        f"{system.getNumParticles()} particles")
    return Molecule(topology, system, positions)


def _fromPdb(options: argparse.Namespace) -> Molecule:
    pdb = app.PDBFile(str(options.pdb))
    periodic = pdb.topology.getPeriodicBoxVectors() is not None
    if periodic and options.cutoff is None and any(residue.name in SOLVENT for residue in pdb.topology.residues()):
        raise UserError(f"{options.pdb} has solvent in a periodic box: give --cutoff (nm)")
    settings: dict[str, Any] = {"nonbondedMethod": app.NoCutoff}
    if options.cutoff is not None:
        method = app.PME if periodic else app.CutoffNonPeriodic
        settings = {"nonbondedMethod": method, "nonbondedCutoff": options.cutoff * unit.nanometer}
    system = app.ForceField(*options.forcefield).createSystem(pdb.topology, constraints=_constraints(options), **settings)
    return Molecule(pdb.topology, system, toNanometers(pdb.positions))


def _constraints(options: argparse.Namespace) -> Any:
    return app.HBonds if options.constraints == "HBonds" else None


def readXml(file: Path, kind: str) -> Any:
    """Read a System or State. OpenMM's parser trusts its input, so the text is checked by expat first."""
    content = file.read_bytes()
    try:
        xml.parsers.expat.ParserCreate().Parse(content, True)
    except xml.parsers.expat.ExpatError as error:
        raise UserError(f"{file} is not valid XML: {error}") from None
    read = mm.XmlSerializer.deserialize(content.decode())
    if not isinstance(read, getattr(mm, kind)):
        raise UserError(f"{file} holds a {type(read).__name__}, but must hold a {kind}")
    return read


def makeTopology(system: mm.System) -> app.Topology:
    """A Topology of one residue, elements by mass, bonds from the System, of which water has to be told from a molecule by hand."""
    topology = app.Topology()
    residue = topology.addResidue(UNKNOWN, topology.addChain())
    for index in range(system.getNumParticles()):
        mass = system.getParticleMass(index)
        element = app.Element.getByMass(mass) if mass > 0 * unit.dalton else None
        topology.addAtom(f"{element.symbol if element else 'X'}{index + 1}", element, residue)
    atoms = list(topology.atoms())
    for force in system.getForces():
        if isinstance(force, mm.HarmonicBondForce):
            for bond in range(force.getNumBonds()):
                i, j = force.getBondParameters(bond)[:2]
                topology.addBond(atoms[i], atoms[j])
    for constraint in range(system.getNumConstraints()):
        i, j = system.getConstraintParameters(constraint)[:2]
        topology.addBond(atoms[i], atoms[j])
    return topology


def isUnknown(topology: app.Topology) -> bool:
    """Whether it is makeTopology()'s, whose elements are guesses: masses may have been moved between atoms."""
    return next(topology.residues()).name == UNKNOWN


def parseAtoms(text: str | None, molecule: Molecule) -> list[int]:
    """Atom numbers from "0-21,30"; all but water, ions and virtual sites when there is no text."""
    if text is None:
        atoms = findSolute(molecule.topology, molecule.system)
        if isUnknown(molecule.topology) and molecule.system.usesPeriodicBoundaryConditions():
            raise UserError("--system does not say which atoms are solvent: give --atoms, or --pdb with the names of the residues")
    else:
        try:
            ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
            atoms = sorted({i for first, *last in ends for i in range(first, (last or [first])[0] + 1)})
        except ValueError:
            raise UserError(f"--atoms is {text!r}, but must be like 0-21,30") from None
    if not atoms or atoms[-1] >= molecule.system.getNumParticles():
        raise UserError(f"--atoms selects {len(atoms)} atoms up to {max(atoms, default='none')}, but the system has "
                        f"{molecule.system.getNumParticles()}")
    return atoms


def loadFrames(files: Sequence[Path], molecule: Molecule, atoms: list[int], temperature: float) -> np.ndarray:
    """Frames of some atoms, one file after the other, nm [frames, atoms, 3]: trajectories, or .npz of training data for the
    temperature, of which those at the temperature itself are taken."""
    import mdtraj

    parts = []
    for file in files:
        if not file.exists():
            raise UserError(f"{file} does not exist")
        if file.suffix == ".npz":
            data = TrainingData.load(file)
            if data.atoms != atoms:
                raise UserError(f"{file} holds other atoms than the flow")
            if not np.isclose(data.temperature, temperature):
                raise UserError(f"{file} is for {data.temperature:g} K, but --temperature is {temperature:g} K")
            parts.append(data.atTemperature())
            continue
        try:
            trajectory = mdtraj.load(str(file), top=mdtraj.Topology.from_openmm(molecule.topology), atom_indices=atoms)
        except Exception as error:  # mdtraj's readers raise all kinds
            raise UserError(f"{file} can't be read: {error}") from error
        parts.append(trajectory.xyz.astype(np.float64))
    return np.concatenate(parts)
