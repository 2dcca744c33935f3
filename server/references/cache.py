"""The memory tier of the reference cache: a least-recently-used map that is bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from sys import getsizeof
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.references.record import ReferenceRecord, ReferenceWarning

_SLOT_BYTES = 250
"""What one entry costs the OrderedDict (hash slot, its spare room, list node) and the tuple kept in it."""


class CacheKey(NamedTuple):
    """What decides the tokens, and who may use them."""

    tenant: str
    digest: str
    preprocessing: str
    weights_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A reference's ``tokens`` ``[T, W]`` f32, which own their memory, and its record."""

    tokens: NDArray[np.float32]
    record: ReferenceRecord
    checked_at: float = 0.0
    """When Redis last knew of no deletion, by its reader's clock in seconds; unused without Redis."""


class ReferenceCache:
    """Maps keys to entries and holds at most ``capacity_bytes``, the map's own overhead included.

    Every operation takes constant time (``put``, constant for each entry that it evicts). Not thread-safe: it
    belongs to the event loop. ``on_evict`` is told each entry that had to go for room (not deleted and
    replaced ones).
    """

    def __init__(
        self, *, capacity_bytes: int, on_evict: Callable[[CacheKey, CacheEntry], None] | None = None
    ) -> None:
        if capacity_bytes < 0:
            raise ValueError("capacity_bytes must not be negative")
        self._capacity = capacity_bytes
        self._on_evict = on_evict
        self._held: OrderedDict[CacheKey, tuple[CacheEntry, int]] = OrderedDict()
        """Entries with their bytes, the least recently used first."""
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: CacheKey) -> CacheEntry | None:
        """Return the entry, now the most recently used, or None."""
        held = self._held.get(key)
        if held is None:
            return None
        self._held.move_to_end(key)
        return held[0]

    def peek(self, key: CacheKey) -> CacheEntry | None:
        """Return the entry without using it, or None."""
        held = self._held.get(key)
        return None if held is None else held[0]

    def put(self, key: CacheKey, entry: CacheEntry) -> bool:
        """Keep the entry, evicting what was used longest ago. False when it alone exceeds the capacity."""
        self.delete(key)
        size = entry_bytes(key, entry)
        if size > self._capacity:
            return False
        while self._bytes + size > self._capacity:
            self._evict()
        self._held[key] = entry, size
        self._bytes += size
        return True

    def delete(self, key: CacheKey) -> bool:
        """Forget the entry; False when there was none."""
        held = self._held.pop(key, None)
        if held is None:
            return False
        self._bytes -= held[1]
        return True

    def _evict(self) -> None:
        key, (entry, size) = self._held.popitem(last=False)
        self._bytes -= size
        if self._on_evict is not None:
            self._on_evict(key, entry)


def entry_bytes(key: CacheKey, entry: CacheEntry) -> int:
    """Return what an entry costs in memory, its strings, objects and place in the map included.

    The names of preprocessing and weights are left out, which keys share.
    """
    record = entry.record
    # An array's own size leaves out memory that it borrows.
    tokens = getsizeof(entry.tokens) + (entry.tokens.nbytes if entry.tokens.base is not None else 0)
    size = _SLOT_BYTES + tokens + getsizeof(entry) + getsizeof(record)
    size += getsizeof(entry.checked_at) + getsizeof(key) + getsizeof(key.tenant) + getsizeof(key.digest)
    size += getsizeof(record.digest) + getsizeof(record.created) + getsizeof(record.warnings)
    size += sum(getsizeof(number) for number in (record.width, record.height, record.size_bytes))
    return size + sum(_warning_bytes(warning) for warning in record.warnings)


def _warning_bytes(warning: ReferenceWarning) -> int:
    return getsizeof(warning) + getsizeof(warning.message) + getsizeof(warning.action)
