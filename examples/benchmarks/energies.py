# SPDX-License-Identifier: MIT
"""Batched energies of alanine dipeptide by ContextPotential: what a second Context on a second core brings, and what is lost to a bare
loop in C++ over as many Contexts, in as many threads. The program that measures is energies.cpp.

Required is what holds on the Platform that ContextPotential chooses for a molecule by measuring it. OpenMM's Reference compiles the
expressions of implicit solvent anew for each energy, which threads of a process do one after the other.

    python energies.py
"""
import tempfile
from pathlib import Path

import molecules
import timing


def measure(options):
    with tempfile.TemporaryDirectory() as folder:
        molecules.writeSystems(Path(folder))
        lines = timing.runProgram("benchmark_energies", folder, options.seconds)
    for line in lines:
        what, counts = f"energies in {line['what']}", dict.fromkeys(line["times"], line["count"])
        if line["what"].endswith(" 1024"):
            yield timing.makeRow(what, line["times"], ("one Context", "two Contexts"), "1/s", counts,
                                 required=">= 1.8" if "(chosen)" in what else None)
        yield timing.makeRow(what, line["times"], ("bare loop, two", "two Contexts"), "1/s", counts, required=">= 0.9")


if __name__ == "__main__":
    timing.run("energies", __doc__, measure, awake=True)
