# SPDX-License-Identifier: MIT
"""Annealed jumps from Python: protocols, Systems that follow them, and jumps in explicit water."""

import copy
import functools
import pickle

import numpy as np
import openmm as mm
import openmmflow as of
import pytest
from openmm import app, unit
from openmmflow import alchemy, analysis
from openmmflow.peptides import alanineDipeptide

TEMPERATURE = 300.0
KT = (unit.MOLAR_GAS_CONSTANT_R * TEMPERATURE * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
SOLUTE = list(range(22))


class Water:
    """Alanine dipeptide in a small box of water, minimised a little: that of CappedPeptide takes half a minute."""

    def __init__(self):
        molecule = alanineDipeptide("vacuum")
        self.forcefield = app.ForceField("amber14-all.xml", "amber14/tip3p.xml")
        modeller = app.Modeller(molecule.topology, molecule.getPositions() * unit.nanometer)
        modeller.addSolvent(self.forcefield, model="tip3p", boxSize=mm.Vec3(2, 1.9, 1.8) * unit.nanometer)
        self.topology = modeller.topology
        context = mm.Context(self.createSystem(), mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("CPU"))
        context.setPositions(modeller.positions)
        mm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
        state = context.getState(positions=True)
        self.positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)

    def createSystem(self):
        return self.forcefield.createSystem(self.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.7 * unit.nanometer,
                                            constraints=app.HBonds)


@pytest.fixture(scope="module")
def water():
    pytest.importorskip("PeptideBuilder")
    return Water()


def evaluate(system, positions, parameters=None, box=None, platform="Reference"):
    """U in kJ/mol, and forces."""
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName(platform))
    if box is not None:
        context.setPeriodicBoxVectors(*box)
    context.setPositions(positions)
    for name, value in (parameters or {}).items():
        context.setParameter(name, value)
    state = context.getState(energy=True, forces=True)
    return (state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
            np.array(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)))


def part(system, atoms, method=None):
    """The System of some whole molecules, by removing all else; `method` replaces the nonbonded method."""
    index = {atom: i for i, atom in enumerate(atoms)}
    result = mm.System()
    result.setDefaultPeriodicBoxVectors(*system.getDefaultPeriodicBoxVectors())
    for atom in atoms:
        result.addParticle(system.getParticleMass(atom))
    for force in system.getForces():
        if isinstance(force, mm.NonbondedForce):
            new = mm.NonbondedForce()
            new.setNonbondedMethod(force.getNonbondedMethod() if method is None else method)
            new.setCutoffDistance(force.getCutoffDistance())
            new.setUseDispersionCorrection(force.getUseDispersionCorrection())
            new.setEwaldErrorTolerance(force.getEwaldErrorTolerance())
            for atom in atoms:
                new.addParticle(*force.getParticleParameters(atom))
            for k in range(force.getNumExceptions()):
                i, j, *rest = force.getExceptionParameters(k)
                if i in index and j in index:
                    new.addException(index[i], index[j], *rest)
        elif isinstance(force, (mm.HarmonicBondForce, mm.HarmonicAngleForce, mm.PeriodicTorsionForce)):
            kind = {mm.HarmonicBondForce: ("Bond", 2), mm.HarmonicAngleForce: ("Angle", 3),
                    mm.PeriodicTorsionForce: ("Torsion", 4)}[type(force)]
            new = type(force)()
            for k in range(getattr(force, f"getNum{kind[0]}s")()):
                row = getattr(force, f"get{kind[0]}Parameters")(k)
                if all(i in index for i in row[:kind[1]]):
                    getattr(new, f"add{kind[0]}")(*[index[i] for i in row[:kind[1]]], *row[kind[1]:])
        else:
            continue
        result.addForce(new)
    return result


def withoutTail(system):
    """A copy without the long-range dispersion correction, with all else."""
    result = copy.deepcopy(system)
    for force in result.getForces():
        if isinstance(force, mm.NonbondedForce):
            force.setUseDispersionCorrection(False)
    return result


