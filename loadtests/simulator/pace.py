"""Pace: how fast a machine was from moment to moment of a real run, read off how long the engine's ticks took.

A shared machine changes its speed within the minute of a run, and near the limit a queue makes much of a spell that is
a tenth slower. Of the run nothing else takes part: neither its latencies nor how its requests shared ticks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from loadtests.simulator.errors import SimulationError

LEAST_TICKS = 25
"""Of a span whose speed is told: the mean of fewer says more about single ticks."""
LEAST_SIMULATED = 8
"""Ticks of a bucket whose mean is taken."""


class Ticks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ticks that took `seconds` together, counted by their bucket."""

    seconds: Annotated[float, Meta(ge=0)]
    buckets: dict[int, Annotated[int, Meta(ge=0)]]

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(self.buckets.values())

    def and_then(self, later: Ticks) -> Ticks:
        """Return these and later ones."""
        both = self.buckets.keys() | later.buckets.keys()
        return Ticks(
            seconds=self.seconds + later.seconds,
            buckets={bucket: self.buckets.get(bucket, 0) + later.buckets.get(bucket, 0) for bucket in both},
        )


class Stretch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ticks that were reported up to a moment, in seconds from the start of the run, since the stretch before."""

    until: float
    ticks: Ticks


class TickTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long ticks took: in the closed loop of the calibration, and in each stretch of the run."""

    calibration: Ticks
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


def pace_of(times: TickTimes, calibration: Sequence[SimulatedTick], run: Sequence[SimulatedTick]) -> Pace:
    """Return by how much a machine was slower in a run than in its calibration, from moment to moment.

    Both are given as simulated at one speed too: a bucket's ticks take longer at one size of picture than at another,
    and which sizes came when is the same there. Raises SimulationError where nothing tells how fast the machine was.
    """
    if times.calibration.count < LEAST_TICKS or times.calibration.seconds == 0:
        raise SimulationError("ticks", f"{times.calibration.count} ticks of a calibration tell no speed")
    then = times.calibration.seconds / _Simulated(calibration).seconds(times.calibration)
    simulated = _Simulated(run)
    ends, factors = [], []
    began = 0.0
    for span in _spans(times.run):
        ends.append(span.until)
        factors.append(span.ticks.seconds / simulated.seconds(span.ticks, began, span.until) / then)
        began = span.until
    return Pace(tuple(ends), tuple(factors)) if factors else STEADY


class _Simulated:
    """What ticks take in a simulation, by bucket, near a moment where there are enough of them."""

    def __init__(self, ticks: Sequence[SimulatedTick]) -> None:
        if not ticks:
            raise SimulationError("ticks", "the simulation has none")
        self._at = np.array([tick.at for tick in ticks])
        self._bucket = np.array([tick.bucket for tick in ticks])
        self._seconds = np.array([tick.seconds for tick in ticks])

    def seconds(self, ticks: Ticks, began: float = -inf, ended: float = inf) -> float:
        """Return what so many ticks of these buckets take, between two moments."""
        within = (self._at > began) & (self._at <= ended)
        return sum(count * self._mean(bucket, within) for bucket, count in ticks.buckets.items())

    def _mean(self, bucket: int, within: NDArray[np.bool_]) -> float:
        alike = self._bucket == bucket
        for chosen in (alike & within, alike):
            if np.count_nonzero(chosen) >= LEAST_SIMULATED:
                return float(self._seconds[chosen].mean())
        return float(np.interp(bucket, *self._curve))

    @cached_property
    def _curve(self) -> tuple[NDArray[np.int64], list[float]]:
        """The mean of each bucket, for one that the simulation hardly has."""
        buckets = np.unique(self._bucket)
        return buckets, [float(self._seconds[self._bucket == bucket].mean()) for bucket in buckets]


def _spans(stretches: Sequence[Stretch]) -> Iterator[Stretch]:
    """Join stretches until each has ticks enough; what is left at the end belongs to the last of them."""
    gathered = Ticks(seconds=0.0, buckets={})
    for stretch in stretches:
        gathered = gathered.and_then(stretch.ticks)
        if gathered.count >= LEAST_TICKS:
            yield Stretch(until=stretch.until, ticks=gathered)
            gathered = Ticks(seconds=0.0, buckets={})
