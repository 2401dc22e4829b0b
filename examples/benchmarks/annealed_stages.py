# SPDX-License-Identifier: MIT
"""What annealed stages make of a bad flow: acceptance of jumps of alanine dipeptide, and accepted jumps per CPU second.

    python annealed_stages.py                             # a flow trained for another temperature, 1.5 times too high
    python annealed_stages.py --train-temperature 1000    # 3.3 times too high
    python annealed_stages.py --protocol density          # by way of the flow's own density

Each jump scales the molecule's energy until it is that of the flow's temperature (heatingProtocol), or turns it into -kT log q
(annealedProtocol), and back, with the flow's jump in the middle. Beside it: the same flow's bare jumps in the same simulation,
one and several trials at a time, and what openmmflow.tuning predicts from the first, third and last protocol. All on the Reference
platform, in one thread.
"""
import argparse
import json
from pathlib import Path

import openmm as mm
import torch
from openmm import app
from openmmflow import BoltzmannGenerator, StageDynamics, temperedData, tuning
from openmmflow.alchemy import annealedProtocol, annealedSystem, heatingProtocol
from openmmflow.data import geometricTemperatures

FOLDER = Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-temperature", type=float, default=450, help="K; jumps are at 300 K")
    parser.add_argument("--iterations", type=int, default=400, help="of training")
    parser.add_argument("--stages", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=10, help="at each stage")
    parser.add_argument("--timestep", type=float, default=0.0005, help="ps, of the stages")
    parser.add_argument("--protocol", choices=["heating", "density"], default="heating")
    parser.add_argument("--dynamics", choices=[kind.name for kind in StageDynamics], default="Metropolised")
    parser.add_argument("--jumps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("annealed_stages.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    pdb = app.PDBFile(str(FOLDER / "alanine-dipeptide.pdb"))
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff)
    data = temperedData(system, pdb.positions, geometricTemperatures(options.train_temperature,
                                                                         max(1000, 1.5 * options.train_temperature), 6),
                        framesPerTemperature=2000, stepsPerFrame=100, seed=1)
    trained = BoltzmannGenerator.fromTopology(pdb.topology, system, pdb.positions, options.train_temperature, data=data, seed=2)
    trained.fit(data, iterations=options.iterations, seed=3)
    trained.flow.setTemperature(0)  # of no temperature: used as it is
    generator = BoltzmannGenerator(trained.flow, system, pdb.positions, 300)
    judged = generator.evaluate(20_000, seed=4)
    print(f"The flow: ESS/N {judged.effectiveSize / 20_000:.4f}, acceptance {judged.acceptance}")

    simulation = makeSimulation(generator, pdb)
    # Many more bare jumps, as they are cheap and seldom accepted.
    bare = tuning.runBare(simulation, 100 * options.jumps, 1)
    pilots = [tuning.runPilot(simulation, annealedProtocol(K, options.steps, options.timestep,
                                                           stageDynamics=StageDynamics.Metropolised), options.jumps)
              for K in options.stages]
    tuned = tuning.tune(pilots[::max(1, (len(pilots) - 1) // 2)])
    rows = [{"stages": 0, "acceptance": bare.acceptance.value, "error": bare.acceptance.standardError, "seconds": bare.seconds}]
    rows += [{"stages": K, "acceptance": p.middle.value * p.acceptance.value, "error": p.middle.value * p.acceptance.standardError,
              "seconds": p.seconds, "predicted": tuned.predict(K, options.steps).acceptance}
             for K, p in zip(options.stages, pilots)]
    options.output.write_text(json.dumps(rows, indent=1) + "\n")
    # Of none accepted, 3 at most would be in 95 of 100 such runs.
    least = max(bare.acceptance.value, 3 / (100 * options.jumps))
    mark = " " if bare.acceptance.value > 0 else ">"
    print(f"{'stages':>6} {'acceptance':>19} {'over bare':>10} {'predicted':>9} {'ms per jump':>11} {'accepted / s':>12} {'over bare':>10}")
    for row in rows:
        predicted = f"{row['predicted']:9.4f}" if "predicted" in row else " " * 9
        rate = row["acceptance"] / row["seconds"]
        print(f"{row['stages']:6d} {row['acceptance']:9.5f} ± {row['error']:.5f} {mark}{row['acceptance'] / least:9.2f} {predicted} "
              f"{1e3 * row['seconds']:11.2f} {rate:12.3f} {mark}{rate / (least / bare.seconds):9.2f}")


def makeSimulation(generator, pdb):
    integrator = generator.integrator(1, 0.001, jumpInterval=0, seed=5)
    integrator.setRandomNumberSeed(6)
    system = annealedSystem(generator.system, generator.flow, generator.temperature)
    simulation = app.Simulation(pdb.topology, system, integrator, mm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(generator.temperature, 7)
    simulation.step(2000)
    return simulation


if __name__ == "__main__":
    main()