@pytest.mark.parametrize("switching", [False, True])
def testAnAlchemicalSystemBeginsAsTheSystem(water, switching):
    system, positions = withoutTail(water.createSystem()), water.positions
    nonbonded = next(f for f in system.getForces() if isinstance(f, mm.NonbondedForce))
    nonbonded.setUseSwitchingFunction(switching)
    nonbonded.setSwitchingDistance(0.6)  # within the molecule
    nonbonded.setCutoffDistance(0.8)
    alchemical = of.alchemicalSystem(system, SOLUTE)
    assert alchemical.getNumConstraints() == system.getNumConstraints()
    energy, forces = evaluate(system, positions)
    energy1, forces1 = evaluate(alchemical, positions)
    assert energy1 == pytest.approx(energy, abs=1e-5 * abs(energy) ** 0.5)
    np.testing.assert_allclose(forces1, forces, rtol=0, atol=1e-3)
    assert alchemical.getNumForces() == system.getNumForces() + 2
    for method in (mm.NonbondedForce.CutoffPeriodic, mm.NonbondedForce.Ewald, mm.NonbondedForce.CutoffNonPeriodic,
                   mm.NonbondedForce.NoCutoff):
        nonbonded.setNonbondedMethod(method)
        assert evaluate(of.alchemicalSystem(system, SOLUTE), positions, platform="CPU")[0] == pytest.approx(
            evaluate(system, positions, platform="CPU")[0], rel=1e-6)


def testAnAlchemicalSystemEndsAsMoleculeInVacuumAndSolvent(water):
    system, positions = withoutTail(water.createSystem()), water.positions
    others = [i for i in range(system.getNumParticles()) if i not in SOLUTE]
    end = {alchemy.ELECTROSTATICS: 0.0, alchemy.STERICS: 0.0}
    energy, forces = evaluate(of.alchemicalSystem(system, SOLUTE), positions, end)
    alone, ownForces = evaluate(part(system, SOLUTE, mm.NonbondedForce.NoCutoff), positions[SOLUTE])
    solvent, solventForces = evaluate(part(system, others), positions[others])
    assert energy == pytest.approx(alone + solvent, abs=1e-3)
    np.testing.assert_allclose(forces[SOLUTE], ownForces, rtol=0, atol=1e-3)
    np.testing.assert_allclose(forces[others], solventForces, rtol=0, atol=2e-2)
    moved = positions.copy()  # onto the water
    moved[SOLUTE] += [0.5, 0.1, -0.3]
    assert evaluate(of.alchemicalSystem(system, SOLUTE), moved, end)[0] == pytest.approx(energy, abs=1e-3)
    assert evaluate(of.alchemicalSystem(system, SOLUTE), moved, {alchemy.ELECTROSTATICS: 0.0})[0] > energy + 100


@pytest.mark.parametrize("switching", [False, True])
def testTheDispersionCorrectionIsKept(water, switching):
    """At the first stage all of it, whatever the volume; at the last that of the solvent, of which there is nearly as much."""
    system, positions = water.createSystem(), water.positions
    nonbonded = next(f for f in system.getForces() if isinstance(f, mm.NonbondedForce))
    nonbonded.setUseSwitchingFunction(switching)
    nonbonded.setSwitchingDistance(0.5)
    alchemical, others = of.alchemicalSystem(system, SOLUTE), [i for i in range(system.getNumParticles()) if i not in SOLUTE]
    box = [mm.Vec3(2.3, 0, 0), mm.Vec3(0, 2.2, 0), mm.Vec3(0, 0, 2.1)]
    for vectors in (None, box):
        energy = evaluate(system, positions, box=vectors)[0]
        assert energy - evaluate(withoutTail(system), positions, box=vectors)[0] < -5
        assert evaluate(alchemical, positions, box=vectors)[0] == pytest.approx(energy, abs=1e-4)
    if not switching:
        end = {alchemy.ELECTROSTATICS: 0.0, alchemy.STERICS: 0.0}
        tails = [evaluate(s, x, e)[0] - evaluate(withoutTail(s), x, e)[0]
                 for s, x, e in ((alchemical, positions, end), (part(system, others), positions[others], None))]
        assert tails[0] == pytest.approx(tails[1], rel=2 / len(others))


