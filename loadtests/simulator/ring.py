"""The ring: consistent hashing of people onto replicas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

POINTS = 128
"""Places of each replica on the ring. The busiest share is then about 1 + 3 / sqrt(128) times the mean."""


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return well-spread 64-bit hashes: the finaliser of SplitMix64 (Steele et al., 2014) on the golden sequence."""
    with np.errstate(over="ignore"):
        z = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


class Ring:
    """Give each person an owner, and an order of replicas to try after it.

    Adding a replica to R of them moves about 1 / (R + 1) of the people, all of them to the new one.
    """

    def __init__(self, replicas: int, *, points: int = POINTS) -> None:
        places = np.arange(replicas * points, dtype=np.uint64)
        # Kept apart from the people's numbers by the highest bit.
        hashes = mixed(places | np.uint64(1 << 63))
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._replicas = (places[order] // np.uint64(points)).astype(np.int32)
        self.replicas = replicas

    def owners(self, people: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the replica that each person belongs to."""
        return self._replicas[self.places(people)]

    def followers(self, depth: int) -> NDArray[np.int32]:
        """Return for each point of the ring its own replica and the different ones after it, ``[points, depth]``."""
        depth = min(depth, self.replicas)
        found = np.empty((len(self._replicas), depth), np.int32)
        # Backwards: a point's list is its replica, and the list of the point after it without that replica.
        ahead: list[int] = []
        for at in range(2 * len(self._replicas) - 1, -1, -1):
            replica = int(self._replicas[at % len(self._replicas)])
            ahead = [replica, *(other for other in ahead if other != replica)]
            if at < len(self._replicas):
                found[at] = ahead[:depth]
            ahead = ahead[: depth + 1] if len(ahead) > depth else ahead
        return found

    def walk(self, person: int) -> Iterator[int]:
        """Yield the owner and then every other replica once, in the order of the ring."""
        start = int(self.places(np.array([person]))[0])
        seen: set[int] = set()
        for step in range(len(self._replicas)):
            replica = int(self._replicas[(start + step) % len(self._replicas)])
            if replica not in seen:
                seen.add(replica)
                yield replica

    def places(self, people: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the point of the ring that each person comes to."""
        return np.searchsorted(self._hashes, mixed(people.astype(np.uint64))) % len(self._hashes)
