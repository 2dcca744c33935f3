"""Counters out of totals that another process reports and that begin again at 0 when it is replaced."""

from __future__ import annotations


class RunningTotal:
    """Turns a reported total into what it grew by, so that a counter never falls."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0.0

    def advance(self, total: float) -> float:
        """Return the growth since the last report; a smaller total is a new process's, and all of it is
        growth.
        """
        grown = total - self._last if total >= self._last else total
        self._last = total
        return grown

    def restart(self) -> None:
        """Note that the next report is a new process's."""
        self._last = 0.0
