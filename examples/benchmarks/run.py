# SPDX-License-Identifier: MIT
"""All benchmarks of README's table, one after the other, and the table.

    python examples/benchmarks/run.py                  # in the environment of tests/run.sh; trains a flow, too
    python examples/benchmarks/run.py --short          # a check that everything works; README stays as it is
    python examples/benchmarks/run.py --table          # README's table anew from the JSON files that are there

The machine should have nothing else to do. JSON files and figures go to --output; what is there already is measured again, but a
trained flow is kept.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import timing

BENCHMARKS = {"spline_flow": ["--seconds", "5", "--batches", "1", "256", "1024"], "force": [], "energies": ["--seconds", "4"],
              "jump": [], "crossings": [], "annealed_steps": ["--seconds", "4"]}
MARKERS = "<!-- benchmarks -->", "<!-- end of benchmarks -->"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", choices=[[], *BENCHMARKS], help="some of them; all by default")
    parser.add_argument("--output", type=Path, default=timing.FOLDER / "results")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    failed = []
    for name in [] if options.table else options.benchmarks or BENCHMARKS:
        print(f"\n{name}", flush=True)
        start = time.monotonic()
        command = [sys.executable, timing.FOLDER / f"{name}.py", "--output", options.output, *BENCHMARKS[name]]
        done = subprocess.run([str(part) for part in command + ["--short"] * options.short], env=os.environ | {"OMP_NUM_THREADS": "1"})
        failed += [name] if done.returncode else []
        print(f"({time.monotonic() - start:.0f} s)", flush=True)
    if not options.table and shutil.which("valgrind"):
        command = [sys.executable, timing.FOLDER / "instructions.py", "--output", options.output]
        failed += ["instructions"] if subprocess.run([str(part) for part in command]).returncode else []
    if not options.short:
        writeTable(timing.REPOSITORY / "README.md", options.output)
    return f"failed: {', '.join(failed)}" if failed else 0


def writeTable(readme, folder):
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    results = [json.loads((folder / f"{name}.json").read_text()) for name in BENCHMARKS if (folder / f"{name}.json").exists()]
    if any(result["short"] for result in results):
        raise SystemExit(f"{folder} has results of --short, which are not for README.md")
    readme.write_text(f"{before}{MARKERS[0]}\n{makeTable(results)}{MARKERS[1]}{after}", encoding="utf-8")


def selectRows(rows):
    """Those of which something is required, of each beside several peers the one that is closest to it. All are in the JSON files."""
    chosen = {}
    for row in rows:
        if "required" not in row:
            continue
        key, sign = (row["what"], row["ratio of times"][1], row["required"]), 1 if row["required"].startswith(">=") else -1
        if key not in chosen or sign * row["ratio"]["median"] < sign * chosen[key]["ratio"]["median"]:
            chosen[key] = row
    return chosen.values()


def makeTable(results):
    machine = results[0]["machine"]
    lines = [f"{machine['cores']} cores of {machine['processor']}, OpenMM {machine['OpenMM']}, torch {machine['torch']}, {machine['date']}.",
             "", "| `examples/benchmarks` | measured | ratio of times | quartiles | required |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        for row in selectRows(result["rows"]):
            names = row["ratio of times"]
            found = "; ".join(f"{name} {number(row['alternatives'][name]['median'])}" for name in names)
            low, high = row["ratio"]["quartiles"]
            lines.append(f"| `{result['benchmark']}.py`: {row['what']} | {found} {row['unit']} | **{number(row['ratio']['median'])}** "
                         f"{' / '.join(names)} | {number(low)} - {number(high)}{' (95 %)' if 'spread' in row else ''} | {row.get('required', '')} |")
    return "\n".join(lines) + "\n"


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
