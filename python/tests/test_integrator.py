# SPDX-License-Identifier: MIT
"""FlowLangevinIntegrator and FlowForce in scripts that use OpenMM as everyone does."""

import copy
import gc
import io
import math
import pickle
import threading
import time

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


def makeFlow(system, positions):
    """Not trained: the angle's distribution covers both wells."""
    chart = of.InternalCoordinates.fromSystem(system, ATOMS, positions)
    bonds = chart.getNumBonds()
    scaling = of.Scaling([0.1] * bonds + [1.5], [math.sqrt(KT / 1e5)] * bonds + [0.4])
    return of.Flow(of.GaussianPrior(bonds + 1), of.Sequence([scaling, chart]), ATOMS)


def makeTopology():
    topology = app.Topology()
    residue = topology.addResidue("XXX", topology.addChain())
    for _ in range(4):
        topology.addAtom("C", app.element.carbon, residue)
    return topology


def makeSimulation(constraints=False, seed=7, jumpInterval=10):
    system, positions = makeSystem(constraints=constraints)
    integrator = of.FlowLangevinIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond,
                                           makeFlow(system, positions))
    integrator.setJumpInterval(jumpInterval)
    integrator.setTrialsPerJump(2)
    integrator.setRandomNumberSeed(seed)
    integrator.setJumpRandomNumberSeed(seed)
    simulation = app.Simulation(makeTopology(), system, integrator, mm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(300, seed)
    return simulation


def getState(simulation):
    state = simulation.context.getState(positions=True, velocities=True)
    return np.array(state.getPositions(asNumpy=True)), np.array(state.getVelocities(asNumpy=True))


def angleOf(positions):
    a, b = (positions[i] - positions[ATOMS[1]] for i in (ATOMS[0], ATOMS[2]))
    return math.acos(a @ b / math.sqrt((a @ a) * (b @ b)))


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
    """P(right) by quadrature of the angle's own density; jumps often enough that frames are nearly independent."""
    simulation = makeSimulation(constraints=constraints, jumpInterval=2)
    simulation.integrator.setTrialsPerJump(8)
    angles = []
    for _ in range(4000):
        simulation.step(2)
        angles.append(angleOf(getState(simulation)[0]))
    theta = np.linspace(0.0, math.pi, 200001)[1:-1]
    density = np.sin(theta) * np.exp(-60.0 / KT * ((theta - 1.5)**2 / 0.25 - 1)**2 - (theta >= 1.5))
    if constraints:
        density *= np.sqrt(1 - np.cos(theta)**2 / 4)  # the mass-metric factor of two bonds of equal masses
    exact = density[theta >= 1.5].sum() / density.sum()
    right = of.meanWithError((np.array(angles) >= 1.5).astype(float))
    assert right.numEffective > 500
    assert abs(right.mean - exact) < 4 * right.standardError
    assert simulation.integrator.getJumpStatistics().accepted > 400


def testACheckpointContinuesBitForBit(tmp_path):
    file = str(tmp_path / "checkpoint")
    simulation = makeSimulation()
    simulation.step(35)
    simulation.saveCheckpoint(file)
    simulation.step(60)
    expected, statistics = getState(simulation), simulation.integrator.getJumpStatistics()
    for other in (simulation, makeSimulation(seed=8)):
        other.loadCheckpoint(file)
        assert other.currentStep == 35
        other.step(60)
        for a, b in zip(getState(other), expected):
            np.testing.assert_array_equal(a, b)
    assert statistics.accepted > 0


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


def testAFlowIsReplacedBetweenSteps():
    """As adaptive training does: the integrator shares the flow that it is given, and only that one."""
    simulation = makeSimulation()
    system, positions = makeSystem()
    first = simulation.integrator.getFlow()
    simulation.integrator.setFlow(makeFlow(system, positions))
    gc.collect()
    simulation.step(20)
    assert first.getSize() == 9 and simulation.integrator.getJumpStatistics().jumps == 2


def testTheGilIsFreeDuringSteps():
    simulation = makeSimulation(jumpInterval=1)
    count, done = 0, threading.Event()

    def countUp():
        nonlocal count
        while not done.is_set():
            count += 1
            time.sleep(1e-4)

    thread = threading.Thread(target=countUp)
    thread.start()
    try:
        before = count
        simulation.integrator.step(500)
        counted = count - before
    finally:
        done.set()
        thread.join()
    assert counted > 3


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
