# SPDX-License-Identifier: MIT
"""Systems whose parameters an annealed jump can change, and the AnnealedProtocols for them (F7).

alchemicalSystem() decouples a molecule from its solvent: at the last stage it has its energy in vacuum, in which a flow can be
trained, and the solvent does not notice when it jumps. annealedSystem() turns the whole energy into that of the flow.

    system = alchemicalSystem(system, solute)
    integrator = FlowLangevinIntegrator(300, 1, 0.002, flow)
    integrator.setAnnealedProtocol(alchemicalProtocol(electrostaticStages=10, stericStages=20, stepsPerStage=20, stepSize=0.002))
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import openmm as mm
from openmm import unit
from scipy.ndimage import gaussian_filter

from . import openmmflow as api
from .analysis import torsion
from .data import R, TrainingData, inUnit

ELECTROSTATICS, STERICS = "soluteElectrostatics", "soluteSterics"
TORSION_BIAS = "torsionBias"
ENERGY, DENSITY = "annealedEnergy", "annealedDensity"
COULOMB = 138.93545764438198  # kJ nm/(mol e^2), NonbondedForce's
STERIC_FORCE = "SoluteSterics"  # name of the Force
_SETTINGS = ("friction", "stageDynamics", "middleJump")  # of a protocol, beside its stages

_KEPT = (mm.HarmonicBondForce, mm.HarmonicAngleForce, mm.PeriodicTorsionForce, mm.RBTorsionForce, mm.CMAPTorsionForce,
         mm.CustomBondForce, mm.CustomAngleForce, mm.CustomTorsionForce, mm.CustomCompoundBondForce,
         mm.CustomCentroidBondForce, mm.CustomExternalForce, mm.CustomCVForce, mm.RMSDForce, mm.CustomVolumeForce)
_BETWEEN_STEPS = (mm.MonteCarloBarostat, mm.MonteCarloAnisotropicBarostat, mm.MonteCarloMembraneBarostat,
                  mm.MonteCarloFlexibleBarostat, mm.AndersenThermostat, mm.CMMotionRemover)
_IMPLICIT = (mm.GBSAOBCForce, mm.CustomGBForce)


def annealedSystem(system: mm.System, flow: Any, temperature: Any) -> mm.System:
    """A copy of a System with the energy

        U' = annealedEnergy U - annealedDensity kT log q(x)

    in which both are Context parameters, 1 and 0 at first: then U' = U, and the flow costs nothing. annealedProtocol()
    goes from there to U' = -kT log q and back, heatingProtocol() to U' = U/factor.

    Every Force becomes a variable of one CustomCVForce, but for those that act between steps (barostats, thermostats,
    CMMotionRemover), which stay; so force groups are lost. Particles that are not the flow's have no energy at the last
    stage: for molecules in vacuum or in implicit solvent. Use alchemicalSystem() in explicit solvent.

    Parameters
    ----------
    flow : Flow, of particles of the System
    temperature : K
    """
    if others := findOthers(system, flow.getAtoms()):
        raise ValueError(f"annealedSystem: particle {others[0]} is not one of the flow's, but must be, as it would have no energy at "
                         "the last stage: see alchemicalSystem")
    result = copy.deepcopy(system)
    variables = [i for i in range(result.getNumForces()) if not isinstance(result.getForce(i), _BETWEEN_STEPS)]
    if not variables:
        raise ValueError("annealedSystem: number of Forces with an energy is 0, but must be at least 1")
    total = mm.CustomCVForce(f"{ENERGY}*({'+'.join(f'u{i}' for i in variables)})")
    total.setName("AnnealedEnergy")
    total.addGlobalParameter(ENERGY, 1.0)
    for i in variables:
        total.addCollectiveVariable(f"u{i}", copy.deepcopy(result.getForce(i)))
    for i in reversed(variables):
        result.removeForce(i)
    result.addForce(total)
    density = api.FlowForce(flow, temperature)
    density.setScaleParameter(DENSITY)
    density.setDefaultScale(0.0)
    result.addForce(density)
    return result


def findOthers(system: mm.System, atoms: Iterable[int]) -> list[int]:
    """The particles with mass that are not among some atoms."""
    chosen = set(atoms)
    return [i for i in range(system.getNumParticles())
            if i not in chosen and inUnit(system.getParticleMass(i), unit.dalton) > 0]


def alchemicalSystem(system: mm.System, solute: Iterable[int]) -> mm.System:
    """A copy of a System in which the interactions of some whole molecules with all others follow two Context parameters,

        soluteElectrostatics   scales the charges that the others see
        soluteSterics          scales their Lennard-Jones interactions, with a soft core
                               (Beutler et al., Chem. Phys. Lett. 222, 529, 1994; alpha 1/2)

    Both are 1 at first, where the energy is the System's, to rounding. Where both are 0 the energy is that of the solute in
    vacuum, without a cutoff, and that of the rest without the solute. In between, with charges q scaled by e and steric
    interactions by s,

        U = U_PME(e q) + (1 - e^2) sum_pairs q_i q_j / (4 pi eps_0 r_ij) + U_LJ,soft(s) + the solute's own Lennard-Jones

    so that Ewald sums stay exact: scaled charges change the solute's own electrostatics by e^2, and the sum puts back what is
    lacking. (AbsoluteAlchemicalFactory of openmmtools can't serve: with exact PME it annihilates the solute's own
    electrostatics, and the last stage is not the molecule in vacuum.) Charges have to go before sterics, as
    alchemicalProtocol() does. Other Forces stay as they are (a CustomExternalForce or CustomCVForce may hold biases). Molecules
    have to be whole in the positions: the solute's own pairs see no periodic images.

    In implicit solvent (GBSAOBCForce or CustomGBForce) the solute has to be all particles. Then soluteElectrostatics scales
    the energy of the solvent, and there are no sterics.

    Parameters
    ----------
    solute : particles of the molecules that jump, for one molecule in solvent all of its atoms
    """
    result, atoms = copy.deepcopy(system), sorted({int(atom) for atom in solute})
    nonbonded = _checkForces(result, atoms)
    if len(atoms) == result.getNumParticles():
        _scaleImplicitSolvent(result)
        return result
    pairs, sterics = _takeParameters(nonbonded, atoms)
    result.addForce(_makeOwnForce(nonbonded, atoms, pairs))
    result.addForce(_makeStericForce(nonbonded, atoms, sterics))
    if nonbonded.getUseDispersionCorrection() and nonbonded.usesPeriodicBoundaryConditions():
        result.addForce(_makeTailForce(nonbonded, atoms, sterics))
    return result


def _checkForces(system: mm.System, atoms: list[int]) -> mm.NonbondedForce:
    number, chosen = system.getNumParticles(), set(atoms)
    if not atoms or atoms[0] < 0 or atoms[-1] >= number:
        raise ValueError(f"alchemicalSystem: solute is {atoms}, but must be particles of the System's {number}")
    found = [force for force in system.getForces() if isinstance(force, mm.NonbondedForce)]
    if len(found) != 1:
        raise ValueError(f"alchemicalSystem: number of NonbondedForces is {len(found)}, but must be 1")
    for force in system.getForces():
        if isinstance(force, _IMPLICIT):
            if len(atoms) < number:
                raise ValueError(f"alchemicalSystem: solute is {len(atoms)} of {number} particles, but must be all of them "
                                 f"beside a {type(force).__name__}")
        elif not isinstance(force, (*_KEPT, *_BETWEEN_STEPS, mm.NonbondedForce, api.FlowForce)):
            raise ValueError(f"alchemicalSystem: a Force is a {type(force).__name__}, but must be one whose interactions "
                             "between solute and solvent can be scaled: a NonbondedForce")
    nonbonded = found[0]
    if nonbonded.getNonbondedMethod() == mm.NonbondedForce.LJPME:
        raise ValueError("alchemicalSystem: the nonbonded method is LJPME, but must be another, such as PME")
    if nonbonded.getNumParticleParameterOffsets() or nonbonded.getNumExceptionParameterOffsets():
        raise ValueError("alchemicalSystem: the NonbondedForce has parameter offsets, but must be without")
    linked = [nonbonded.getExceptionParameters(i)[:2] for i in range(nonbonded.getNumExceptions())]
    linked += [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
    for i, j in linked:
        if (i in chosen) != (j in chosen):
            raise ValueError(f"alchemicalSystem: particles {i} and {j} belong to one molecule, but must be both in the solute "
                             "or both outside")
    return nonbonded


def _scaleImplicitSolvent(system: mm.System) -> None:
    solvents = [i for i, force in enumerate(system.getForces()) if isinstance(force, _IMPLICIT)]
    if not solvents:
        raise ValueError("alchemicalSystem: solute is all particles, but must leave a solvent")
    scaled = mm.CustomCVForce(f"{ELECTROSTATICS}*({'+'.join(f'solvent{i}' for i in solvents)})")
    scaled.addGlobalParameter(ELECTROSTATICS, 1.0)
    scaled.setForceGroup(system.getForce(solvents[0]).getForceGroup())
    for i in reversed(solvents):
        scaled.addCollectiveVariable(f"solvent{i}", copy.deepcopy(system.getForce(i)))
        system.removeForce(i)
    system.addForce(scaled)


def _takeParameters(force: mm.NonbondedForce, atoms: list[int]) -> tuple[list[Any], list[Any]]:
    """Move the solute's charges to offsets and its sterics out of the force.

    Returns
    -------
    pairs : (i, j, charge product, sigma, epsilon) of the solute's pairs that are no exceptions
    sterics : (sigma, epsilon) of all particles
    """
    parameters = [tuple(value.value_in_unit_system(unit.md_unit_system) for value in force.getParticleParameters(i))
                  for i in range(force.getNumParticles())]
    exceptions = {tuple(sorted(force.getExceptionParameters(i)[:2])) for i in range(force.getNumExceptions())}
    pairs = []
    for number, i in enumerate(atoms):
        for j in atoms[number + 1:]:
            if (i, j) not in exceptions:
                (q1, sigma1, epsilon1), (q2, sigma2, epsilon2) = parameters[i], parameters[j]
                pairs.append((i, j, q1 * q2, (sigma1 + sigma2) / 2, (epsilon1 * epsilon2)**0.5))
    force.addGlobalParameter(ELECTROSTATICS, 1.0)
    for i in atoms:
        charge, sigma, _ = parameters[i]
        force.setParticleParameters(i, 0.0, sigma, 0.0)
        force.addParticleParameterOffset(ELECTROSTATICS, i, charge, 0.0, 0.0)
    return pairs, [row[1:] for row in parameters]


def _nm(length: Any) -> float:
    return float(inUnit(length, unit.nanometer))


def _beyond(force: mm.NonbondedForce) -> str:
    """1 - S(r), with S the factor of cutoff and switching function."""
    if force.getNonbondedMethod() == mm.NonbondedForce.NoCutoff:
        return "0*r"
    cutoff = _nm(force.getCutoffDistance())
    if not force.getUseSwitchingFunction():
        return f"step(r - {cutoff!r})"
    start = _nm(force.getSwitchingDistance())
    return f"t^3*(10 - 15*t + 6*t^2); t = min(1, max(0, (r - {start!r})/{cutoff - start!r}))"


def _makeOwnForce(nonbonded: mm.NonbondedForce, atoms: list[int], pairs: list[Any]) -> mm.CustomBondForce:
    """What the solute's pairs lack: Coulomb's energy that scaled charges don't have, and their Lennard-Jones energy, which
    loses its cutoff on the way to vacuum."""
    force = mm.CustomBondForce(
        f"{COULOMB}*(1 - {ELECTROSTATICS}^2)*qq/r + 4*epsilon*x*(x - 1)*(1 - {STERICS}*beyond); x = (sigma/r)^6; "
        f"beyond = {_beyond(nonbonded)}")
    force.setName("SoluteOwnPairs")
    for name in (ELECTROSTATICS, STERICS):
        force.addGlobalParameter(name, 1.0)
    for name in ("qq", "sigma", "epsilon"):
        force.addPerBondParameter(name)
    for i, j, *parameters in pairs:
        force.addBond(i, j, parameters)
    force.setForceGroup(nonbonded.getForceGroup())
    return force


def _makeStericForce(nonbonded: mm.NonbondedForce, atoms: list[int], sterics: list[Any]) -> mm.CustomNonbondedForce:
    """Lennard-Jones between solute and all others, whose core softens as it fades."""
    force = mm.CustomNonbondedForce(
        f"4*{STERICS}*epsilon*x*(x - 1); x = sigma^6/(0.5*(1 - {STERICS})*sigma^6 + r^6); "
        "epsilon = sqrt(epsilon1*epsilon2); sigma = 0.5*(sigma1 + sigma2)")
    force.setName(STERIC_FORCE)
    force.addGlobalParameter(STERICS, 1.0)
    for name in ("sigma", "epsilon"):
        force.addPerParticleParameter(name)
    for row in sterics:
        force.addParticle(row)
    for i in range(nonbonded.getNumExceptions()):
        force.addExclusion(*nonbonded.getExceptionParameters(i)[:2])
    others = set(range(len(sterics))) - set(atoms)
    force.addInteractionGroup(atoms, sorted(others))
    methods = {mm.NonbondedForce.NoCutoff: mm.CustomNonbondedForce.NoCutoff,
               mm.NonbondedForce.CutoffNonPeriodic: mm.CustomNonbondedForce.CutoffNonPeriodic}
    force.setNonbondedMethod(methods.get(nonbonded.getNonbondedMethod(), mm.CustomNonbondedForce.CutoffPeriodic))
    force.setCutoffDistance(nonbonded.getCutoffDistance())
    force.setUseSwitchingFunction(nonbonded.getUseSwitchingFunction())
    force.setSwitchingDistance(nonbonded.getSwitchingDistance())
    force.setForceGroup(nonbonded.getForceGroup())
    return force


def _makeTailForce(nonbonded: mm.NonbondedForce, atoms: list[int], sterics: list[Any]) -> mm.CustomVolumeForce:
    """The part of the long-range dispersion correction that went with the solute's sterics. It fades with them. (The correction
    of a CustomNonbondedForce is integrated numerically at every evaluation: it doubles the cost of a step.)"""
    chosen = set(atoms)
    rest = [(sigma, 0.0 if i in chosen else epsilon) for i, (sigma, epsilon) in enumerate(sterics)]
    lost = _tailCoefficient(nonbonded, sterics) - _tailCoefficient(nonbonded, rest)
    force = mm.CustomVolumeForce(f"{lost!r}*{STERICS}/v")
    force.setName("SoluteTail")
    force.addGlobalParameter(STERICS, 1.0)
    force.setForceGroup(nonbonded.getForceGroup())
    return force


def _tailCoefficient(nonbonded: mm.NonbondedForce, sterics: list[Any]) -> float:
    """E V of the correction, as NonbondedForce has it: the mean of the N (N + 1)/2 pairs' integrals, times 2 pi N^2."""
    cutoff = start = _nm(nonbonded.getCutoffDistance())
    if nonbonded.getUseSwitchingFunction():
        start = _nm(nonbonded.getSwitchingDistance())
    nodes, weights = np.polynomial.legendre.leggauss(50)
    r = start + (cutoff - start) * (nodes + 1) / 2
    t = (r - start) / (cutoff - start) if cutoff > start else np.zeros_like(r)
    weights = weights * (cutoff - start) / 2 * t**3 * (10 - 15 * t + 6 * t**2) * r**2  # (1 - S) r^2 dr
    repulsion, attraction = (1 / ((n - 3) * cutoff**(n - 3)) + weights @ r**-float(n) for n in (12, 6))
    kinds = list(Counter(sterics).items())
    total = 0.0
    for number, ((sigma1, epsilon1), count1) in enumerate(kinds):
        for (sigma2, epsilon2), count2 in kinds[number:]:
            pairs = count1 * (count1 + 1) / 2 if (sigma1, epsilon1) == (sigma2, epsilon2) else count1 * count2
            sigma, epsilon = (sigma1 + sigma2) / 2, (epsilon1 * epsilon2)**0.5
            total += pairs * 4 * epsilon * (sigma**12 * repulsion - sigma**6 * attraction)
    return float(4 * np.pi * total * len(sterics) / (len(sterics) + 1))


