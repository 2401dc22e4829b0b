#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The reference for alanine dipeptide: P(phi > 0) and F(phi > 0) - F(phi < 0) from plain OpenMM and pymbar, no flows.

Adaptive umbrella sampling. One umbrella potential over (phi, psi) is first built by well-tempered metadynamics until it
flattens the surface, then frozen. Langevin dynamics under the frozen umbrella crosses between the
basins every few tens of picoseconds; MBAR between the umbrella and the unbiased state gives the answer. (Harmonic windows
along phi alone do not: at phi = 120..140 degrees psi = -60 and psi = 170 are two states that no window connects.)
Repeats share nothing, each builds its own umbrella; the answer is their mean, its error the standard error of that mean.

    python umbrella.py                            # everything, about an hour on two cores
    python umbrella.py --constraints HBonds --repeats 2 --nanoseconds 2 --output trial.json

Each repeat is stored when it ends; repeats that the output already holds are kept, so that more can be added.
"""
import argparse
import json
import logging
import multiprocessing
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OPENMM_DEFAULT_PLATFORM", "Reference")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # one thread for each process
    os.environ.setdefault(variable, "1")
logging.getLogger("pymbar").setLevel(logging.ERROR)

import numpy as np
import openmm
import pymbar
from openmm import app, unit

FOLDER = Path(__file__).resolve().parent
PHI, PSI, OMEGAS = (4, 6, 8, 14), (6, 8, 14, 16), ((1, 4, 6, 8), (8, 14, 16, 18))  # atoms of alanine-dipeptide.pdb
UMBRELLA = 1  # force group


@dataclass
class Settings:
    """What a repeat depends on, besides its number (which seeds it)."""

    constraints: str
    timeStep: float  # ps
    nanoseconds: float = 4.0  # under the frozen umbrella
    forcefield: tuple = ("amber14-all.xml",)
    temperature: float = 300.0  # K
    friction: float = 1.0  # 1/ps
    interval: float = 0.2  # ps between frames
    building: float = 1.0  # ns of metadynamics
    grid: int = 36  # intervals of the umbrella along each angle
    hillHeight: float = 2.5  # kJ/mol
    hillWidth: float = 0.35  # rad
    hillInterval: float = 0.4  # ps
    biasFactor: float = 12.0

    @property
    def kT(self):
        return (unit.MOLAR_GAS_CONSTANT_R * self.temperature * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)


VARIANTS = {"None": 0.001, "HBonds": 0.002}  # constraints and their time step, ps


def torsion(x, atoms):
    """The torsion angle of four atoms, rad, IUPAC sign. x is [..., atoms, 3]."""
    a, b, c, d = np.moveaxis(x[..., list(atoms), :], -2, 0)
    axis = c - b
    n1, n2 = np.cross(b - a, axis), np.cross(axis, d - c)
    return np.arctan2(np.sum(np.cross(n1, n2) * axis, -1) / np.linalg.norm(axis, axis=-1), np.sum(n1 * n2, -1))


def make_context(settings, seed):
    pdb = app.PDBFile(str(FOLDER.parent / "alanine-dipeptide.pdb"))
    constraints = {"None": None, "HBonds": app.HBonds}[settings.constraints]
    system = app.ForceField(*settings.forcefield).createSystem(
        pdb.topology, nonbondedMethod=app.NoCutoff, constraints=constraints, removeCMMotion=False)
    umbrella = openmm.CustomCompoundBondForce(5, "bias(dihedral(p1,p2,p3,p4), dihedral(p2,p3,p4,p5))")
    umbrella.addTabulatedFunction("bias", openmm.Continuous2DFunction(
        *table(np.zeros((settings.grid, settings.grid))), True))
    umbrella.addBond([*PHI, PSI[-1]])
    umbrella.setForceGroup(UMBRELLA)
    system.addForce(umbrella)
    integrator = openmm.LangevinMiddleIntegrator(settings.temperature, settings.friction, settings.timeStep)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(pdb.positions)
    context.setVelocitiesToTemperature(settings.temperature, seed)
    return context, umbrella


def table(bias):
    """Arguments of a periodic Continuous2DFunction. bias is [psi, phi], from -pi."""
    closed = np.pad(bias, (0, 1), mode="wrap")
    return len(closed), len(closed), closed.ravel(), -np.pi, np.pi, -np.pi, np.pi


def positions(context):
    return context.getState(getPositions=True).getPositions(asNumpy=True)._value


def build_umbrella(settings, context, umbrella):
    """Well-tempered metadynamics on the umbrella's grid; the umbrella stays as it ends."""
    angles = np.arange(settings.grid) * 2 * np.pi / settings.grid - np.pi
    bias = np.zeros((settings.grid, settings.grid))
    function = umbrella.getTabulatedFunction(0)
    hill = lambda center: np.exp((np.cos(angles - center) - 1) / settings.hillWidth**2)
    for _ in range(round(1000 * settings.building / settings.hillInterval)):
        context.getIntegrator().step(round(settings.hillInterval / settings.timeStep))
        x = positions(context)
        here = np.outer(hill(torsion(x, PSI)), hill(torsion(x, PHI)))
        damping = np.exp(-bias.flat[np.argmax(here)] / (settings.kT * (settings.biasFactor - 1)))
        bias += settings.hillHeight * damping * here
        function.setFunctionParameters(*table(bias))
        umbrella.updateParametersInContext(context)


