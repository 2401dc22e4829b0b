# SPDX-License-Identifier: MIT
from pathlib import Path

import numpy as np
import openmm as mm
import pytest
from openmm import app, unit
from openmmflow import testsystems
from openmmflow.analysis import torsion
from openmmflow.inputs import loadMolecule
from openmmflow.peptides import RESIDUES, CappedPeptide

PDB = Path(__file__).parents[2] / "examples" / "alanine-dipeptide.pdb"
# Atoms of ACE-X-NME: twelve of the caps and those of the residue at pH 7 within a chain.
SIZES = dict(zip(RESIDUES, [22, 23, 24, 27, 32, 19, 29, 31, 34, 31, 29, 26, 26, 29, 36, 23, 26, 28, 36, 33]))


def findDegrees(peptide, name, residue=0):
    return np.degrees(torsion(peptide.getPositions()[None], peptide.getTorsion(name, residue)))[0]


def findEnergy(system, positions):
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(getEnergy=True, getForces=True)
    return (state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
            state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))


@pytest.mark.parametrize("code", RESIDUES)
def testEveryResidueIsBuiltTransAndLeftHanded(code):
    peptide = CappedPeptide(code)
    x = peptide.getPositions()
    assert len(x) == SIZES[code]
    assert abs(findDegrees(peptide, "omega")) > 160
    atoms = {atom.name: atom.index for atom in list(peptide.topology.residues())[1].atoms()}
    if code != "G":
        n, c, beta = (x[atoms[name]] - x[atoms["CA"]] for name in ("N", "C", "CB"))
        assert np.dot(np.cross(n, c), beta) > 0  # L: seen from H, CO-R-N runs clockwise
    if code in "IT":  # the second centre: (2S,3S)-isoleucine and (2S,3R)-threonine
        first, second = {"I": ("CG1", "CG2"), "T": ("OG1", "CG2")}[code]
        a, b, c = (x[atoms[name]] - x[atoms["CB"]] for name in ("CA", first, second))
        assert np.dot(np.cross(a, b), c) > 0
    energy, forces = findEnergy(peptide.createSystem(), x)
    assert np.isfinite(energy) and np.sqrt(np.mean(forces**2)) < 100  # kJ/mol/nm: at a minimum, without clashes


def testAlanineDipeptideIsTheMoleculeOfTheExamples():
    peptide, pdb = testsystems.alanineDipeptide(), app.PDBFile(str(PDB))
    name = lambda atom: (atom.residue.index, atom.name)  # noqa: E731
    order = {name(atom): atom.index for atom in pdb.topology.atoms()}
    chosen = [order[name(atom)] for atom in peptide.topology.atoms()]
    x = pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff)
    assert findEnergy(peptide.createSystem(), x[chosen])[0] == pytest.approx(findEnergy(system, x)[0], abs=1e-6)
    assert [chosen[atom] for atom in peptide.getTorsion("phi")] == [4, 6, 8, 14]
    assert [chosen[atom] for atom in peptide.getTorsion("psi")] == [6, 8, 14, 16]


def testImplicitWaterIsThatOfOpenMMsForceField():
    peptide = CappedPeptide("AK", "implicit")
    system = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(peptide.topology)
    for expected, found in zip(findEnergy(system, peptide.getPositions()), findEnergy(peptide.createSystem(), peptide.getPositions())):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-3)


def testTheSameSequenceGivesTheSamePositions():
    np.testing.assert_array_equal(CappedPeptide("S").getPositions(), CappedPeptide("S").getPositions())


def testTetrapeptideHasThreeResiduesWithTorsions():
    peptide = testsystems.alanineTetrapeptide("implicit", constraints=app.HBonds)
    assert len(peptide.getPositions()) == 42
    assert [residue.name for residue in peptide.topology.residues()] == ["ACE", "ALA", "ALA", "ALA", "NME"]
    for residue in range(3):
        assert abs(findDegrees(peptide, "omega", residue)) > 160 and findDegrees(peptide, "phi", residue) < 0
    system = peptide.createSystem()
    assert system.getNumConstraints() == 22
    assert any(isinstance(force, (mm.GBSAOBCForce, mm.CustomGBForce)) for force in system.getForces())


def testExplicitWaterIsNeutralAndDense():
    peptide = CappedPeptide("K", "explicit")
    system = peptide.createSystem()
    nonbonded = next(force for force in system.getForces() if isinstance(force, mm.NonbondedForce))
    charges = [nonbonded.getParticleParameters(i)[0].value_in_unit(unit.elementary_charge)
               for i in range(system.getNumParticles())]
    assert sum(charges) == pytest.approx(0, abs=1e-6)
    mass = sum(system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles()))
    edges = peptide.topology.getUnitCellDimensions().value_in_unit(unit.nanometer)
    assert mass * 1.66054e-3 / np.prod(edges) == pytest.approx(1.0, abs=0.15)  # g/cm^3; Modeller leaves room at the box's faces
    assert nonbonded.usesPeriodicBoundaryConditions()


@pytest.mark.parametrize("arguments, message", [
    (("AXZ",), "sequence has X, Z, but must be made of ACDEFGHIKLMNPQRSTVWY"),
    (("",), "sequence is empty"),
    (("A", "octanol"), "solvent is 'octanol', but must be one of vacuum, implicit, explicit")])
def testMistakesAreNamed(arguments, message):
    with pytest.raises(ValueError, match=message):
        CappedPeptide(*arguments)


def testTorsionsThatAreNotThereAreRefused():
    with pytest.raises(ValueError, match=r"\('chi', 0\) is not one of phi, psi, omega"):
        CappedPeptide("A").getTorsion("chi")
    with pytest.raises(ValueError, match="a residue from 0 to 0"):
        CappedPeptide("A").getTorsion("phi", 1)


def testTheCommandLineTakesASequence():
    from openmmflow.cli import DESCRIPTIONS
    from openmmflow.config import UserError, makeParser, parse

    options = parse(makeParser(DESCRIPTIONS), ["evaluate", "--sequence", "G", "--constraints", "none"])
    molecule = loadMolecule(options)
    assert molecule.system.getNumParticles() == 19 == len(molecule.positions) and molecule.system.getNumConstraints() == 0
    options.pdb = PDB
    with pytest.raises(UserError, match="give --sequence, or --pdb, or --system"):
        loadMolecule(options)