def torsionBias(torsions: Sequence[Sequence[int]], decoupled: TrainingData, coupled: TrainingData, *, bins: int = 36,
                smoothing: float = 10.0) -> mm.CustomCompoundBondForce:
    """A Force for the System of alchemicalSystem() that keeps the molecule, where it is decoupled, in the conformations that it has in
    its solvent,

        torsionBias kT ln (p_decoupled(t) + c)/(p_coupled(t) + c)

    of one or two torsions t, with torsionBias a Context parameter, 0 at first, that alchemicalProtocol() raises to 1 by its last
    stage (torsionBias=True). Many conformations that are common in water are rare in vacuum: an annealed jump that passes through the
    molecule in vacuum reaches them seldom, and brings others into the water which leave it again. The bias changes what is accepted, and
    nothing of what is sampled; implicit solvent is a good guess of the coupled ensemble, and a flow that was trained there fits the
    last stage.

    Parameters
    ----------
    torsions : one or two, of four particles each (CappedPeptide.getTorsion)
    decoupled, coupled : frames of the molecule in vacuum and in (implicit) solvent, of one temperature, such as temperedData() draws;
        the particles have the same numbers there as in the System that gets the Force
    bins : of the histograms, to each torsion
    smoothing : standard deviation of the normal density that smooths them, degrees; c is 1e-4 of a bin that all frames share
    """
    if len(torsions) not in (1, 2):
        raise ValueError(f"torsionBias: number of torsions is {len(torsions)}, but must be 1 or 2")
    if decoupled.temperature != coupled.temperature:
        raise ValueError(f"torsionBias: temperatures are {decoupled.temperature} and {coupled.temperature}, but must be the same")

    def smoothHistogram(data: TrainingData) -> np.ndarray:
        if missing := {int(atom) for four in torsions for atom in four} - set(data.atoms):
            raise ValueError(f"torsionBias: a torsion is of particle {min(missing)}, but must be of those of the frames, {data.atoms}")
        angles = np.stack([torsion(data.positions, [data.atoms.index(atom) for atom in four]) for four in torsions], axis=1)
        counts = np.histogramdd(angles, bins, [(-np.pi, np.pi)] * len(torsions), weights=np.exp(data.logWeights))[0]
        return gaussian_filter(counts / counts.sum(), smoothing * bins / 360, mode="wrap") + 1e-4

    energies = R * decoupled.temperature * np.log(smoothHistogram(decoupled) / smoothHistogram(coupled))
    # Nodes are the middles of bins; the first stands at the end once more, a turn further.
    energies = np.pad(energies, [(0, 1)] * len(torsions), mode="wrap")
    limits = [-np.pi + np.pi / bins, np.pi + np.pi / bins]
    atoms = list(dict.fromkeys(int(atom) for four in torsions for atom in four))
    arguments = ["dihedral(" + ", ".join(f"p{atoms.index(atom) + 1}" for atom in four) + ")" for four in torsions]
    force = mm.CustomCompoundBondForce(len(atoms), f"{TORSION_BIAS}*surface({', '.join(arguments)})")
    force.setName("TorsionBias")
    force.addGlobalParameter(TORSION_BIAS, 0.0)
    table = mm.Continuous1DFunction(energies, *limits, True) if len(torsions) == 1 else \
        mm.Continuous2DFunction(*energies.shape, energies.T.ravel(), *limits, *limits, True)
    force.addTabulatedFunction("surface", table)
    force.addBond(atoms, [])
    return force


