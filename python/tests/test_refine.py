# SPDX-License-Identifier: MIT
"""Training on a flow's own reweighted samples, and cooling, against the exact populations of a chain of four particles."""
import numpy as np
import openmm as mm
import pytest
import torch
from openmm import unit
from openmmflow import BoltzmannGenerator
from openmmflow.data import R

THREEFOLD, ONEFOLD = 12.0, 2.0  # kJ/mol: a barrier of 9 kT at 300 K, and unequal wells
WELLS = {"trans": (120, -120), "gauche+": (0, 120), "gauche-": (-120, 0)}


def makeChain():
    """Stiff bonds and angles, and a torsion whose distribution does not depend on them."""
    system = mm.System()
    for _ in range(4):
        system.addParticle(12)
    bonds, angles, torsions = mm.HarmonicBondForce(), mm.HarmonicAngleForce(), mm.PeriodicTorsionForce()
    for i in range(3):
        bonds.addBond(i, i + 1, 0.15, 1e5)
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, np.radians(110), 400)
    torsions.addTorsion(0, 1, 2, 3, 3, 0, THREEFOLD)
    torsions.addTorsion(0, 1, 2, 3, 1, 0, ONEFOLD)
    for force in (bonds, angles, torsions):
        system.addForce(force)
    return system, np.array([[0, 0, 0], [0.15, 0, 0], [0.2, 0.141, 0], [0.35, 0.141, 0.01]])


def makeGenerator(temperature):
    system, positions = makeChain()
    return BoltzmannGenerator.fromSystem(system, positions, temperature, layers=4, hiddenSizes=[32], seed=2,
                                         platform="Reference", numContexts=1)


def findPopulations(temperature):
    phi = np.linspace(-np.pi, np.pi, 100_001)[:-1]
    p = np.exp(-(THREEFOLD * np.cos(3 * phi) + ONEFOLD * np.cos(phi)) / (R * temperature))
    degrees = np.degrees(phi)
    return {name: p[(degrees - low) % 360 < (high - low) % 360].sum() / p.sum() for name, (low, high) in WELLS.items()}


def checkPopulations(generator, tolerance):
    """Those of the flow itself, unweighted, and those that its weights correct."""
    states = {name: generator.state([0, 1, 2, 3], *ends) for name, ends in WELLS.items()}
    result = generator.evaluate(20_000, states, seed=5, progress=False)
    for name, exact in findPopulations(generator.temperature).items():
        assert states[name].contains(result.positions).mean() == pytest.approx(exact, abs=tolerance)
        found = result.populations[name]
        assert abs(found.value - exact) < 4 * found.standardError
    return result.effectiveSize / 20_000


@pytest.mark.slow
def testCoolingFindsTheWellsThatReverseKLAloneLoses():
    cold = makeGenerator(300)
    cold.fit(None, iterations=400, batchSize=128, seed=3, progress=False)
    wells = [cold.state([0, 1, 2, 3], *ends).contains(cold.sample(20_000, seed=5)).mean() for ends in WELLS.values()]
    exact = np.array(list(findPopulations(300).values()))
    assert np.max(np.abs(wells - exact)) > 0.1  # what cooling is for

    generator = makeGenerator(2000)
    generator.fit(None, iterations=400, batchSize=128, seed=3, progress=False)
    generator.anneal(np.geomspace(1400, 300, 5), iterations=150, batchSize=256, seed=4, progress=False)
    assert generator.temperature == generator.flow.getTemperature() == pytest.approx(300)
    assert checkPopulations(generator, 0.03) > 0.9


def testRefiningImprovesTheFlowAndTellsItsLoss():
    generator = makeGenerator(1500)
    before = generator.evaluate(20_000, seed=5, progress=False)
    history = generator.refine(iterations=150, batchSize=256, learningRate=2e-3, seed=4, progress=False)
    after = generator.evaluate(20_000, seed=5, progress=False)
    assert list(history.losses) == ["reweighted likelihood"] and history.validation == []
    assert 1 - after.effectiveSize / 20_000 < 0.5 * (1 - before.effectiveSize / 20_000)


def testCoolingGoesOnFromTheTemperaturesThatAreDone(tmp_path, monkeypatch):
    settings = {"iterations": 5, "batchSize": 32, "seed": 4, "progress": False}
    ladder = [400 * unit.kelvin, 350 * unit.kelvin, 300 * unit.kelvin]
    whole = makeGenerator(450)
    assert len(whole.anneal(ladder, folder=tmp_path / "whole", **settings)) == 3
    part, original, calls = makeGenerator(450), BoltzmannGenerator.refine, []

    def refine(self, **options):
        calls.append(self.temperature)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, **options)

    monkeypatch.setattr(BoltzmannGenerator, "refine", refine)
    with pytest.raises(KeyboardInterrupt):
        part.anneal(ladder, folder=tmp_path / "part", **settings)
    resumed = makeGenerator(450)
    assert [history.iterations[-1] for history in resumed.anneal(ladder, folder=tmp_path / "part", **settings)] == [5] * 3
    assert calls == [400, 350, 400, 350, 300]
    assert resumed.flow.serialize() == whole.flow.serialize()
    x = torch.as_tensor(resumed.sample(10, seed=1)).reshape(10, -1)
    hot = makeGenerator(450).potential.evaluate(x).u
    torch.testing.assert_close(resumed.potential.evaluate(x).u, hot * 450 / 300)  # energies at the new temperature
