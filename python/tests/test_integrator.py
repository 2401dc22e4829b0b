# SPDX-License-Identifier: MIT
"""FlowLangevinIntegrator and FlowForce in scripts that use OpenMM as everyone does."""

import copy
import gc
import io
import math
import pickle

import numpy as np
import openmm as mm
import openmmflow as of
import pytest
import torch
from openmm import app, unit

KT = (unit.MOLAR_GAS_CONSTANT_R * 300 * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
ATOMS = [1, 2, 3]


def makeSystem(barrier=60.0, constraints=False):
    """A free particle beside three whose angle has two wells, the left one lower by 1 kT."""
    system, wells = mm.System(), mm.CustomAngleForce(f"{barrier}*((theta-1.5)^2/0.25-1)^2 + {KT}*step(theta-1.5)")
    for _ in range(4):
        system.addParticle(12.0)
    wells.addAngle(*ATOMS, [])
    system.addForce(wells)
    bonds = mm.HarmonicBondForce()
    for i, j in ((1, 2), (2, 3)):
        if constraints:
            system.addConstraint(i, j, 0.1)
        else:
            bonds.addBond(i, j, 0.1, 1e5)
    system.addForce(bonds)
    tether = mm.CustomExternalForce("1000*(x^2+y^2+z^2)")
    tether.addParticle(0, [])
    system.addForce(tether)
    positions = [mm.Vec3(0, 0, 0), mm.Vec3(1.1, 0, 0), mm.Vec3(1, 0, 0), mm.Vec3(1 + 0.1 * math.cos(1), 0.1 * math.sin(1), 0)]
    return system, positions


def makeFlow(system, positions, kT=KT):
    """Not trained: bonds as stiff as they are at a temperature, and an angle whose distribution covers both wells."""
    chart = of.InternalCoordinates.fromSystem(system, ATOMS, positions)
    bonds = chart.getNumBonds()
    scaling = of.Scaling([0.1] * bonds + [1.5], [math.sqrt(kT / 1e5)] * bonds + [0.4])
    return of.Flow(of.GaussianPrior(bonds + 1), of.Sequence([scaling, chart]), ATOMS)


def makeTopology():
    topology = app.Topology()
    residue = topology.addResidue("XXX", topology.addChain())
    for _ in range(4):
        topology.addAtom("C", app.element.carbon, residue)
    return topology


def makeIntegrator(flow, temperature=300 * unit.kelvin, seed=7, jumpInterval=10):
    integrator = of.FlowLangevinIntegrator(temperature, 5 / unit.picosecond, 1 * unit.femtosecond, flow)
    integrator.setJumpInterval(jumpInterval)
    integrator.setTrialsPerJump(2)
    integrator.setRandomNumberSeed(seed)
    integrator.setJumpRandomNumberSeed(seed)
    return integrator


def getPlatform(name):
    """Arguments of a Context on which a run can be repeated bit for bit."""
    return mm.Platform.getPlatformByName(name), {"Threads": "1"} if name == "CPU" else {}


def makeSimulation(constraints=False, seed=7, jumpInterval=10, platform="CPU"):
    system, positions = makeSystem(constraints=constraints)
    integrator = makeIntegrator(makeFlow(system, positions), seed=seed, jumpInterval=jumpInterval)
    simulation = app.Simulation(makeTopology(), system, integrator, *getPlatform(platform))
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300, seed)
    return simulation


def getState(simulation):
    state = simulation.context.getState(positions=True, velocities=True)
    return np.array(state.getPositions(asNumpy=True)), np.array(state.getVelocities(asNumpy=True))


def angleOf(positions):
    a, b = (positions[i] - positions[ATOMS[1]] for i in (ATOMS[0], ATOMS[2]))
    return math.acos(a @ b / math.sqrt((a @ a) * (b @ b)))


def exactRight(constraints=False, kT=KT, energy=lambda theta: 0.0):
    """P(angle >= 1.5) by quadrature of the angle's own density, with an energy (kJ/mol) besides that of makeSystem()."""
    theta = np.linspace(0.0, math.pi, 200001)[1:-1]
    wells = 60.0 * ((theta - 1.5)**2 / 0.25 - 1)**2 + KT * (theta >= 1.5)
    density = np.sin(theta) * np.exp(-(wells + energy(theta)) / kT)
    if constraints:
        density *= np.sqrt(1 - np.cos(theta)**2 / 4)  # the mass-metric factor of two bonds of equal masses
    return density[theta >= 1.5].sum() / density.sum()


