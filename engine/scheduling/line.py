"""The line: all images in flight, in the order in which they may run."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from operator import attrgetter

from .work import Shape, WorkItem

_place = attrgetter("place")


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """Hold what changes about an image between submission and its last step.

    `place` sorts the line and never changes: (arrival in seconds, later for BATCH by the aging time; count).
    """

    item: WorkItem
    place: tuple[float, int]
    submitted: float
    step: int = 0
    started: bool = False


class Line:
    """Keep the images in flight in order, grouped by latent shape, since only equal shapes share a tick.

    The order is static, which is what makes the rest simple: whoever is first in line is in every tick
    until done (nobody starves), pre-emption is an earlier place, and the future can be computed.
    """

    def __init__(self, groups: dict[Shape, list[Flight]] | None = None) -> None:
        self._groups = groups or {}

    def __bool__(self) -> bool:
        return bool(self._groups)

    def __iter__(self) -> Iterator[Flight]:
        return merge(*self._groups.values(), key=_place)

    def copy(self) -> Line:
        """Return a line that can be changed without changing this one; it shares the flights."""
        return Line({shape: list(group) for shape, group in self._groups.items()})

    def add(self, flight: Flight) -> None:
        """Put a flight in its place."""
        insort(self._groups.setdefault(flight.item.shape, []), flight, key=_place)

    def remove(self, flight: Flight) -> None:
        """Take a flight out."""
        group = self._groups[flight.item.shape]
        group.remove(flight)
        if not group:
            del self._groups[flight.item.shape]

    def front(self) -> list[Flight]:
        """Return the flights that share the shape of the first in line, in order; don't change the list."""
        return min(self._groups.values(), key=lambda group: group[0].place)