def testAnAlchemicalSystemInImplicitSolventEndsInVacuum():
    pytest.importorskip("PeptideBuilder")
    implicit, vacuum = alanineDipeptide("implicit"), alanineDipeptide("vacuum")
    system, positions = implicit.createSystem(), implicit.getPositions()
    alchemical = of.alchemicalSystem(system, SOLUTE)
    assert evaluate(alchemical, positions)[0] == pytest.approx(evaluate(system, positions)[0], abs=1e-6)
    energy, forces = evaluate(alchemical, positions, {alchemy.ELECTROSTATICS: 0.0})
    exact, exactForces = evaluate(vacuum.createSystem(), positions)
    assert energy == pytest.approx(exact, abs=1e-6)
    np.testing.assert_allclose(forces, exactForces, rtol=0, atol=1e-6)


def makeAngle(barrier=20.0):
    """Three atoms, an angle with two wells; a flow that covers both."""
    system = mm.System()
    for _ in range(3):
        system.addParticle(12.0)
    bonds, wells = mm.HarmonicBondForce(), mm.CustomAngleForce(f"{barrier}*((theta-1.5)^2/0.25-1)^2 + {KT}*step(theta-1.5)")
    for i, j in ((0, 1), (1, 2)):
        bonds.addBond(i, j, 0.1, 1e5)
    wells.addAngle(0, 1, 2, [])
    system.addForce(bonds)
    system.addForce(wells)
    positions = [mm.Vec3(0.1, 0, 0), mm.Vec3(0, 0, 0), mm.Vec3(0.1 * np.cos(1), 0.1 * np.sin(1), 0)]
    chart = of.InternalCoordinates.fromSystem(system, [0, 1, 2], positions)
    scaling = of.Scaling([0.1, 0.1, 1.5], [(KT / 1e5)**0.5] * 2 + [0.4])
    return system, positions, of.Flow(of.GaussianPrior(3), of.Sequence([scaling, chart]), [0, 1, 2])


def testAnAnnealedSystemGoesFromItsEnergyToTheFlows():
    system, positions, flow = makeAngle()
    system.addForce(mm.CMMotionRemover())
    annealed = of.annealedSystem(system, flow, TEMPERATURE * unit.kelvin)
    energy, forces = evaluate(system, positions)
    result, resultForces = evaluate(annealed, positions)
    assert result == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(resultForces, forces, rtol=0, atol=1e-6)
    logQ = float(flow.logQ(np.array(positions).reshape(1, -1)))
    ends = {alchemy.ENERGY: 0.0, alchemy.DENSITY: 1.0}
    assert evaluate(annealed, positions, ends)[0] == pytest.approx(-KT * logQ, abs=1e-9)
    assert evaluate(annealed, positions, {alchemy.ENERGY: 0.3, alchemy.DENSITY: 0.7})[0] == pytest.approx(
        0.3 * energy - 0.7 * KT * logQ, abs=1e-9)
    with pytest.raises(ValueError, match="number of Forces with an energy is 0"):
        of.annealedSystem(mm.System(), flow, TEMPERATURE)