def checkRight(angles, exact, numEffective=500):
    right = of.meanWithError((np.array(angles) >= 1.5).astype(float))
    assert right.numEffective > numEffective
    assert abs(right.mean - exact) < 4 * right.standardError


def testAFlowMayBeAFile(tmp_path):
    flow, file = makeFlow(*makeSystem()), tmp_path / "flow.safetensors"
    flow.save(str(file))
    for given in (flow, file, str(file)):
        integrator = of.FlowLangevinIntegrator(300 * unit.kelvin, 1, 0.002, given)
        assert integrator.getFlow().getAtoms() == flow.getAtoms() and integrator.getFriction() == 1 / unit.picosecond
        assert of.FlowForce(flow=given, temperature=300).getFlow().getAtoms() == flow.getAtoms()
    with pytest.raises(mm.OpenMMException, match="absent"):
        of.FlowForce("absent", 300)


def testAnUnchangedScriptRunsWithReporters(tmp_path):
    simulation = makeSimulation()
    table, trajectory = tmp_path / "state.csv", tmp_path / "trajectory.dcd"
    simulation.reporters.append(app.DCDReporter(str(trajectory), 20))
    simulation.reporters.append(app.StateDataReporter(str(table), 20, step=True, potentialEnergy=True, temperature=True))
    simulation.reporters.append(of.JumpReporter(tmp_path / "jumps.csv", 50))
    simulation.step(200)
    statistics = simulation.integrator.getJumpStatistics()
    assert simulation.currentStep == 200 and statistics.jumps == 20 and statistics.trials == 40
    assert len(table.read_text().splitlines()) == 11 and trajectory.stat().st_size > 10 * 4 * 12
    lines = (tmp_path / "jumps.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[-1].startswith(f"200,40,{statistics.accepted},")
    assert statistics.getAcceptanceRate() == statistics.accepted / 40


@pytest.mark.parametrize("constraints", [False, True])
def testJumpsCrossABarrierAndVisitBothWellsAsOften(constraints):
    """Jumps so often that frames are nearly independent."""
    simulation = makeSimulation(constraints=constraints, jumpInterval=2, platform="Reference")
    simulation.integrator.setTrialsPerJump(8)
    angles = []
    for _ in range(4000):
        simulation.step(2)
        angles.append(angleOf(getState(simulation)[0]))
    checkRight(angles, exactRight(constraints))
    assert simulation.integrator.getJumpStatistics().accepted > 400


@pytest.mark.parametrize("platform", ["CPU", "Reference"])
@pytest.mark.parametrize("constraints", [False, True])
def testACheckpointContinuesBitForBit(constraints, platform, tmp_path):
    file = str(tmp_path / "checkpoint")
    simulation = makeSimulation(constraints, platform=platform)
    simulation.step(35)
    simulation.saveCheckpoint(file)
    simulation.step(60)
    expected, statistics = getState(simulation), simulation.integrator.getJumpStatistics()
    for other in (simulation, makeSimulation(constraints, seed=8, platform=platform)):
        other.loadCheckpoint(file)
        assert other.currentStep == 35
        other.step(60)
        for a, b in zip(getState(other), expected):
            np.testing.assert_array_equal(a, b)
    assert statistics.accepted > 0


@pytest.mark.parametrize("platform", ["CPU", "Reference"])
@pytest.mark.parametrize("force", [lambda: mm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin), None])
def testAForceIsAddedToARunningSimulation(force, platform):
    """As scripts do between equilibration and production: the new force brings parameters of its own."""
    simulation = makeSimulation(platform=platform)
    simulation.step(30)
    before, statistics = getState(simulation), simulation.integrator.getJumpStatistics()
    box = mm.NonbondedForce()
    box.setNonbondedMethod(mm.NonbondedForce.CutoffPeriodic)
    box.setCutoffDistance(0.3)
    for _ in range(4):
        box.addParticle(0.0, 1.0, 0.0)
    simulation.system.addForce(box)
    if force:
        simulation.system.addForce(force())
    simulation.context.reinitialize(preserveState=True)
    for a, b in zip(getState(simulation), before):
        np.testing.assert_array_equal(a, b)
    assert simulation.integrator.getJumpStatistics().trials == statistics.trials == 6
    simulation.step(20)
    assert simulation.integrator.getJumpStatistics().trials == 10


