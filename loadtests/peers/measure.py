"""Load on one side: one call at a time, a closed loop at saturation, and Poisson arrivals below it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

from loadtests.peers.ask import Ask
from loadtests.peers.errors import PeerError
from loadtests.peers.sides import Started, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """How long each part takes on each side."""

    concurrency: int = 16
    closed_seconds: float = 10.0
    open_seconds: float = 6.0
    unloaded_calls: int = 3
    offered: float = 0.8
    """Poisson arrivals a second, as a share of what the side managed in its closed loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One side under one load in one round; latencies in seconds, rates in images a second."""

    unloaded: tuple[float, ...]
    saturated: tuple[float, ...]
    rate: float
    arrivals: tuple[float, ...]
    """Latencies of the open loop, from the moment that a request should have been sent (coordinated omission)."""
    arrival_seconds: float
    """From the first arrival to the last answer."""
    offered_rate: float

    @property
    def unloaded_latency(self) -> float:
        """The median of the calls that were alone."""
        return median(self.unloaded)

    def goodput(self, slo_seconds: float) -> float:
        """Return images a second of the open loop that came within `slo_seconds`."""
        return sum(latency <= slo_seconds for latency in self.arrivals) / self.arrival_seconds


def measure(
    started: Started, asks: Sequence[Ask], settings: MeasureSettings, rate: float, seed: int
) -> Measured:
    """Put a load on a side. `rate` is what it is thought to manage, and sets how many asks its closed loop gets."""
    return asyncio.run(_measure(started, asks, settings, rate, seed))


def estimate(started: Started, asks: Sequence[Ask], concurrency: int) -> float:
    """Return images a second of one short closed loop, which warms the side up as well."""

    async def run() -> float:
        async with started.open() as target:
            _threads(concurrency)
            start = time.perf_counter()
            await _closed(target, asks[:concurrency], concurrency)
            return concurrency / (time.perf_counter() - start)

    return asyncio.run(run())


def closed_count(rate: float, settings: MeasureSettings) -> int:
    """Return a multiple of the concurrency, so that whole batches stay whole to the end; two of them at least."""
    return settings.concurrency * max(2, round(rate * settings.closed_seconds / settings.concurrency))


async def _measure(
    started: Started, asks: Sequence[Ask], settings: MeasureSettings, rate: float, seed: int
) -> Measured:
    async with started.open() as target:
        _threads(max(settings.concurrency, len(asks)))
        unloaded = [await _timed(target, ask) for ask in asks[: settings.unloaded_calls]]
        count = closed_count(rate, settings)
        if count > len(asks):
            raise PeerError("load", f"{count} asks are needed, {len(asks)} were drawn")
        start = time.perf_counter()
        saturated = await _closed(target, asks[:count], settings.concurrency)
        reached = count / (time.perf_counter() - start)
        offered = settings.offered * reached
        arrivals = await _open(target, asks, offered, settings.open_seconds, seed)
    return Measured(
        unloaded=tuple(unloaded),
        saturated=tuple(saturated),
        rate=reached,
        arrivals=tuple(latency for latency, _ in arrivals),
        arrival_seconds=max(end for _, end in arrivals),
        offered_rate=offered,
    )


def _threads(count: int) -> None:
    # The default holds cores + 4 threads, which would cap the calls in flight.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(count))


async def _timed(target: Target, ask: Ask) -> float:
    start = time.perf_counter()
    await target(ask)
    return time.perf_counter() - start


async def _closed(target: Target, asks: Sequence[Ask], concurrency: int) -> list[float]:
    left = iter(asks)
    latencies: list[float] = []

    async def caller() -> None:
        for ask in left:
            latencies.append(await _timed(target, ask))  # noqa: PERF401  callers share the list

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(caller())
    return latencies


async def _open(
    target: Target, asks: Sequence[Ask], rate: float, seconds: float, seed: int
) -> list[tuple[float, float]]:
    draw = random.Random(seed)
    at = 0.0
    times = [0.0]
    while (at := at + draw.expovariate(rate)) < seconds:
        times.append(at)
    start = time.perf_counter()

    async def call(ask: Ask, due: float) -> tuple[float, float]:
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        await target(ask)
        end = time.perf_counter() - start
        return end - due, end

    calls = [call(asks[number % len(asks)], due) for number, due in enumerate(times)]
    return list(await asyncio.gather(*calls))
