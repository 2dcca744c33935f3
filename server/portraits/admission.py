"""Who is let in: a bounded number of requests, counted before any picture is decoded."""

from __future__ import annotations

import time
from collections.abc import Callable

from server.errors import OverloadedError

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 30.0
FIRST_GUESS_SECONDS = 1.0
"""Between two completions, before any was seen."""
SMOOTHING = 0.1
"""Weight of the newest interval in the mean."""


class Permit:
    """The right to be in flight; must be given back with ``leave``."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def leave(self, *, done: bool) -> None:
        """Give it back; ``done`` when the work was served to its end, which measures the service rate."""
        admission, self._admission = self._admission, None
        assert admission is not None, "a permit is given back once"
        admission.left(done=done)


class Admission:
    """Counts who is in flight, and measures how fast they are served."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._in_flight = 0
        self._interval: float | None = None
        self._last_done: float | None = None
        self._refused_since = 0

    @property
    def in_flight(self) -> int:
        """Requests in flight."""
        return self._in_flight

    def enter(self) -> Permit:
        """Let one in. Raises ``OverloadedError``, which tells when there should be room."""
        if self._in_flight >= self.limit:
            self._refused_since += 1
            raise OverloadedError("requests in flight", limit=self.limit, retry_after=self.retry_seconds())
        self._in_flight += 1
        return Permit(self)

    def retry_seconds(self) -> float:
        """Return when to come again: a later place for each refused caller, so that they don't come as one."""
        interval = FIRST_GUESS_SECONDS if self._interval is None else self._interval
        return min(max(interval * max(self._refused_since, 1), MIN_RETRY_SECONDS), MAX_RETRY_SECONDS)

    def left(self, *, done: bool) -> None:
        """Count one out; ``Permit.leave`` calls it."""
        self._in_flight -= 1
        self._refused_since = max(0, self._refused_since - 1)
        if done:
            self._measure(self._clock())

    def _measure(self, now: float) -> None:
        if self._last_done is not None:
            interval = min(now - self._last_done, MAX_RETRY_SECONDS)
            self._interval = (
                interval
                if self._interval is None
                else self._interval + SMOOTHING * (interval - self._interval)
            )
        # What passes while nobody is in flight says nothing about the rate of service.
        self._last_done = now if self._in_flight else None
