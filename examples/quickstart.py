# SPDX-License-Identifier: MIT
"""The main job: alanine dipeptide, once with bonds to hydrogen rigid and once with all bonds free.

For each: frames from parallel tempering, a flow trained on them, 300 K dynamics that jumps with the flow, and the free
energy of the basin phi > 0 over phi < 0 in three ways, beside a reference that uses no flow (reference/umbrella.py).
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent
PHI, PSI = [4, 6, 8, 14], [6, 8, 14, 16]  # atoms of alanine-dipeptide.pdb


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=FOLDER / "quickstart.yaml")
    parser.add_argument("--output", type=Path, default=FOLDER / "output")
    parser.add_argument("--short", action="store_true", help="a check that everything works, in minutes")
    parser.add_argument("--resume", action="store_true", help="go on from what an interrupted run has left in --output")
    parser.add_argument("--variant", help=argparse.SUPPRESS)  # how this program calls itself
    options = parser.parse_args()
    settings = readSettings(options.config, options.short)
    if options.variant:
        runVariant(options.variant, settings, options.output / options.variant)
        return 0
    for name in [] if options.resume else settings["variants"]:  # and nothing else that may be in there
        shutil.rmtree(options.output / name, ignore_errors=True)
    print(f"Training flows of alanine dipeptide and running dynamics: {', '.join(settings['variants'])}, side by side.")
    start = time.monotonic()
    processes = {name: startVariant(name, settings) for name in settings["variants"]}
    codes = [process.wait() for process in processes.values()]
    if any(codes):
        return next(filter(None, codes))
    results = {name: json.loads((options.output / name / "result.json").read_text()) for name in processes}
    table = compare(results, readReference(settings))
    table += [f"{(time.monotonic() - start) / 60:.1f} minutes; results, figures and flows are in {options.output}"]
    print("\n".join(["", *table]))
    (options.output / "summary.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    return 0


def readSettings(file, short):
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    changes = settings.pop("short")
    for key, value in changes.items() if short else ():
        settings[key] = settings[key] | value if isinstance(value, dict) else value
    return settings


def startVariant(name, settings):
    """This program in a process of its own: the variants share the cores better than threads of one would."""
    names = list(settings["variants"])
    threads = max(1, (os.cpu_count() or 1) // len(names))
    environment = {"TQDM_POSITION": names.index(name), "TQDM_BAR_FORMAT": f"{name:7}{{l_bar}}{{bar}}{{r_bar}}",
                   "TQDM_MININTERVAL": 0.5 if sys.stderr.isatty() else 30, "OMP_NUM_THREADS": threads}
    environment = os.environ | {key: str(value) for key, value in environment.items()}
    return subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--variant", name], env=environment)


def runVariant(name, settings, output):
    import numpy as np
    import openmm as mm
    import torch
    from openmm import app

    from openmmflow import BoltzmannGenerator, plots, temperedData
    from openmmflow.analysis import blockPopulation, freeEnergyFromPopulation, torsion
    from openmmflow.data import geometricTemperatures
    from openmmflow.report import writeJson

    torch.set_num_threads(cores := int(os.environ["OMP_NUM_THREADS"]))
    output.mkdir(parents=True, exist_ok=True)
    molecule, timestep = settings["molecule"], settings["variants"][name]["timestep"]
    seed, temperature = molecule["seed"], molecule["temperature"]
    pdb = app.PDBFile(str(FOLDER / molecule["pdb"]))
    system = app.ForceField(*molecule["forcefield"]).createSystem(
        pdb.topology, nonbondedMethod=app.NoCutoff, constraints={"None": None, "HBonds": app.HBonds}[name])

    data = temperedData(
        system, pdb.positions,
        geometricTemperatures(temperature, settings["data"]["highestTemperature"], settings["data"]["temperatures"]),
        framesPerTemperature=settings["data"]["frames"], stepsPerFrame=round(settings["data"]["interval"] / timestep),
        stepSize=timestep, seed=seed, processes=cores, file=output / "tempering.npz")

    generator = BoltzmannGenerator.fromTopology(pdb.topology, system, pdb.positions, temperature, data=data, seed=seed,
                                                numContexts=cores, **settings["flow"])
    minutes = data.cpuMinutes
    for stage, train in (("training", partial(generator.fit, data)), ("refining", generator.refine)):
        history = train(seed=seed, file=output / f"{stage}.checkpoint", **settings[stage])
        plots.lossCurve(output / f"{stage}.png", history.iterations, history.losses,
                        (history.validationIterations, history.validation))
        minutes += history.cpuMinutes
    generator.save(output / "flow.safetensors")

    left, right = generator.state(PHI, -180, 0), generator.state(PHI, 0, 180)
    samples = generator.evaluate(settings["samples"], {"phi>0": right}, seed=seed)
    jumps, statistics = runDynamics(generator, pdb, timestep, settings, jumping=True)
    plain, _ = runDynamics(generator, pdb, timestep, settings, jumping=False)

    populations = {"jumps": blockPopulation(right.contains(jumps), numBlocks=20),
                   "reweighting": samples.populations["phi>0"]}
    freeEnergies = {key: freeEnergyFromPopulation(value) for key, value in populations.items() if 0 < value.value < 1}
    refused = {}
    try:
        freeEnergies["BAR"] = generator.freeEnergy(left, right, jumps, evaluation=samples)
    except (ValueError, mm.OpenMMException) as error:  # no overlap is a result, and the others are worth having
        refused["BAR"] = str(error)
    crossings = {key: int(np.count_nonzero(np.diff(right.contains(frames))))
                 for key, frames in (("jumps", jumps), ("plain", plain))}
    writeJson(output / "result.json", {
        "flow": samples.asDict(), "acceptance in dynamics": statistics.getAcceptanceRate(),
        "rejected as not finite": statistics.nonFinite, "crossings": crossings, "CPU minutes before dynamics": minutes,
        "P(phi>0)": {key: vars(value) for key, value in populations.items()},
        "F(phi>0)-F(phi<0) in kT": {key: value.asDict() for key, value in freeEnergies.items()}, "refused": refused})

    panels = {"plain dynamics": (plain, None), "with jumps": (jumps, None),
              "flow, reweighted": (samples.positions, samples.logWeights)}
    angles = {title: (torsion(x, PHI), torsion(x, PSI), weights) for title, (x, weights) in panels.items()}
    plots.ramachandran(output / "ramachandran.png", angles)
    plots.freeEnergyProfiles(output / "profile.png", {title: (a[0], a[2]) for title, a in angles.items()})
    plots.logWeightHistogram(output / "log-weights.png", samples.logWeights)


def runDynamics(generator, pdb, timestep, settings, jumping):
    """@return frames, nm [frames, atoms, 3], and the statistics of the jumps"""
    import numpy as np
    import openmm as mm
    from openmm import app
    from tqdm import trange

    from openmmflow.data import fastestPlatform

    dynamics, seed = settings["dynamics"], settings["molecule"]["seed"]
    interval = round(dynamics["interval"] / timestep)
    integrator = generator.integrator(settings["molecule"]["friction"], timestep, trialsPerJump=dynamics["trials"],
                                      jumpInterval=interval if jumping else 0, seed=seed)
    integrator.setRandomNumberSeed(seed)
    platform = fastestPlatform(generator.system, pdb.positions)
    simulation = app.Simulation(pdb.topology, generator.system, integrator, mm.Platform.getPlatformByName(platform))
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(generator.temperature, seed)
    simulation.step(100 * interval)
    integrator.resetJumpStatistics()
    frames = np.empty((dynamics["frames"], len(generator.atoms), 3))
    for frame in trange(len(frames), desc="jumps" if jumping else "plain dynamics", unit="frame"):
        simulation.step(interval)
        frames[frame] = simulation.context.getState(getPositions=True).getPositions(asNumpy=True)._value
    return frames, integrator.getJumpStatistics()


def readReference(settings):
    """The stored results of reference/umbrella.py; nothing for another force field or temperature."""
    stored = json.loads((FOLDER / "reference" / "alanine-dipeptide.json").read_text())
    molecule = settings["molecule"]
    return {name: stored[name] for name in settings["variants"] if name in stored
            and stored[name]["settings"]["forcefield"] == molecule["forcefield"]
            and stored[name]["settings"]["temperature"] == molecule["temperature"]}


def compare(results, reference):
    """The lines of the summary."""
    width = 28
    lines = [f"{'':38}" + "".join(f"{name + ':':>{width}}" for name in results)]

    def add(label, cells):
        lines.append(f"{label:38}" + "".join(f"{cell:>{width}}" for cell in cells))

    add("effective samples of the flow, ESS/N", [f"{r['flow']['ESS/N']:.3f}" for r in results.values()])
    add("acceptance of a jump: from samples", [f"{r['flow']['acceptance']['value']:.3f}" for r in results.values()])
    add("                      in dynamics", [f"{r['acceptance in dynamics']:.3f}" for r in results.values()])
    add("crossings of phi = 0: with jumps", [f"{r['crossings']['jumps']}" for r in results.values()])
    add("                      plain dynamics", [f"{r['crossings']['plain']}" for r in results.values()])
    for title, key, digits in (("P(phi>0)", "P(phi>0)", 5),
                               ("F(phi>0) - F(phi<0), kT", "F(phi>0)-F(phi<0) in kT", 2)):
        lines.append(title)
        for way in ("jumps", "reweighting", "BAR"):
            cells = []
            for name, result in results.items():
                found = result[key].get(way)
                text = f"{found['value']:.{digits}f} ± {found['standardError']:.{digits}f}" if found else "-"
                cells.append(text + deviation(found, reference.get(name, {}).get(key)))
            if any(cell != "-" for cell in cells):
                add(f"    {way}", cells)
        stored = [reference.get(name, {}).get(key) for name in results]
        add("    reference (umbrella sampling)",
            [f"{r['mean']:.{digits}f} ± {r['standardError']:.{digits}f}       " if r else "-" for r in stored])
    lines.append("In brackets: the difference from the reference in standard errors of the difference.")
    return lines + [f"{name}, no estimate by {way}: {reason}" for name, result in results.items()
                    for way, reason in result["refused"].items()]


def deviation(found, reference):
    if not found or not reference:
        return ""
    difference = found["value"] - reference["mean"]
    return f" ({difference / (found['standardError']**2 + reference['standardError']**2)**0.5:+4.1f})"


if __name__ == "__main__":
    sys.exit(main())