def sample(settings, context):
    """@return phi, psi and the umbrella's energy in kT of every frame"""
    frames = round(1000 * settings.nanoseconds / settings.interval)
    x, bias = np.empty((frames, context.getSystem().getNumParticles(), 3)), np.empty(frames)
    for frame in range(frames):
        context.getIntegrator().step(round(settings.interval / settings.timeStep))
        x[frame] = positions(context)
        bias[frame] = context.getState(getEnergy=True, groups={UMBRELLA}).getPotentialEnergy()._value / settings.kT
    for atoms in OMEGAS:
        if np.any(np.abs(torsion(x, atoms)) < np.pi / 2):
            raise RuntimeError("a peptide bond turned cis: the answer is meant for trans")
    return torsion(x, PHI), torsion(x, PSI), bias


def reweight(phi, bias):
    """MBAR between the umbrella, which was sampled, and the unbiased state. @return P(phi > 0) and its error"""
    thinned = pymbar.timeseries.subsample_correlated_data((phi > 0) * np.exp(bias - bias.max()))
    phi, bias = phi[thinned], bias[thinned]
    mbar = pymbar.MBAR(np.vstack([bias, np.zeros_like(bias)]), [len(bias), 0])
    with np.errstate(divide="ignore"):  # it takes logarithms of the zeros
        found = mbar.compute_expectations((phi > 0).astype(float))
    return found["mu"][1], found["sigma"][1]


def run_repeat(arguments):
    settings, repeat = arguments
    seed = 2 * (repeat + 1) + (settings.constraints == "HBonds")
    context, umbrella = make_context(settings, seed)
    build_umbrella(settings, context, umbrella)
    phi, psi, bias = sample(settings, context)
    weight = np.exp(bias - bias.max())
    right = np.sum(weight[phi > 0]) / np.sum(weight)
    profile = np.histogram(phi, bins=36, range=(-np.pi, np.pi), weights=weight)[0]
    half = len(phi) // 2
    p, error = reweight(phi, bias)
    result = {"repeat": repeat, "probability": right, "freeEnergy": np.log((1 - right) / right), "mbarProbability": p, "mbarError": error,
              "probabilityOfHalves": [np.average(phi[part] > 0, weights=weight[part])
                                      for part in (slice(0, half), slice(half, None))],
              "crossings": int(np.count_nonzero(np.diff(phi > 0))), "fractionOfTimeRight": np.mean(phi > 0),
              "essFraction": np.sum(weight) ** 2 / np.sum(weight**2) / len(weight),
              "profile": list(profile / profile.sum())}
    print(f"{settings.constraints}, repeat {repeat}: F(phi>0) - F(phi<0) = {result['freeEnergy']:.3f} kT, P(phi>0) = "
          f"{right:.5f} (halves {result['probabilityOfHalves']}, MBAR {p:.5f} +- {error:.5f}), {result['crossings']} crossings",
          file=sys.stderr, flush=True)
    return settings, json.loads(json.dumps(result, default=float))


def mean_and_error(values):
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "standardError": error}


def read(file, variants):
    """What a file of results holds for these settings, {constraints: [result, ...]}"""
    stored = json.loads(file.read_text()) if file.exists() else {}
    plain = lambda settings: json.loads(json.dumps(asdict(settings)))
    return {v.constraints: stored[v.constraints]["repeats"] if v.constraints in stored
            and stored[v.constraints]["settings"] == plain(v) else [] for v in variants}


def write(file, variants, results):
    report = {"made by": "examples/reference/umbrella.py", "openmm": openmm.version.version, "pymbar": pymbar.__version__,
              "numpy": np.__version__, "phi": PHI, "psi": PSI}
    for settings in variants:
        own = sorted(results[settings.constraints], key=lambda result: result["repeat"])
        if own:
            report[settings.constraints] = {
                "settings": asdict(settings), "P(phi>0)": mean_and_error([r["probability"] for r in own]),
                "F(phi>0)-F(phi<0) in kT": mean_and_error([r["freeEnergy"] for r in own]), "repeats": own}
    file.write_text(json.dumps(report, indent=1, default=float) + "\n")
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraints", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=8, help="at least 2")
    parser.add_argument("--nanoseconds", type=float, default=Settings.nanoseconds, help="of each repeat")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=FOLDER / "alanine-dipeptide.json")
    options = parser.parse_args()
    variants = [Settings(name, VARIANTS[name], options.nanoseconds) for name in options.constraints]
    results = read(options.output, variants)
    work = [(settings, repeat) for repeat in range(options.repeats) for settings in variants
            if all(result["repeat"] != repeat for result in results[settings.constraints])]
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        for settings, result in pool.imap_unordered(run_repeat, work):
            results[settings.constraints].append(result)
            write(options.output, variants, results)
    for name, entry in write(options.output, variants, results).items():
        if name in VARIANTS:
            print(name, entry["P(phi>0)"], entry["F(phi>0)-F(phi<0) in kT"])


if __name__ == "__main__":
    main()
