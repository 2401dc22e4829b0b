# SPDX-License-Identifier: MIT
"""How good a flow of alanine dipeptide gets with the minutes of training: ESS/N and acceptance against time.

    python training_curve.py                         # bonds to hydrogen rigid; --constraints None for all bonds free
    python training_curve.py --data frames.npz       # frames that an earlier run has left there

Frames come from parallel tempering and are not part of the training's time, nor are the evaluations. The last line is of 100,000 new
samples. ESS/N is Kish's, of unclipped weights; acceptance is that of independence jumps in equilibrium.
"""
import argparse
import json
import os
import time
from pathlib import Path

import torch
from openmm import app
from openmmflow import BoltzmannGenerator, TrainingData, temperedData
from openmmflow.data import geometricTemperatures

FOLDER = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraints", choices=["None", "HBonds"], default="HBonds")
    parser.add_argument("--data", type=Path, default=Path("frames.npz"))
    parser.add_argument("--frames", type=int, default=30000, help="at each of 6 temperatures")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128])
    parser.add_argument("--bins", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--stages", type=json.loads, default=[[2000, 1e-3, 0], [6000, 5e-4, "own"]],
                        help='JSON: [[iterations, learning rate, weight of the energy, or "own" for own samples], ...]')
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--evaluations", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path("training_curve"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    pdb = app.PDBFile(str(FOLDER / "alanine-dipeptide.pdb"))
    rigid = {"None": None, "HBonds": app.HBonds}[options.constraints]
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=rigid)
    if options.data.exists():
        data = TrainingData.load(options.data)
    else:
        data = temperedData(system, pdb.positions, geometricTemperatures(300, 600, 6), seed=5, processes=options.threads,
                            framesPerTemperature=options.frames, stepsPerFrame=200 if rigid else 400)
        data.save(options.data)
    print(f"{len(data.logWeights)} frames, {data.getEffectiveSize():.0f} effective; {data.cpuMinutes:.1f} minutes of one core")

    generator = BoltzmannGenerator.fromTopology(pdb.topology, system, pdb.positions, 300, data=data, seed=3,
                                                layers=options.layers, hiddenSizes=options.hidden, bins=options.bins,
                                                numContexts=options.threads)
    total = sum(stage[0] for stage in options.stages)
    table, start, done = [], time.monotonic(), 0
    print(f"{'iterations':>10} {'minutes':>8} {'held out':>9} {'ESS/N':>6} {'acceptance':>10} {'energies':>10}")

    def show(history, samples=20_000):
        nonlocal start
        pause = time.monotonic()
        iteration = done + history.iterations[-1]
        result = generator.evaluate(samples, seed=9, progress=False)
        held = history.validation[-1] if history.validation else float("nan")
        table.append({"iterations": iteration, "minutes": (pause - start) / 60, "held out": held,
                      "ESS/N": result.effectiveSize / samples, "acceptance": result.acceptance.value,
                      "samples": samples})
        print("{:10d} {:8.2f} {:9.3f} {:6.3f} {:10.3f} {:10d}".format(
            *list(table[-1].values())[:5], generator.potential.getCounts().evaluations), flush=True)
        start += time.monotonic() - pause

    def callback(history):
        iteration = done + history.iterations[-1]
        if iteration * options.evaluations // total > len(table):
            show(history)

    for iterations, rate, weight in options.stages:
        common = {"iterations": iterations, "batchSize": options.batch, "learningRate": rate, "seed": 1,
                  "numThreads": options.threads, "progress": False, "callback": callback}
        history = generator.refine(**common) if weight == "own" else generator.fit(data, energyWeight=weight, **common)
        done += iterations
    done -= iterations
    show(history, 100_000)
    options.output.mkdir(parents=True, exist_ok=True)
    generator.save(options.output / f"{options.constraints}.flow")
    (options.output / f"{options.constraints}.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
