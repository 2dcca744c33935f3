"""The plots of a report: each draws, or says why there is nothing to draw."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from loadtests.runner.canvas import COLOURS, INK, Plot
from loadtests.runner.measures import memory, slope
from loadtests.runner.record import Record
from loadtests.runner.report import Report
from loadtests.runner.series import answered, binned, bins, by_stream, growth
from loadtests.runner.target import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SLOPE_SECONDS = 300.0
"""Of a shorter run, an hour's growth would be made of chance."""
DOTS = 1500
"""More dots than this are thinned out; quantiles are always of all."""
MAX_TURNS = 60
"""Lines where more turns than this begin would hide what is drawn."""
STAGES = ("reference", "queue", "prompt", "denoise", "decode", "encode")


def _percentiles(axes: Axes, report: Report) -> str | None:
    """Draw latency over the nines, from due and from sent."""
    if not answered(report):
        return "nothing was answered"
    for colour, (name, group) in zip(COLOURS, by_stream(answered(report)), strict=False):
        count = len(group)
        ranks = (np.arange(count) + 0.5) / count
        for values, style, label in (
            ([one.latency for one in group], "-", f"{name}, from when it was due"),
            ([one.service for one in group], ":", f"{name}, from when it was sent"),
        ):
            axes.plot(1 / (1 - ranks), np.sort(values), style, color=colour, label=label)
    axes.axhline(report.slo_seconds, color=INK, alpha=0.5, linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    most = max(len(answered(report)), 10)
    ticks = [(1.0, "0"), (2.0, "50"), (10.0, "90"), (100.0, "99"), (1000.0, "99.9"), (10000.0, "99.99")]
    shown = [tick for tick in ticks if tick[0] <= 2 * most]
    axes.set_xticks([at for at, _ in shown], [text for _, text in shown])
    axes.minorticks_off()
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency, s")
    axes.set_ylim(bottom=0)
    return None


def _over_time(axes: Axes, report: Report) -> str | None:
    """Draw each answer at the moment that its request was due, and quantiles."""
    if not answered(report):
        return "nothing was answered"
    for colour, (name, group) in zip(COLOURS, by_stream(answered(report)), strict=False):
        shown = group[:: max(1, -(-len(group) // DOTS))]
        axes.plot(
            [one.due for one in shown],
            [one.latency for one in shown],
            ".",
            color=colour,
            alpha=0.35,
            markersize=3,
        )
        at, median = binned(group, report, lambda values: float(np.quantile(values, 0.5)))
        axes.plot(at, median, color=colour, label=f"{name}, median")
    at, worst = binned(answered(report), report, lambda values: float(np.quantile(values, 0.99)))
    axes.plot(at, worst, color=INK, linewidth=0.9, label="p99 of all")
    axes.axhline(report.slo_seconds, color=INK, alpha=0.5, linewidth=0.8, linestyle="--")
    _time_axis(axes, report, "latency, s")
    return None


def _where_time_goes(axes: Axes, report: Report) -> str | None:
    """Stack the stages that the server tells; the rest is network, gRPC and the generator."""
    told = [one for one in answered(report) if one.stages is not None]
    if not told:
        return "the target tells no stages"
    edges = np.linspace(0, report.seconds, bins(len(told)) + 1)
    groups = [[one for one in told if low <= one.due < high] for low, high in pairwise(edges)]
    filled = [
        (0.5 * (low + high), group)
        for low, high, group in zip(edges, edges[1:], groups, strict=False)
        if group
    ]
    at = [middle for middle, _ in filled]
    layers = [
        [sum(getattr(one.stages, stage) for one in group) / len(group) for _, group in filled]
        for stage in STAGES
    ]
    whole = [sum(one.latency for one in group) / len(group) for _, group in filled]
    rest = np.maximum(0.0, np.array(whole) - np.sum(layers, axis=0))
    axes.stackplot(at, *layers, rest, labels=[*STAGES, "rest"], colors=COLOURS, alpha=0.85)
    _time_axis(axes, report, "mean seconds of a request")
    return None


def _batches(axes: Axes, report: Report) -> str | None:
    """Draw mean useful rows by request, and the padded share by the metrics."""
    told = [one for one in answered(report) if one.batch_rows is not None]
    if not told:
        return "the target tells no batches"
    at, rows = binned(told, report, lambda values: float(np.mean(values)), lambda one: one.batch_rows or 0.0)
    axes.plot(at, rows, color=COLOURS[0], label="useful rows a UNet call")
    _time_axis(axes, report, "useful rows")
    padded = growth(report, "rows_padded"), growth(report, "rows_useful")
    shares = [
        (moment, 100 * pad / (pad + use))
        for (moment, pad), (_, use) in zip(*padded, strict=True)
        if pad + use > 0
    ]
    if shares:
        right = axes.twinx()
        right.plot(*np.array(shares).T, color=COLOURS[1], linewidth=1.0, alpha=0.8)
        right.set_ylabel("padded rows, %", color=COLOURS[1])
        right.set_ylim(0, 100)
        right.grid(visible=False)
    return None


def _cache(axes: Axes, report: Report) -> str | None:
    """Draw the share of each cache outcome over time."""
    told = [one for one in answered(report) if one.cache is not None]
    if not told:
        return "no request had a reference, or the target tells nothing of its cache"
    for colour, outcome in zip(COLOURS, ("hit", "miss", "coalesced"), strict=False):

        def share(one: Record, wanted: str = outcome) -> float:
            return 100.0 * (one.cache == wanted)

        at, shares = binned(told, report, lambda values: float(np.mean(values)), share)
        axes.plot(at, shares, color=colour, label=outcome)
    _time_axis(axes, report, "% of requests with a reference")
    axes.set_ylim(-3, 103)
    return None


def _rates_over_time(axes: Axes, report: Report) -> str | None:
    """Draw images a second that were asked for, answered, and answered in time."""
    count = bins(len(report.records))
    width = report.seconds / count
    edges = np.linspace(0, report.seconds, count + 1)
    middles = 0.5 * (edges[1:] + edges[:-1])
    done = answered(report)
    good = [one for one in done if one.latency <= report.slo_seconds]
    for colour, label, moments in (
        (COLOURS[7], "offered, requests", [one.due for one in report.records]),
        (COLOURS[0], "answered, images", [one.done for one in done for _ in range(one.images)]),
        (COLOURS[2], "in time, images", [one.done for one in good for _ in range(one.images)]),
    ):
        counts, _ = np.histogram(moments, edges)
        smooth = np.convolve(counts, np.ones(3), "same") / np.convolve(np.ones(count), np.ones(3), "same")
        axes.plot(middles, smooth / width, color=colour, label=label)
    axes.axhline(report.speed.capacity, color=INK, alpha=0.5, linewidth=0.8, linestyle="--")
    _time_axis(axes, report, "a second")
    return None


def _by_cache(axes: Axes, report: Report) -> str | None:
    """Draw the distribution of latency for each cache outcome."""
    groups: dict[str, list[float]] = {}
    for one in answered(report):
        name = "no reference" if one.person is None else one.cache
        if name is not None:
            groups.setdefault(name, []).append(one.latency)
    if not groups:
        return "the target tells nothing of its cache"
    for name, values in sorted(groups.items()):
        axes.plot(
            np.sort(values),
            100 * (np.arange(len(values)) + 0.5) / len(values),
            label=f"{name} ({len(values)})",
        )
    axes.set_xlabel("latency, s")
    axes.set_ylabel("% of requests")
    axes.set_xlim(left=0)
    return None


def _refusals(axes: Axes, report: Report) -> str | None:
    """Draw how fast refusals were answered."""
    groups: dict[str, list[float]] = {}
    for one in report.records:
        if one.status is Status.REFUSED:
            groups.setdefault(one.reason, []).append(1000 * one.service)
    if not groups:
        return "nothing was refused"
    for name, values in sorted(groups.items()):
        axes.plot(
            np.sort(values),
            100 * (np.arange(len(values)) + 0.5) / len(values),
            label=f"{name} ({len(values)})",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("answered after, ms from when it was sent")
    axes.set_ylabel("% of refusals")
    return None


def _memory(axes: Axes, report: Report) -> str | None:
    """Draw the resident memory of the server's processes, and a line through the later half."""
    points = [(one.at, found / 1e6) for one in report.samples if (found := memory(one)) is not None]
    if not points:
        return "neither a metrics page nor a process was watched"
    for colour, name in zip(
        COLOURS, ("server_memory", "engine_memory", "tree_memory", "process_memory"), strict=False
    ):
        part = [(one.at, one.values[name] / 1e6) for one in report.samples if name in one.values]
        if part:
            axes.plot(*np.array(part).T, color=colour, label=name.replace("_memory", ""))
    axes.plot(*np.array(points).T, color=INK, linewidth=1.0, label="all")
    later = [point for point in points if point[0] >= report.seconds / 2]
    if report.seconds >= SLOPE_SECONDS and (rise := slope(later)) is not None:
        mean_at, mean = np.mean(later, axis=0)
        ends = np.array([later[0][0], later[-1][0]])
        label = f"later half: {3600 * rise:+.1f} MB/h"
        axes.plot(ends, mean + rise * (ends - mean_at), "--", color=COLOURS[5], linewidth=1.4, label=label)
    axes.set_xlabel("s")
    axes.set_ylabel("resident, MB")
    axes.set_ylim(bottom=0)
    return None


def _time_axis(axes: Axes, report: Report, what: str) -> None:
    begins = sorted(begin for turns in report.scenario.turns().values() for begin, _ in turns)
    if len(begins) <= MAX_TURNS:
        for begin in begins[1:]:
            axes.axvline(begin, color=INK, alpha=0.4, linewidth=0.8)
    axes.set_xlim(0, report.seconds)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("s")
    axes.set_ylabel(what)


PLOTS = (
    Plot(
        name="percentiles",
        title="Latency by percentile",
        caption="Solid lines count from the moment a request was due, dotted ones from when it was sent: where they "
        "part, the generator could not keep up. The dashed line is the service level.",
        draw=_percentiles,
    ),
    Plot(
        name="time",
        title="Latency over time",
        caption="A dot is an answer, at the moment its request was due. The dashed line is the service level.",
        draw=_over_time,
    ),
    Plot(
        name="stages",
        title="Where the time goes",
        caption="Means as the server tells them, by when the request was due; queue is the wait for the first step, "
        "denoise the time in the engine. Rest is the network, gRPC and the generator.",
        draw=_where_time_goes,
    ),
    Plot(
        name="rates",
        title="Offered, answered, in time",
        caption="The dashed line is the capacity that calibration found, in requests.",
        draw=_rates_over_time,
    ),
    Plot(
        name="batches",
        title="Batch occupancy",
        caption="Mean useful rows of the UNet calls that requests ran in; orange, the share of rows that were "
        "padding, from the metrics.",
        draw=_batches,
    ),
    Plot(
        name="cache",
        title="References in the cache",
        caption="By outcome; a coalesced request waited for another one's encoding.",
        draw=_cache,
    ),
    Plot(
        name="hits",
        title="Latency of hits and misses",
        caption="How many requests took at most so long.",
        draw=_by_cache,
    ),
    Plot(name="refusals", title="Refusals", caption="How fast they were answered.", draw=_refusals),
    Plot(
        name="memory",
        title="Memory of the server",
        caption="Resident; the slope is fitted to the later half, as caches fill in the first.",
        draw=_memory,
    ),
)