@pytest.mark.parametrize("makeProtocol", [of.annealedProtocol, functools.partial(of.heatingProtocol, factor=2.0)])
def testAnnealedJumpsOfAnAnnealedSystemSampleIt(makeProtocol):
    """The right well holds 1/(1 + e) of the angle's distribution, up to the volume element, which quadrature has."""
    system, positions, flow = makeAngle()
    integrator = of.FlowLangevinIntegrator(TEMPERATURE, 5, 0.001, flow)
    integrator.setAnnealedProtocol(makeProtocol(3, 2, 2 * unit.femtosecond, stageDynamics=of.StageDynamics.Metropolised))
    integrator.setJumpRandomNumberSeed(1)
    integrator.setRandomNumberSeed(2)
    integrator.setTrialsPerJump(3)
    context = mm.Context(of.annealedSystem(system, flow, TEMPERATURE), integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    right = np.empty(1500)
    for i in range(len(right)):
        integrator.jump()
        x = np.array(context.getState(positions=True).getPositions(asNumpy=True))
        a, b = x[0] - x[1], x[2] - x[1]
        right[i] = np.arccos(a @ b / np.sqrt(a @ a * (b @ b))) > 1.5
    theta = (np.arange(20000) + 0.5) * np.pi / 20000
    weights = np.sin(theta) * np.exp(-20 / KT * ((theta - 1.5)**2 / 0.25 - 1)**2 - (theta > 1.5))
    found = of.meanWithError(right)
    assert found.numEffective > 50
    assert abs(found.mean - weights[theta > 1.5].sum() / weights.sum()) < 4 * found.standardError
    statistics = integrator.getJumpStatistics()
    assert statistics.trials == 1500 and statistics.failed == 0 and statistics.middleTrials == 4500
    assert 0.5 < statistics.stageAccepted / statistics.stageSteps <= 1


def testProtocols():
    protocol = of.alchemicalProtocol(2, 4, 10, 2 * unit.femtosecond, stericPower=2.0, friction=5 / unit.picosecond,
                                     stageDynamics=of.StageDynamics.Langevin, middleJump=of.MiddleJump.Always)
    assert protocol.getNumStages() == 6
    assert [protocol.getParameterName(i) for i in range(2)] == [alchemy.ELECTROSTATICS, alchemy.STERICS]
    np.testing.assert_allclose(protocol.getParameterValues(0), [1, 0.5, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(protocol.getParameterValues(1), [1, 1, 1, 9 / 16, 1 / 4, 1 / 16, 0])
    assert protocol.getStepSize() == 0.002 * unit.picosecond and protocol.getFriction() == 5 / unit.picosecond
    assert protocol.getStageDynamics() is of.StageDynamics.Langevin
    assert protocol.getMiddleJump() is of.MiddleJump.Always
    assert "6 stages of 10 steps" in repr(protocol)
    assert of.alchemicalProtocol(2, 0, 10, 0.002).getNumParameters() == 1
    partly = alchemy.parametersOf(of.alchemicalProtocol(2, 0, 10, 0.002, lastElectrostatics=0.2))
    assert partly == {alchemy.ELECTROSTATICS: pytest.approx([1, 0.6, 0.2])}
    partly = alchemy.parametersOf(of.alchemicalProtocol(1, 2, 10, 0.002, stericPower=2.0, lastSterics=0.6))
    assert partly == {alchemy.ELECTROSTATICS: [1, 0, 0, 0], alchemy.STERICS: pytest.approx([1, 1, 0.7, 0.6])}
    heated = alchemy.parametersOf(of.heatingProtocol(2, 10, 0.001, 2.25, friction=3.0))
    assert heated == {alchemy.ENERGY: pytest.approx([1, 1 / 1.5, 1 / 2.25])}
    with pytest.raises(ValueError, match="last is 1.0, but must be at least 0 and below 1"):
        of.alchemicalProtocol(2, 1, 1, 0.001, lastSterics=1.0)
    with pytest.raises(ValueError, match="lastElectrostatics is 0.5, but must be 0 where sterics fade"):
        of.alchemicalProtocol(2, 1, 1, 0.001, lastElectrostatics=0.5)
    with pytest.raises(ValueError, match="lastSterics is 0.5, but must be 0 where stericStages are"):
        of.alchemicalProtocol(2, 0, 1, 0.001, lastSterics=0.5)
    with pytest.raises(ValueError, match="factor is 1, but must be above 1"):
        of.heatingProtocol(2, 1, 0.001, 1)
    with pytest.raises(ValueError, match="number is 0, but must be at least 1"):
        of.annealedProtocol(0, 1, 0.001)
    with pytest.raises(ValueError, match="power is 0, but must be positive"):
        of.annealedProtocol(2, 1, 0.001, power=0)
    with pytest.raises(ValueError, match="stericStages is -1"):
        of.alchemicalProtocol(2, -1, 1, 0.001)
    with pytest.raises(TypeError, match="a setting of the protocol is stepsize"):
        of.annealedProtocol(2, 1, 0.001, stepsize=3)
    with pytest.raises(mm.OpenMMException, match="size is 0, but must be positive"):
        of.annealedProtocol(2, 1, 0.0)


def makeChains(angles):
    """Frames [n, k + 3, 3] of chains of right angles, with k torsions [n, k]."""
    angles = np.asarray(angles)
    frames = np.zeros((len(angles), angles.shape[1] + 3, 3))
    frames[:, 1:3] = [[1, 0, 0], [1, 1, 0]]
    for k in range(angles.shape[1]):
        a, b, c = (frames[:, k + i] for i in range(3))
        side, up = b - a, np.cross(b - a, c - b)
        frames[:, k + 3] = c - np.cos(angles[:, [k]]) * side + np.sin(angles[:, [k]]) * up
    return frames


def makeTorsionData(centres, spread, count=200_000):
    """Frames whose torsions are independent and von Mises, and their density."""
    random, concentration = np.random.default_rng(4), spread**-2
    angles = np.stack([random.vonmises(centre, concentration, count) for centre in centres], axis=1)
    frames = makeChains(angles)
    data = of.TrainingData(frames, np.full(count, -np.log(count)), np.zeros(count), np.full(count, TEMPERATURE), TEMPERATURE,
                           list(range(frames.shape[1])))
    return data, lambda t: np.exp(concentration * (np.cos(t - np.array(centres)) - 1)).prod(axis=1) / \
        (2 * np.pi * np.exp(-concentration) * np.i0(concentration))**len(centres)


@pytest.mark.parametrize("torsions", [[[0, 1, 2, 3]], [[0, 1, 2, 3], [1, 2, 3, 4]]])
def testATorsionBiasTurnsOneDistributionIntoAnother(torsions):
    count = len(torsions)
    decoupled, p = makeTorsionData([2.9, -0.5][:count], 1.0)
    coupled, q = makeTorsionData([-2.6, 0.7][:count], 1.0)
    np.testing.assert_allclose(analysis.torsion(makeChains([[0.3, -2.0]]), [1, 2, 3, 4]), -2.0)
    system = mm.System()
    for _ in range(count + 3):
        system.addParticle(1.0)
    bias = of.torsionBias(torsions, decoupled, coupled, smoothing=5.0)
    system.addForce(bias)
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    assert dict(context.getParameters()) == {alchemy.TORSION_BIAS: 0.0}
    # Within 1.5 of both centres; the first torsion passes through 180 degrees.
    angles = np.random.default_rng(1).uniform([2.5, -0.4][:count], [3.9, 0.6][:count], (50, count))
    expected = KT * np.log(p(angles) / q(angles))
    for frame, energy in zip(makeChains(angles), expected):
        context.setPositions(frame)
        for scale in (0.0, 0.5, 1.0):
            context.setParameter(alchemy.TORSION_BIAS, scale)
            found = context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
            assert abs(found - scale * energy) < 0.1 * KT


def testTheTorsionBiasComesAsChargesGo():
    protocol = of.alchemicalProtocol(2, 1, 10, 0.002, lastSterics=0.5, torsionBias=True)
    assert alchemy.parametersOf(protocol)[alchemy.TORSION_BIAS] == [0, 0.5, 1, 1]
    protocol = of.alchemicalProtocol(2, 0, 10, 0.002, lastElectrostatics=0.4, torsionBias=True)
    assert alchemy.parametersOf(protocol)[alchemy.TORSION_BIAS] == pytest.approx([0, 0.5, 1])
    data, warmer = makeTorsionData([0.0], 1.0, 10)[0], makeTorsionData([0.0], 1.0, 10)[0]
    warmer.temperature = 310.0
    with pytest.raises(ValueError, match="temperatures are 300.0 and 310.0, but must be the same"):
        of.torsionBias([[0, 1, 2, 3]], data, warmer)
    with pytest.raises(ValueError, match="a torsion is of particle 4, but must be of those of the frames"):
        of.torsionBias([[1, 2, 3, 4]], data, data)
    with pytest.raises(ValueError, match="number of torsions is 3, but must be 1 or 2"):
        of.torsionBias([[0, 1, 2, 3]] * 3, data, data)


def testAnIntegratorKeepsItsProtocolInCopies():
    flow = makeAngle()[2]
    integrator = of.FlowLangevinIntegrator(TEMPERATURE, 5, 0.001, flow)
    assert integrator.getAnnealedProtocol() is None
    integrator.setAnnealedProtocol(of.annealedProtocol(3, 2, 0.002))
    for duplicate in (copy.deepcopy, lambda i: pickle.loads(pickle.dumps(i))):
        protocol = duplicate(integrator).getAnnealedProtocol()
        assert protocol.getNumStages() == 3 and protocol.getParameterName(1) == alchemy.DENSITY
    integrator.setAnnealedProtocol(None)
    assert integrator.getAnnealedProtocol() is None


def testWhatCannotBeDecoupledIsRefused(water):
    system = water.createSystem()

    def changed(change):
        result = copy.deepcopy(system)
        change(result)
        return result

    def nonbonded(s):
        return next(f for f in s.getForces() if isinstance(f, mm.NonbondedForce))

    for atoms, match in (([], "solute is "), ([-1], "solute is "), ([10**6], "solute is "), (SOLUTE[:-1], "one molecule"),
                         (SOLUTE + [22], "one molecule"), (range(system.getNumParticles()), "leave a solvent")):
        with pytest.raises(ValueError, match=match):
            of.alchemicalSystem(system, atoms)
    for change, match in (
            (lambda s: nonbonded(s).setNonbondedMethod(mm.NonbondedForce.LJPME), "LJPME"),
            (lambda s: nonbonded(s).addParticleParameterOffset(ELSEWHERE, 0, 1, 0, 0)
             if nonbonded(s).addGlobalParameter(ELSEWHERE, 1) == 0 else None, "parameter offsets"),
            (lambda s: s.addForce(mm.NonbondedForce()), "number of NonbondedForces is 2"),
            (lambda s: s.addForce(mm.GayBerneForce()), "a Force is a GayBerneForce"),
            (lambda s: s.addForce(mm.GBSAOBCForce()), "must be all of them")):
        with pytest.raises(ValueError, match=match):
            of.alchemicalSystem(changed(change), SOLUTE)


ELSEWHERE = "elsewhere"


def testAnnealedJumpsInExplicitWater(water):
    """Rigid bonds to hydrogen, 2 fs, PME, a barostat between jumps. A rejected jump leaves no trace, an accepted one whole
    molecules. The flow is not trained."""
    system, positions = water.createSystem(), water.positions
    barostat = mm.MonteCarloBarostat(1 * unit.bar, TEMPERATURE, 5)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    generator = of.BoltzmannGenerator.fromSystem(water.createSystem(), positions, TEMPERATURE, SOLUTE, layers=2,
                                                 data=makeFrames(positions), seed=1)
    alchemical = of.alchemicalSystem(system, SOLUTE)
    integrator = of.FlowLangevinIntegrator(TEMPERATURE, 1, 0.002, generator.flow)
    integrator.setRandomNumberSeed(3)
    integrator.setJumpRandomNumberSeed(4)
    integrator.setJumpInterval(0)
    integrator.setRecordTrials(True)
    integrator.setAnnealedProtocol(of.alchemicalProtocol(1, 2, 2, 0.002, middleJump=of.MiddleJump.Always))
    context = mm.Context(alchemical, integrator, mm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    settings = {"positions": True, "velocities": True, "forces": True, "energy": True, "parameters": True}
    rejected = 0
    for dynamics in of.StageDynamics:
        protocol = integrator.getAnnealedProtocol()
        protocol.setStageDynamics(dynamics)
        integrator.setAnnealedProtocol(protocol)
        for _ in range(2):
            integrator.step(10)
            before = context.getState(**settings)
            accepted = integrator.jump()
            after = context.getState(**settings)
            record = integrator.getAnnealedRecords()[-1]
            assert accepted == record.accepted
            assert after.getTime() == before.getTime() and after.getStepCount() == before.getStepCount()
            assert dict(after.getParameters()) == dict(before.getParameters())
            np.testing.assert_array_equal(*(np.array([list(v) for v in s.getPeriodicBoxVectors()]) for s in (before, after)))
            if not accepted:
                rejected += 1
                for name in ("Positions", "Velocities"):
                    np.testing.assert_array_equal(*(np.array(getattr(s, f"get{name}")(asNumpy=True)) for s in (before, after)))
                # up to the order of a new neighbour list
                np.testing.assert_allclose(*(np.array(s.getForces(asNumpy=True)) for s in (before, after)), rtol=0, atol=0.02)
                assert abs(after.getPotentialEnergy() - before.getPotentialEnergy()) < 0.05 * unit.kilojoule_per_mole
    assert rejected > 0
    statistics = integrator.getJumpStatistics()
    assert statistics.trials == 6 and statistics.stageAccepted > 0
    assert statistics.failed + statistics.nonFinite < 6  # a proposal onto its own atoms may end as NaN
    integrator.step(10)


def makeFrames(positions):
    """Frames of the molecule where it was built, shaken a little: enough to start a flow."""
    random = np.random.default_rng(1)
    frames = positions[None, SOLUTE] + random.normal(scale=0.002, size=(200, len(SOLUTE), 3))
    return of.TrainingData(frames, np.full(200, -np.log(200)), np.zeros(200), np.full(200, TEMPERATURE), TEMPERATURE, SOLUTE)


def makeDiatomicInDroplet():
    """Two charged atoms whose distance has two wells, of .25 and .4 nm, among ten others in a harmonic droplet."""
    system, random = mm.System(), np.random.default_rng(3)
    nonbonded, droplet = mm.NonbondedForce(), mm.CustomExternalForce("4*(x^2+y^2+z^2)")
    for i in range(12):
        system.addParticle(16.0)
        nonbonded.addParticle(-0.08 if i % 2 else 0.08, 0.28, 0.5)
        droplet.addParticle(i, [])
    nonbonded.addException(0, 1, 0, 1, 0)
    wells = mm.CustomBondForce("6*((r-0.325)^2/0.075^2-1)^2")
    wells.addBond(0, 1, [])
    for force in (nonbonded, droplet, wells):
        system.addForce(force)
    positions = random.normal(scale=0.6, size=(12, 3))
    positions[:2] = [[0, 0, 0], [0.25, 0, 0]]
    context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    mm.LocalEnergyMinimizer.minimize(context)
    positions = np.array(context.getState(positions=True).getPositions(asNumpy=True))
    # A flow of both atoms' positions: a broad normal density of them about the middle of the droplet.
    return system, positions, of.Flow(of.GaussianPrior(6), of.Scaling([0.0] * 6, [0.4] * 6), [0, 1])


def testJumpsOfADecoupledMoleculeKeepTheEnsemble():
    """The fraction of long bonds, which dynamics alone finds as well: the barrier is low."""
    system, positions, flow = makeDiatomicInDroplet()

    def run(annealed, samples):
        integrator = of.FlowLangevinIntegrator(TEMPERATURE, 5, 0.004, flow)
        integrator.setRandomNumberSeed(5)
        integrator.setJumpRandomNumberSeed(6)
        integrator.setJumpInterval(20 if annealed else 0)
        if annealed:
            integrator.setTrialsPerJump(10)
            integrator.setAnnealedProtocol(of.alchemicalProtocol(1, 5, 4, 0.004, stericPower=2.0))
        result = of.alchemicalSystem(system, [0, 1]) if annealed else system
        context = mm.Context(result, integrator, mm.Platform.getPlatformByName("Reference"))
        context.setPositions(positions)
        integrator.step(2000)
        found = np.empty(samples)
        for i in range(len(found)):
            integrator.step(20 if annealed else 100)
            x = np.array(context.getState(positions=True).getPositions(asNumpy=True))
            found[i] = np.linalg.norm(x[0] - x[1]) > 0.325
        return of.meanWithError(found), integrator.getJumpStatistics()

    (dynamics, _), (jumps, statistics) = run(False, 8000), run(True, 800)
    assert statistics.accepted > 100 and statistics.failed == 0
    assert dynamics.standardError < 0.02 and 0.1 < dynamics.mean < 0.9
    assert abs(dynamics.mean - jumps.mean) < 4 * np.hypot(dynamics.standardError, jumps.standardError)
    assert jumps.standardError < 0.05
