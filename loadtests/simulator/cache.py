"""The reference cache without its contents: who is in it, least recently used first."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray


class LruCache:
    """Hold at most so many entries of equal size; `server.references.cache` bounds the same thing in bytes.

    `primed` are the entries that it begins with, the most recently used first. They stay in an array: a fleet begins
    with ten million, of which a run touches few.
    """

    def __init__(
        self, *, capacity_bytes: int, entry_bytes: int, primed: NDArray[np.int32] | None = None
    ) -> None:
        self.capacity = capacity_bytes // entry_bytes
        self._used: OrderedDict[int, None] = OrderedDict()
        primed = np.empty(0, np.int32) if primed is None else primed[: self.capacity]
        self._primed = primed
        self._order = np.argsort(primed, kind="stable").astype(np.int32)
        self._sorted = primed[self._order]
        self._left = len(primed)
        """Primed entries from here on have been evicted."""
        self._moved: set[int] = set()
        """Primed entries that were used since and are counted among the used ones."""

    def __len__(self) -> int:
        return len(self._used) + self._left - len(self._moved)

    def __contains__(self, key: int) -> bool:
        return key in self._used or self._is_primed(key)

    def get(self, key: int) -> bool:
        """Return whether the entry is there; it is now the most recently used."""
        if key in self._used:
            self._used.move_to_end(key)
            return True
        if not self._is_primed(key):
            return False
        self._moved.add(key)
        self._used[key] = None
        return True

    def put(self, key: int) -> None:
        """Keep an entry, evicting what was used longest ago."""
        if self.get(key) or not self.capacity:
            return
        while len(self) >= self.capacity:
            self._evict()
        self._used[key] = None

    def _is_primed(self, key: int) -> bool:
        if not self._left or key in self._moved:
            return False
        at = int(np.searchsorted(self._sorted, key))
        return at < len(self._sorted) and self._sorted[at] == key and self._order[at] < self._left

    def _evict(self) -> None:
        """Let go of one primed entry that nobody used since, or else of the oldest that was used."""
        while self._left:
            self._left -= 1
            oldest = int(self._primed[self._left])
            if oldest not in self._moved:
                return
            self._moved.remove(oldest)
        self._used.popitem(last=False)