def testEveryDecisionCanBeRecomputed():
    simulation = makeSimulation()
    integrator = simulation.integrator
    integrator.setRecordTrials(True)
    simulation.step(200)
    records = integrator.getJumpRecords()
    assert len(records) == 40 and records[0].step == 10 and [r.trial for r in records[:3]] == [0, 1, 0]
    for record in records:
        logAlpha = of.jumpLogAlpha(of.JumpKind.Independence, record.uOld, record.uNew, record.logQOld, record.logQNew,
                                   record.logDetOld, record.logDetNew)
        assert logAlpha == pytest.approx(record.logAlpha, abs=1e-12)
        probability = of.logAcceptanceProbability(of.AcceptanceTest.Metropolis, record.logAlpha)
        assert record.accepted == (math.log(record.uniform) < probability)
    assert sum(record.accepted for record in records) == integrator.getJumpStatistics().accepted > 0
    median, = integrator.getLogAlphaQuantiles([0.5])
    assert median == pytest.approx(np.median([record.logAlpha for record in records]), abs=1e-12)
    integrator.clearJumpRecords()
    assert integrator.getJumpRecords() == []
    assert records[0].step == 10  # copies


@pytest.mark.parametrize("constraints", [False, True])
def testRecordsHoldEnergiesAndDensitiesThatAnyoneCanComputeAgain(constraints):
    """From the positions before and after a jump, by another Context and the flow; the constraints' factor by its formula."""
    simulation = makeSimulation(constraints, platform="Reference")
    integrator = simulation.integrator
    integrator.setTrialsPerJump(1)
    integrator.setRecordTrials(True)
    other = mm.Context(simulation.system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))

    def compute(positions):
        other.setPositions(positions)
        energy = other.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        z = np.array([[2.0, math.cos(angleOf(positions))], [math.cos(angleOf(positions)), 2.0]]) / 12.0
        metric = 0.5 * math.log(np.linalg.det(z)) if constraints else 0.0
        latent = integrator.getFlow().toLatent(positions[ATOMS].reshape(1, -1))
        return energy / KT - metric, float(latent.logQ), float(latent.logDet), metric

    numAccepted = 0
    for _ in range(400):
        integrator.step(3)
        before = getState(simulation)[0]
        accepted = integrator.jump()
        record = integrator.getJumpRecords()[-1]
        old = (record.uOld, record.logQOld, record.logDetOld, record.metricOld)
        assert old == pytest.approx(compute(before), rel=1e-9, abs=1e-9)
        if accepted:
            new = (record.uNew, record.logQNew, record.logDetNew, record.metricNew)
            assert new == pytest.approx(compute(getState(simulation)[0]), rel=1e-9, abs=1e-9)
        else:
            np.testing.assert_array_equal(getState(simulation)[0], before)
        numAccepted += accepted
    assert 5 < numAccepted < 200


def testJumpsBesideABarostatVirtualSitesAndCMMotionRemoval():
    """An ideal gas of 20 atoms and a molecule that jumps: <V> = (21 + 1) kT / P. A virtual site midway between the moved
    ends of the molecule is pulled to its centre, which changes the angle: energies of trials must see it move."""
    system, positions = makeSystem(constraints=True)
    system.removeForce(1)  # the tether of the first particle, which is a gas atom here; the bonds' force is empty
    system.removeForce(1)
    site = system.addParticle(0.0)
    system.setVirtualSite(site, mm.TwoParticleAverageSite(1, 3, 0.5, 0.5))
    positions.append((positions[1] + positions[3]) / 2)
    pull = mm.HarmonicBondForce()
    pull.addBond(site, 2, 0.0, 2000.0)
    system.addForce(pull)
    box = mm.NonbondedForce()  # without charges or radii: it makes the System periodic
    box.setNonbondedMethod(mm.NonbondedForce.CutoffPeriodic)
    box.setCutoffDistance(0.3)
    random = np.random.default_rng(1)
    for _ in range(19):
        system.addParticle(12.0)
        positions.append(mm.Vec3(*random.uniform(0, 5, 3)))
    for _ in range(system.getNumParticles()):
        box.addParticle(0.0, 1.0, 0.0)
    system.addForce(box)
    numMolecules, pressure = 21, 10 * unit.bar
    system.setDefaultPeriodicBoxVectors((5, 0, 0), (0, 5, 0), (0, 0, 5))
    barostat = mm.MonteCarloBarostat(pressure, 300 * unit.kelvin, 2)
    barostat.setRandomNumberSeed(3)
    system.addForce(barostat)
    system.addForce(mm.CMMotionRemover(5))
    integrator = makeIntegrator(makeFlow(system, positions), jumpInterval=5)
    integrator.setTrialsPerJump(8)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    integrator.step(500)
    angles, volumes = [], []
    for _ in range(4000):
        integrator.step(10)
        state = context.getState(positions=True)
        angles.append(angleOf(np.array(state.getPositions(asNumpy=True))))
        volumes.append(state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3))
    checkRight(angles, exactRight(True, energy=lambda theta: 1000.0 * (0.1 * np.cos(theta / 2))**2))
    pv = (pressure * unit.nanometer**3 * unit.AVOGADRO_CONSTANT_NA).value_in_unit(unit.kilojoule_per_mole)
    volume = of.meanWithError(volumes)
    assert volume.numEffective > 30
    assert abs(volume.mean - (numMolecules + 1) * KT / pv) < 4 * volume.standardError


