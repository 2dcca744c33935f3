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

WRITE_SECONDS = 0.5
"""Longest try; no request waits for it."""
ATTEMPTS = 3
"""Of one entry, so that one which Redis never takes does not hold up the others for good."""
MAX_REPAIRS = 10_000
UPLOAD_SECONDS = 5.0
"""How long an upload that waits undoes deletions: by then one of another replica's may be the later."""
_LOG_EVERY = 1000


@dataclass(slots=True, kw_only=True)
class _Put:
    entry: CacheEntry
    upload_until: float
    size: int
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repair:
    commands: tuple[Command, ...]
    until: float
    """When the entry has gone by itself."""


class WriteBehind:
    """Entries and repairs that wait for Redis, and the task that brings them there.

    Entries beyond ``capacity`` bytes push out those that waited longest; that is counted and logged. Repairs
    (deletions that Redis did not hear, and those of corrupt entries) go first, are tried again until they are
    done or ``until`` has passed, and give way to nothing.
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
        self._repairs: OrderedDict[str, _Repair] = OrderedDict()
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

    def repair(self, name: str, commands: tuple[Command, ...], *, seconds: float) -> None:
        """Have commands run until they have succeeded once, for ``seconds`` at most. A later ``name`` replaces
        an earlier one.
        """
        if len(self._repairs) >= MAX_REPAIRS and name not in self._repairs:
            structlog.get_logger(__name__).error("redis_repair_lost", waiting=len(self._repairs))
            return
        self._repairs[name] = _Repair(commands=commands, until=self._clock() + seconds)
        self._wake()

    def is_repairing(self, name: str) -> bool:
        """Whether a repair of this name still waits."""
        return name in self._repairs

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
        if self._repairs:
            structlog.get_logger(__name__).error("redis_repair_lost", waiting=len(self._repairs))
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
            if not self._puts and not self._repairs:
                self._work.clear()
                self._idle.set()
            self._tell()

    async def _next(self) -> None:
        if self._repairs:
            name, repair = next(iter(self._repairs.items()))
            if self._clock() < repair.until:
                with contextlib.suppress(RedisFault):
                    await self._lane.run(Operation.REPAIR, *repair.commands, limit=WRITE_SECONDS)
                    self._done(name, repair)
            else:
                self._done(name, repair)
        elif self._puts:
            await self._put(*next(iter(self._puts.items())))

    def _done(self, name: str, repair: _Repair) -> None:
        if self._repairs.get(name) is repair:
            del self._repairs[name]

    async def _put(self, key: CacheKey, put: _Put) -> None:
        self._writing = key
        try:
            commands = self._commands(key, put.entry, self._clock() < put.upload_until)
            if commands:
                await self._lane.run(Operation.PUT, *commands, limit=WRITE_SECONDS, atomic=True)
            outcome = WriteOutcome.STORED if commands else WriteOutcome.TOO_LARGE
        except RedisFault:
            put.attempts += 1
            if put.attempts < ATTEMPTS:
                return
            outcome = WriteOutcome.FAILED
        finally:
            self._writing = None
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
