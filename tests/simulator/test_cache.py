"""The cache of names, against the production cache and against closed forms."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.simulator import priming
from loadtests.simulator.cache import LruCache
from loadtests.simulator.call import Found
from loadtests.simulator.fleet import Fleet, History
from loadtests.simulator.popularity import Popularity
from loadtests.simulator.ring import Ring
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.traffic import Mix, OpenLoop, poisson

from .builders import STAGED


def che_hit_rate(popularity: Popularity, capacity: int) -> float:
    """Return the hit rate of an LRU cache under independent requests (Che, Tung and Wang, 2002)."""
    shares = popularity.shares()
    low, high = 0.0, 1e12
    for _ in range(200):
        age = (low + high) / 2
        held = -np.expm1(-shares * age).sum()
        low, high = (age, high) if held < capacity else (low, age)
    return float((shares * -np.expm1(-shares * age)).sum())


@given(
    primed=st.lists(st.integers(0, 9), unique=True),
    capacity=st.integers(0, 6),
    keys=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60),
)
def test_it_holds_what_a_plain_lru_map_holds(primed, capacity, keys) -> None:
    cache = LruCache(capacity_bytes=10 * capacity + 5, entry_bytes=10, primed=np.array(primed, np.int32))
    plain: OrderedDict[int, None] = OrderedDict.fromkeys(reversed(primed[:capacity]))
    for put, key in keys:
        if put:
            cache.put(key)
            plain[key] = None
        else:
            assert cache.get(key) == (key in plain)
        if key in plain:
            plain.move_to_end(key)
        while len(plain) > capacity:
            plain.popitem(last=False)
        assert len(cache) == len(plain)
        assert [key in cache for key in range(10)] == [key in plain for key in range(10)]


@pytest.mark.parametrize("capacity", [50, 500])
def test_the_hit_rate_is_ches(capacity: int) -> None:
    popularity = Popularity(5000, 0.9)
    cache = LruCache(capacity_bytes=capacity, entry_bytes=1)
    hits = []
    for person in popularity.draw(60_000, np.random.default_rng(3)).tolist():
        hits.append(cache.get(person))
        cache.put(person)
    assert np.mean(hits[20_000:]) == pytest.approx(che_hit_rate(popularity, capacity), abs=0.01)


def test_a_primed_cache_begins_where_a_long_run_ends() -> None:
    popularity, capacity = Popularity(5000, 0.9), 500
    rng = np.random.default_rng(5)
    recent = priming.recent(popularity, rate=10, seconds=1e6, rng=rng)
    (alone,) = priming.spread(popularity, replicas=1, rate=10, seconds=1e6, capacity=capacity, rng=rng)
    expected = che_hit_rate(popularity, capacity)
    for primed in (recent, alone):
        cache = LruCache(capacity_bytes=capacity, entry_bytes=1, primed=primed)
        assert len(cache) == capacity
        hits = []
        for person in popularity.draw(20_000, rng).tolist():
            hits.append(cache.get(person))
            cache.put(person)
        assert np.mean(hits[:5000]) == pytest.approx(expected, abs=0.03)
        assert np.mean(hits) == pytest.approx(expected, abs=0.02)


def test_a_short_history_holds_who_came_in_it() -> None:
    popularity = Popularity(1000, 1.0)
    rng = np.random.default_rng(1)
    recent = priming.recent(popularity, rate=10, seconds=20, rng=rng)
    expected = -np.expm1(-popularity.shares() * 200)
    assert len(recent) == pytest.approx(expected.sum(), rel=0.2)
    (alone,) = priming.spread(popularity, replicas=1, rate=10, seconds=20, capacity=1000, rng=rng)
    assert len(alone) == pytest.approx(expected.sum(), rel=0.2)
    assert len(set(alone.tolist())) == len(alone)


def test_people_are_primed_where_their_requests_went() -> None:
    ring, popularity = Ring(4), Popularity(1000, 0.5)
    past = {"rate": 10.0, "seconds": 1e6, "rng": np.random.default_rng(2)}
    alone = priming.affine(popularity, ring, [1.0], capacity=100, **past)
    assert len(alone) == 4
    for replica, people in enumerate(alone):
        assert set(ring.owners(people.astype(np.int64))) == {replica}
        assert len(people) == 100
    spilled = priming.affine(popularity, ring, [0.7, 0.3], capacity=10_000, **past)
    for replica, people in enumerate(spilled):
        walks = [list(ring.walk(person))[:2] for person in range(1000)]
        assert sorted(people.tolist()) == [person for person in range(1000) if replica in walks[person]]


def test_followers_are_the_walk() -> None:
    ring = Ring(6, points=8)
    people = np.arange(200)
    followers = ring.followers(3)[ring.places(people)]
    assert followers.tolist() == [list(ring.walk(person))[:3] for person in people.tolist()]


def test_a_primed_fleet_hits_as_often_as_one_that_has_run() -> None:
    """Bounded loads included: a small fleet with a short past, simulated in full and primed."""
    popularity, past, rate, seconds = Popularity(1500, 0.9), 400.0, 16.0, 100.0
    shape = {"replicas": 4, "cache_bytes": 200 * STAGED.reference_bytes, "router": "hash"}

    def hit_rate(history: History | None, before: float) -> float:
        asked = poisson(Mix(), popularity, rate=rate, seconds=before + seconds, rng=np.random.default_rng(1))
        fleet = Fleet(
            FleetSettings(
                machine=STAGED, history_seconds=past, warmup_seconds=before, seconds=seconds, **shape
            ),
            history,
        )
        calls = [call for call in fleet.run(OpenLoop(asked)).calls if call.request.at >= before]
        return sum(call.found is Found.HIT for call in calls) / len(calls)

    primed = hit_rate(History(popularity=popularity, rate=rate, in_flight_seconds=0.5), 10.0)
    assert primed == pytest.approx(hit_rate(None, past), abs=0.04)


def test_popularity_is_zipfs() -> None:
    drawn = np.bincount(Popularity(1000, 1.0).draw(200_000, np.random.default_rng(0)), minlength=1000)
    harmonic = (1 / np.arange(1, 1001)).sum()
    assert drawn[0] / 200_000 == pytest.approx(1 / harmonic, rel=0.03)
    assert drawn[9] / 200_000 == pytest.approx(0.1 / harmonic, rel=0.08)
