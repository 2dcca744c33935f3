"""Pace: how fast a machine was from moment to moment of a real run, read off how long the engine's ticks took.

A shared machine changes its speed within the minute of a run, and near the limit a queue makes much of a spell that is
a tenth slower. Of the run the times of its ticks by bucket take part, and no latency.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadtests.ticks import NONE, BucketTicks

LEAST_TICKS = 50
"""Of a span whose speed is told, and of a bucket in the calibration: the mean of fewer says more about single ticks."""
LEAST_SIMULATED = 8
"""Simulated ticks of a bucket near a moment; where there are fewer, all of the run tell."""


ByBucket = Mapping[int, BucketTicks]


class Stretch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ticks that were reported up to a moment, in seconds from the start of the run, since the stretch before."""

    until: float
    ticks: dict[int, BucketTicks]


class TickTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long ticks took: in the calibration, its requests by themselves included, and in each stretch of the run."""

    calibration: dict[int, BucketTicks]
    run: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """A factor on the engine's times, from moment to moment: ``factors[i]`` up to ``ends[i]``, the last for ever."""

    ends: tuple[float, ...] = ()
    factors: tuple[float, ...] = (1.0,)

    def __call__(self, at: float) -> float:
        """Return the factor at a moment."""
        return self.factors[min(bisect_right(self.ends, at), len(self.factors) - 1)]

    def __str__(self) -> str:
        """Return its least and its most."""
        return f"{min(self.factors):.2f} to {max(self.factors):.2f}"


STEADY = Pace()


class SimulatedTick(NamedTuple):
    """A tick of a simulation that ended `at` a moment."""

    at: float
    bucket: int
    seconds: float


OnTick = Callable[[SimulatedTick], object]


def nobody(tick: SimulatedTick) -> None:
    """Take no notice of a tick: an ``OnTick``."""


def pace_of(
    times: TickTimes, calibration: Sequence[SimulatedTick], run: Sequence[SimulatedTick]
) -> Pace | None:
    """Return by how much a machine was slower in a run than in its calibration; None where too few ticks tell.

    A tick is held against those of its own bucket in the calibration. As a bucket's take longer at one size of picture
    than at another, both are also given as simulated at one speed: which sizes came when is the same there.
    """
    then = _Simulated(calibration)
    slower = {
        bucket: ticks.seconds / then.seconds({bucket: ticks})
        for bucket, ticks in times.calibration.items()
        if ticks.count >= LEAST_TICKS
    }
    spans = list(_spans(times.run))
    if not slower or not spans:
        return None
    # A bucket that the calibration hardly had is as much slower as the others were.
    usual = float(np.mean(list(slower.values())))
    simulated = _Simulated(run)
    factors = []
    began = 0.0
    for span in spans:
        expected = sum(
            slower.get(bucket, usual) * simulated.seconds({bucket: ticks}, began, span.until)
            for bucket, ticks in span.ticks.items()
        )
        factors.append(sum(ticks.seconds for ticks in span.ticks.values()) / expected)
        began = span.until
    return Pace(tuple(span.until for span in spans), tuple(factors))


class _Simulated:
    """What ticks take in a simulation, by bucket, near a moment where there are enough of them."""

    def __init__(self, ticks: Sequence[SimulatedTick]) -> None:
        assert ticks, "a simulation of a run with ticks has some"
        self._at = np.array([tick.at for tick in ticks])
        self._bucket = np.array([tick.bucket for tick in ticks])
        self._seconds = np.array([tick.seconds for tick in ticks])
        self._buckets = np.unique(self._bucket)
        self._means = [float(self._seconds[self._bucket == bucket].mean()) for bucket in self._buckets]

    def seconds(self, ticks: ByBucket, began: float = -inf, ended: float = inf) -> float:
        """Return what so many ticks of these buckets take, between two moments."""
        within = (self._at > began) & (self._at <= ended)
        return sum(each.count * self._mean(bucket, within) for bucket, each in ticks.items())

    def _mean(self, bucket: int, within: NDArray[np.bool_]) -> float:
        near = within & (self._bucket == bucket)
        if np.count_nonzero(near) >= LEAST_SIMULATED:
            return float(self._seconds[near].mean())
        return float(np.interp(bucket, self._buckets, self._means))


def _spans(stretches: Sequence[Stretch]) -> Iterator[Stretch]:
    """Join stretches until each has ticks enough; those left at the end are too few and are dropped."""
    gathered: dict[int, BucketTicks] = {}
    for stretch in stretches:
        for bucket, ticks in stretch.ticks.items():
            gathered[bucket] = gathered.get(bucket, NONE) + ticks
        if sum(ticks.count for ticks in gathered.values()) >= LEAST_TICKS:
            yield Stretch(until=stretch.until, ticks=gathered)
            gathered = {}
