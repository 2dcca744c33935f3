"""Arrivals: the moments of a stream's requests, from a rate and a seed."""

from __future__ import annotations

from itertools import count
from random import Random

from loadtests.runner.scenario import Arrivals, Bursts, Closed, Poisson, Trace

CLOSED_LOOP_MARGIN = 4.0
"""A closed loop's plan has so many times the requests that the target's capacity lets it send."""


def wanted_rate(arrivals: Arrivals, capacity: float) -> float:
    """Return requests a second: the given ones, or a share of the capacity; those of the recording where neither is
    given. A closed loop has none, and gives 0.
    """
    if isinstance(arrivals, Closed):
        return 0.0
    if arrivals.per_second is not None:
        return arrivals.per_second
    if arrivals.rate is not None:
        return arrivals.rate * capacity
    assert isinstance(arrivals, Trace)
    return len(arrivals.offsets) / _period(arrivals)


def moments(
    arrivals: Arrivals, begin: float, end: float, capacity: float, random: Random
) -> list[tuple[float, int | None]]:
    """Return when requests come from `begin` to before `end`, ascending, each with the person that a trace names."""
    rate = wanted_rate(arrivals, capacity)
    match arrivals:
        case Poisson():
            return [(at, None) for at in _poisson(rate, begin, end, random)]
        case Bursts():
            starts = _poisson(rate / arrivals.size, begin, end, random)
            each = [
                start + random.uniform(0, arrivals.within) for start in starts for _ in range(arrivals.size)
            ]
            return [(at, None) for at in sorted(each) if at < end]
        case Trace():
            return _replay(arrivals, rate, begin, end)
        case Closed():
            needed = arrivals.concurrency + int(CLOSED_LOOP_MARGIN * capacity * (end - begin))
            return [(begin, None)] * needed


def _poisson(rate: float, begin: float, end: float, random: Random) -> list[float]:
    times = []
    at = begin + random.expovariate(rate)
    while at < end:
        times.append(at)
        at += random.expovariate(rate)
    return times


def _period(trace: Trace) -> float:
    """Return the seconds after which a trace begins again: its length and one mean gap."""
    length = trace.offsets[-1] - trace.offsets[0]
    return length * len(trace.offsets) / (len(trace.offsets) - 1)


def _replay(trace: Trace, rate: float, begin: float, end: float) -> list[tuple[float, int | None]]:
    stretch = len(trace.offsets) / _period(trace) / rate
    people = trace.people or (None,) * len(trace.offsets)
    times: list[tuple[float, int | None]] = []
    for turn in count():
        for offset, person in zip(trace.offsets, people, strict=True):
            at = begin + stretch * (offset - trace.offsets[0] + turn * _period(trace))
            if at >= end:
                return times
            times.append((at, person))
    raise AssertionError("unreachable")