def testEnergiesOfARunWithJumpsAreThoseOfTheEnsemble():
    """By physical_validation: kinetic energies follow their distribution (velocities are drawn anew by jumps of constrained
    atoms), and potential energies at two temperatures differ by the factor exp(-(beta1 - beta2) U)."""
    pv = pytest.importorskip("physical_validation")

    def run(temperature):
        system, positions = makeSystem(constraints=True)
        integrator = makeIntegrator(makeFlow(system, positions), temperature, jumpInterval=10)
        context = mm.Context(system, integrator, mm.Platform.getPlatformByName("Reference"))
        context.setPositions(positions)
        context.setVelocitiesToTemperature(temperature, 5)
        integrator.step(1000)
        kinetic, potential = np.empty(6000), np.empty(6000)
        for i in range(len(kinetic)):
            integrator.step(20)
            state = context.getState(energy=True)
            kinetic[i] = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
            potential[i] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        assert integrator.getJumpStatistics().accepted > 500
        return kinetic, potential

    def describe(energies, temperature):
        return pv.data.SimulationData(
            units=pv.data.UnitData.units("GROMACS"), observables=pv.data.ObservableData(*energies, sum(energies)),
            ensemble=pv.data.EnsembleData("NVT", natoms=4, volume=1, temperature=temperature),
            system=pv.data.SystemData(4, 2, 0, 0, mass=np.full(4, 12.0)))

    cold, hot = run(300), run(400)
    for energies, temperature in ((cold, 300), (hot, 400)):
        simulation = describe(energies, temperature)
        assert pv.kinetic_energy.distribution(simulation, strict=True, verbosity=0) > 1e-3
        mean, width = pv.kinetic_energy.distribution(simulation, strict=False, verbosity=0, bootstrap_seed=1)
        assert abs(mean) < 4 and abs(width) < 4  # standard errors
    for total in (False, True):
        deviation, = pv.ensemble.check(describe(cold, 300), describe(hot, 400), total_energy=total, verbosity=0)
        assert abs(deviation) < 4
        deviation, = pv.ensemble.check(describe(cold, 300), describe(hot, 550), total_energy=total, verbosity=0)
        assert abs(deviation) > 4  # the check can tell