def stages(number: int, power: float = 1.0, last: float = 0.0) -> list[float]:
    """From 1 to a last value in a number of stages: last + (1 - last) (1 - k/number)^power. Powers above 1 take smaller steps near
    the last."""
    if number < 1:
        raise ValueError(f"stages: number is {number}, but must be at least 1")
    if not power > 0:
        raise ValueError(f"stages: power is {power}, but must be positive")
    if not 0 <= last < 1:
        raise ValueError(f"stages: last is {last}, but must be at least 0 and below 1")
    return [last + (1 - last) * (1 - k / number)**power for k in range(number + 1)]


def annealedProtocol(numStages: int, stepsPerStage: int, stepSize: Any, *, power: float = 1.0, **settings: Any) -> Any:
    """An AnnealedProtocol for annealedSystem(): its energy goes over to that of the flow's density.

    Parameters
    ----------
    stepsPerStage, stepSize : see AnnealedProtocol
    power : of the spacing, see stages()
    settings : friction, stageDynamics, middleJump
    """
    energy = stages(numStages, power)
    return _makeProtocol({ENERGY: energy, DENSITY: [1 - value for value in energy]}, stepsPerStage, stepSize, settings)


def heatingProtocol(numStages: int, stepsPerStage: int, stepSize: Any, factor: float, **settings: Any) -> Any:
    """An AnnealedProtocol for annealedSystem(): all interactions are scaled from 1 to 1/factor, in equal ratios.

    That is the ensemble of `factor` times the temperature, in which barriers are low, and which a flow fits that was trained
    there or is too wide. The flow's density is evaluated in the middle alone: a stage costs no more than plain dynamics, while one
    of annealedProtocol() costs an evaluation of log q and its gradient in each step.

    Parameters
    ----------
    stepsPerStage, stepSize : see AnnealedProtocol
    factor : above 1
    settings : friction, stageDynamics, middleJump
    """
    if not factor > 1:
        raise ValueError(f"heatingProtocol: factor is {factor}, but must be above 1")
    return _makeProtocol({ENERGY: [factor**-value for value in reversed(stages(numStages))]}, stepsPerStage, stepSize, settings)


