"""Where requests go."""

from __future__ import annotations

from collections import Counter
from math import ceil

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtests.simulator.ring import Ring
from loadtests.simulator.routing import HashAffine, HashUnbounded, LeastRequest, RoundRobin


def test_a_person_stays_with_a_replica_that_has_room() -> None:
    router = HashAffine(10, seed=0)
    first = {}
    for person in range(1000):
        replica = router.route(person)
        router.ended(replica)
        first[person] = replica
    again = {}
    for person in reversed(range(1000)):
        again[person] = router.route(person)
        router.ended(again[person])
    assert first == again
    assert router.spilled == 0
    assert set(first.values()) == set(range(10))


@given(
    people=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    balance=st.floats(1.01, 3),
    replicas=st.integers(1, 8),
)
def test_loads_stay_bounded(people: list[int], balance: float, replicas: int) -> None:
    router = HashAffine(replicas, seed=0, balance=balance)
    for person in people:
        router.route(person)
        assert max(router.in_flight) <= ceil(balance * router.total / replicas)
    assert sum(router.in_flight) == router.total == len(people)


def test_without_a_bound_one_person_fills_one_replica() -> None:
    router = HashUnbounded(8, seed=0)
    for _ in range(100):
        router.route(5)
    assert sorted(router.in_flight) == [0] * 7 + [100]


def test_a_new_replica_takes_its_share_and_moves_nobody_else() -> None:
    people = np.arange(50_000)
    before, after = Ring(10).owners(people), Ring(11).owners(people)
    moved = before != after
    assert set(after[moved]) == {10}
    assert 0.06 < moved.mean() < 0.13


def test_the_ring_spreads_people_evenly() -> None:
    shares = np.bincount(Ring(16).owners(np.arange(100_000))) / (100_000 / 16)
    assert shares.min() > 0.65 and shares.max() < 1.4


def test_a_walk_begins_at_the_owner_and_visits_everybody_once() -> None:
    ring = Ring(7)
    walk = list(ring.walk(3))
    assert walk[0] == ring.owners(np.array([3]))[0]
    assert sorted(walk) == list(range(7))


def test_round_robin_and_the_less_busy_of_two() -> None:
    robin = RoundRobin(3)
    assert Counter(robin.route(1) for _ in range(9)) == {0: 3, 1: 3, 2: 3}
    least = LeastRequest(20, seed=1)
    for _ in range(2000):
        least.route(1)
    # Random placement would be off by about 3 * sqrt(100) = 30.
    assert max(least.in_flight) - 100 < 10
