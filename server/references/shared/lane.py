"""A guarded way to Redis: a time limit and a circuit breaker, and nothing raised but ``RedisFault``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from server.references.shared.breaker import BreakerState, CircuitBreaker
from server.references.shared.connection import Command, ErrorReply, FaultKind, RedisConnection, RedisFault
from server.references.shared.observer import Lane, Operation, SharedObserver


class BreakerOpen(Exception):  # noqa: N818 - named for the state
    """Redis was not asked, since it failed too often just now."""


class GuardedLane:
    """Runs commands within ``limit`` seconds each time, counts what came of it and feeds the breaker."""

    def __init__(
        self,
        lane: Lane,
        connection: RedisConnection,
        observer: SharedObserver,
        *,
        failures: int,
        open_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._lane = lane
        self._connection = connection
        self._observer = observer
        self._clock = clock
        self._problem = ""
        self.breaker = CircuitBreaker(
            failures=failures, open_seconds=open_seconds, clock=clock, on_change=self._on_change
        )
        observer.breaker(lane, self.breaker.state)

    async def run(
        self,
        operation: Operation,
        *commands: Command,
        limit: float,
        kinds: Sequence[tuple[type, ...]] = (),
        atomic: bool = False,
    ) -> Sequence[object]:
        """Return the replies, of ``kinds`` where given, of which none is an error but those of a wrong type.

        Raises ``BreakerOpen`` at once, and ``RedisFault`` after ``limit`` seconds at the latest.
        """
        permit = self.breaker.admit()
        if permit is None:
            raise BreakerOpen
        began = self._clock()
        try:
            async with asyncio.timeout(limit):
                replies = await self._connection.run(*commands, atomic=atomic)
            _refuse(replies, kinds)
        except (RedisFault, TimeoutError) as error:
            fault = (
                error
                if isinstance(error, RedisFault)
                else RedisFault(FaultKind.TIMEOUT, f"no answer in {limit} s")
            )
            self._problem = str(fault)
            self._observer.fault(operation, fault.kind)
            self.breaker.failed(permit)
            raise fault from error
        except BaseException:
            self.breaker.abandoned(permit)
            raise
        else:
            self.breaker.succeeded(permit)
            return replies
        finally:
            self._observer.took(operation, self._clock() - began)

    def _on_change(self, state: BreakerState) -> None:
        self._observer.breaker(self._lane, state)
        log = structlog.get_logger(__name__)
        if state is BreakerState.OPEN:
            log.warning("redis_breaker_open", lane=self._lane.value, problem=self._problem)
        elif state is BreakerState.CLOSED:
            log.info("redis_breaker_closed", lane=self._lane.value)


def _refuse(replies: Sequence[object], kinds: Sequence[tuple[type, ...]]) -> None:
    for reply in replies:
        if isinstance(reply, ErrorReply) and not reply.is_wrong_type:
            raise RedisFault(FaultKind.REFUSED, reply.text)
    for reply, kind in zip(replies, kinds, strict=False):
        if not isinstance(reply, (*kind, ErrorReply)):
            raise RedisFault(FaultKind.NONSENSE, f"a reply of type {type(reply).__name__}")
