"""The service as a caller meets it: a server process of its own, and calls over gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import fmean

import psutil
from limner_client import AsyncClient, Client, Settings

from loadtests.bench.settings import BenchSettings
from tools.local_server import LocalServer


def resident_bytes(pid: int) -> dict[str, int]:
    """Return the resident memory of the server process `pid` and of its engine."""
    server = psutil.Process(pid)
    return {
        "server": server.memory_info().rss,
        "engine": sum(engine.memory_info().rss for engine in server.children(recursive=True)),
    }


def unloaded(server: LocalServer, settings: BenchSettings, seed: int) -> list[float]:
    """Return the seconds of calls one after another, each alone in the server."""
    seconds = []
    with Client(server.target) as client:
        people = [client.upload(reference) for reference in settings.references]
        for number in range(seed, seed + settings.latency_requests):
            start = time.perf_counter()
            client.generate(
                settings.prompt(number), people[settings.person(number)], **_settings(settings, number)
            )
            seconds.append(time.perf_counter() - start)
    return seconds


def saturated(server: LocalServer, settings: BenchSettings, seed: int) -> tuple[float, float]:
    """Return the seconds of ``images_a_round`` answers in a closed loop, and their mean useful rows a tick.

    ``concurrency`` calls are in flight from before the first of them until the last has come: see `Window`.
    """
    return asyncio.run(_saturated(server, settings, seed))


async def _saturated(server: LocalServer, settings: BenchSettings, seed: int) -> tuple[float, float]:
    async with AsyncClient(server.target) as client:
        people = [await client.upload(reference) for reference in settings.references]

        async def generate(number: int) -> float:
            portrait = await client.generate(
                settings.prompt(number), people[settings.person(number)], **_settings(settings, number)
            )
            return portrait.timings.mean_batch_rows

        return await closed_loop(generate, settings, seed, clock=time.perf_counter)


async def closed_loop(
    generate: Callable[[int], Awaitable[float]],
    settings: BenchSettings,
    seed: int,
    *,
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Let callers ask until the window is full and all are answered; return what `saturated` does.

    generate: makes the image of a seed and returns its mean useful rows a tick.
    """
    window = settings.window
    seeds = iter(range(seed, seed + window.asked))
    ends: list[float] = []
    rows: list[float] = []

    async def caller() -> None:
        for number in seeds:
            rows.append(await generate(number))
            ends.append(clock())

    await asyncio.gather(*[caller() for _ in range(window.callers)])
    return window.seconds(ends), fmean(window.counted(rows))


def _settings(settings: BenchSettings, seed: int) -> Settings:
    return {
        "seed": seed,
        "steps": settings.steps,
        "sampler": settings.sampler,
        "guidance_scale": settings.guidance_scale,
        "ip_adapter_scale": settings.ip_adapter_scale,
    }
