"""The two tiers of the reference cache, memory and Redis, as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from server.references.cache import CacheEntry, CacheKey, ReferenceCache
from server.references.flights import Flight, Flights
from server.references.record import ReferenceRecord
from server.references.shared.store import SharedReferences, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedTier:
    """Redis, and what is left to it of memory. Times in seconds.

    ``recheck`` is how long an entry in memory is used before Redis is asked whether another replica deleted it, and
    ``ttl`` how long it is used while Redis does not answer: by then its deletion may be forgotten there.
    """

    store: SharedReferences
    recheck: float
    ttl: float


class ReferenceTiers:
    """Finds entries in memory, then in Redis; keeps them in both. Without ``shared`` it is memory alone.

    A call asks Redis at most once, so it takes at most one time limit longer than memory does. Concurrent calls for
    one key ask together.
    """

    def __init__(
        self,
        memory: ReferenceCache,
        shared: SharedTier | None,
        *,
        clock: Callable[[], float],
        observe_memory: Callable[[bool], None],
    ) -> None:
        self._memory = memory
        self._shared = shared
        self._clock = clock
        self._observe_memory = observe_memory
        self._asking: Flights[CacheKey, CacheEntry | None] = Flights()

    async def get(self, key: CacheKey, shape: tuple[int, int], *, ask: bool = True) -> CacheEntry | None:
        """Return the entry, or None. Without ``ask`` Redis is not asked for what memory has not."""
        entry = self._memory.get(key)
        self._observe_memory(entry is not None)
        if self._shared is None or (entry is None and not ask):
            return entry
        if entry is not None and self._clock() - entry.checked_at < self._shared.recheck:
            return entry
        return await self._ask(key, shape)

    async def record(self, tenant: str, digest: str, keys: Iterable[CacheKey]) -> ReferenceRecord | None:
        """Return what is known of a reference under any of ``keys``, or to any replica."""
        for key in keys:
            if (entry := self._memory.peek(key)) is None:
                continue
            if self._shared is None or self._clock() - entry.checked_at < self._shared.recheck:
                return entry.record
            tokens, width = entry.tokens.shape
            checked = await self._ask(key, (tokens, width))
            return None if checked is None else checked.record
        return None if self._shared is None else await self._shared.store.record(tenant, digest)

    def put(self, key: CacheKey, entry: CacheEntry) -> bool:
        """Keep a new entry; False when memory cannot."""
        if self._shared is not None:
            entry = replace(entry, checked_at=self._clock())
            self._shared.store.put(key, entry, is_upload=True)
        return self._memory.put(key, entry)

    async def delete(self, tenant: str, digest: str, keys: Iterable[CacheKey]) -> bool:
        """Forget a reference everywhere; False when nobody knew it."""
        found = False
        for key in keys:
            found |= self._memory.delete(key)
            self._asking.release(key)
        if self._shared is not None:
            found |= await self._shared.store.delete(tenant, digest)
        return found

    async def close(self) -> None:
        """End what is being asked."""
        await self._asking.close()

    async def _ask(self, key: CacheKey, shape: tuple[int, int]) -> CacheEntry | None:
        flight = self._asking.get(key)
        if flight is None:
            flight = self._asking.launch(key, lambda flight: self._had(flight, key, shape))
        return await self._asking.join(key, flight)

    async def _had(
        self, flight: Flight[CacheEntry | None], key: CacheKey, shape: tuple[int, int]
    ) -> CacheEntry | None:
        # It ends soon by itself, and cancelling it would cost a connection.
        flight.committed = True
        assert self._shared is not None
        held = self._memory.peek(key)
        if held is not None:
            return await self._checked(self._shared, flight, key, held)
        began = self._clock()
        found = await self._shared.store.get(key, shape)
        if found is None:
            return self._memory.get(key)
        entry = replace(found, checked_at=began)
        if flight.wanted:
            self._memory.put(key, entry)
        return entry

    async def _checked(
        self, shared: SharedTier, flight: Flight[CacheEntry | None], key: CacheKey, held: CacheEntry
    ) -> CacheEntry | None:
        """Return what memory has, unless it was deleted elsewhere, or may have been too long ago to tell."""
        began = self._clock()
        standing = await shared.store.standing(key)
        is_forgotten = standing is not Standing.PRESENT and began - held.checked_at >= shared.ttl
        if standing is Standing.DELETED or is_forgotten:
            if self._memory.peek(key) is held:
                self._memory.delete(key)
            return None
        if standing is not Standing.UNKNOWN and flight.wanted and self._memory.peek(key) is held:
            entry = replace(held, checked_at=began)
            self._memory.put(key, entry)
            if standing is Standing.ABSENT:
                shared.store.put(key, entry, is_upload=False)
        return held
