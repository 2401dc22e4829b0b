# SPDX-License-Identifier: MIT
"""Figures as PNG files, drawn without a display."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .analysis import freeEnergyProfile
from .diagnostics import DataDiagnosis, Diagnosis, Marginal, Verdict, tailIndexLimit

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


_SEVERITY = {"problem": COLORS[1], "warning": COLORS[3], "note": "gray"}
_LISTED_MARGINALS, _DRAWN_MARGINALS, _LINE = 10, 5, 150


def diagnostics(file: str | Path, diagnosis: Diagnosis, title: str = "Diagnosis of a flow", unit: str = "kT") -> None:
    """One page on a flow: what is wrong and what to try, weights, effective sizes, free energies, chain, costs, marginals.

    Parameters
    ----------
    unit : of log w and F
    """
    lines = [line for verdict in diagnosis.verdicts() for line in _wrap(verdict)]
    drawn = diagnosis.marginals[:_DRAWN_MARGINALS]
    rows = 2 + (len(drawn) + 3) // 3 if drawn else 2
    heights = [0.5 + 0.24 * max(len(lines), 1), *[3.3] * rows]
    figure = Figure(figsize=(13, sum(heights)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    parts = figure.subfigures(2, 1, height_ratios=[heights[0], sum(heights[1:])])
    _writeVerdicts(parts[0], title, lines)
    axes = parts[1].subplots(rows, 3)
    _drawLogWeights(axes[0, 0], diagnosis, unit)
    _drawTail(axes[0, 1], diagnosis)
    _drawSizes(axes[0, 2], diagnosis)
    _drawFreeEnergies(axes[1, 0], diagnosis, unit)
    _drawStays(axes[1, 1], diagnosis)
    _drawCosts(axes[1, 2], diagnosis)
    if drawn:
        _drawDivergences(axes[2, 0], diagnosis.marginals[:_LISTED_MARGINALS])
        for number, axis in enumerate(axes[2:].flat[1:]):
            _drawMarginal(axis, drawn[number] if number < len(drawn) else None, number == 0)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10.5)
    figure.savefig(file)


def _wrap(verdict: Verdict) -> list[tuple[str, str, bool]]:
    """Lines with the colour of a mark before them, if any, and whether they are bold."""
    finding = textwrap.wrap(f"{verdict.severity.upper()}: {verdict.finding}.", _LINE)
    advice = textwrap.wrap(f"Try: {verdict.advice}.", _LINE)
    return [(line, _SEVERITY[verdict.severity] if number == 0 else "", number < len(finding))
            for number, line in enumerate(finding + advice)]


def _writeVerdicts(part: Any, title: str, lines: list[tuple[str, str, bool]]) -> None:
    part.suptitle(title, fontsize=15, fontweight="bold", x=0.01, ha="left")
    axis = part.subplots()
    axis.set_axis_off()
    axis.set(xlim=(0, 1), ylim=(max(len(lines), 1), 0))
    if not lines:
        axis.text(0.01, 0.5, "Nothing wrong was found.", color=COLORS[2], fontsize=12, fontweight="bold", va="center")
    for position, (line, color, bold) in enumerate(lines):
        axis.text(0.02, position + 0.5, line, fontsize=10, va="center", fontweight="bold" if bold else "normal")
        if color:
            axis.plot(0.01, position + 0.5, "s", color=color, markersize=9, clip_on=False)


def _drawLogWeights(axis: Any, d: Diagnosis, unit: str) -> None:
    middle = np.median(d.logWeights[np.isfinite(d.logWeights)])
    series = {f"flow, {d.samples:,} samples": d.logWeights}
    if d.targetLogWeights is not None:
        series[f"data, {len(d.targetLogWeights):,} frames"] = d.targetLogWeights
    finite = {label: values[np.isfinite(values)] - middle for label, values in series.items()}
    low = min(np.quantile(values, 0.005) for values in finite.values())
    high = max(np.quantile(values, 0.999) for values in finite.values())
    low = max(low, high - 100)  # what is below is in the first bin
    edges = np.linspace(low - 1, high + 1, 80)
    for color, (label, values) in zip(COLORS, finite.items()):
        axis.hist(np.clip(values, edges[0], edges[-1]), edges, weights=np.full(len(values), 1 / len(series[label])), color=color,
                  alpha=0.55, label=label)
    if d.data is not None:
        axis.axvline(-_bestEstimate(d.data)[1] - middle, color="black", linewidth=1, linestyle=":", label="ln Z")
    zero = f", {d.zeroFraction:.1%} zero" if d.zeroFraction else ""
    axis.set(xlabel=f"log w − median / {unit}", ylabel="part of samples", title=f"Weights{zero}", yscale="log")
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 3e-5), 30 * high)
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def _drawTail(axis: Any, d: Diagnosis) -> None:
    """The part of the samples above a weight, w in units of its mean."""
    ordered = np.sort(d.logWeights[np.isfinite(d.logWeights)])[::-1]
    w = np.exp(ordered - ordered[0])
    w *= d.samples / w.sum()
    axis.loglog(w, np.arange(1, len(w) + 1) / d.samples, color=COLORS[0], linewidth=1.8)
    axis.plot(w[0], 1 / d.samples, "o", color=COLORS[1], label=f"the largest has {d.largestShare:.2g} of all weight")
    axis.set(xlabel="weight / mean weight", ylabel="part of samples above", xlim=(1e-3, max(3 * w[0], 30)),
             title=f"Tail of the weights: k = {d.tailIndex:.2f} (limit {tailIndexLimit(d.samples):.2f})")
    axis.legend(frameon=False, fontsize=8, loc="lower left")


def _drawSizes(axis: Any, d: Diagnosis) -> None:
    sizes = {"reverse": d.reverse, "reverse, clipped": d.clipped, "chain, 1/(2τ)": d.chain}
    if d.data is not None:
        sizes["forward, from data"] = d.data.forward
    bars = axis.barh(list(sizes), list(sizes.values()), color=[COLORS[0], "#7fb3cc", COLORS[4], COLORS[1]][:len(sizes)], height=0.6)
    axis.bar_label(bars, [f"{value:.3g}" for value in sizes.values()], padding=3, fontsize=9)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1.12), xlabel=f"ESS / N,  N = {d.samples:,}" + (f" and {d.data.frames:,}" if d.data else ""),
             title="Effective sample sizes")


def _drawFreeEnergies(axis: Any, d: Diagnosis, unit: str) -> None:
    if d.data is None:
        _say(axis, "Mode-drop test", "No data:\nwhat the flow has dropped\ncan't be seen.")
        return
    name, zero = _bestEstimate(d.data)
    rows = {"upper bound": d.data.upperBound, "$F_q$ (flow)": d.data.fromFlow, "BAR": d.data.bar, "$F_p$ (data)": d.data.fromTarget,
            "lower bound": d.data.lowerBound}
    estimates = [value for value in list(rows.values())[1:4] if np.isfinite(value.value)]
    width = 1.5 * max(0.05, *(abs(value.value - zero) + 3 * value.standardError for value in estimates))
    for number, value in enumerate(rows.values()):
        x, color = value.value - zero, "gray" if number in (0, 4) else COLORS[0]
        if abs(x) <= 3 * width:
            width = max(width, 1.1 * abs(x))
            axis.errorbar(x, number, xerr=value.standardError, fmt="o", capsize=4, color=color)
        else:  # also where it is infinite, or not a number
            axis.text(0.02 if x < 0 else 0.98, number, "none" if np.isnan(x) else f"{x:+.3g}", color=color, va="center",
                      ha="left" if x < 0 else "right", transform=axis.get_yaxis_transform())
    axis.axvline(0, color="black", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlabel=f"F − {name} / {unit}", xlim=(-width, width), ylim=(4.6, -0.6),
             title=f"Mode-drop test: the flow covers {d.data.covered.value:.3g} ± {d.data.covered.standardError:.2g}\n"
                   f"of the target; overlap with it {d.data.overlap:.2g}")


def _bestEstimate(data: DataDiagnosis) -> tuple[str, float]:
    return ("BAR", data.bar.value) if np.isfinite(data.bar.value) else ("$F_p$", data.fromTarget.value)


def _drawStays(axis: Any, d: Diagnosis) -> None:
    edges = np.unique(np.geomspace(1, d.stays.max() + 1, 40).astype(int))
    edges = np.append(edges, edges[-1] + 1)
    axis.hist(d.stays, edges - 0.5, weights=d.stays / d.stays.sum(), color=COLORS[4])
    axis.set(xscale="log", xlabel="steps at one sample", ylabel="part of the chain", xlim=(0.5, max(edges[-1], 20)),
             title=f"Independence chain: acceptance {d.acceptance.value:.3f} ± {d.acceptance.standardError:.1g},\n"
                   f"longest run of rejections {d.longestRun:,} of {d.samples:,}")


def _drawCosts(axis: Any, d: Diagnosis) -> None:
    rows = [("flow", d.flowCost, COLORS[0]), ("plain dynamics", d.dynamicsCost, "gray")]
    bars = [(f"{name}:\n{what}", value, color) for what, attribute in (("energies", "energyEvaluations"), ("CPU s", "cpuSeconds"))
            for name, cost, color in rows if np.isfinite(value := getattr(cost, attribute)) and value > 0]
    if not bars:
        _say(axis, "Cost of an independent sample", "Costs were not given.")
        return
    names, values, colors = zip(*bars)
    drawn = axis.barh(names, values, color=colors, height=0.6)
    axis.bar_label(drawn, [f"{value:.3g}" for value in values], padding=3, fontsize=9)
    axis.invert_yaxis()
    axis.set(xscale="log", xlim=(min(values) / 10, max(values) * 30), title="Cost of an independent sample")


def _drawDivergences(axis: Any, marginals: Sequence[Marginal]) -> None:
    rows = np.arange(len(marginals))
    axis.barh(rows - 0.2, [m.divergence for m in marginals], 0.38, color=COLORS[0], label="flow")
    axis.barh(rows + 0.2, [m.reweighted for m in marginals], 0.38, color=COLORS[2], label="flow, reweighted")
    axis.plot([m.noise for m in marginals], rows, "|", color="black", markersize=11, markeredgewidth=1.6, label="noise of the data")
    axis.set_yticks(rows, [m.name for m in marginals], fontsize=8)
    axis.set_ylim(max(len(rows), 5) - 0.4, -0.6)
    axis.set(xlabel="Jensen-Shannon divergence / bit", title="Coordinates that deviate most from data")
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1)


def _drawMarginal(axis: Any, marginal: Marginal | None, legend: bool) -> None:
    if marginal is None:
        axis.set_axis_off()
        return
    width = marginal.edges[1] - marginal.edges[0]
    axis.stairs(marginal.data / width, marginal.edges, color=COLORS[1], alpha=0.35, fill=True, label="data")
    axis.stairs(marginal.flow / width, marginal.edges, color=COLORS[0], linewidth=1.6, label="flow")
    axis.stairs(marginal.weighted / width, marginal.edges, color=COLORS[2], linewidth=1.6, linestyle="--", label="flow, reweighted")
    axis.set(title=f"{marginal.name}: {marginal.divergence:.3f} bit (noise {marginal.noise:.3f})", yticks=[])
    if legend:
        axis.legend(frameon=False, fontsize=8)


def _say(axis: Any, title: str, text: str) -> None:
    axis.set(xticks=[], yticks=[], title=title)
    axis.text(0.5, 0.5, text, ha="center", va="center", color="gray", transform=axis.transAxes)
