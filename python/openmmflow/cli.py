# SPDX-License-Identifier: MIT
"""The command openmm-flow."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm as mm
import torch
import yaml
from openmm import app
from tqdm import tqdm

from . import openmmflow as api
from . import _build, plots
from ._platforms import describePlatforms, platformNames
from .alchemy import (STERIC_FORCE, alchemicalProtocol, alchemicalSystem, annealedProtocol, annealedSystem, findOthers,
                      heatingProtocol, protocolAsDict, protocolFromDict)
from .analysis import State, blockPopulation, bondedCoordinates, findBackboneTorsions, freeEnergyFromPopulation, torsion
from .bridge import freeEnergyBetweenSystems, requireComparable
from .config import UserError, makeParser, parse, readMapping
from .data import TrainingData, fastestPlatform, geometricTemperatures, secondsPerStep, temperedData
from .diagnostics import FEWEST_SAMPLES, Cost
from .generator import BoltzmannGenerator, Evaluation, TrainingHistory, listElements
from .inputs import Molecule, isUnknown, loadFrames, loadMolecule, parseAtoms
from .report import flatten, writeJson, writeReport, writeText
from .reporters import JumpReporter, repairCsv
from .trajectory import repairTrajectory

DESCRIPTIONS = {
    "train": "Make training frames, train a flow of a molecule and judge it.",
    "run": "Run Langevin dynamics that jumps with a flow.",
    "tune": "Find how long annealed jumps should be, from pilot runs.",
    "evaluate": "Judge a flow: effective sample sizes, dropped modes, what is wrong and what to try.",
    "free-energy": "Free energy difference between two regions or two Systems, or of a System, by BAR through a flow.",
    "info": "Show versions and platforms, and what is in a flow file.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0; 2 after an error of the user; 130 after Ctrl-C; 1 after a defect."""
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    try:
        options = parse(makeParser(DESCRIPTIONS), arguments)
        COMMANDS[options.command](options)
        return 0
    except KeyboardInterrupt:
        print("openmm-flow: interrupted; `train`, `run` and `free-energy` go on with --resume", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            raise
        expected = isinstance(error, (UserError, OSError, ValueError, ImportError, mm.OpenMMException))
        message = " ".join(str(error).split()) or type(error).__name__
        if expected:
            print(f"openmm-flow: error: {message}", file=sys.stderr)
        else:
            print(f"openmm-flow: internal error: {type(error).__name__}: {message} (--debug shows where)",
                  file=sys.stderr)
        return 2 if expected else 1


def train(options: argparse.Namespace) -> None:
    checkpoints = [f"refining/{file.name}" for file in (options.output / "refining").glob("*")]
    out = prepareOutput(options, ["data.npz", "tempering.npz", "initial.safetensors", "training.checkpoint",
                                  "refining.checkpoint", *checkpoints, "flow.safetensors"])
    if options.testsystem:
        trainTestSystem(options, out)
        return
    molecule = loadMolecule(options)
    atoms = parseAtoms(options.atoms, molecule)
    data = None if options.anneal_from else makeData(options, molecule, atoms, out)
    generator = makeGenerator(options, molecule, atoms, data, out)
    common: dict[str, Any] = {"seed": options.seed, "progress": not options.quiet}
    histories = [generator.fit(data, iterations=options.iterations, batchSize=options.batch_size,
                               learningRate=options.learning_rate, energyWeight=options.energy_weight,
                               file=out / "training.checkpoint", **common)]
    figures = {"Training": drawLosses(histories[0], out / "loss.png")}
    if options.refine_iterations:
        ladder = geometricTemperatures(options.temperature, options.anneal_from or options.temperature,
                                       options.anneal_temperatures if options.anneal_from else 2)
        histories += generator.anneal(ladder[-2::-1], folder=out / "refining", iterations=options.refine_iterations,
                                      batchSize=options.refine_batch_size, learningRate=options.refine_learning_rate,
                                      **common)
        figures["Training on own samples"] = drawLosses(histories[-1], out / "refining.png")
    generator.save(out / "flow.safetensors")
    summary: dict[str, Any] = {"atoms": len(generator.atoms)}
    if data is not None:
        summary["data"] = {"frames": len(data.logWeights), "effective frames": data.getEffectiveSize(),
                           "energy evaluations": data.steps, "CPU minutes": data.cpuMinutes}
    summary["training"] = {
        "iterations": sum(history.iterations[-1] for history in histories),
        "energy evaluations": sum(history.iterations[-1] * options.refine_batch_size for history in histories[1:])
                              + (options.iterations * options.batch_size if options.energy_weight or data is None else 0),
        "CPU minutes": sum(history.cpuMinutes for history in histories)}
    if histories[0].validation:
        summary["training"]["held-out -log q"] = histories[0].validation[-1]
    if (rise := histories[0].getOverfitting()) > 0.5:
        print(f"openmm-flow: warning: the held-out loss ends {rise:.1f} above its minimum: use more frames or fewer "
              "iterations", file=sys.stderr)
    frames = None if data is None else data.atTemperature()
    judge(options, molecule, generator, out, summary, figures, frames, "train",
          None if data is None else costOfFrames(data))
    finish(out, "train", "Training of a flow", summary, figures)


def trainTestSystem(options: argparse.Namespace, out: Path) -> None:
    """Train on the energy of a system with a known answer, and judge by that."""
    from .analytic import AnalyticGenerator

    generator = AnalyticGenerator(options.testsystem, layers=options.layers, bins=options.bins, hiddenSizes=options.hidden,
                                  spread=options.spread, seed=options.seed)
    initial = out / "initial.safetensors"  # the same untrained flow after an interruption
    if initial.exists():
        generator.flow = api.Flow.load(str(initial))
    generator.flow.save(str(initial))
    common: dict[str, Any] = {"seed": options.seed, "progress": not options.quiet}
    histories = [generator.fit(loss=options.loss, iterations=options.iterations, batchSize=options.batch_size,
                               learningRate=options.learning_rate, stages=options.stages,
                               file=out / "training.checkpoint", **common)]
    figures = {"Training": drawLosses(histories[0], out / "loss.png")}
    if options.refine_iterations:
        histories.append(generator.refine(iterations=options.refine_iterations, batchSize=options.refine_batch_size,
                                          learningRate=options.refine_learning_rate, file=out / "refining.checkpoint",
                                          **common))
        figures["Training on own samples"] = drawLosses(histories[1], out / "refining.png")
    generator.flow.save(str(out / "flow.safetensors"))
    judged, diagnosis = generator.judge(options.samples, options.seed)
    writeJson(out / "train-diagnosis.json", diagnosis.asDict())
    plots.diagnostics(out / "train-diagnosis.png", diagnosis)
    figures["Diagnosis"] = "train-diagnosis.png"
    finish(out, "train", f"Training of a flow of {options.testsystem}", {
        "training": {"iterations": sum(history.iterations[-1] for history in histories),
                     "energy evaluations": generator.energyEvaluations,
                     "CPU minutes": sum(history.cpuMinutes for history in histories)},
        "flow samples": judged} | diagnosis.summarize(), figures)


def makeGenerator(options: argparse.Namespace, molecule: Molecule, atoms: list[int], data: TrainingData | None,
                  out: Path) -> BoltzmannGenerator:
    """The untrained generator, the same one after an interruption."""
    initial, temperature = out / "initial.safetensors", options.anneal_from or options.temperature
    if initial.exists():
        return BoltzmannGenerator(initial, molecule.system, molecule.positions, temperature, platform=options.platform)
    generator = BoltzmannGenerator.fromTopology(
        molecule.topology, molecule.system, molecule.positions, temperature, atoms, data=data, layers=options.layers,
        bins=options.bins, hiddenSizes=options.hidden, seed=options.seed, platform=options.platform)
    generator.save(initial)
    return generator


def makeData(options: argparse.Namespace, molecule: Molecule, atoms: list[int], out: Path) -> TrainingData:
    """The training frames: those that are there, those of a file, or new ones."""
    saved = out / "data.npz"
    if saved.exists():
        data = TrainingData.load(saved)
    elif options.data is None:
        ladder = geometricTemperatures(options.temperature, options.highest_temperature, options.num_temperatures)
        data = temperedData(molecule.system, molecule.positions, ladder, atoms=atoms, stepSize=options.timestep,
                            framesPerTemperature=options.frames_per_temperature, platform=options.platform,
                            stepsPerFrame=options.steps_per_frame, friction=options.friction, seed=options.seed,
                            file=out / "tempering.npz", progress=not options.quiet)
        data.save(saved)
        (out / "tempering.npz").unlink()
    elif options.data.suffix == ".npz":
        data = TrainingData.load(options.data)
    else:
        frames = loadFrames([options.data], molecule, atoms, options.temperature)
        data = TrainingData.fromFrames(frames, options.temperature, atoms)
    if data.atoms != atoms:
        raise UserError("the training frames hold other atoms than those to generate: see --atoms and --data")
    if not np.isclose(data.temperature, options.temperature):
        raise UserError(f"the training frames are for {data.temperature:g} K, but --temperature is "
                        f"{options.temperature:g} K")
    return data


def run(options: argparse.Namespace) -> None:
    names = {"trajectory": f"trajectory.{options.format}", "state": "state.csv", "jumps": "jumps.csv",
             "checkpoint": "run.checkpoint"}
    if options.steps < options.report_interval:
        raise UserError(f"--steps is {options.steps}, but must be at least --report-interval, {options.report_interval}")
    out = prepareOutput(options, list(names.values()))
    molecule = loadMolecule(options)
    generator = loadGenerator(options, molecule)
    protocol = None
    if options.protocol is not None:
        path, protocol = readProtocol(options.protocol)
        molecule.system = STAGED_SYSTEMS[path](molecule.system, generator)
    timestep, integrator = makeIntegrator(options, molecule, generator, options.jump_interval)
    integrator.setAnnealedProtocol(protocol)
    simulation = makeSimulation(options, molecule, integrator)
    checkpoint = out / names["checkpoint"]
    if options.resume and checkpoint.exists():
        simulation.loadCheckpoint(str(checkpoint))
    else:
        startDynamics(options, simulation)
    addReporters(options, simulation, {name: out / file for name, file in names.items()})
    start, first = time.monotonic(), simulation.currentStep
    runSteps(options, simulation, checkpoint)
    summary = summarizeJumps(simulation)
    summary["ns per day"] = (simulation.currentStep - first) * timestep * 86.4 / (time.monotonic() - start)
    del simulation.reporters[:]  # closes their files
    frames = loadFrames([out / names["trajectory"]], molecule, generator.atoms, options.temperature)
    if len(frames) >= 20:
        summary["populations"] = {name: vars(blockPopulation(state.contains(frames)))
                                  for name, state in findStates(options, molecule, generator).items()}
    figures: dict[str, str] = {}
    drawFrames(options, molecule, generator.atoms, out, {"jumps and dynamics": (frames, None)}, "run", figures)
    finish(out, "run", "Dynamics with jumps", summary, figures)


def makeIntegrator(options: argparse.Namespace, molecule: Molecule, generator: BoltzmannGenerator,
                   jumpInterval: int) -> tuple[float, Any]:
    """The time step in ps, and an integrator."""
    timestep = options.timestep or (0.002 if molecule.system.getNumConstraints() else 0.001)
    integrator = generator.integrator(options.friction, timestep, jumpInterval=jumpInterval,
                                      trialsPerJump=options.trials_per_jump, seed=options.seed)
    integrator.setRandomNumberSeed(options.seed % 2**31)
    return timestep, integrator


def summarizeJumps(simulation: app.Simulation) -> dict[str, Any]:
    statistics = simulation.integrator.getJumpStatistics()
    jumps = {"trials": statistics.trials, "accepted": statistics.accepted, "acceptance": statistics.getAcceptanceRate(),
             "non-finite": statistics.nonFinite, "failed": statistics.failed}
    if simulation.integrator.getAnnealedProtocol() is not None:
        jumps |= {"trials in the middle": statistics.middleTrials, "accepted in the middle": statistics.middleAccepted,
                  "steps at stages": statistics.stageSteps, "accepted steps": statistics.stageAccepted}
    return {"steps": simulation.currentStep, "platform": simulation.context.getPlatform().getName(), "jumps": jumps}


def makeSimulation(options: argparse.Namespace, molecule: Molecule, integrator: Any) -> app.Simulation:
    platform = mm.Platform.getPlatformByName(choosePlatform(options, molecule))
    simulation = app.Simulation(molecule.topology, molecule.system, integrator, platform)
    simulation.context.setPositions(molecule.positions)
    return simulation


def startDynamics(options: argparse.Namespace, simulation: app.Simulation) -> None:
    simulation.minimizeEnergy(maxIterations=500)
    seed = [options.seed % 2**31] if options.seed else []  # OpenMM chooses only where none is given
    simulation.context.setVelocitiesToTemperature(options.temperature, *seed)


def choosePlatform(options: argparse.Namespace, molecule: Molecule) -> str:
    """The platform asked for, else CUDA or HIP, else the faster of CPU and Reference.

    Never OpenCL unasked: on a machine without a GPU it runs through PoCL, which is not reliable.
    """
    if options.platform is not None:
        return options.platform
    available = platformNames()
    for name in ("CUDA", "HIP"):
        if name in available:
            return name
    return fastestPlatform(molecule.system, molecule.positions)


def addReporters(options: argparse.Namespace, simulation: app.Simulation, files: dict[str, Path]) -> None:
    """Reporters of a new run, or of one that goes on: then files are first cut back to the checkpoint's step."""
    step, interval = simulation.currentStep, options.report_interval
    append = step > 0
    if append:
        repairTrajectory(files["trajectory"], step // interval)
        for name in ("state", "jumps"):
            with open(files[name], encoding="utf-8") as stream:
                header = stream.readline().strip()
            repairCsv(files[name], header, lastStep=step)
    makeTrajectory = app.DCDReporter if options.format == "dcd" else app.XTCReporter
    simulation.reporters += [
        makeTrajectory(str(files["trajectory"]), interval, append=append, enforcePeriodicBox=False),
        app.StateDataReporter(str(files["state"]), interval, step=True, time=True, potentialEnergy=True,
                              temperature=True, speed=True, append=append),
        JumpReporter(files["jumps"], interval, append=append)]


def runSteps(options: argparse.Namespace, simulation: app.Simulation, checkpoint: Path) -> None:
    """Run to the last step. Ctrl-C ends it after a chunk of half a second and a checkpoint; a second one at once."""
    interrupted = False

    def interrupt(signum: int, frame: Any) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True

    previous = signal.signal(signal.SIGINT, interrupt)
    chunk, saved = 10, simulation.currentStep
    try:
        with tqdm(total=options.steps, initial=simulation.currentStep, desc="dynamics", unit="step",
                  disable=options.quiet) as bar:
            while (left := options.steps - simulation.currentStep) > 0 and not interrupted:
                start = time.monotonic()
                steps = min(chunk, left)
                simulation.step(steps)
                bar.update(steps)
                elapsed = max(time.monotonic() - start, 1e-6)
                chunk = max(1, min(2 * chunk, int(chunk * 0.5 / elapsed)))
                if simulation.currentStep - saved >= options.checkpoint_interval:
                    simulation.saveCheckpoint(str(checkpoint))
                    saved = simulation.currentStep
        simulation.saveCheckpoint(str(checkpoint))
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupted:
        raise KeyboardInterrupt


def _scaledSystem(system: mm.System, generator: BoltzmannGenerator) -> mm.System:
    return annealedSystem(system, generator.flow, generator.temperature)


STAGED_SYSTEMS: dict[str, Callable[[mm.System, BoltzmannGenerator], mm.System]] = {
    "density": _scaledSystem, "heating": _scaledSystem,
    "alchemical": lambda system, generator: alchemicalSystem(system, generator.atoms)}


def readProtocol(file: Path) -> tuple[str, Any]:
    """What `tune` wrote: the path, and the AnnealedProtocol along it."""
    values = readMapping(file)
    path = values.pop("path", None)
    if path not in STAGED_SYSTEMS:
        raise UserError(f"{file}: path is {path!r}, but must be {' or '.join(STAGED_SYSTEMS)}")
    try:
        return path, protocolFromDict(values)
    except (TypeError, ValueError, mm.OpenMMException) as error:
        raise UserError(f"{file}: {error}") from None


def tune(options: argparse.Namespace) -> None:
    """Bare jumps, pilots of annealed ones, and the protocol that they propose."""
    from . import tuning

    out = prepareOutput(options, ["protocol.yaml", "tune.json"])
    molecule = loadMolecule(options)
    generator = loadGenerator(options, molecule)
    path = options.path or ("alchemical" if findOthers(molecule.system, generator.atoms) else "density")
    molecule.system = STAGED_SYSTEMS[path](molecule.system, generator)
    timestep, integrator = makeIntegrator(options, molecule, generator, 0)
    simulation = makeSimulation(options, molecule, integrator)
    startDynamics(options, simulation)
    simulation.step(10 * options.pilot_interval)
    bare = tuning.runBare(simulation, options.pilot_jumps, options.pilot_interval, not options.quiet)
    pilots: dict[str, tuning.Pilot] = {}
    details: dict[str, Any] = {"bare jumps": bare.asDict(), "pilots": {}}
    for text in options.pilots:
        protocol = makeStages(options, molecule.system, path, *map(int, text.split("x")), timestep)
        pilots[text] = tuning.runPilot(simulation, protocol, options.pilot_jumps, options.pilot_interval, not options.quiet)
        details["pilots"][text] = pilots[text].asDict()
        writeJson(out / "tune.json", details)  # they stay whatever comes of the others
    found = tuning.tune(list(pilots.values()))
    best = found.best
    finest = max(pilots.values(), key=lambda pilot: pilot.protocol.getNumStages())
    protocol = tuning.respace(finest, best.numStages, best.stepsPerStage)
    writeText(out / "protocol.yaml", yaml.safe_dump({"path": path} | protocolAsDict(protocol), sort_keys=False))
    plots.tuning(out / "tune.png", found, bare)
    details["proposed"] = {"stages": best.numStages, "steps per stage": best.stepsPerStage, "acceptance": best.acceptance,
                           "seconds per jump": best.seconds, "accepted per second": best.rate}
    if remarks := found.getRemarks(bare):
        details["remarks"] = "; ".join(remarks)
    details["protocol"] = str(out / "protocol.yaml")
    summary = details | {"pilots": {text: {key: value for key, value in pilot.items() if key != "work of the switches"}
                                    for text, pilot in details["pilots"].items()}}
    finish(out, "tune", "Length of annealed jumps", summary, {"Acceptance and accepted jumps per second": "tune.png"}, details)


def makeStages(options: argparse.Namespace, system: mm.System, path: str, stages: int, steps: int, timestep: float) -> Any:
    """A protocol of equal steps; the stages of the alchemical path are shared between electrostatics and sterics."""
    settings = {"stageDynamics": api.StageDynamics[options.stage_dynamics], "friction": options.friction}
    timestep = options.stage_timestep or timestep
    if path == "density":
        return annealedProtocol(stages, steps, timestep, **settings)
    if path == "heating":
        return heatingProtocol(stages, steps, timestep, options.heating_factor, **settings)
    fade = options.last_sterics < 1 and any(force.getName() == STERIC_FORCE for force in system.getForces())
    first = max(1, stages // 2) if fade else stages
    return alchemicalProtocol(first, max(1, stages - first) if fade else 0, steps, timestep,
                              lastElectrostatics=options.last_electrostatics, lastSterics=options.last_sterics if fade else 0.0,
                              **settings)


def evaluate(options: argparse.Namespace) -> None:
    out = prepareOutput(options, ["evaluate.json"])
    molecule = loadMolecule(options)
    generator = loadGenerator(options, molecule)
    frames = loadFrames(options.frames, molecule, generator.atoms, options.temperature)[options.discard:] if options.frames else None
    if frames is not None and len(frames) < FEWEST_SAMPLES:
        raise UserError(f"--frames holds {len(frames)} frames, but must hold at least {FEWEST_SAMPLES} (see --discard)")
    summary: dict[str, Any] = {"flow": str(options.flow)}
    figures: dict[str, str] = {}
    costs = findCosts(options, molecule)
    judge(options, molecule, generator, out, summary, figures, frames, "evaluate", **costs)
    finish(out, "evaluate", "Judgement of a flow", summary, figures)


def findCosts(options: argparse.Namespace, molecule: Molecule) -> dict[str, Cost]:
    """What plain dynamics costs: from one of the frames to the next, and for an independent sample, where the user says."""
    steps = {"frameCost": options.frame_steps, "dynamicsCost": options.independent_steps}
    if any(steps.values()):
        seconds = secondsPerStep(molecule.system, molecule.positions, choosePlatform(options, molecule))
        return {name: Cost(count, count * seconds) for name, count in steps.items() if count}
    if len(options.frames) == 1 and options.frames[0].suffix == ".npz":
        return {"frameCost": costOfFrames(TrainingData.load(options.frames[0]))}
    return {}


def costOfFrames(data: TrainingData) -> Cost:
    """Of each frame at the temperature itself, by the tempering that made them all."""
    count = len(data.atTemperature())
    return Cost(data.steps / count, 60 * data.cpuMinutes / count) if count and data.steps else Cost()


def judge(options: argparse.Namespace, molecule: Molecule, generator: BoltzmannGenerator, out: Path,
          summary: dict[str, Any], figures: dict[str, str], frames: np.ndarray | None, name: str,
          frameCost: Cost | None = None, dynamicsCost: Cost | None = None) -> None:
    """Evaluate a flow, say what is wrong with it, fill in the summary and draw the figures."""
    states = findStates(options, molecule, generator)
    evaluation = generator.evaluate(options.samples, states, seed=options.seed, progress=not options.quiet)
    summary["flow samples"] = evaluation.asDict()
    kept = None
    if frames is not None and len(frames) >= FEWEST_SAMPLES:
        stride = max(1, len(frames) // 10_000)
        kept = frames[::stride]
        if frameCost is not None:
            frameCost = frameCost * stride
    diagnosis = generator.diagnose(evaluation, kept, coordinates=nameCoordinates(options, molecule, generator.atoms),
                                   frameCost=frameCost, dynamicsCost=dynamicsCost)
    summary |= diagnosis.summarize()
    writeJson(out / f"{name}-diagnosis.json", diagnosis.asDict())
    plots.diagnostics(out / f"{name}-diagnosis.png", diagnosis)
    figures["Diagnosis"] = f"{name}-diagnosis.png"
    panels = {"flow": (evaluation.positions, None), "flow, reweighted": (evaluation.positions, evaluation.logWeights)}
    if frames is not None and len(frames):
        panels["target frames"] = (frames, None)
    drawFrames(options, molecule, generator.atoms, out, panels, name, figures)


def freeEnergy(options: argparse.Namespace) -> None:
    """Of two regions, of two Systems (--systems), or of the System itself (--absolute)."""
    if options.systems:
        if options.absolute or options.region:
            raise UserError("give --systems, --absolute or --region")
        betweenSystems(options)
        return
    out = prepareOutput(options, ["free-energy.json"])
    if not options.frames:
        raise UserError("give --frames: frames of the target that the flow was not trained on, such as the trajectory of `openmm-flow run`")
    molecule = loadMolecule(options)
    generator = loadGenerator(options, molecule)
    states = findStates(options, molecule, generator)
    if not options.absolute and len(states) != 2:
        raise UserError(f"there are {len(states)} regions, but must be two: --region A=TORSION:LOW:HIGH "
                        "B=TORSION:LOW:HIGH")
    frames = loadFrames(options.frames, molecule, generator.atoms, options.temperature)[options.discard:]
    evaluation = generator.evaluate(options.samples, states, seed=options.seed, progress=not options.quiet)
    summary: dict[str, Any] = {"flow samples": evaluation.asDict()}
    if options.absolute:
        summary = {"F = -ln Z in kT by BAR": generator.absoluteFreeEnergy(frames, evaluation=evaluation).asDict()} | summary
    else:
        summary = betweenRegions(generator, states, frames, evaluation) | summary
    figures: dict[str, str] = {}
    drawFrames(options, molecule, generator.atoms, out, {"target frames": (frames, None), "flow, reweighted": (
        evaluation.positions, evaluation.logWeights)}, "free-energy", figures)
    finish(out, "free-energy", "Free energy", summary, figures)


def betweenRegions(generator: BoltzmannGenerator, states: dict[str, State], frames: np.ndarray,
                   evaluation: Evaluation) -> dict[str, Any]:
    (nameA, stateA), (nameB, stateB) = states.items()
    result = generator.freeEnergy(stateA, stateB, frames, evaluation=evaluation)
    summary: dict[str, Any] = {f"F({nameB}) - F({nameA}) in kT by BAR": result.asDict()}
    if np.all(stateA.contains(evaluation.positions) ^ stateB.contains(evaluation.positions)):
        reweighted = freeEnergyFromPopulation(evaluation.populations[nameB])
        summary[f"F({nameB}) - F({nameA}) in kT by reweighting"] = vars(reweighted)
    return summary


def betweenSystems(options: argparse.Namespace) -> None:
    """A map from one System to the other, on frames that are given or made."""
    files = [f"{side}/{name}" for side in "AB" for name in ("data.npz", "tempering.npz")]
    out = prepareOutput(options, ["free-energy.json", *files])
    if len(options.systems) != 2:
        raise UserError(f"there are {len(options.systems)} --systems, but must be two")
    if options.frames and len(options.frames) != 2:
        raise UserError(f"there are {len(options.frames)} files of --frames, but must be two: one for each of --systems")
    key, kind = ("solvent", str) if options.sequence else ("system", Path)
    molecules = [loadMolecule(argparse.Namespace(**vars(options) | {key: kind(name)})) for name in options.systems]
    requireComparable(*(molecule.system for molecule in molecules))
    atoms = parseAtoms(options.atoms, molecules[0])
    frames, summary = [], {}
    for number, (side, molecule) in enumerate(zip("AB", molecules)):
        if options.frames:
            frames.append(loadFrames([options.frames[number]], molecule, atoms, options.temperature)[options.discard:])
            continue
        (out / side).mkdir(exist_ok=True)
        data = makeData(argparse.Namespace(**vars(options) | {"data": None}), molecule, atoms, out / side)
        frames.append(data.atTemperature())
        summary[f"frames of {side}"] = {"frames": len(frames[-1]), "energy evaluations": data.steps, "CPU minutes": data.cpuMinutes}
    bonds = [(bond[0].index, bond[1].index) for bond in molecules[0].topology.bonds() if {bond[0].index, bond[1].index} <= set(atoms)]
    result = freeEnergyBetweenSystems(
        molecules[0].system, molecules[1].system, *frames, options.temperature, positions=molecules[0].positions, atoms=atoms,
        iterations=options.map_iterations, layers=options.map_layers, hiddenSizes=options.map_hidden, stages=options.work_stages,
        extraBonds=bonds, seed=options.seed, platform=options.platform, progress=not options.quiet)
    summary = {f"F({options.systems[1]}) - F({options.systems[0]}) in kT by BAR": result.asDict()} | summary
    figures = {f"Training of map {number}": drawLosses(history, out / f"loss{number}.png")
               for number, history in enumerate(result.training, start=1)}
    summary["training"] = {"works both ways": [min(history.validation) for history in result.training],
                           "CPU minutes": sum(history.cpuMinutes for history in result.training)}
    drawFrames(options, molecules[0], atoms, out, {name: (x, None) for name, x in zip(options.systems, frames)}, "free-energy", figures)
    finish(out, "free-energy", "Free energy difference of two Systems", summary, figures)


def info(options: argparse.Namespace) -> None:
    print(f"openmmflow {_build.version}, OpenMM {mm.__version__}, torch {torch.__version__}")
    print(f"platforms: {', '.join(platformNames())}")
    for failure in mm.Platform.getPluginLoadFailures():
        print(f"plugin not loaded: {' '.join(failure.split())}")
    for name, description in describePlatforms().items():
        print(f"{name}: {description}")
    if options.flow is None:
        return
    flow = api.Flow.load(str(options.flow))
    parameters = sum(tensor.numel() for tensor in dict(flow.getParameters()).values())
    temperature = f"{flow.getTemperature():g} K" if flow.getTemperature() else "none"
    print(f"{options.flow}: {flow.getLatentSize()} latent variables -> {flow.getSize()} coordinates, "
          f"{parameters:,} parameters, {len(flow.getAtoms())} atoms, temperature {temperature}")
    for key, value in dict(flow.getMetadata()).items():
        print(f"  {key}: {value}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train, "run": run, "tune": tune, "evaluate": evaluate, "free-energy": freeEnergy, "info": info}


def prepareOutput(options: argparse.Namespace, files: list[str]) -> Path:
    """The output folder, made if need be. Results that are already there are kept unless the user says otherwise."""
    out = options.output
    out.mkdir(parents=True, exist_ok=True)
    present = [out / name for name in files if (out / name).exists()]
    if options.overwrite:
        if getattr(options, "resume", False):
            raise UserError("give --resume or --overwrite, not both")
        for file in present:
            file.unlink()
    elif present and not getattr(options, "resume", False):
        ways = "--resume, --overwrite" if hasattr(options, "resume") else "--overwrite"
        raise UserError(f"{present[0]} exists: give {ways} or another --output")
    return out


def loadGenerator(options: argparse.Namespace, molecule: Molecule) -> BoltzmannGenerator:
    options.flow = options.flow or options.output / "flow.safetensors"
    if not options.flow.exists():
        raise UserError(f"{options.flow} does not exist: make it with `openmm-flow train`, or give --flow")
    generator = BoltzmannGenerator(options.flow, molecule.system, molecule.positions, options.temperature,
                                   platform=options.platform)
    trained = generator.flow.getTemperature()
    if trained and not np.isclose(trained, options.temperature):
        raise UserError(f"{options.flow} was trained for {trained:g} K, but --temperature is {options.temperature:g} K")
    made, here = dict(generator.flow.getMetadata()).get("elements"), listElements(molecule.topology, generator.atoms)
    if made not in (None, here) and not isUnknown(molecule.topology):
        raise UserError(f"{options.flow} was made for the atoms {made}, but they are {here}: another molecule, or another order")
    return generator


def findTorsions(options: argparse.Namespace, molecule: Molecule) -> dict[str, list[int]]:
    """Torsions by name: those of the backbone (phi, or phi1, phi2, ...) and those of --torsion."""
    torsions = {}
    for kind, found in findBackboneTorsions(molecule.topology).items():
        for index, atoms in enumerate(found, start=1):
            torsions[kind if len(found) == 1 else f"{kind}{index}"] = atoms
    for text in options.torsion:
        name, _, numbers = text.partition("=")
        try:
            atoms = [int(number) for number in numbers.split("-")]
        except ValueError:
            atoms = []
        if not name or len(set(atoms)) != 4 or max(atoms) >= molecule.system.getNumParticles():
            raise UserError(f"--torsion is {text!r}, but must be NAME=i-j-k-l with four atoms of the system")
        torsions[name] = atoms
    return torsions


def findStates(options: argparse.Namespace, molecule: Molecule, generator: BoltzmannGenerator) -> dict[str, State]:
    """The regions asked for; the two halves of phi by default, where there is one phi."""
    torsions = findTorsions(options, molecule)
    regions = options.region
    if not regions and set(torsions.get("phi", [-1])) <= set(generator.atoms):
        regions = ["phi<0=phi:-180:0", "phi>0=phi:0:180"]
    states = {}
    for text in regions:
        name, _, rest = text.rpartition("=")
        parts = rest.split(":")
        try:
            label, low, high = parts[0], float(parts[1]), float(parts[2])
            if not name or len(parts) != 3 or low == high:
                raise ValueError
        except (ValueError, IndexError):
            raise UserError(f"--region is {text!r}, but must be NAME=TORSION:LOW:HIGH in degrees") from None
        if label not in torsions:
            known = ", ".join(torsions) or "none"
            raise UserError(f"--region {text!r}: there is no torsion {label}: known are {known}")
        states[name] = generator.state(torsions[label], low, high)
    return states


def nameCoordinates(options: argparse.Namespace, molecule: Molecule, atoms: list[int]) -> dict[str, tuple[int, ...]]:
    """Bonds, angles and torsions of the atoms as columns of the frames; torsions that have a name of their own, with it."""
    found = bondedCoordinates(molecule.topology, atoms)
    named = {name: tuple(atoms.index(i) for i in indices) for name, indices in findTorsions(options, molecule).items()
             if set(indices) <= set(atoms)}
    axes = [set(columns[1:3]) for columns in named.values()]
    return named | {name: columns for name, columns in found.items() if len(columns) < 4 or set(columns[1:3]) not in axes}


def drawFrames(options: argparse.Namespace, molecule: Molecule, atoms: list[int], out: Path,
               panels: dict[str, tuple[np.ndarray, np.ndarray | None]], name: str, figures: dict[str, str]) -> None:
    """Ramachandran plot and free-energy profile of the first two torsions whose atoms the frames hold."""
    torsions = {label: [atoms.index(i) for i in indices] for label, indices in findTorsions(options, molecule).items()
                if set(indices) <= set(atoms)}
    first = [label for label in torsions if label.startswith("phi")][:1] + \
            [label for label in torsions if label.startswith("psi")][:1]
    labels = (first if len(first) == 2 else list(torsions))[:2]
    if not labels:
        return
    angles = {title: [torsion(frames, torsions[label]) for label in labels] for title, (frames, _) in panels.items()}
    weights = {title: logWeights for title, (_, logWeights) in panels.items()}
    plots.freeEnergyProfiles(out / f"{name}-profile.png", {t: (a[0], weights[t]) for t, a in angles.items()},
                             label=labels[0])
    figures["Free energy profile"] = f"{name}-profile.png"
    if len(labels) == 2:
        plots.ramachandran(out / f"{name}-ramachandran.png", {t: (*a, weights[t]) for t, a in angles.items()},
                           labels=labels)
        figures["Ramachandran plot"] = f"{name}-ramachandran.png"


def drawLosses(history: TrainingHistory, file: Path) -> str:
    plots.lossCurve(file, history.iterations, history.losses, (history.validationIterations, history.validation))
    return file.name


def finish(out: Path, name: str, title: str, summary: dict[str, Any], figures: dict[str, str],
           details: dict[str, Any] | None = None) -> None:
    """Write the summary and the report, and print the summary. details: for the JSON file, where it holds more."""
    writeJson(out / f"{name}.json", details or summary)
    writeReport(out / f"{name}.html", title, summary, figures)
    for key, value in flatten(summary).items():
        print(f"{key}: {value}")
    print(f"report: {out / f'{name}.html'}")


if __name__ == "__main__":
    sys.exit(main())
