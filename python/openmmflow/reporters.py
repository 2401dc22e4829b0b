# SPDX-License-Identifier: MIT
"""Reporters for openmm.app.Simulation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class JumpReporter:
    """Writes what the jumps of a FlowLangevinIntegrator have done, as comma-separated values.

    The columns are the step, the numbers of trials, accepted, non-finite and failed ones since the integrator was made,
    the acceptance since the last line, and quantiles of logAlpha over the latest trials.

    Examples
    --------
    >>> simulation.reporters.append(JumpReporter("jumps.csv", 1000))
    """

    probabilities = (0.05, 0.25, 0.5, 0.75, 0.95)
    columns = ("step", "trials", "accepted", "acceptance", "nonFinite", "failed",
               *(f"logAlpha_{round(100 * p)}%" for p in probabilities))

    def __init__(self, file: str | Path, reportInterval: int, append: bool = False, integrator: Any = None):
        """
        Parameters
        ----------
        file : where to write
        reportInterval : steps between lines
        append : continue a file: no second header; a last line that was cut short is removed
        integrator : the FlowLangevinIntegrator; that of the Simulation by default (needed inside a CompoundIntegrator)
        """
        if reportInterval < 1:
            raise ValueError(f"JumpReporter: reportInterval is {reportInterval}, but must be at least 1")
        self._interval = reportInterval
        self._integrator = integrator
        self._last: tuple[int, int] | None = None
        header = ",".join(self.columns)
        continued = append and repairCsv(file, header)
        self._out = open(file, "a" if continued else "w", encoding="utf-8")
        if not continued:
            self._write(header)

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """What Simulation asks for: when the next report is due, and that it needs nothing of the State."""
        steps = self._interval - simulation.currentStep % self._interval
        return {"steps": steps, "periodic": None, "include": []}

    def report(self, simulation: Any, state: Any) -> None:
        """Write a line."""
        integrator = self._integrator or simulation.integrator
        now = integrator.getJumpStatistics()
        trials, accepted = self._last or (0, 0)
        if now.trials < trials:  # the statistics were reset
            trials = accepted = 0
        new = now.trials - trials
        acceptance = (now.accepted - accepted) / new if new else float("nan")
        quantiles = integrator.getLogAlphaQuantiles(list(self.probabilities))
        self._last = (now.trials, now.accepted)
        self._write(",".join([str(simulation.currentStep), str(now.trials), str(now.accepted), f"{acceptance:.6g}",
                              str(now.nonFinite), str(now.failed), *(f"{q:.6g}" for q in quantiles)]))

    def _write(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()

    def __del__(self) -> None:
        if hasattr(self, "_out"):
            self._out.close()


def repairCsv(file: str | Path, header: str, lastStep: int | None = None) -> bool:
    """Cut a CSV file back to its last whole line, and to lines whose first column is at most `lastStep`.

    Returns
    -------
    bool : whether there is a file with that header to append to. Throws ValueError if there is one with another.
    """
    file = Path(file)
    if not file.exists() or file.stat().st_size == 0:
        return False
    content = file.read_bytes()
    lines = content.splitlines(keepends=True)
    first = lines[0].decode(errors="replace")
    if header.startswith(first):
        return False  # killed while the header was written
    if first.strip() != header:
        raise ValueError(f"JumpReporter: {file} has other columns: name another file, or do not append")
    keep = len(lines[0])
    for line in lines[1:]:
        fields = line.rstrip(b"\r\n").split(b",")
        whole = line.endswith(b"\n") and len(fields) == header.count(",") + 1 and fields[0].isdigit()
        if not whole or (lastStep is not None and int(fields[0]) > lastStep):
            break
        keep += len(line)
    if keep < len(content):
        os.truncate(file, keep)
    return True
