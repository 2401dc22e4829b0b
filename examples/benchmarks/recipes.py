# SPDX-License-Identifier: MIT
"""The recipes of `openmm-flow train --recipe`, run and compared: how good a flow each makes, and at what cost.

    python recipes.py                          # all of them, one after the other
    python recipes.py double-well many-well    # some

ESS/N is Kish's, of 100,000 unclipped weights; acceptance is that of independence jumps in equilibrium. CPU minutes and energy
evaluations are those of training frames (a time step is an evaluation) and of training. What is there already in --output is not
run again. The table goes to the screen and, when all recipes were run, to recipes.md beside this program.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

from openmmflow.config import RECIPES


def main():
    names = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(names)}")
    parser.add_argument("--output", type=Path, default=Path("recipes"))
    options = parser.parse_args()
    chosen = options.recipes or names
    for name in chosen:
        if not (options.output / name / "train.json").exists():
            command = [sys.executable, "-m", "openmmflow.cli", "train", "--recipe", name, "--output",
                       str(options.output / name)]
            resume = ["--resume"] if (options.output / name).exists() else []
            subprocess.run(command + resume, check=True)
    lines = ["| recipe | ESS/N | acceptance | CPU minutes | energy evaluations |", "| --- | --- | --- | --- | --- |"]
    lines += [row(name, json.loads((options.output / name / "train.json").read_text())) for name in chosen]
    print("\n".join(lines))
    if chosen == names:
        Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(name, found):
    parts = [found[part] for part in ("data", "training") if part in found]
    minutes, energies = (sum(part[key] for part in parts) for key in ("CPU minutes", "energy evaluations"))
    samples = found["flow samples"]
    return (f"| {name} | {samples['ESS/N']:.3f} | {samples['acceptance']['value']:.3f} | {minutes:.1f} | {energies:.1e} |")


if __name__ == "__main__":
    sys.exit(main())