def alchemicalProtocol(electrostaticStages: int, stericStages: int, stepsPerStage: int, stepSize: Any, *,
                       electrostaticPower: float = 1.0, stericPower: float = 1.0, lastElectrostatics: float = 0.0,
                       lastSterics: float = 0.0, torsionBias: bool = False, **settings: Any) -> Any:
    """An AnnealedProtocol for alchemicalSystem(): charges go first, then sterics.

    In water work is lost above all where a cavity closes and opens again. Where the flow's trials differ little enough in shape
    that some of many (setTrialsPerJump()) fit into the solute's cavity, leave the sterics alone, or keep a part of them.

    Parameters
    ----------
    electrostaticStages, stericStages : their numbers; 0 stericStages leave the sterics alone, as in implicit solvent
    stepsPerStage, stepSize : see AnnealedProtocol
    electrostaticPower, stericPower : of the spacings, see stages()
    lastElectrostatics, lastSterics : their values at the last stage, at least 0 and below 1; sterics may only fade where the
        charges are gone, whose attraction needs a core
    torsionBias : the System has a torsionBias(), which comes as the charges go
    settings : friction, stageDynamics, middleJump
    """
    if stericStages < 0:
        raise ValueError(f"alchemicalProtocol: stericStages is {stericStages}, but must be at least 0")
    if stericStages == 0 and lastSterics != 0:
        raise ValueError(f"alchemicalProtocol: lastSterics is {lastSterics}, but must be 0 where stericStages are: the sterics then stay")
    if stericStages > 0 and lastElectrostatics > 0:
        raise ValueError(f"alchemicalProtocol: lastElectrostatics is {lastElectrostatics}, but must be 0 where sterics fade")
    charges = stages(electrostaticStages, electrostaticPower, lastElectrostatics)
    parameters = {ELECTROSTATICS: charges + [0.0] * stericStages}
    if stericStages:
        parameters[STERICS] = [1.0] * electrostaticStages + stages(stericStages, stericPower, lastSterics)
    if torsionBias:
        parameters[TORSION_BIAS] = [(1 - charge) / (1 - lastElectrostatics) for charge in parameters[ELECTROSTATICS]]
    return _makeProtocol(parameters, stepsPerStage, stepSize, settings)


