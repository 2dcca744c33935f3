"""Plots of a sweep: one panel for each measure, one curve for each series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loadtests.simulator.errors import SimulationError
from loadtests.simulator.study import Point, Sweep
from loadtests.simulator.summary import Summary


class Measure(NamedTuple):
    """What a panel shows: the label of its axis, and the factor on the figure of the summary."""

    label: str
    factor: float = 1.0


MEASURES = {
    "throughput": Measure("images/s"),
    "throughput_each": Measure("images/s a replica"),
    "goodput_share": Measure("goodput, % of images asked for", 100),
    "latency.p50": Measure("median latency, s"),
    "latency.p95": Measure("p95 latency, s"),
    "latency.p99": Measure("p99 latency, s"),
    "hit_rate": Measure("hits in the replica's memory, %", 100),
    "encode_share": Measure("engine time in the image encoder, %", 100),
    "padded_share": Measure("padded rows, %", 100),
    "mean_rows": Measure("useful rows a tick"),
    "busy": Measure("engine at work, mean, %", 100),
    "busiest": Measure("engine at work, busiest replica, %", 100),
    "spilled_share": Measure("requests past their replica, %", 100),
    "cost": Measure("price of 1,000 images"),
    "cost_good": Measure("price of 1,000 images within the service level"),
}


def value(summary: Summary, measure: str) -> float:
    """Return a measure of a summary. Raises SimulationError for an unknown one."""
    if measure not in MEASURES:
        raise SimulationError("show", f"{measure} is none of {', '.join(MEASURES)}")
    if measure == "throughput_each":
        return summary.throughput / summary.replicas
    if measure == "goodput_share":
        return summary.goodput * summary.seconds / summary.arrived if summary.arrived else float("nan")
    found: object = summary
    for part in measure.split("."):
        found = getattr(found, part)
    assert isinstance(found, float)
    return found


def draw(sweep: Sweep, points: Sequence[Point], measures: Sequence[str], path: Path) -> None:
    """Draw the panels side by side; the format follows the suffix. The same points give the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {
        "svg.hashsalt": "limner",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "lines.markersize": 4,
    }
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(
            1, len(measures), figsize=(3.6 * len(measures), 3.2), squeeze=False, layout="constrained"
        )
        for panel, measure in zip(panels[0], measures, strict=True):
            for series in sweep.series:
                own = [point for point in points if point.series == series]
                ys = [MEASURES[measure].factor * value(point.summary, measure) for point in own]
                panel.plot([float(point.x) for point in own], ys, marker="o", label=series or None)
            xs = [float(x) for x in sweep.values]
            if min(xs) > 0 and max(xs) / min(xs) >= 30:
                panel.set_xscale("log")
            panel.set_ylim(bottom=0)
            panel.set_xlabel(sweep.field.replace("_", " "))
            panel.set_title(MEASURES[measure].label, fontsize=9)
        if len(sweep.series) > 1:
            panels[0][0].legend(fontsize=8, title=sweep.series_field.replace("_", " "), title_fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)
