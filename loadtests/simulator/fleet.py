"""The fleet: replicas behind a balancer, on one timeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from loadtests.simulator import priming
from loadtests.simulator.cache import LruCache
from loadtests.simulator.call import Call
from loadtests.simulator.engine import Counters, EngineCosts, VirtualEngine
from loadtests.simulator.pace import STEADY, OnTick, Pace, nobody
from loadtests.simulator.popularity import Popularity
from loadtests.simulator.request import Request
from loadtests.simulator.routing import HashAffine, Router, router
from loadtests.simulator.server import VirtualServer
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.timeline import Timeline
from loadtests.simulator.traffic import Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What was asked before the run: `popularity` at `rate` a second, which is what fills the caches.

    in_flight_seconds: how long a request was in flight, about; it decides how often a bounded load was reached.
    """

    popularity: Popularity
    rate: float
    in_flight_seconds: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRun:
    """Hold what happened. `calls` have all ended; `counters` are each engine's in the counted time, `window`."""

    calls: tuple[Call, ...]
    counters: tuple[Counters, ...]
    window: tuple[float, float]
    spilled: int
    routed: int
    peak_in_flight: int


class Fleet:
    """Run traffic through replicas until every request has ended.

    The caches begin with what `history` left in them, and then with `known` people in each. Engines are as fast as
    the machine is at the time by its `pace`. `on_tick` is called after each tick of each of them.
    """

    def __init__(
        self,
        settings: FleetSettings,
        history: History | None = None,
        *,
        known: Sequence[int] = (),
        pace: Pace = STEADY,
        on_tick: OnTick = nobody,
    ) -> None:
        self._settings = settings
        self._timeline = Timeline()
        self._router = router(
            settings.router, settings.replicas, seed=settings.seed, balance=settings.balance
        )
        self._calls: list[Call] = []
        self._peak = 0
        self._traffic: Traffic | None = None
        costs = EngineCosts.of(settings.machine, settings.engine, pace)
        seeds = np.random.SeedSequence(settings.seed).spawn(settings.replicas + 1)
        *engine_seeds, priming_seed = seeds
        caches, shared = _caches(settings, history, self._router, np.random.default_rng(priming_seed))
        for person in known:
            for cache in caches:
                cache.put(person)
        self._engines = [
            VirtualEngine(costs, self._timeline, np.random.default_rng(seed)) for seed in engine_seeds
        ]
        for engine in self._engines:
            engine.ticked = on_tick
        self._servers = [
            VirtualServer(
                machine=settings.machine,
                timeline=self._timeline,
                engine=engine,
                cache=cache,
                shared=shared,
                permits=settings.permits,
                ended=self._ended,
            )
            for engine, cache in zip(self._engines, caches, strict=True)
        ]

    def run(self, traffic: Traffic) -> FleetRun:
        """Run once."""
        assert self._traffic is None, "a fleet runs once"
        self._traffic = traffic
        settings = self._settings
        until = settings.warmup_seconds + settings.seconds
        counters: list[Counters] = []
        self._timeline.at(settings.warmup_seconds, self._begin_counting)
        self._timeline.at(until, lambda: counters.extend(copy(engine.counters) for engine in self._engines))
        self._next(traffic.begin())
        self._timeline.run()
        return FleetRun(
            calls=tuple(self._calls),
            counters=tuple(counters),
            window=(settings.warmup_seconds, until),
            spilled=self._router.spilled,
            routed=len(self._calls),
            peak_in_flight=self._peak,
        )

    def _begin_counting(self) -> None:
        for engine in self._engines:
            engine.counters = Counters()

    def _next(self, requests: Iterator[Request]) -> None:
        """Let the next request come at its time, and the one after it from then on."""
        request = next(requests, None)
        if request is None:
            return

        def arrive() -> None:
            self._arrive(request)
            self._next(requests)

        self._timeline.at(request.at, arrive)

    def _arrive(self, request: Request) -> None:
        replica = self._router.route(request.person)
        self._peak = max(self._peak, self._router.total)
        call = Call(request=request, replica=replica)
        self._calls.append(call)
        self._servers[replica].receive(call)

    def _ended(self, call: Call) -> None:
        self._router.ended(call.replica)
        assert self._traffic is not None
        following = self._traffic.after(self._timeline.now)
        if following is not None:
            self._timeline.at(following.at, partial(self._arrive, following))


def _caches(
    settings: FleetSettings, history: History | None, route: Router, rng: np.random.Generator
) -> tuple[list[LruCache], LruCache | None]:
    """Return the caches of the replicas and the shared one, filled by the history."""
    entry = settings.machine.reference_bytes
    own: list[NDArray[np.int32]] = [np.empty(0, np.int32)] * settings.replicas
    all_recent = np.empty(0, np.int32)
    capacity = settings.cache_bytes // entry
    if history is not None and settings.history_seconds:
        popularity, rate, seconds = history.popularity, history.rate, settings.history_seconds
        if settings.shared_bytes:
            all_recent = priming.recent(popularity, rate=rate, seconds=seconds, rng=rng)
        if isinstance(route, HashAffine):
            trial = router(settings.router, settings.replicas, seed=settings.seed, balance=settings.balance)
            assert isinstance(trial, HashAffine)
            shares = priming.depth_shares(
                trial, popularity, rate=rate, in_flight_seconds=history.in_flight_seconds, rng=rng
            )
            own = priming.affine(
                popularity, route.ring, shares, rate=rate, seconds=seconds, capacity=capacity, rng=rng
            )
        else:
            own = priming.spread(
                popularity, replicas=settings.replicas, rate=rate, seconds=seconds, capacity=capacity, rng=rng
            )
    caches = [
        LruCache(capacity_bytes=settings.cache_bytes, entry_bytes=entry, primed=primed) for primed in own
    ]
    if not settings.shared_bytes:
        return caches, None
    return caches, LruCache(capacity_bytes=settings.shared_bytes, entry_bytes=entry, primed=all_recent)
