"""Writes behind: what Redis is to be told waits here, bounded, while requests go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from server.references.cache import CacheEntry, CacheKey, entry_bytes
from server.references.shared.connection import Command, RedisFault
from server.references.shared.lane import BreakerOpen, GuardedLane
from server.references.shared.observer import Operation, SharedObserver, WriteOutcome
from server.references.shared.repairs import Reference, Repairs

WRITE_SECONDS = 0.5
"""Longest try; no request waits for it."""
ATTEMPTS = 3
"""Of one entry, so that one which Redis never takes does not hold up the others for good."""
UPLOAD_SECONDS = 5.0
"""How long an upload that waits undoes deletions: by then one of another replica's may be the later."""
_LOG_EVERY = 1000


@dataclass(slots=True, kw_only=True)
class _Put:
    entry: CacheEntry
    upload_until: float
    size: int
    attempts: int = 0


class WriteBehind:
    """Entries and repairs that wait for Redis, and the task that brings them there.

    Entries beyond ``capacity`` bytes push out those that waited longest; that is counted and logged. Repairs go first,
    and an entry of a reference whose deletion waits goes after it.
    """

    def __init__(
        self,
        lane: GuardedLane,
        observer: SharedObserver,
        commands: Callable[[CacheKey, CacheEntry, bool], tuple[Command, ...]],
        *,
        capacity: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._lane = lane
        self._observer = observer
        self._commands = commands
        self._capacity = capacity
        self._clock = clock
        self._sleep = sleep
        self._puts: OrderedDict[CacheKey, _Put] = OrderedDict()
        self._repairs = Repairs(clock)
        self._is_puts_turn = False
        self._bytes = 0
        self._dropped = 0
        self._writing: CacheKey | None = None
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def put(self, key: CacheKey, entry: CacheEntry, *, is_upload: bool) -> None:
        """Have an entry written. ``is_upload`` undoes a deletion that stands against it."""
        upload_until = self._clock() + UPLOAD_SECONDS if is_upload else 0.0
        if (old := self._puts.pop(key, None)) is not None:
            self._bytes -= old.size
            upload_until = max(upload_until, old.upload_until)
        size = entry_bytes(key, entry)
        self._puts[key] = _Put(entry=entry, upload_until=upload_until, size=size)
        self._bytes += size
        while self._bytes > self._capacity:
            _, oldest = self._puts.popitem(last=False)
            self._bytes -= oldest.size
            self._drop(1)
        self._wake()

    def repair(self, key: Reference | str, commands: tuple[Command, ...], *, seconds: float) -> None:
        """Have a reference deleted, or under a name a value mended (``Repairs.add``)."""
        self._repairs.add(key, commands, seconds=seconds)
        self._wake()

    def is_deleting(self, reference: Reference) -> bool:
        """Whether a reference's deletion still waits."""
        return self._repairs.is_deleting(reference)

    def forget(self, tenant: str, digest: str) -> bool:
        """Take back what waits of a reference. True when some of it may be on its way already."""
        for key in [key for key in self._puts if (key.tenant, key.digest) == (tenant, digest)]:
            self._bytes -= self._puts.pop(key).size
        self._tell()
        return self._writing is not None and self._writing[:2] == (tenant, digest)

    async def flush(self) -> None:
        """Wait until nothing waits."""
        await self._idle.wait()

    async def close(self, seconds: float) -> None:
        """Write what can be written in ``seconds``; what is left is counted and logged."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.flush()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._puts:
            self._drop(len(self._puts))
        self._puts.clear()
        self._repairs.clear()

    def _wake(self) -> None:
        self._tell()
        self._idle.clear()
        self._work.set()
        if self._task is None:
            self._task = asyncio.create_task(self._write(), name="redis-write-behind")

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            try:
                await self._next()
            except BreakerOpen:
                # Another call's probe may be under way, which has no time that could be waited for.
                await self._sleep(max(self._lane.breaker.seconds_to_probe, WRITE_SECONDS / 10))
            except Exception:
                # A fault of this program's own: what it happened to was put away, and the others shall not suffer.
                structlog.get_logger(__name__).exception("redis_write_broken")
                await self._sleep(WRITE_SECONDS)
            if not self._puts and not self._repairs:
                self._work.clear()
                self._idle.set()
            self._tell()

    async def _next(self) -> None:
        """Try one repair and one entry: neither kind holds up the other.

        While repairs fail they come first in every second turn only, for the one try of a breaker that is half open
        would always be theirs.
        """
        order = (self._repair, self._put)
        for work in reversed(order) if self._is_puts_turn else order:
            await work()

    async def _repair(self) -> None:
        repair = self._repairs.next()
        if repair is None:
            self._is_puts_turn = False
            return
        self._is_puts_turn = not self._is_puts_turn
        try:
            await self._lane.run(Operation.REPAIR, *repair.commands, limit=WRITE_SECONDS)
        except RedisFault:
            self._repairs.failed(repair)
        except BreakerOpen:
            raise
        except Exception:
            self._repairs.failed(repair)
            raise
        else:
            self._is_puts_turn = False
            self._repairs.done(repair)

    async def _put(self) -> None:
        key = next((key for key in self._puts if not self.is_deleting((key.tenant, key.digest))), None)
        if key is None:
            return
        put = self._puts[key]
        self._writing = key
        try:
            commands = self._commands(key, put.entry, self._clock() < put.upload_until)
            if commands:
                await self._lane.run(Operation.PUT, *commands, limit=WRITE_SECONDS, atomic=True)
        except RedisFault:
            put.attempts += 1
            if put.attempts >= ATTEMPTS:
                self._ended(key, put, WriteOutcome.FAILED)
        except BreakerOpen:
            raise
        except Exception:
            self._ended(key, put, WriteOutcome.FAILED)
            raise
        else:
            self._ended(key, put, WriteOutcome.STORED if commands else WriteOutcome.TOO_LARGE)
        finally:
            self._writing = None

    def _ended(self, key: CacheKey, put: _Put, outcome: WriteOutcome) -> None:
        if self._puts.get(key) is put:
            del self._puts[key]
            self._bytes -= put.size
        self._observer.write(outcome)

    def _drop(self, count: int) -> None:
        before, self._dropped = self._dropped, self._dropped + count
        self._observer.write(WriteOutcome.DROPPED, count)
        if before == 0 or before // _LOG_EVERY != self._dropped // _LOG_EVERY:
            structlog.get_logger(__name__).warning("redis_writes_dropped", dropped=self._dropped)

    def _tell(self) -> None:
        self._observer.waiting(self._bytes, len(self._repairs))
