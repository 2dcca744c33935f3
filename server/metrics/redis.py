"""What the shared tier of the reference cache does, as metrics."""

from __future__ import annotations

from server.metrics.collectors import Collectors
from server.references.shared.breaker import BreakerState
from server.references.shared.connection import FaultKind
from server.references.shared.observer import Lane, LookupOutcome, Operation, WriteOutcome

_TIER = "redis"


class RedisMetrics:
    """Implements ``SharedObserver``. Series with labels are there from its creation on."""

    def __init__(self, collectors: Collectors) -> None:
        self._collectors = c = collectors
        for outcome in LookupOutcome:
            c.tier_lookups.labels(_TIER, outcome.value)
        for operation in Operation:
            c.redis_seconds.labels(operation.value)
            for kind in FaultKind:
                c.redis_faults.labels(operation.value, kind.value)
        for ended in WriteOutcome:
            c.redis_writes.labels(ended.value)
        for lane in Lane:
            c.redis_opened.labels(lane.value)
            self._show(lane, BreakerState.CLOSED)

    def lookup(self, outcome: LookupOutcome) -> None:
        """Count a look-up of tokens in Redis."""
        self._collectors.tier_lookups.labels(_TIER, outcome.value).inc()

    def took(self, operation: Operation, seconds: float) -> None:
        """Observe how long an operation kept its caller, whatever came of it."""
        self._collectors.redis_seconds.labels(operation.value).observe(seconds)

    def fault(self, operation: Operation, kind: FaultKind) -> None:
        """Count an operation that failed."""
        self._collectors.redis_faults.labels(operation.value, kind.value).inc()

    def corrupt(self) -> None:
        """Count a value that was found corrupt."""
        self._collectors.redis_corrupt.inc()

    def write(self, outcome: WriteOutcome, count: int = 1) -> None:
        """Count writes of entries that ended."""
        self._collectors.redis_writes.labels(outcome.value).inc(count)

    def waiting(self, size: int, deletions: int) -> None:
        """Note bytes of entries, and deletions, that wait to be written."""
        self._collectors.redis_waiting.set(size)
        self._collectors.redis_repairs.set(deletions)

    def breaker(self, lane: Lane, state: BreakerState) -> None:
        """Note a lane's breaker's new state."""
        self._show(lane, state)
        if state is BreakerState.OPEN:
            self._collectors.redis_opened.labels(lane.value).inc()

    def _show(self, lane: Lane, state: BreakerState) -> None:
        for each in BreakerState:
            self._collectors.redis_breaker.labels(lane.value, each.value).set(int(each is state))
