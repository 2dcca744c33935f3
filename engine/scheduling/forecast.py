"""Forecast: when the images in flight will start and finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .costs import CostCurve
from .line import Flight, Line
from .packing import Packer
from .work import Priority, Shape


class Landing(NamedTuple):
    """When an image takes its first tick and is finished, in seconds from now."""

    flight: Flight
    starts_in: float
    finishes_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Say where a job stands. All times are in seconds from now.

    `position` counts the images that stand in line before its first one and are not in the latest tick.
    `starts_in` is when its first image takes its first tick (0 once one has), `finishes_in` is when its
    last image is done. `forecast` says how accurate they are.
    """

    position: int
    starts_in: float
    finishes_in: float

    @classmethod
    def of(cls, position: int, landings: Sequence[Landing]) -> Estimate:
        """Sum up the images of one job, at least one."""
        return cls(
            position=position,
            starts_in=min(landing.starts_in for landing in landings),
            finishes_in=max(landing.finishes_in for landing in landings),
        )


class Fullness(NamedTuple):
    """The bucket that a shape's ticks are full in while more of its images wait than they hold.

    `priority` is that of the most urgent who wait: batch images fill no tick that interactive ones lead.
    """

    shape: Shape
    bucket: int
    priority: Priority

    def applies_to(self, tick: Sequence[Flight]) -> bool:
        """Whether a tick of these flights, in order, would be full."""
        first = tick[0].item
        return (
            first.shape == self.shape
            and first.priority >= self.priority
            and not any(flight.item.deterministic for flight in tick)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Underway:
    """Name the flights that a tick is advancing at this moment, and the seconds until it has."""

    flights: frozenset[Flight]
    remaining: float


def forecast(
    line: Line,
    packer: Packer,
    costs: CostCurve,
    finish_seconds: float,
    underway: Underway | None = None,
    fullness: Fullness | None = None,
) -> Iterator[Landing]:
    """Play the line forward to its end, which consumes it; yield images in the order in which they finish.

    It makes the scheduler's own choices, and these change only when an image finishes or its guidance begins or
    ends, so it leaps from one such event to the next: at most three choices per image in flight, however many
    steps are left. A tick that is `underway` ends as it began, whoever has come since. With
    `fullness`, those of its shape who leave are taken to be replaced: no tick of it costs less than the full bucket,
    but for those of deterministic images, which have a bucket of their own, and of interactive ones where only batch
    images wait.

    Exact (to the cost curve's own error) while nothing else arrives; an image that is cancelled or expires
    makes the others earlier, as a rule. Later arrivals of a higher priority delay an image by their own
    work, all others only by changing the bucket that it runs in.
    """
    steps = {id(flight): flight.step for flight in line}
    starts: dict[int, float] = {}
    now = 0.0
    if underway is not None:
        now = underway.remaining
        for flight in [flight for flight in line if flight in underway.flights]:
            steps[id(flight)] += 1
            if steps[id(flight)] == flight.item.steps:
                line.remove(flight)
                now += finish_seconds
                yield Landing(flight, 0.0, now)
    while line:
        group = line.front()
        packed = packer.pack(group, lambda flight: steps[id(flight)])
        tick = group[: packed.images]
        for flight in tick:
            starts.setdefault(id(flight), now)
        leap = min(flight.item.changes_after(steps[id(flight)]) - steps[id(flight)] for flight in tick)
        now += leap * _seconds(tick, packed.bucket, costs, fullness)
        for flight in tick:
            steps[id(flight)] += leap
            if steps[id(flight)] == flight.item.steps:
                line.remove(flight)
                now += finish_seconds
                yield Landing(flight, 0.0 if flight.started else starts[id(flight)], now)


def _seconds(tick: Sequence[Flight], bucket: int, costs: CostCurve, fullness: Fullness | None) -> float:
    shape = tick[0].item.shape
    seconds = costs.seconds(shape, bucket)
    if fullness is None or not fullness.applies_to(tick):
        return seconds
    return max(seconds, costs.seconds(shape, fullness.bucket))
