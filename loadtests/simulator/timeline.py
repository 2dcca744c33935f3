"""The timeline: what happens when, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from engine.scheduling.simulate import VirtualClock


class Timeline:
    """Do things in the order of their moments, in seconds; those of one moment in the order in which they were set."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self._ahead: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()

    @property
    def now(self) -> float:
        """Return the moment of what is being done."""
        return self.clock()

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something at a moment that is not past."""
        assert moment >= self.now, f"{moment} is before {self.now}"
        heappush(self._ahead, (moment, next(self._count), action))

    def run(self) -> None:
        """Let time pass until nothing is left to do."""
        while self._ahead:
            moment, _, action = heappop(self._ahead)
            self.clock.advance_to(moment)
            action()
