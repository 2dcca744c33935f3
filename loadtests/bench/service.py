"""The service as a caller meets it: a server process of its own, and calls over gRPC."""

from __future__ import annotations

import asyncio
import time

import psutil
from limner_client import AsyncClient, Client, Portrait, Settings

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
        digest = client.upload(settings.reference)
        for number in range(settings.latency_requests):
            start = time.perf_counter()
            client.generate(settings.prompt, digest, **_settings(settings, seed + number))
            seconds.append(time.perf_counter() - start)
    return seconds


def saturated(server: LocalServer, settings: BenchSettings, seed: int) -> tuple[float, float]:
    """Keep ``concurrency`` calls in flight; return the seconds of a round, and its mean useful rows a tick."""
    return asyncio.run(_saturated(server, settings, seed))


async def _saturated(server: LocalServer, settings: BenchSettings, seed: int) -> tuple[float, float]:
    async with AsyncClient(server.target) as client:
        reference = await client.upload(settings.reference)
        seeds = iter(range(seed, seed + settings.images_a_round))

        async def caller() -> list[Portrait]:
            return [
                await client.generate(settings.prompt, reference, **_settings(settings, number))
                for number in seeds
            ]

        start = time.perf_counter()
        done = await asyncio.gather(*[caller() for _ in range(settings.concurrency)])
        seconds = time.perf_counter() - start
    portraits = [portrait for portraits in done for portrait in portraits]
    return seconds, sum(portrait.timings.mean_batch_rows for portrait in portraits) / len(portraits)


def _settings(settings: BenchSettings, seed: int) -> Settings:
    return {
        "seed": seed,
        "steps": settings.steps,
        "sampler": settings.sampler,
        "guidance_scale": settings.guidance_scale,
        "ip_adapter_scale": settings.ip_adapter_scale,
    }
