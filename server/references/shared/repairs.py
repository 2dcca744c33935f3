"""What Redis still has to be rid of: references whose deletion it did not hear, and values that are not ours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from server.references.shared.connection import Command

MAX_DELETIONS = 10_000
MAX_MENDS = 1000
"""Apart, so that whoever spoils values keeps no deletion from being remembered."""
ATTEMPTS = 3
"""Of one mend: a value that Redis does not let go is found again by who reads it."""

Reference = tuple[str, str]
"""Tenant and digest."""


@dataclass(slots=True, kw_only=True)
class Repair:
    """Commands that are wanted until ``until``, when what they are about has gone by itself.

    ``key`` is a deletion's reference; a mend's is a name.
    """

    key: Reference | str
    commands: tuple[Command, ...]
    until: float
    attempts: int = 0

    @property
    def is_deletion(self) -> bool:
        """Whether somebody was told that a reference is gone: such a one is not given up."""
        return isinstance(self.key, tuple)


class Repairs:
    """A queue of them. One that fails goes to its end, so that none holds up the others."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: OrderedDict[Reference | str, Repair] = OrderedDict()
        self._deletions = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Reference | str, commands: tuple[Command, ...], *, seconds: float) -> None:
        """Have commands run until they have succeeded once, for ``seconds`` at most; they replace those of before.

        Beyond ``MAX_DELETIONS`` and ``MAX_MENDS`` they are lost, which is logged.
        """
        repair = Repair(key=key, commands=commands, until=self._clock() + seconds)
        if (old := self._waiting.pop(key, None)) is not None:
            self._deletions -= old.is_deletion
        elif repair.is_deletion and self._deletions >= MAX_DELETIONS:
            structlog.get_logger(__name__).error("redis_repair_lost", waiting=self._deletions)
            return
        elif not repair.is_deletion and len(self) - self._deletions >= MAX_MENDS:
            structlog.get_logger(__name__).warning("redis_mend_dropped", waiting=len(self) - self._deletions)
            return
        self._waiting[key] = repair
        self._deletions += repair.is_deletion

    def is_deleting(self, reference: Reference) -> bool:
        """Whether a reference's deletion still waits."""
        return reference in self._waiting

    def next(self) -> Repair | None:
        """Return what is to be tried next; what is out of date has left."""
        while self._waiting:
            repair = next(iter(self._waiting.values()))
            if self._clock() < repair.until:
                return repair
            self.done(repair)
        return None

    def done(self, repair: Repair) -> None:
        """Let one go, unless another has taken its place."""
        if self._waiting.get(repair.key) is repair:
            del self._waiting[repair.key]
            self._deletions -= repair.is_deletion

    def failed(self, repair: Repair) -> None:
        """Put it behind the others; a mend that was tried ``ATTEMPTS`` times is given up."""
        repair.attempts += 1
        if self._waiting.get(repair.key) is not repair:
            return
        if repair.is_deletion or repair.attempts < ATTEMPTS:
            self._waiting.move_to_end(repair.key)
        else:
            structlog.get_logger(__name__).warning("redis_mend_dropped", attempts=repair.attempts)
            self.done(repair)

    def clear(self) -> None:
        """Forget all; deletions among them are logged, for the references live until their time is over."""
        if self._deletions:
            structlog.get_logger(__name__).error("redis_repair_lost", waiting=self._deletions)
        self._waiting.clear()
        self._deletions = 0
