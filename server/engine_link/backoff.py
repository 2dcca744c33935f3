"""How long to wait before a dead engine is replaced."""

from __future__ import annotations


class Backoff:
    """Doubles with every death that follows soon after the start; starts over after a life that was long enough."""

    def __init__(self, *, first_seconds: float, max_seconds: float) -> None:
        self._first = first_seconds
        self._max = max_seconds
        self._next = first_seconds

    def after_life_of(self, seconds: float) -> float:
        """Return the wait after an engine was ready for ``seconds`` (0 if it never was)."""
        if seconds > 2 * self._max:
            self._next = self._first
        wait, self._next = self._next, min(2 * self._next, self._max)
        return min(wait, self._max)
