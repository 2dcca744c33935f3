"""Measures: figures of a group of requests, from their records and the server's readings."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import msgspec
import numpy as np

from loadtests.runner.record import Record
from loadtests.runner.target import Stages, Status
from loadtests.runner.watch import Sample

STAGES = tuple(Stages.__dataclass_fields__)


class Latency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quantiles in seconds, interpolated; None where there is nothing to take them of."""

    count: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


class Refusals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Refusals: how fast they were answered, in seconds from the sending, and how many told when to come back."""

    count: int
    answered: Latency
    with_retry_info: int


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a group of requests came to. Seconds, and rates a second.

    seconds: length of the phases that the group is of. sent: requests that were due in them; statuses: what became
        of these.
    throughput, goodput: images that were answered in that time, and those within the service level.
    latency: of answers, from the moment the request was due; service: from the moment it was sent.
    admitted: the same of all that was neither refused nor given up by its caller, whether or not an answer came; what
        expired took at least so long. answered_share: of these, those that were answered.
    late_start: from due to sent, the generator's own delay.
    by_cache: latency by cache outcome; "none" is requests without a reference.
    refused: all refusals; refusals: by reason. errors: messages of failures, with their number.
    stages: mean seconds, as the server tells. batch_rows: mean useful rows of the UNet calls.
    hit_rate: hits among requests with a reference that tell.
    padded_share, busy_share, encodes: from the server's metrics, of all streams; None without them. Counters are taken
        to grow evenly between two readings.
    """

    seconds: float
    sent: int
    statuses: dict[str, int]
    resent: int
    images: int
    offered: float
    throughput: float
    goodput: float
    latency: Latency
    service: Latency
    admitted: Latency
    late_start: Latency
    by_cache: dict[str, Latency]
    refused: Refusals
    refusals: dict[str, Refusals]
    errors: dict[str, int]
    stages: dict[str, float]
    answered_share: float | None = None
    batch_rows: float | None = None
    hit_rate: float | None = None
    padded_share: float | None = None
    busy_share: float | None = None
    encodes: float | None = None


