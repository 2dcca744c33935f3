"""Series: the records and readings of a report, put in order for a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from loadtests.runner.measures import counter
from loadtests.runner.record import Record
from loadtests.runner.report import Report
from loadtests.runner.target import Status

MAX_BINS = 60
MIN_BINS = 8
A_BIN = 15
"""Requests in a stretch of time of a plot over time, about; fewer would show their chance."""


def answered(report: Report) -> list[Record]:
    """Return the requests that had their answer."""
    return [one for one in report.records if one.status is Status.OK]


def by_stream(records: Sequence[Record]) -> Iterable[tuple[str, list[Record]]]:
    """Return the streams, by name, with their requests."""
    groups: dict[str, list[Record]] = {}
    for one in records:
        groups.setdefault(one.stream, []).append(one)
    return sorted(groups.items())


def bins(requests: int) -> int:
    """Return how many stretches of time so many requests fill."""
    return min(MAX_BINS, max(MIN_BINS, requests // A_BIN))


def binned(
    records: Sequence[Record],
    report: Report,
    reduce: Callable[[list[float]], float],
    value: Callable[[Record], float] = lambda one: one.latency,
) -> tuple[list[float], list[float]]:
    """Reduce the values of each stretch of time; stretches without any are left out."""
    count = bins(len(records))
    width = report.seconds / count
    filled: dict[int, list[float]] = {}
    for one in records:
        filled.setdefault(min(count - 1, int(one.due / width)), []).append(value(one))
    found = sorted(filled.items())
    return [(number + 0.5) * width for number, _ in found], [reduce(values) for _, values in found]


def growth(report: Report, name: str) -> list[tuple[float, float]]:
    """Return by how much a counter grew between two readings, at the moment between them; see `measures.counter`."""
    told = [(one.at, value) for one in report.samples if (value := counter(one, name)) is not None]
    return [(0.5 * (before[0] + after[0]), after[1] - before[1]) for before, after in pairwise(told)]
