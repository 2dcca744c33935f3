"""Comparison: two reports, figure by figure, as ratios."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose
from typing import NamedTuple

from loadtests.runner.arrivals import wanted_rate
from loadtests.runner.errors import ReportError
from loadtests.runner.report import Report

MEASURES = (
    "offered",
    "throughput",
    "goodput",
    "latency.p50",
    "latency.p90",
    "latency.p99",
    "by_cache.hit.p50",
    "by_cache.miss.p50",
    "answered_share",
    "refused.count",
    "refused.answered.p50",
    "hit_rate",
    "batch_rows",
    "padded_share",
)


SAME_LOAD = 0.02
"""Rates that differ by less are one load; no two calibrations find quite the same capacity."""


class Difference(NamedTuple):
    """A figure in both reports, and the second over the first; None where one has none, or the first is 0."""

    figure: str
    first: float | None
    second: float | None
    ratio: float | None


def differences(first: Report, second: Report) -> Iterator[Difference]:
    """Yield the figures that either report has. Raises ReportError when they have no phase and stream in common."""
    common = [
        (phase, stream)
        for phase, streams in first.figures.items()
        for stream in streams
        if stream in second.figures.get(phase, {})
        # Nothing is sent in a pause, and nothing to be compared.
        and (first.figures[phase][stream].sent or second.figures[phase][stream].sent)
    ]
    if not any(phase != "all" and stream != "all" for phase, stream in common):
        raise ReportError(
            f"{first.scenario.name} and {second.scenario.name} have no phase and stream in common"
        )
    yield _difference("capacity", first, second)
    yield _difference("unloaded", first, second)
    for phase, stream in common:
        several = len(first.figures) > 2 or len(first.figures[phase]) > 2
        if several or (phase, stream) == ("all", "all"):
            for measure in MEASURES:
                found = _difference(f"{phase}.{stream}.{measure}", first, second)
                if found.first is not None or found.second is not None:
                    yield found


def warnings(first: Report, second: Report) -> Iterator[str]:
    """Yield what makes two reports differ beside their targets."""
    for what, one, other in (
        ("scenarios", first.scenario.name, second.scenario.name),
        ("seeds", first.seed, second.seed),
        ("durations", first.seconds, second.seconds),
        ("service levels", f"{first.slo_seconds:.3g}", f"{second.slo_seconds:.3g}"),
        ("machines", first.machine, second.machine),
    ):
        if one != other:
            yield f"the {what} differ: {one} and {other}"
    if first.scenario.name == second.scenario.name and (
        first.scenario.lasting(1.0) != second.scenario.lasting(1.0)
    ):
        yield "the scenarios differ in their contents"
    yield from _loads(first, second)


def table(first: Report, second: Report, names: tuple[str, str]) -> str:
    """Return the comparison as a table in Markdown."""
    lines = [f"| figure | {names[0]} | {names[1]} | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {one.figure} | {_text(one.first)} | {_text(one.second)} | {_text(one.ratio)} |"
        for one in differences(first, second)
    ]
    return "\n".join([*lines, "", *(f"note: {text}" for text in warnings(first, second))]).rstrip()


def _loads(first: Report, second: Report) -> Iterator[str]:
    """Yield the rates that differ: those of one scenario do where they are shares of different capacities."""
    rates, others = (
        {stream.name: wanted_rate(stream.arrivals, one.speed.capacity) for stream in one.scenario.streams}
        for one in (first, second)
    )
    differing = [
        f"{name} at {rate:.3g} and {others[name]:.3g}"
        for name, rate in rates.items()
        if name in others and not isclose(rate, others[name], rel_tol=SAME_LOAD)
    ]
    if differing:
        yield f"the loads differ: {', '.join(differing)} requests/s"


def _difference(figure: str, first: Report, second: Report) -> Difference:
    one, other = first.figure(figure), second.figure(figure)
    ratio = other / one if one and other is not None else None
    return Difference(figure, one, other, ratio)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
