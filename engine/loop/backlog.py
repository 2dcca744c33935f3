"""The backlog: jobs that have arrived and were not looked at yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from engine.protocol.messages import Submit

from .mailbox import Mail

ADMIT_SECONDS = 0.005
"""How long a turn goes on admitting jobs before its tick. Each takes a forecast of all that is in flight."""


class Backlog:
    """Hold submits in order, so that a burst of them holds up neither a tick nor a cancel."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Submit, Mail]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, submit: Submit, mail: Mail) -> None:
        """Let a job wait; `mail` is what brought it."""
        self._waiting.append((submit, mail))

    def withdraw(self, job_id: str) -> bool:
        """Forget a job; return whether it waited here."""
        before = len(self._waiting)
        self._waiting = deque(entry for entry in self._waiting if entry[0].job_id != job_id)
        return len(self._waiting) < before

    def next(self) -> tuple[Submit, Mail]:
        """Take the first one out, which there must be."""
        return self._waiting.popleft()

    def due(self) -> Iterator[tuple[Submit, Mail]]:
        """Take out what this turn has time for, at least one."""
        until = self._clock() + ADMIT_SECONDS
        while self._waiting:
            yield self.next()
            if self._clock() > until:
                return
