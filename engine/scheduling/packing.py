"""Packing: how many of the images in line a tick takes, and in which bucket."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import inf
from operator import attrgetter
from typing import NamedTuple

from .costs import CostCurve
from .errors import InvalidJob
from .line import Flight
from .work import Priority, Shape, WorkItem

_step: Callable[[Flight], int] = attrgetter("step")


class Packed(NamedTuple):
    """The first `images` flights of a group, in a batch padded to `bucket` rows."""

    bucket: int
    images: int


class Round(NamedTuple):
    """Times for one latent shape, in whole nanoseconds, so that equal times compare equal.

    `ticks` are (bucket, time); `cheapest[n]` is the least time in which ticks give each of n rows a step.
    """

    ticks: list[tuple[int, int]]
    cheapest: list[int]


class Packer:
    """Choose the bucket that gives all rows of a group their next step in the least time.

    A tick takes a prefix of the line, never picks from its middle: order is kept, at the price of at most
    one empty row when a pair of rows does not fit in the last place. A bucket is judged by its own time
    plus that of the cheapest ticks for the rows that it leaves behind: 9 rows go as 16 when that takes less
    time than 8 and then 1. Of equally good buckets, that with the most rows a second goes first (8 before
    1); of those the smallest, since it frees the first in line soonest.

    With twice the largest bucket or more in line, how the last rows will fit is too far off to matter: the
    bucket with the most rows a second wins, and the rest of the line is not looked at.

    Where interactive images are first in line and batch ones behind them, the bucket is chosen for the former alone,
    and the others take what places it has left: a batch image makes no interactive one's tick longer. Once it is first
    in line by its age, it counts like any other.

    From a distrusted bucket on, a tick holds one image, in the smallest bucket that does.
    """

    def __init__(self, buckets: Sequence[int], costs: CostCurve, deterministic_bucket: int) -> None:
        if not buckets or min(buckets) < 1:
            raise ValueError(f"buckets are {list(buckets)}, at least one positive size is needed")
        if deterministic_bucket not in buckets:
            raise ValueError(f"deterministic_bucket {deterministic_bucket} is none of {list(buckets)}")
        self.buckets = tuple(sorted(set(buckets)))
        self.deterministic_bucket = deterministic_bucket
        self._costs = costs
        self._horizon = 2 * self.buckets[-1]
        self._rounds: dict[Shape, Round] = {}
        self._distrusted: dict[Shape, int] = {}

    def pack(self, group: Sequence[Flight], step_of: Callable[[Flight], int] = _step) -> Packed:
        """Return the next tick for a group that is in order and not empty.

        `step_of` gives the step that a flight takes next, for a forecast that is ahead of the flights.
        """
        within = group[: self._horizon]
        ahead = [flight.item for flight in within]
        ends = list(accumulate([flight.item.rows_at(step_of(flight)) for flight in within]))
        flags = [item.deterministic for item in ahead]
        deterministic = flags.index(True) if True in flags else len(ahead)
        priorities = [item.priority for item in ahead]
        urgent = priorities.index(Priority.BATCH) if Priority.BATCH in priorities else len(ahead)
        ticks, cheapest = self._round(ahead[0].shape)
        limit = self._distrusted.get(ahead[0].shape, inf)
        alone = self.bucket_alone(ahead[0])
        chosen_for = urgent or len(ahead)
        total = ends[chosen_for - 1]
        backlog = total >= self._horizon

        plans = []
        for bucket, tick in ticks:
            images = bisect_right(ends, bucket)
            if bucket != self.deterministic_bucket:
                images = min(images, deterministic)
            if bucket >= limit:
                images = min(images, int(bucket == alone))
            if images:
                rows = ends[min(images, chosen_for) - 1]
                round_time = 0 if backlog else tick + cheapest[total - rows]
                plans.append((round_time, tick / rows, bucket, images))
        *_, bucket, images = min(plans)
        return Packed(bucket, images)

    def distrust(self, shape: Shape, bucket: int) -> None:
        """Put no images together in this bucket, or in a larger one, for this shape any more."""
        self._distrusted[shape] = min(bucket, self._distrusted.get(shape, bucket))
        self._rounds.pop(shape, None)

    def bucket_alone(self, item: WorkItem) -> int:
        """Return the smallest bucket for an image by itself. Raises InvalidJob when none holds it."""
        buckets = (self.deterministic_bucket,) if item.deterministic else self.buckets
        for bucket in buckets:
            if item.rows <= bucket:
                return bucket
        raise InvalidJob(f"image {item.id}: none of the buckets {list(buckets)} holds its {item.rows} rows")

    def _round(self, shape: Shape) -> Round:
        known = self._rounds.get(shape)
        if known is not None:
            return known
        ticks = [(bucket, round(self._costs.warmup_seconds(shape, bucket) * 1e9)) for bucket in self.buckets]
        limit = max(self._distrusted.get(shape, inf), self.buckets[0] + 1)
        cheapest = [0]
        for rows in range(1, self._horizon):
            cheapest.append(
                min(tick + cheapest[max(0, rows - bucket)] for bucket, tick in ticks if bucket < limit)
            )
        self._rounds[shape] = Round(ticks, cheapest)
        return self._rounds[shape]
