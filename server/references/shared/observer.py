"""What the shared tier tells of itself; ``server.metrics.redis.RedisMetrics`` listens."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from server.references.shared.breaker import BreakerState
from server.references.shared.connection import FaultKind


class Lane(StrEnum):
    """Reading and writing fail apart, as with a Redis that is full; each has a breaker."""

    READ = "read"
    WRITE = "write"


class Operation(StrEnum):
    """What is asked of Redis."""

    GET = "get"
    """Tokens that memory has not."""
    CHECK = "check"
    """Whether tokens that memory has were deleted elsewhere."""
    RECORD = "record"
    """``GetReference``."""
    DELETE = "delete"
    PUT = "put"
    REPAIR = "repair"
    """A deletion again that Redis did not hear, or of a corrupt entry."""


class LookupOutcome(StrEnum):
    """How asking a tier for tokens ended."""

    HIT = "hit"
    MISS = "miss"
    CORRUPT = "corrupt"
    ERROR = "error"
    SKIPPED = "skipped"
    """The breaker was open, or the reference's deletion still has to reach Redis."""


class WriteOutcome(StrEnum):
    """How a write of an entry ended."""

    STORED = "stored"
    FAILED = "failed"
    DROPPED = "dropped"
    """Too much waited, or the server ended."""
    TOO_LARGE = "too_large"


class SharedObserver(Protocol):
    """Is told what the shared tier does."""

    def lookup(self, outcome: LookupOutcome) -> None:
        """Count a look-up of tokens in Redis."""
        ...

    def took(self, operation: Operation, seconds: float) -> None:
        """Observe how long an operation kept its caller, whatever came of it."""
        ...

    def fault(self, operation: Operation, kind: FaultKind) -> None:
        """Count an operation that failed."""
        ...

    def corrupt(self) -> None:
        """Count a value that was found corrupt."""
        ...

    def write(self, outcome: WriteOutcome, count: int = 1) -> None:
        """Count writes of entries that ended."""
        ...

    def waiting(self, size: int, deletions: int) -> None:
        """Note bytes of entries, and deletions, that wait to be written."""
        ...

    def breaker(self, lane: Lane, state: BreakerState) -> None:
        """Note a lane's breaker's new state."""
        ...
