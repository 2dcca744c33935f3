"""References that all replicas share: what is asked of Redis, and what is made of its answers.

A reference of a tenant is one hash, ``PREFIX:references:1:TENANT:DIGEST`` with the tenant hashed. Its fields are the
tokens by preprocessing, encoder and adapter, and ``record``. Beside it stands, once it was deleted, the key
``...:deleted``, which outlives all that other replicas may still have in memory and wins over the hash.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from enum import Enum, auto

import structlog

from server.config.redis_options import RedisOptions
from server.references.cache import CacheEntry, CacheKey
from server.references.record import ReferenceRecord
from server.references.shared.connection import (
    BULK,
    NUMBER,
    STATUS,
    Command,
    ErrorReply,
    RedisConnection,
    RedisFault,
)
from server.references.shared.lane import BreakerOpen, GuardedLane
from server.references.shared.observer import Lane, LookupOutcome, Operation, SharedObserver
from server.references.shared.seal import VERSION, CorruptEntry, Sealer
from server.references.shared.writer import WriteBehind

RECORD = "record"
CLOSE_SECONDS = 1.0
MARGIN_SECONDS = 60.0
"""By which a deletion is remembered longer than any entry that it concerns."""


class Standing(Enum):
    """What Redis says of a reference that memory has."""

    PRESENT = auto()
    ABSENT = auto()
    """It expired or was evicted, or never came there."""
    DELETED = auto()
    UNKNOWN = auto()


class SharedReferences:
    """Finds, keeps and deletes references in Redis. Nothing raises: what cannot be had is a miss.

    Each call takes ``timeout_seconds`` at most, and none while the breaker is open. Belongs to one event loop.
    """

    def __init__(
        self,
        connection: RedisConnection,
        sealer: Sealer,
        options: RedisOptions,
        observer: SharedObserver,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._options = options
        self._observer = observer
        self._ttl_ms = round(options.ttl_seconds * 1000)
        self._deleting: set[tuple[str, str]] = set()
        self.reads, self.writes = (
            GuardedLane(
                lane,
                connection,
                observer,
                failures=options.breaker_failures,
                open_seconds=options.breaker_open_seconds,
                clock=clock,
            )
            for lane in Lane
        )
        self.writer = WriteBehind(
            self.writes, observer, self._put_commands, capacity=options.write_queue_bytes, clock=clock
        )

    async def get(self, key: CacheKey, shape: tuple[int, int]) -> CacheEntry | None:
        """Return the tokens of ``shape`` under a key, their seal checked, or None."""
        entry, outcome = await self._get(key, shape)
        self._observer.lookup(outcome)
        return entry

    async def standing(self, key: CacheKey) -> Standing:
        """Tell what became of an entry that memory has, and keep it from expiring."""
        name, field = self._name(key.tenant, key.digest), _field(key)
        try:
            is_deleted, exists = await self._read(
                Operation.CHECK, key.tenant, key.digest, ("HEXISTS", name, field), NUMBER
            )
        except (BreakerOpen, RedisFault):
            return Standing.UNKNOWN
        if is_deleted:
            return Standing.DELETED
        if isinstance(exists, ErrorReply):
            self._corrupt(("DEL", name), key.digest, exists.text)
        return Standing.PRESENT if exists == 1 else Standing.ABSENT

    async def record(self, tenant: str, digest: str) -> ReferenceRecord | None:
        """Return what is known of a reference, whatever the adapter, or None."""
        if self._is_being_deleted(tenant, digest):
            return None
        try:
            value = await self._value(Operation.RECORD, tenant, digest, RECORD)
            return self._sealer.open_record(tenant, digest, value) if value is not None else None
        except CorruptEntry as error:
            self._corrupt(("HDEL", self._name(tenant, digest), RECORD), digest, str(error))
        except (BreakerOpen, RedisFault):
            pass
        return None

    def put(self, key: CacheKey, entry: CacheEntry, *, is_upload: bool) -> None:
        """Have an entry written soon. ``is_upload`` undoes a deletion of before; else that goes on to win."""
        self.writer.put(key, entry, is_upload=is_upload)

    async def delete(self, tenant: str, digest: str) -> bool:
        """Delete a reference for all replicas. False when Redis is sure that there was none.

        Where Redis does not hear it now, it is told later; until then its entry is not used here.
        """
        name = self._name(tenant, digest)
        commands: tuple[Command, ...] = (
            ("DEL", name),  # first, for a full Redis does this and then has room
            (
                "SET",
                _tombstone(name),
                self._sealer.seal_deletion(tenant, digest),
                "PX",
                self._ttl_ms + round(MARGIN_SECONDS * 1000),
            ),
        )
        may_be_written = self.writer.forget(tenant, digest)
        self._deleting.add((tenant, digest))
        try:
            deleted, _ = await self.writes.run(
                Operation.DELETE, *commands, limit=self._options.timeout_seconds, kinds=(NUMBER, STATUS)
            )
        except (BreakerOpen, RedisFault):
            self.writer.repair((tenant, digest), commands, seconds=self._options.ttl_seconds)
            structlog.get_logger(__name__).warning("redis_deletion_waits", digest=digest)
            return True
        finally:
            self._deleting.discard((tenant, digest))
        if may_be_written:
            self.writer.repair((tenant, digest), commands, seconds=self._options.ttl_seconds)
        return deleted != 0

    async def close(self) -> None:
        """Write what waits, for a second at most, and close the connections."""
        await self.writer.close(CLOSE_SECONDS)
        await self._connection.close()

    async def _get(self, key: CacheKey, shape: tuple[int, int]) -> tuple[CacheEntry | None, LookupOutcome]:
        name, field = self._name(key.tenant, key.digest), _field(key)
        if self._is_being_deleted(key.tenant, key.digest):
            return None, LookupOutcome.SKIPPED
        try:
            value = await self._value(Operation.GET, key.tenant, key.digest, field)
            if value is None:
                return None, LookupOutcome.MISS
            return self._sealer.open(key, value, shape), LookupOutcome.HIT
        except CorruptEntry as error:
            self._corrupt(("HDEL", name, field), key.digest, str(error))
            return None, LookupOutcome.CORRUPT
        except BreakerOpen:
            return None, LookupOutcome.SKIPPED
        except RedisFault:
            return None, LookupOutcome.ERROR

    async def _value(self, operation: Operation, tenant: str, digest: str, field: str) -> bytes | None:
        """Return a field of a reference that was not deleted. Raises ``CorruptEntry`` of one that is too large."""
        name = self._name(tenant, digest)
        is_deleted, value = await self._read(operation, tenant, digest, ("HGET", name, field), BULK)
        if is_deleted or value is None:
            return None
        if isinstance(value, ErrorReply):
            self._corrupt(("DEL", name), digest, value.text)
            return None
        assert isinstance(value, bytes)
        if len(value) > self._options.max_entry_bytes:
            raise CorruptEntry(f"{len(value)} bytes, more than {self._options.max_entry_bytes}")
        return value

    async def _read(
        self, operation: Operation, tenant: str, digest: str, command: Command, kind: tuple[type, ...]
    ) -> tuple[bool, object]:
        """Return whether the reference was deleted, and the reply to a command; keeps it from expiring."""
        name = self._name(tenant, digest)
        tombstone, reply, _ = await self.reads.run(
            operation,
            ("GET", _tombstone(name)),
            command,
            ("PEXPIRE", name, self._ttl_ms),
            limit=self._options.timeout_seconds,
            kinds=(BULK, kind, NUMBER),
        )
        is_deleted = tombstone == self._sealer.seal_deletion(tenant, digest)
        if tombstone is not None and not is_deleted:
            self._corrupt(("DEL", _tombstone(name)), digest, "not what stands for a deletion")
        return is_deleted, reply

    def _is_being_deleted(self, tenant: str, digest: str) -> bool:
        return (tenant, digest) in self._deleting or self.writer.is_deleting((tenant, digest))

    def _corrupt(self, repair: Command, digest: str, problem: str) -> None:
        """Count a value that is not ours, and have it deleted."""
        self._observer.corrupt()
        structlog.get_logger(__name__).warning("redis_entry_corrupt", digest=digest, problem=problem)
        self.writer.repair(" ".join(map(str, repair)), (repair,), seconds=self._options.ttl_seconds)

    def _put_commands(self, key: CacheKey, entry: CacheEntry, is_upload: bool) -> tuple[Command, ...]:
        """Return what writes an entry; nothing for one beyond ``max_entry_bytes``."""
        value = self._sealer.seal(key, entry)
        if len(value) > self._options.max_entry_bytes:
            structlog.get_logger(__name__).warning(
                "redis_entry_too_large", digest=key.digest, bytes=len(value)
            )
            return ()
        name = self._name(key.tenant, key.digest)
        record = self._sealer.seal_record(key.tenant, key.digest, entry.record)
        undelete: tuple[Command, ...] = (("DEL", _tombstone(name)),) if is_upload else ()
        return (
            *undelete,
            ("HSET", name, _field(key), value, RECORD, record),
            ("PEXPIRE", name, self._ttl_ms),
        )

    def _name(self, tenant: str, digest: str) -> str:
        owner = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._options.prefix}:references:{VERSION}:{owner}:{digest}"


def _field(key: CacheKey) -> str:
    return hashlib.sha256(f"{key.preprocessing}\0{key.weights_hash}".encode()).hexdigest()


def _tombstone(name: str) -> str:
    return f"{name}:deleted"