def _makeProtocol(parameters: dict[str, list[float]], stepsPerStage: int, stepSize: Any, settings: dict[str, Any]) -> Any:
    protocol = api.AnnealedProtocol(stepsPerStage, stepSize)
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise TypeError(f"a setting of the protocol is {name}, but must be {', '.join(_SETTINGS)}")
        getattr(protocol, "set" + name[0].upper() + name[1:])(value)
    for name, values in parameters.items():
        protocol.addParameter(name, values)
    return protocol


def parametersOf(protocol: Any) -> dict[str, list[float]]:
    """The parameters of an AnnealedProtocol: {name: values at stages 0 to K}."""
    return {protocol.getParameterName(i): list(protocol.getParameterValues(i)) for i in range(protocol.getNumParameters())}


def copyProtocol(protocol: Any, parameters: dict[str, list[float]]) -> Any:
    """An AnnealedProtocol like another one, with parameters of its own."""
    settings = {name: getattr(protocol, "get" + name[0].upper() + name[1:])() for name in _SETTINGS}
    return _makeProtocol(parameters, protocol.getStepsPerStage(), protocol.getStepSize(), settings)


def protocolAsDict(protocol: Any) -> dict[str, Any]:
    """Everything of an AnnealedProtocol, for a YAML or JSON file. Units: ps, 1/ps."""
    return {"stepsPerStage": protocol.getStepsPerStage(), "stepSize": float(inUnit(protocol.getStepSize(), unit.picosecond)),
            "friction": float(inUnit(protocol.getFriction(), unit.picosecond**-1)),
            "stageDynamics": protocol.getStageDynamics().name, "middleJump": protocol.getMiddleJump().name,
            "parameters": parametersOf(protocol)}


def protocolFromDict(values: dict[str, Any]) -> Any:
    """The AnnealedProtocol of protocolAsDict()."""
    expected = {"stepsPerStage", "stepSize", "friction", "stageDynamics", "middleJump", "parameters"}
    if not isinstance(values, dict) or set(values) != expected or not isinstance(values["parameters"], dict):
        raise ValueError(f"protocolFromDict: values are {values!r}, but must be {', '.join(sorted(expected))}")
    try:
        settings = {"friction": float(values["friction"]), "stageDynamics": api.StageDynamics[values["stageDynamics"]],
                    "middleJump": api.MiddleJump[values["middleJump"]]}
    except KeyError as error:
        raise ValueError(f"protocolFromDict: {error} is no StageDynamics or MiddleJump") from None
    return _makeProtocol({str(name): [float(value) for value in row] for name, row in values["parameters"].items()},
                         int(values["stepsPerStage"]), float(values["stepSize"]), settings)