def latency(seconds: Iterable[float]) -> Latency:
    """Take the quantiles of some times."""
    values = np.fromiter(seconds, dtype=float)
    if not values.size:
        return Latency(count=0)
    p50, p90, p95, p99 = np.quantile(values, (0.5, 0.9, 0.95, 0.99)).tolist()
    return Latency(
        count=values.size,
        mean=float(values.mean()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        max=float(values.max()),
    )


def figures(
    records: Sequence[Record],
    spans: Sequence[tuple[float, float]],
    slo_seconds: float,
    *,
    answered: Sequence[Record] | None = None,
    samples: Sequence[Sample] = (),
) -> Figures:
    """Sum up the requests that were due in `spans`, of which none overlap; `answered` are those whose answers in that
    time count as its throughput, by default the same.
    """
    within = _within(spans)
    seconds = sum(end - begin for begin, end in spans)
    done = [one for one in records if one.status is Status.OK]
    ended = [
        one
        for one in (records if answered is None else answered)
        if one.status is Status.OK and within(one.done)
    ]
    refused = [one for one in records if one.status is Status.REFUSED]
    admitted = [one for one in records if one.status not in (Status.REFUSED, Status.CANCELLED)]
    told = Counter(one.cache for one in done if one.cache is not None)
    rows = [one.batch_rows for one in done if one.batch_rows is not None]
    return Figures(
        seconds=seconds,
        sent=len(records),
        statuses={str(status): sum(one.status is status for one in records) for status in Status},
        resent=sum(one.resent for one in records),
        images=sum(one.images for one in done),
        offered=len(records) / seconds,
        throughput=sum(one.images for one in ended) / seconds,
        goodput=sum(one.images for one in ended if one.latency <= slo_seconds) / seconds,
        latency=latency(one.latency for one in done),
        service=latency(one.service for one in done),
        admitted=latency(one.latency for one in admitted),
        answered_share=len(done) / len(admitted) if admitted else None,
        late_start=latency(one.sent - one.due for one in records),
        by_cache=_by_cache(done),
        refused=_refusals(refused),
        refusals={
            reason: _refusals(list(group))
            for reason, group in groupby(sorted(refused, key=_reason), key=_reason)
        },
        errors=dict(
            Counter(f"{one.reason}: {one.message}" for one in records if one.status is Status.FAILED)
        ),
        stages=_stages(done),
        batch_rows=sum(rows) / len(rows) if rows else None,
        hit_rate=told["hit"] / told.total() if told else None,
        **_from_samples(samples, spans),
    )


def slope(samples: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of a line through points, by least squares; None of fewer than three."""
    if len(samples) < 3:
        return None
    xs, ys = np.array(samples, dtype=float).T
    return float(np.polyfit(xs - xs[0], ys, 1)[0]) if xs[-1] > xs[0] else None


def counter(sample: Sample, name: str) -> float | None:
    """Return a counter's reading: 0 where the page does not have it yet, None where no page was read."""
    if not sample.values.keys() - {"tree_memory"}:
        return None
    return sample.values.get(name, 0.0)


def memory(sample: Sample) -> float | None:
    """Return a sample's resident bytes of the server and its engines."""
    values = sample.values
    if "tree_memory" in values:
        return values["tree_memory"]
    parts = [values[name] for name in ("server_memory", "engine_memory") if name in values]
    return sum(parts) if parts else values.get("process_memory")


def _within(spans: Sequence[tuple[float, float]]) -> Callable[[float], bool]:
    """Return what tells whether a moment is in one of the spans, their ends left out."""
    ordered = sorted(spans)
    begins = [begin for begin, _ in ordered]

    def within(moment: float) -> bool:
        place = bisect_right(begins, moment)
        return place > 0 and moment < ordered[place - 1][1]

    return within


def _reason(one: Record) -> str:
    return one.reason


def _by_cache(done: Sequence[Record]) -> dict[str, Latency]:
    groups: dict[str, list[float]] = {}
    for one in done:
        name = "none" if one.person is None else one.cache
        if name is not None:
            groups.setdefault(name, []).append(one.latency)
    return {name: latency(group) for name, group in sorted(groups.items())}


def _refusals(refused: Sequence[Record]) -> Refusals:
    return Refusals(
        count=len(refused),
        answered=latency(one.service for one in refused),
        with_retry_info=sum(one.retry_after is not None for one in refused),
    )


def _stages(done: Sequence[Record]) -> dict[str, float]:
    told = [one.stages for one in done if one.stages is not None]
    return (
        {name: sum(getattr(stages, name) for stages in told) / len(told) for name in STAGES} if told else {}
    )


def _from_samples(samples: Sequence[Sample], spans: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    """Return the growth of counters over the spans, as far as there are readings, and the shares that follow."""
    if not samples:
        return {}
    # A turn of a phase is short: from reading to reading around it, much of the growth would be its neighbours'.
    bounds = np.clip(np.array(spans), samples[0].at, samples[-1].at)
    seen = float(np.diff(bounds).sum())
    if seen <= 0:
        return {}
    grown: dict[str, float] = {}
    for name in ("rows_useful", "rows_padded", "busy_seconds", "encodes"):
        told = [(one.at, value) for one in samples if (value := counter(one, name)) is not None]
        if told:
            at, values = np.array(told).T
            grown[name] = float(np.diff(np.interp(bounds, at, values)).sum())
    rows = grown.get("rows_useful", 0.0) + grown.get("rows_padded", 0.0)
    busy = grown.get("busy_seconds")
    return {
        "padded_share": grown.get("rows_padded", 0.0) / rows if rows else None,
        "busy_share": None if busy is None else busy / seen,
        "encodes": grown.get("encodes"),
    }
