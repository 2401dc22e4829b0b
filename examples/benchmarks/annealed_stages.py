# SPDX-License-Identifier: MIT
"""What annealed stages make of a bad flow: acceptance of jumps of alanine dipeptide, and accepted jumps per CPU second.

    python annealed_stages.py                             # a flow trained for another temperature, twice too high
    python annealed_stages.py --train-temperature 1000    # 3.3 times too high
    python annealed_stages.py --protocol density          # by way of the flow's own density
    python annealed_stages.py --train-temperature 300 --iterations 300 0 --heating-factor 1.5   # trained for less than a minute

Each jump scales the molecule's energy until it is that of a temperature that the flow fits (heatingProtocol), or turns it into -kT log q
(annealedProtocol), and back, with the flow's jump in the middle. Beside it: the same flow's bare jumps in the same simulation,
one and several trials at a time, and what openmmflow.tuning predicts from the first, third and last protocol. All on the Reference
platform, in one thread.
"""
import argparse
import json
import time
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
    parser.add_argument("--train-temperature", type=float, default=600, help="K; jumps are at 300 K")
    parser.add_argument("--iterations", type=int, nargs=2, default=[1200, 300], help="of training on frames, and on the flow's samples")
    parser.add_argument("--stages", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--steps", type=int, default=5, help="at each stage")
    parser.add_argument("--timestep", type=float, default=0.001, help="ps, of the stages")
    parser.add_argument("--protocol", choices=["heating", "density"], default="heating")
    parser.add_argument("--heating-factor", type=float, help="of the temperature at the last stage (default: the flow's over 300 K)")
    parser.add_argument("--dynamics", choices=[kind.name for kind in StageDynamics], default="Langevin")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 16], help="of a jump, bare or in the middle; several are tried")
    parser.add_argument("--jumps", type=int, default=600)
    parser.add_argument("--output", type=Path, default=Path("annealed_stages.json"))
    options = parser.parse_args()
    options.heating_factor = options.heating_factor or options.train_temperature / 300
    torch.set_num_threads(1)

    pdb = app.PDBFile(str(FOLDER / "alanine-dipeptide.pdb"))
    system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff)
    trained = trainFlow(system, pdb, options)
    generator = BoltzmannGenerator(trained.flow, system, pdb.positions, 300)
    for name, judge in ((f"{trained.temperature:.0f} K", trained), ("300 K", generator)):
        judged = judge.evaluate(20_000, seed=5)
        print(f"The flow at {name}: ESS/N {judged.effectiveSize / 20_000:.4f}, acceptance {judged.acceptance}", flush=True)
    trained.flow.setTemperature(0)  # of no temperature: used as it is

    simulation = makeSimulation(generator, pdb)
    rows = [row for trials in options.trials for row in measure(simulation, trials, options)]
    options.output.write_text(json.dumps(rows, indent=1) + "\n")
    best = max(row["rate"] for row in rows if row["stages"] == 0)
    print(f"{'trials':>6} {'stages':>6} {'acceptance':>19} {'over bare':>10} {'predicted':>9} {'ms per jump':>11} {'accepted / s':>12} "
          f"{'over best bare':>14}")
    for row in rows:
        bare = next(other for other in rows if other["trials"] == row["trials"])["acceptance"]
        predicted = f"{row['predicted']:9.4f}" if "predicted" in row else " " * 9
        print(f"{row['trials']:6d} {row['stages']:6d} {row['acceptance']:9.5f} ± {row['error']:.5f} {ratio(row['acceptance'], bare):>10} "
              f"{predicted} {1e3 * row['seconds']:11.2f} {row['rate']:12.3f} {ratio(row['rate'], best):>14}")


def trainFlow(system, pdb, options):
    temperatures = geometricTemperatures(options.train_temperature, max(1000, 1.5 * options.train_temperature), 5)
    data = temperedData(system, pdb.positions, temperatures, framesPerTemperature=8000, stepsPerFrame=50, seed=1)
    trained = BoltzmannGenerator.fromTopology(pdb.topology, system, pdb.positions, options.train_temperature, data=data, seed=2)
    start = time.process_time()
    trained.fit(data, iterations=options.iterations[0], seed=3)
    if options.iterations[1] > 0:
        trained.refine(iterations=options.iterations[1], seed=4)
    print(f"Trained for {time.process_time() - start:.0f} CPU s")
    return trained


def ratio(value, bare):
    return f"{value / bare:.2f}" if bare > 0 else "-"


def measure(simulation, trials, options):
    """Bare jumps, and annealed ones with each number of stages."""
    simulation.integrator.setTrialsPerJump(trials)
    # Many more bare jumps, as they are cheap and seldom accepted.
    bare = tuning.runBare(simulation, 100 * options.jumps // trials, 1)
    pilots = [tuning.runPilot(simulation, makeProtocol(K, options), options.jumps) for K in options.stages]
    tuned = tuning.tune(pilots[::max(1, (len(pilots) - 1) // 2)])
    rows = [{"stages": 0, "acceptance": bare.acceptance.value, "error": bare.acceptance.standardError, "seconds": bare.seconds}]
    rows += [{"stages": K, "acceptance": p.middle.value * p.acceptance.value, "error": p.middle.value * p.acceptance.standardError,
              "seconds": p.seconds, "predicted": tuned.predict(K, options.steps).acceptance}
             for K, p in zip(options.stages, pilots)]
    return [{"trials": trials} | row | {"rate": row["acceptance"] / row["seconds"]} for row in rows]


def makeProtocol(stages, options):
    settings = {"stageDynamics": StageDynamics[options.dynamics]}
    if options.protocol == "density":
        return annealedProtocol(stages, options.steps, options.timestep, **settings)
    return heatingProtocol(stages, options.steps, options.timestep, options.heating_factor, **settings)


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
