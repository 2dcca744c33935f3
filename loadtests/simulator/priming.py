"""Priming: what the caches hold after a fleet has run for some time, without running it.

Under independent requests, a least-recently-used cache holds the entries with the smallest ages, and a person's age
(the time since the last request) is exponential with that person's rate. So the state after any history is drawn
directly, exactly where a person's requests all go to one cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.simulator.popularity import Popularity
from loadtests.simulator.ring import Ring
from loadtests.simulator.routing import HashAffine

TRIAL = 20_000
"""Requests of the trial that tells how far they go past their owner."""

DEEPEST = 8
"""Replicas of each person that are primed, at most."""


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


def depth_shares(
    router: HashAffine,
    popularity: Popularity,
    *,
    rate: float,
    in_flight_seconds: float,
    rng: np.random.Generator,
) -> list[float]:
    """Return the shares of requests that go to the owner, to the replica after it, and so on.

    A trial of the balancer alone, on a router that nobody else uses: every request is in flight equally long.
    """
    warm = int(3 * rate * in_flight_seconds) + 1000
    ends: deque[tuple[float, int]] = deque()
    now = 0.0
    people = popularity.draw(warm + TRIAL, rng).tolist()
    for number, (person, gap) in enumerate(
        zip(people, rng.exponential(1 / rate, warm + TRIAL).tolist(), strict=True)
    ):
        now += gap
        while ends and ends[0][0] <= now:
            router.ended(ends.popleft()[1])
        if number == warm:
            router.depths.clear()
        ends.append((now + in_flight_seconds, router.route(person)))
    deepest = min(max(router.depths, default=0) + 1, DEEPEST)
    shares = [router.depths[depth] / TRIAL for depth in range(deepest)]
    return shares if sum(shares) else [1.0]


def affine(
    popularity: Popularity,
    ring: Ring,
    shares: Sequence[float],
    *,
    rate: float,
    seconds: float,
    capacity: int,
    rng: np.random.Generator,
) -> list[NDArray[np.int32]]:
    """Return what each cache holds when a person's requests go to the owner and those after it in these shares.

    The shares are the same for everybody, where those of the most popular reach further: these few come into the other
    caches during a run's warm-up.
    """
    followers = ring.followers(len(shares))
    places = ring.places(np.arange(popularity.people))
    rates = popularity.shares() * rate
    people, owners, ages = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32)
    for depth, share in enumerate(shares[: followers.shape[1]]):
        if not share:
            continue
        drawn = (rng.standard_exponential(popularity.people) / (rates * share)).astype(np.float32)
        recent = np.flatnonzero(drawn < seconds).astype(np.int32)
        people = np.concatenate([people, recent])
        owners = np.concatenate([owners, followers[places[recent], depth]])
        ages = np.concatenate([ages, drawn[recent]])
        order = np.lexsort((ages, owners))
        people, owners, ages = people[order], owners[order], ages[order]
        starts = np.searchsorted(owners, np.arange(ring.replicas))
        kept = np.arange(len(owners)) - starts[owners] < capacity
        people, owners, ages = people[kept], owners[kept], ages[kept]
    return np.split(people, np.searchsorted(owners, np.arange(1, ring.replicas)))


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
