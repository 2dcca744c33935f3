"""A Redis of a few lines that can be told to fail, a clock that is set by hand, and what the tier told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from server.config.redis_options import RedisOptions
from server.references.shared.breaker import BreakerState
from server.references.shared.connection import Command, ErrorReply, FaultKind, RedisFault
from server.references.shared.observer import Lane, LookupOutcome, Operation, WriteOutcome
from server.references.shared.seal import Sealer
from server.references.shared.store import SharedReferences

WRITES = frozenset({"HSET", "SET"})
"""What a full Redis refuses."""


class FakeRedis:
    """Hashes and strings in memory. ``fault`` answers everything; ``hang`` nothing; ``full`` refuses writes.

    ``refuses`` ends the keys of which it does nothing.
    """

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.asked: Counter[str] = Counter()
        self.fault: FaultKind | None = None
        self.hang = False
        self.full = False
        self.refuses = ""
        self.replies: Sequence[object] | None = None
        self.closed = False

    async def run(self, *commands: Command, atomic: bool = False) -> Sequence[object]:
        self.asked.update(str(command[0]) for command in commands)
        await asyncio.sleep(0)
        if self.hang:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise RedisFault(self.fault, "as told")
        if self.refuses and any(str(command[1]).endswith(self.refuses) for command in commands):
            raise RedisFault(FaultKind.REFUSED, "NOPERM")
        if self.replies is not None:
            return self.replies
        if self.full and atomic and any(command[0] in WRITES for command in commands):
            raise RedisFault(FaultKind.REFUSED, "EXECABORT")
        return [self._one(*command) for command in commands]

    async def close(self) -> None:
        self.closed = True

    def _one(self, name: Any, key: Any, *rest: Any) -> object:
        value = self.data.get(key)
        if self.full and name in WRITES:
            return ErrorReply("command not allowed when used memory > 'maxmemory'.")
        if name.startswith("H") and not isinstance(value, dict | None):
            return ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value")
        match name:
            case "GET":
                return value
            case "DEL":
                return int(self.data.pop(key, None) is not None)
            case "SET":
                self.data[key] = rest[0]
                return b"OK"
            case "PEXPIRE":
                return int(key in self.data)
            case "HGET":
                return (value or {}).get(rest[0])
            case "HEXISTS":
                return int(rest[0] in (value or {}))
            case "HDEL":
                return int((value or {}).pop(rest[0], None) is not None)
            case "HSET":
                self.data.setdefault(key, {}).update(zip(rest[::2], rest[1::2], strict=True))
                return len(rest) // 2
        raise AssertionError(name)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Told:
    """Remembers what the tier told."""

    def __init__(self) -> None:
        self.lookups: Counter[LookupOutcome] = Counter()
        self.faults: Counter[tuple[Operation, FaultKind]] = Counter()
        self.writes: Counter[WriteOutcome] = Counter()
        self.operations: Counter[Operation] = Counter()
        self.states: dict[Lane, list[BreakerState]] = {lane: [] for lane in Lane}
        self.corrupted = 0
        self.waits = (0, 0)

    def lookup(self, outcome: LookupOutcome) -> None:
        self.lookups[outcome] += 1

    def took(self, operation: Operation, seconds: float) -> None:
        assert seconds >= 0
        self.operations[operation] += 1

    def fault(self, operation: Operation, kind: FaultKind) -> None:
        self.faults[operation, kind] += 1

    def corrupt(self) -> None:
        self.corrupted += 1

    def write(self, outcome: WriteOutcome, count: int = 1) -> None:
        self.writes[outcome] += count

    def waiting(self, size: int, deletions: int) -> None:
        self.waits = size, deletions

    def breaker(self, lane: Lane, state: BreakerState) -> None:
        self.states[lane].append(state)


class Shelf:
    """A shared store on a fake Redis."""

    def __init__(self, redis: FakeRedis | None = None, *, key: bytes = b"", **options: Any) -> None:
        self.redis = redis or FakeRedis()
        self.clock = Clock()
        self.told = Told()
        self.store = SharedReferences(
            self.redis,
            Sealer(key),
            RedisOptions(**{"timeout_seconds": 0.02, "breaker_failures": 3, **options}),
            self.told,
            clock=self.clock,
        )

    async def __aenter__(self) -> Shelf:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.writer.close(0)