def testJumpsOffIsLangevinMiddle():
    system, positions = makeSystem()
    states = []
    for integrator in (of.FlowLangevinIntegrator(300, 5, 0.001, makeFlow(system, positions)),
                       mm.LangevinMiddleIntegrator(300, 5, 0.001)):
        if type(integrator) is of.FlowLangevinIntegrator:
            integrator.setJumpInterval(0)
        integrator.setRandomNumberSeed(3)
        context = mm.Context(system, integrator, mm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
        context.setPositions(positions)
        context.setVelocitiesToTemperature(300, 3)
        integrator.step(100)
        states.append(np.array(context.getState(positions=True).getPositions(asNumpy=True)))
    np.testing.assert_array_equal(*states)


def testJumpsWithinACompoundIntegrator():
    system, positions = makeSystem()
    compound = mm.CompoundIntegrator()
    compound.addIntegrator(of.FlowLangevinIntegrator(300, 5, 0.001, makeFlow(system, positions)))
    compound.addIntegrator(mm.LangevinMiddleIntegrator(300, 5, 0.001))
    for i in range(2):
        compound.getIntegrator(i).setRandomNumberSeed(1)
    context = mm.Context(system, compound, mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    jumping = compound.getIntegrator(0)
    jumping.setJumpInterval(5)
    compound.step(20)
    compound.setCurrentIntegrator(1)
    compound.step(20)
    assert jumping.getJumpStatistics().jumps == 4


def testACopyIsAnIntegratorOfItsOwn():
    simulation = makeSimulation()
    simulation.step(20)
    for duplicate in (copy.deepcopy, lambda i: pickle.loads(pickle.dumps(i))):
        other = duplicate(simulation.integrator)
        context = mm.Context(simulation.system, other, mm.Platform.getPlatformByName("Reference"))
        context.setPositions(getState(simulation)[0])
        other.step(10)
        assert other.getJumpStatistics().jumps == 1
    assert simulation.integrator.getJumpStatistics().jumps == 2


def testAFlowThatDoesNotFitTheSystemIsRefusedWithTheContext():
    system, positions = makeSystem()
    flow = makeFlow(system, positions)
    small = mm.System()
    small.addParticle(1.0)
    with pytest.raises(mm.OpenMMException):
        mm.Context(small, of.FlowLangevinIntegrator(300, 1, 0.001, flow), mm.Platform.getPlatformByName("Reference"))
    flow.setTemperature(400)
    with pytest.raises(mm.OpenMMException, match="400"):
        mm.Context(system, of.FlowLangevinIntegrator(300, 1, 0.001, flow), mm.Platform.getPlatformByName("Reference"))


def testFlowForceIsMinusKTLogQ():
    system, positions = makeSystem()
    flow = makeFlow(system, positions)
    empty = mm.System()
    for _ in range(4):
        empty.addParticle(12.0)
    force = of.FlowForce(flow, 300 * unit.kelvin)
    force.setScaleParameter("lambda")
    empty.addForce(force)
    context = mm.Context(empty, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    context.setParameter("lambda", 0.5)
    x = torch.tensor(np.array(positions)[ATOMS].reshape(1, -1), requires_grad=True)
    logQ = flow.logQ(x)
    logQ.sum().backward()
    state = context.getState(energy=True, forces=True)
    assert state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) == pytest.approx(-0.5 * KT * float(logQ.detach()))
    forces = np.array(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    np.testing.assert_allclose(forces[ATOMS], 0.5 * KT * x.grad.numpy().reshape(3, 3), rtol=1e-9, atol=1e-9)
    assert not forces[0].any()


def testFlowForceWithinACustomCVForce():
    """E = k (q - q0)^2 with q = -kT log q(x), and its chain rule."""
    system, positions = makeSystem()
    flow = makeFlow(system, positions)
    empty = mm.System()
    for _ in range(4):
        empty.addParticle(12.0)
    force = mm.CustomCVForce("k*(q-1)^2")
    force.addGlobalParameter("k", 0.3)
    force.addCollectiveVariable("q", of.FlowForce(flow, 300))
    empty.addForce(force)
    copied = mm.XmlSerializer.deserialize(mm.XmlSerializer.serialize(empty))
    x = torch.tensor(np.array(positions)[ATOMS].reshape(1, -1), requires_grad=True)
    energy = 0.3 * (-KT * flow.logQ(x) - 1).square().sum()
    energy.backward()
    for each in (empty, copied):
        context = mm.Context(each, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
        context.setPositions(positions)
        state = context.getState(energy=True, forces=True)
        assert state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) == pytest.approx(energy.item(), rel=1e-9)
        forces = np.array(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
        np.testing.assert_allclose(forces[ATOMS], -x.grad.numpy().reshape(3, 3), rtol=1e-8, atol=1e-8)


def testSystemIntegratorAndStateFromXmlGoOnAlike():
    """Bit for bit, as all seeds are in them."""
    system, positions = makeSystem()
    flow = makeFlow(system, positions)
    system.addForce(of.FlowForce(flow, 300))
    context = mm.Context(system, makeIntegrator(flow), *getPlatform("CPU"))
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300, 1)
    state = context.getState(positions=True, velocities=True, parameters=True)
    texts = [mm.XmlSerializer.serialize(each) for each in (system, context.getIntegrator(), state)]
    restored, integrator, state = map(mm.XmlSerializer.deserialize, texts)
    assert type(integrator) is of.FlowLangevinIntegrator and type(restored.getForce(3)) is of.FlowForce
    other = mm.Context(restored, integrator, *getPlatform("CPU"))
    other.setState(state)
    ends = []
    for each in (context, other):
        each.getIntegrator().step(100)
        assert each.getIntegrator().getJumpStatistics().accepted > 0
        ends.append(np.array(each.getState(positions=True).getPositions(asNumpy=True)))
    np.testing.assert_array_equal(*ends)


def testReplicaExchangeOfOpenmmtools(tmp_path):
    """Parallel tempering with jumps, by a sampler that copies, compares, caches and stores integrators."""
    pytest.importorskip("openmmtools")
    from openmmtools import cache, mcmc, multistate, states

    class JumpMove(mcmc.BaseIntegratorMove):
        def __init__(self, integrator, n_steps):
            super().__init__(n_steps, reassign_velocities=True)
            self.integrator = mm.XmlSerializer.serialize(integrator)

        def _get_integrator(self, thermodynamicState):
            integrator = mm.XmlSerializer.deserialize(self.integrator)
            integrator.setTemperature(thermodynamicState.temperature)
            return integrator

        def __getstate__(self):
            return super().__getstate__() | {"integrator": self.integrator}

        def __setstate__(self, state):
            super().__setstate__(state)
            self.integrator = state["integrator"]

    system, positions = makeSystem()
    integrator = makeIntegrator(makeFlow(system, positions, 3 * KT), jumpInterval=5)
    integrator.setTrialsPerJump(8)
    sampler = multistate.ReplicaExchangeSampler(mcmc_moves=JumpMove(integrator, 20), number_of_iterations=300)
    platform = mm.Platform.getPlatformByName("Reference")
    for name in ("energy_context_cache", "sampler_context_cache"):
        setattr(sampler, name, cache.ContextCache(platform=platform))
    reporter = multistate.MultiStateReporter(str(tmp_path / "replicas.nc"), checkpoint_interval=1)
    temperatures = [300 * unit.kelvin, 900 * unit.kelvin]
    sampler.create([states.ThermodynamicState(system, t) for t in temperatures],
                   [states.SamplerState(positions * unit.nanometer)] * 2, reporter)
    sampler.run()
    angles = [[], []]
    for i in range(1, 300 + 1):
        for replica, state in zip(reporter.read_sampler_states(i), reporter.read_replica_thermodynamic_states(i)):
            angles[state].append(angleOf(replica.positions.value_in_unit(unit.nanometer)))
    reporter.close()
    for found, temperature in zip(angles, temperatures):
        checkRight(found, exactRight(kT=KT * (temperature / (300 * unit.kelvin))), numEffective=100)


def testAFlowIsReplacedBetweenSteps():
    """As adaptive training does: the integrator shares the flow that it is given, and only that one."""
    simulation = makeSimulation()
    system, positions = makeSystem()
    first = simulation.integrator.getFlow()
    simulation.integrator.setFlow(makeFlow(system, positions))
    gc.collect()
    simulation.step(20)
    assert first.getSize() == 9 and simulation.integrator.getJumpStatistics().jumps == 2


def testTheGilIsFreeDuringSteps(turnsOfOtherThread):
    simulation = makeSimulation(jumpInterval=1)
    assert turnsOfOtherThread(lambda: simulation.integrator.step(500)) > 3


def testMemoryStaysFlatAsSimulationsComeAndGo():
    def resident():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

    system, positions = makeSystem()
    flow = makeFlow(system, positions)
    platform = mm.Platform.getPlatformByName("Reference")
    sizes = []
    for _ in range(5):
        for _ in range(200):
            integrator = of.FlowLangevinIntegrator(300, 1, 0.001, flow)
            integrator.setJumpInterval(1)
            context = mm.Context(system, integrator, platform)
            context.setPositions(positions)
            integrator.step(2)
            del context, integrator
        gc.collect()
        sizes.append(resident())
    assert sizes[-1] - sizes[1] < 2.0, sizes


def testStateXmlCarriesOn():
    simulation = makeSimulation()
    simulation.step(20)
    file = io.StringIO(mm.XmlSerializer.serialize(simulation.context.getState(positions=True, velocities=True,
                                                                              integratorParameters=True)))
    other = makeSimulation(seed=9)
    other.loadState(file)
    np.testing.assert_allclose(getState(other)[0], getState(simulation)[0], rtol=0, atol=1e-15)
    other.step(10)
