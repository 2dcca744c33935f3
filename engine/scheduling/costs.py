"""How long a tick takes, for each latent shape and bucket."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

from .work import Shape

DRIFT_WEIGHT = 0.1
"""Weight of the newest tick in the running mean: about the last ten ticks count."""

DRIFT_CLIP = 2.0
"""One tick counts as at most this many times slower or faster than expected, so that a single stall
(garbage collection, a page fault) moves the mean by a tenth and not by ten times."""

CLEARLY_SLOWER = 1.15
"""A larger bucket this many times as slow a row as a smaller one is believed; less is noise."""

SLIGHTLY_CHEAPER = 0.995


class CostCurve:
    """Predict seconds per tick from warm-up measurements, corrected by the ticks seen since.

    `measured[shape][bucket]` is in seconds. Buckets that were not measured are interpolated linearly, and so
    are shapes, by latent area; outside what was measured, time is taken as proportional (a bucket below the
    smallest one costs the same as that one). The correction is one factor per shape, not per bucket: a
    slow spell would otherwise make the buckets that were not used during it look cheap. So the curve's
    form is fixed at warm-up and its level follows the machine.

    Raises ValueError when nothing was measured or a time is not positive and finite.
    """

    def __init__(self, measured: Mapping[Shape, Mapping[int, float]]) -> None:
        if not measured or not all(measured.values()):
            raise ValueError("a cost curve needs a measurement for each of its shapes")
        for shape, times in measured.items():
            for bucket, seconds in times.items():
                if bucket < 1 or not (isfinite(seconds) and seconds > 0):
                    raise ValueError(f"shape {shape} bucket {bucket}: {seconds} is not a time")
        self._measured = {shape: dict(sorted(times.items())) for shape, times in measured.items()}
        self._by_area = {_area(shape): shape for shape in sorted(measured, key=_area)}
        self._warmup: dict[tuple[Shape, int], float] = {}
        self._drift: dict[Shape, float] = {}

    def seconds(self, shape: Shape, bucket: int) -> float:
        """Return the seconds that a tick is expected to take now."""
        return self.warmup_seconds(shape, bucket) * self._drift.get(shape, 1.0)

    def warmup_seconds(self, shape: Shape, bucket: int) -> float:
        """Return the seconds that a tick took at warm-up: constant, so choices based on it are stable."""
        known = self._warmup.get((shape, bucket))
        if known is None:
            known = self._warmup[shape, bucket] = self._interpolate(shape, bucket)
        return known

    def observe(self, shape: Shape, bucket: int, seconds: float) -> None:
        """Learn from a tick that took `seconds`."""
        drift = self._drift.get(shape, 1.0)
        seen = seconds / self.warmup_seconds(shape, bucket)
        seen = min(max(seen, drift / DRIFT_CLIP), drift * DRIFT_CLIP)
        self._drift[shape] = drift + DRIFT_WEIGHT * (seen - drift)

    def doubt(self, shape: Shape) -> None:
        """Move the correction a step back to warm-up: it refuses work, and nothing runs that could confirm it."""
        drift = self._drift.get(shape, 1.0)
        self._drift[shape] = drift + DRIFT_WEIGHT * (1.0 - drift)

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements for JSON; the drift belongs to this run and stays out."""
        return {
            "measured": [
                {"shape": list(shape), "seconds": {str(bucket): s for bucket, s in times.items()}}
                for shape, times in self._measured.items()
            ]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostCurve:
        """Read what `to_dict` wrote. Raises ValueError, KeyError or TypeError when it is something else."""
        measured: dict[Shape, dict[int, float]] = {}
        for entry in data["measured"]:
            channels, height, width = entry["shape"]
            times = {int(bucket): float(seconds) for bucket, seconds in entry["seconds"].items()}
            measured[channels, height, width] = times
        return cls(measured)

    def _interpolate(self, shape: Shape, bucket: int) -> float:
        if shape in self._measured:
            return _between(self._measured[shape], bucket, floor=True)
        times = {area: self.warmup_seconds(known, bucket) for area, known in self._by_area.items()}
        return _between(times, _area(shape), floor=False)


def without_noise(tick_seconds: Mapping[int, float]) -> dict[int, float]:
    """Return seconds a tick in which a larger bucket costs less a row, unless it was measured clearly slower.

    Where the curve is flat, noise would choose among the buckets, and the loop's own work a tick (guidance, samplers,
    mail) is not in it: an engine that took 6 rows for 16 lost a sixth of its throughput.
    """
    planned: dict[int, float] = {}
    cheapest = inf
    for bucket, seconds in sorted(tick_seconds.items()):
        a_row = seconds / bucket
        if a_row <= CLEARLY_SLOWER * cheapest:
            a_row = min(a_row, SLIGHTLY_CHEAPER * cheapest)
        planned[bucket] = a_row * bucket
        cheapest = min(cheapest, a_row)
    return planned


def _area(shape: Shape) -> int:
    return shape[1] * shape[2]


def _between(points: Mapping[int, float], x: int, *, floor: bool) -> float:
    """Read a curve, given by points in ascending order, at `x`; beyond its ends go through the origin."""
    if x in points:
        return points[x]
    xs = list(points)
    right = bisect_left(xs, x)
    if right == 0:
        return points[xs[0]] if floor else points[xs[0]] * x / xs[0]
    if right == len(xs):
        return points[xs[-1]] * x / xs[-1]
    low, high = xs[right - 1], xs[right]
    return points[low] + (points[high] - points[low]) * (x - low) / (high - low)
