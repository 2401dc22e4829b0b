# SPDX-License-Identifier: MIT
"""Figures as PNG files, drawn without a display."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .analysis import freeEnergyProfile

COLORS = ("#0b6e99", "#d1495b", "#66a182", "#edae49", "#5e548e")
_TICKS = (-180, -90, 0, 90, 180)


@contextmanager
def _figure(file: str | Path, columns: int = 1, width: float = 5.0, height: float = 4.0,
            **options: Any) -> Iterator[Any]:
    """A figure that is written to a file at the end. Yields its axes: one, or an array where there are several."""
    figure = Figure(figsize=(width * columns, height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, **options)
    for axis in np.atleast_1d(axes).flat:
        axis.spines[["top", "right"]].set_visible(False)
    yield axes
    figure.savefig(file)


def ramachandran(file: str | Path, panels: Mapping[str, tuple[Any, Any, Any]], bins: int = 60, highest: float = 10.0,
                 labels: Sequence[str] = ("φ", "ψ")) -> None:
    """Free energy in the plane of two torsions, side by side on one scale.

    Parameters
    ----------
    panels : {title: (phi, psi, logWeights)}, angles in rad [frames]; logWeights None when all are equal
    highest : kT, the top of the colour scale
    """
    edges = np.linspace(-180, 180, bins + 1)
    with _figure(file, len(panels), 4.2, 3.9, sharey=True, squeeze=False) as axes:
        for axis, (title, (phi, psi, logWeights)) in zip(axes.flat, panels.items()):
            weights = None if logWeights is None else np.exp(np.asarray(logWeights) - np.max(logWeights))
            density, _, _ = np.histogram2d(np.degrees(phi), np.degrees(psi), bins=(edges, edges), weights=weights)
            with np.errstate(divide="ignore"):
                energy = -np.log(density / density.max())
            image = axis.pcolormesh(edges, edges, np.ma.masked_greater(energy, highest).T, cmap="viridis_r", vmin=0,
                                    vmax=highest, rasterized=True)
            axis.set(title=title, xlabel=f"{labels[0]} / °", xticks=_TICKS, yticks=_TICKS, aspect="equal")
        axes.flat[0].set_ylabel(f"{labels[1]} / °")
        axes.flat[0].figure.colorbar(image, ax=list(axes.flat), label="free energy / kT", shrink=0.85)


def logWeightHistogram(file: str | Path, logWeights: Any, title: str = "", dataLogWeights: Any = None) -> None:
    """Distribution of log w = -u - log q, relative to its median over the flow's samples.

    Parameters
    ----------
    logWeights : of samples of the flow; -inf is left out and counted in the legend
    dataLogWeights : of samples of the target, if there are any
    """
    logWeights = np.asarray(logWeights, dtype=float)
    finite = logWeights[np.isfinite(logWeights)]
    if len(finite) == 0:
        raise ValueError("logWeightHistogram: no log weight is finite")
    middle = np.median(finite)
    low, high = np.quantile(finite - middle, [0.002, 1.0])
    edges = np.linspace(low - 1, max(high, 1) + 1, 100)
    with _figure(file) as axis:
        zero = len(logWeights) - len(finite)
        label = f"flow, {len(logWeights):,} samples" + (f" ({zero:,} of zero weight)" if zero else "")
        axis.hist(finite - middle, edges, density=True, color=COLORS[0], alpha=0.75, label=label)
        if dataLogWeights is not None:
            data = np.asarray(dataLogWeights, dtype=float)
            axis.hist(data[np.isfinite(data)] - middle, edges, density=True, histtype="step", color=COLORS[1],
                      linewidth=1.6, label=f"target, {len(data):,} frames")
        axis.set(xlabel="log w − median / kT", ylabel="density", title=title, ylim=(0, 1.2 * axis.get_ylim()[1]))
        axis.legend(frameon=False, loc="upper left")


def freeEnergyProfiles(file: str | Path, profiles: Mapping[str, tuple[Any, Any]], label: str = "φ",
                       bins: int = 72, highest: float = 20.0) -> None:
    """Free energy along a torsion, with a band of one standard error.

    Parameters
    ----------
    profiles : {name: (angles, logWeights)}, rad [frames] in time order; logWeights None when all are equal
    highest : kT, what lies above is not drawn
    """
    with _figure(file, width=5.6) as axis:
        for color, (name, (angles, logWeights)) in zip(COLORS * 4, profiles.items()):
            centers, profile, error = freeEnergyProfile(angles, logWeights, bins)
            shown = np.where(profile <= highest, profile, np.nan)
            axis.plot(centers, shown, color=color, linewidth=1.8, label=name)
            axis.fill_between(centers, shown - error, shown + error, color=color, alpha=0.2, linewidth=0)
        axis.set(xlabel=f"{label} / °", ylabel="free energy / kT", xlim=(-180, 180), xticks=_TICKS)
        axis.legend(frameon=False)


def lossCurve(file: str | Path, iterations: Any, losses: Mapping[str, Any],
              validation: tuple[Any, Any] | None = None) -> None:
    """Losses against iterations.

    Parameters
    ----------
    iterations : [points]
    losses : {name: [points]}
    validation : iterations and values of the held-out loss
    """
    with _figure(file) as axis:
        series = [np.asarray(values, dtype=float) for values in losses.values()]
        for color, name, values in zip(COLORS, losses, series):
            axis.plot(iterations, values, color=color, linewidth=1.2, label=name)
        if validation is not None and len(validation[0]):
            axis.plot(*validation, color="black", linewidth=1.2, marker="o", markersize=3, label="held-out frames")
            series.append(np.asarray(validation[1], dtype=float))
        values = np.concatenate(series)
        values = values[np.isfinite(values)]
        if len(values):  # the first steps are off the scale
            axis.set_ylim(values.min() - 0.02 * np.ptp(values), np.quantile(values, 0.97) + 0.1)
        axis.set(xlabel="iteration", ylabel="loss / kT")
        axis.legend(frameon=False)


def tuning(file: str | Path, found: Any, bare: Any) -> None:
    """Acceptance of annealed jumps and accepted jumps per second against the number of stages, a line for each number of steps.

    Parameters
    ----------
    found : a Tuning; its pilots are the points
    bare : the Bare jumps, a dashed line
    """
    stages = sorted({prediction.numStages for prediction in found.table()})
    steps = sorted({pilot.protocol.getStepsPerStage() for pilot in found.pilots} | {found.best.stepsPerStage})
    with _figure(file, 2) as (left, right):
        for color, s in zip(COLORS * (1 + len(steps) // len(COLORS)), steps):
            predictions = [found.predict(K, s) for K in stages]
            left.plot(stages, [p.acceptance for p in predictions], color=color, label=f"{s} steps at each")
            right.plot(stages, [p.rate for p in predictions], color=color)
            for pilot in (pilot for pilot in found.pilots if pilot.protocol.getStepsPerStage() == s):
                value, K = pilot.middle.value * pilot.acceptance.value, pilot.protocol.getNumStages()
                left.errorbar(K, value, pilot.middle.value * pilot.acceptance.standardError, color=color, fmt="o")
                right.plot(K, value / pilot.seconds, "o", color=color)
        left.axhline(bare.acceptance.value, color="gray", linestyle="--", label="bare jumps")
        right.axhline(bare.acceptance.value / bare.seconds, color="gray", linestyle="--")
        for axis, label in ((left, "acceptance"), (right, "accepted jumps / s")):
            axis.set(xlabel="stages", ylabel=label, xscale="log", yscale="log")
        left.legend(frameon=False)
