# SPDX-License-Identifier: MIT
"""Instructions of a call at batch 1, counted by callgrind: they hardly depend on what else the machine does, so that a regression of
some percent shows where times would hide it. log q, its gradient and a sample of the flow of spline_flow.py; see instructions.cpp.

    python instructions.py                          # needs valgrind; counts go to instructions.json in --output
    python instructions.py --against OLD.json       # and fails where one has grown by more than --tolerance
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import timing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--against", type=Path, help="instructions.json of an earlier version, on a processor of the same kind")
    parser.add_argument("--tolerance", type=float, default=0.05)
    options = parser.parse_args()
    counts = count(timing.buildProgram("benchmark_instructions"))
    before = json.loads(options.against.read_text())["instructions per call"] if options.against else {}
    grown = [name for name, number in counts.items() if number > (1 + options.tolerance) * before.get(name, number)]
    for name, number in counts.items():
        print(f"{name:10} {number:12,.0f} instructions" + (f", {number / before[name]:.3f} of before" if name in before else ""))
    options.output.mkdir(parents=True, exist_ok=True)
    found = {"benchmark": "instructions", "machine": timing.describeMachine(), "instructions per call": counts}
    (options.output / "instructions.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return f"more instructions than before: {', '.join(grown)}" if grown else 0


def count(program):
    """{what: instructions of a call}"""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "callgrind.out"
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=measured_*", "--compress-strings=no",
             "--compress-pos=no", f"--callgrind-out-file={file}", program], text=True, stdout=subprocess.PIPE, check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"})
        listed = subprocess.run(["callgrind_annotate", "--inclusive=yes", "--threshold=100", file], text=True, check=True,
                                stdout=subprocess.PIPE).stdout
    numbers = {name: int(number.replace(",", "")) for number, name in
               re.findall(r"^\s*([\d,]+)\s.*?\bmeasured_(\w+)", listed, re.MULTILINE)}
    return {name: number / int(done.stdout) for name, number in sorted(numbers.items())}


if __name__ == "__main__":
    sys.exit(main())
