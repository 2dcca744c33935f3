"""A circuit breaker: who fails again and again is left alone for a while, then asked once."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    """Closed lets calls through, open none, half-open one at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after ``failures`` in a row, lets one call try after ``open_seconds``, and closes when that succeeds.

    ``admit`` gives a permit, with which exactly one of ``succeeded``, ``failed`` and ``abandoned`` must follow.
    Permits from before the last change of state count for nothing: an answer that was slow to come neither
    closes a breaker nor keeps one open. Belongs to one event loop. ``on_change`` is told each new state.
    """

    def __init__(
        self,
        *,
        failures: int,
        open_seconds: float,
        clock: Callable[[], float],
        on_change: Callable[[BreakerState], None] = lambda _: None,
    ) -> None:
        self._threshold = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._on_change = on_change
        self._failures = 0
        self._epoch = 0
        self._is_probing = False
        self._retry_at = 0.0
        self.state = BreakerState.CLOSED

    @property
    def seconds_to_probe(self) -> float:
        """Seconds until an open breaker lets a call try; 0 in other states."""
        return max(0.0, self._retry_at - self._clock()) if self.state is BreakerState.OPEN else 0.0

    def admit(self) -> int | None:
        """Return a permit for one call, or None when it must not be made."""
        if self.state is BreakerState.OPEN:
            if self._clock() < self._retry_at:
                return None
            self._become(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            if self._is_probing:
                return None
            self._is_probing = True
        return self._epoch

    def succeeded(self, permit: int) -> None:
        """Note that the call was answered."""
        if permit == self._epoch:
            self._failures = 0
            if self.state is BreakerState.HALF_OPEN:
                self._become(BreakerState.CLOSED)

    def failed(self, permit: int) -> None:
        """Note that it was not."""
        if permit != self._epoch:
            return
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._threshold:
            self._retry_at = self._clock() + self._open_seconds
            self._become(BreakerState.OPEN)

    def abandoned(self, permit: int) -> None:
        """Note that nobody waited for its end, so that it tells nothing."""
        if permit == self._epoch:
            self._is_probing = False

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._epoch += 1
        self._failures = 0
        self._is_probing = False
        self._on_change(state)
