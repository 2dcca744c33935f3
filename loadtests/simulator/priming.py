"""Priming: what the caches hold after a fleet has run for some time, without running it.

Under independent requests, a least-recently-used cache holds the entries with the smallest ages, and a person's age
(the time since the last request) is exponential with that person's rate. So the state after any history is drawn
directly, exactly where a person's requests all go to one cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtests.simulator.popularity import Popularity
from loadtests.simulator.ring import Ring


def recent(
    popularity: Popularity, *, rate: float, seconds: float, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return the people asked for in the last `seconds` at `rate` a second, the latest first."""
    ages = rng.standard_exponential(popularity.people)
    ages /= popularity.shares()
    ages /= rate
    people = np.flatnonzero(ages < seconds)
    order: NDArray[np.int32] = people[np.argsort(ages[people])].astype(np.int32)
    return order


def affine(people: NDArray[np.int32], ring: Ring, capacity: int) -> list[NDArray[np.int32]]:
    """Share people out to their owners, each getting at most `capacity`, the latest first.

    Requests that went elsewhere for want of room are left out; the copies that these leave come during a run's warm-up.
    """
    owners = ring.owners(people.astype(np.int64))
    order = np.argsort(owners, kind="stable")
    ends = np.searchsorted(owners[order], np.arange(1, ring.replicas))
    return [own[:capacity] for own in np.split(people[order], ends)]


def spread(
    popularity: Popularity,
    *,
    replicas: int,
    rate: float,
    seconds: float,
    capacity: int,
    rng: np.random.Generator,
) -> list[NDArray[np.int32]]:
    """Return what each cache holds when requests go anywhere: its own stream is drawn backwards until it is full."""
    drawn = int(min(rate / replicas * seconds, 2**31))
    return [_backwards(popularity, drawn, capacity, rng) for _ in range(replicas)]


def _backwards(
    popularity: Popularity, requests: int, capacity: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return the last `capacity` different people among so many requests, the latest first."""
    held = np.empty(0, np.int32)
    while requests > 0 and len(held) < capacity:
        chunk = min(requests, max(2 * (capacity - len(held)), 1024))
        requests -= chunk
        stream = np.concatenate([held, popularity.draw(chunk, rng).astype(np.int32)])
        _, first = np.unique(stream, return_index=True)
        held = stream[np.sort(first)]
    return held[:capacity]
