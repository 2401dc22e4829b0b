# SPDX-License-Identifier: MIT
"""What the benchmarks share: alternatives timed in turns, ratios with their spread, JSON, a figure, and programs in C++.

A benchmark is a module with a docstring and a function measure(options) that returns rows (makeRow); run() is its main program. A row
compares two times of one process, taken in turns: what else the machine does falls on both, and the ratio of each round is hardly
touched by it.
"""
import argparse
import contextlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]


def timeInTurns(actions, seconds, rounds=5, turn=0.01, clock=time.perf_counter):
    """Seconds that each action takes, {name: [one for each round]}; rounds go on until the time is used up.

    Parameters
    ----------
    actions : {name: function}; each is called twice beforehand
    seconds : for all together
    rounds : at least
    turn : seconds; short actions are repeated for so long, so that it is a loop of calls that is timed, as in use, and not the first
        call after others that emptied the cache
    """
    counts = {}
    for name, action in actions.items():
        action()
        start = clock()
        action()
        counts[name] = max(1, round(turn / max(clock() - start, 1e-9)))
    times = {name: [] for name in actions}
    end = clock() + seconds
    while clock() < end or len(next(iter(times.values()))) < rounds:
        for name, action in actions.items():
            start = clock()
            for _ in range(counts[name]):
                action()
            times[name].append((clock() - start) / counts[name])
    return times


class Counted:
    """An action that counts its calls."""

    def __init__(self, action):
        self.action, self.calls = action, 0

    def __call__(self):
        self.calls += 1
        self.action()


def makeRow(what, times, ratio, unit="ms", counts=None, required=None):
    """A comparison: two alternatives, each with what one item takes, and the ratio of these.

    Parameters
    ----------
    times : seconds, of timeInTurns()
    ratio : (name of the numerator, name of the denominator)
    unit : of the items' times: us, ms or s, or "1/s" for items per second
    counts : {name: items in one call}, 1 where left out
    required : such as ">= 3" or "<= 60", of the ratio
    """
    per = {name: np.array(times[name]) / (counts or {}).get(name, 1) for name in ratio}
    rounds = per[ratio[0]] / per[ratio[1]]
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}.get(unit)
    values = {name: 1 / t if scale is None else scale * t for name, t in per.items()}
    row = {"what": what, "unit": unit, "alternatives": {name: spread(v) for name, v in values.items()},
           "ratio of times": list(ratio), "ratio": spread(rounds), "rounds": len(rounds)}
    if required is not None:
        sign, bound = required.split()
        median = row["ratio"]["median"]
        row |= {"required": required, "reached": bool(median >= float(bound) if sign == ">=" else median <= float(bound))}
    return row


def spread(values):
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "quartiles": [float(low), float(high)]}


def formatRow(row):
    first, second = row["ratio of times"]
    found = [f"{name} {row['alternatives'][name]['median']:.3g}" for name in (first, second)]
    low, high = row["ratio"]["quartiles"]
    text = f"{row['what']}: {found[0]}, {found[1]} {row['unit']}; {row['ratio']['median']:.3g} [{low:.3g}, {high:.3g}]"
    return text + (f", required {row['required']}{'' if row['reached'] else ': NOT REACHED'}" if "required" in row else "")


@contextlib.contextmanager
def allCoresAwake():
    """While it lasts, a loop of the lowest priority on every core: a thread on a core that sleeps takes long to wake up, on a virtual
    machine as long as tens of steps."""
    loop = (f"import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
            f"while os.getppid() == {os.getpid()}: sum(range(10**6))")
    count = os.cpu_count() if hasattr(os, "SCHED_IDLE") else 0
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def run(name, description, measure, addOptions=None, awake=False):
    """The main program of a benchmark: measure, print, and write NAME.json and NAME.png.

    Parameters
    ----------
    awake : for what works in several threads, see allCoresAwake()
    """
    import torch

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER / "results", help="folder for JSON and figure")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each comparison")
    parser.add_argument("--short", action="store_true", help="a check that everything works, with poor numbers")
    if addOptions is not None:
        addOptions(parser)
    options = parser.parse_args()
    if options.short:
        options.seconds = min(options.seconds, 0.5)
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    with allCoresAwake() if awake else contextlib.nullcontext():
        for row in measure(options):
            rows.append(row)
            print(formatRow(row), flush=True)
    result = {"benchmark": name, "description": description, "machine": describeMachine(), "short": options.short,
              "rows": rows}
    (options.output / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is not None:  # a machine for benchmarks may lack it
        drawRatios(options.output / f"{name}.png", rows)


def describeMachine():
    import openmm as mm
    import torch

    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")]
        processor = names[0] if names else processor
    return {"processor": processor, "cores": os.cpu_count(), "OpenMM": mm.Platform.getOpenMMVersion(),
            "torch": torch.__version__, "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load": os.getloadavg()[0], "date": time.strftime("%Y-%m-%d")}


def drawRatios(file, rows):
    """One bar for each row: the ratio, its quartiles, and what is required of it."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.7 + 0.3 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        median, (low, high) = row["ratio"]["median"], row["ratio"]["quartiles"]
        axes.barh(place, median, xerr=[[median - low], [high - median]], color="C0" if row.get("reached", True) else "C3")
        if "required" in row:
            axes.plot([float(row["required"].split()[1])] * 2, [place - 0.4, place + 0.4], color="k")
    axes.set_yticks(range(len(rows)), [f"{row['what']}\n{' / '.join(row['ratio of times'])}" for row in rows], fontsize=6)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="0.5", linewidth=0.8)
    axes.set_xlabel("ratio of times (quartiles; black: required)")
    figure.savefig(file, dpi=150)
    plt.close(figure)


def buildProgram(name):
    """A C++ benchmark, built in the folder where OpenMM-Flow was (OPENMMFLOW_BUILD, or build in the repository). @return its path"""
    build = Path(os.environ.get("OPENMMFLOW_BUILD", REPOSITORY / "build"))
    for command in (["cmake", "-S", REPOSITORY, "-B", build, "-DOPENMMFLOW_BUILD_BENCHMARKS=ON"], ["cmake", "--build", build, "--target", name]):
        done = subprocess.run([str(part) for part in command], text=True, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return build / "examples" / "benchmarks" / name


def runProgram(name, *arguments):
    """Run a C++ benchmark, which prints a JSON object in each line. @return these"""
    import openmm.version

    environment = os.environ | {"OPENMM_PLUGIN_DIR": f"{openmm.version.openmm_library_path}/plugins", "OMP_NUM_THREADS": "1",
                                "OPENMM_DEFAULT_PLATFORM": ""}
    done = subprocess.run([str(buildProgram(name)), *map(str, arguments)], text=True, stdout=subprocess.PIPE, check=True,
                          env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]
