"""The summary: a run in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import nan

import numpy as np

from engine.scheduling.simulate import Outcome
from loadtests.simulator.call import Found
from loadtests.simulator.fleet import FleetRun
from loadtests.simulator.machine import Machine
from loadtests.simulator.request import Request

FOUND = (Found.HIT, Found.SHARED, Found.COALESCED, Found.MISS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Quantiles in seconds; nan where nothing finished."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Latency:
        """Take the quantiles."""
        values = list(seconds)
        p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99)).tolist() if values else (nan, nan, nan)
        return cls(p50=p50, p95=p95, p99=p99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Sum up the counted time of a run. Rates are a second, shares from 0 to 1, money in the price's currency.

    arrived, outcomes: calls that came in that time, and what became of them.
    throughput: images finished in that time. goodput: images of calls that came in it and were done within
        the service level, or their own deadline where they have one.
    hit_rate: calls whose reference was in the replica's own memory, of those with a reference.
    padded_share: rows of ticks that nobody asked for.
    busy, busiest: the engines' mean and largest share of time at work; encode_share: of that, in the image encoder.
    spilled_share: calls that the bounded load sent past the replica of their person.
    cost, cost_good: price of 1,000 images, by throughput and by goodput.
    """

    replicas: int
    seconds: float
    arrived: int
    outcomes: dict[str, int]
    found: dict[str, int]
    throughput: float
    goodput: float
    latency: Latency
    hit_latency: Latency
    miss_latency: Latency
    hit_rate: float
    padded_share: float
    mean_rows: float
    busy: float
    busiest: float
    encode_share: float
    spilled_share: float
    cost: float
    cost_good: float


def summarise(run: FleetRun, *, service_level: Callable[[Request], float], price: float) -> Summary:
    """Return the figures of a run at a price for each hour of a replica; `service_level` is in seconds."""
    begin, end = run.window
    seconds = end - begin
    counted = [call for call in run.calls if begin <= call.request.at < end]
    finished = [call for call in counted if call.outcome is Outcome.FINISHED]
    images = sum(
        call.request.images
        for call in run.calls
        if call.outcome is Outcome.FINISHED and call.ended is not None and begin <= call.ended < end
    )
    good = sum(
        call.request.images for call in finished if call.latency <= _limit(call.request, service_level)
    )
    found = Counter(call.found for call in counted)
    referenced = sum(found[where] for where in FOUND)
    ran = run.counters
    bucket_rows, ticks = sum(c.bucket_rows for c in ran), sum(c.ticks for c in ran)
    rows, busy = sum(c.rows for c in ran), sum(c.busy_seconds for c in ran)
    hourly = price * len(ran) / 3600 * 1000
    return Summary(
        replicas=len(ran),
        seconds=seconds,
        arrived=len(counted),
        outcomes=dict(sorted(Counter(call.outcome.value for call in counted if call.outcome).items())),
        found={where.value: found[where] for where in FOUND},
        throughput=images / seconds,
        goodput=good / seconds,
        latency=Latency.of(call.latency for call in finished),
        hit_latency=Latency.of(call.latency for call in finished if call.found is Found.HIT),
        miss_latency=Latency.of(call.latency for call in finished if call.found is Found.MISS),
        hit_rate=_share(found[Found.HIT], referenced),
        padded_share=_share(bucket_rows - rows, bucket_rows),
        mean_rows=_share(rows, ticks),
        busy=busy / seconds / len(ran),
        busiest=max(c.busy_seconds for c in ran) / seconds,
        encode_share=_share(sum(c.encode_seconds for c in ran), busy),
        spilled_share=_share(run.spilled, run.routed),
        cost=_share(hourly, images / seconds),
        cost_good=_share(hourly, good / seconds),
    )


def unloaded_seconds(machine: Machine, *, steps: int, rows: int = 2) -> float:
    """Return what a request takes whose reference is known when nobody else is there."""
    bucket = min((bucket for bucket in machine.buckets if bucket >= rows), default=machine.buckets[-1])
    tick = machine.ticks[0].seconds[bucket] + machine.step_seconds + machine.step_seconds_image
    engine = machine.prompt_seconds + machine.prompt_seconds_each + steps * tick + machine.decode_seconds[1]
    engine += rows * machine.place_seconds
    engine *= machine.slowdown
    return machine.arrive_seconds + engine + steps * machine.turn_seconds + machine.answer_seconds


def _limit(request: Request, service_level: Callable[[Request], float]) -> float:
    return service_level(request) if request.deadline is None else request.deadline


def _share(part: float, whole: float) -> float:
    return part / whole if whole else nan
