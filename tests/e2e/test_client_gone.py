"""Callers that cancel, and callers that are killed, leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from limner_client import AsyncClient

from tests.waiting import until
from tools.local_server import LocalServer

STEPS = 100

CALLER = f"""
import sys
from limner_client import Client, Progress
with Client(sys.argv[1]) as client:
    for event in client.stream("a portrait", steps={STEPS}, guidance_scale=1.0, seed=1, image_count=4):
        if isinstance(event, Progress):
            print(event.step, flush=True)
"""


def gone(total: Callable[..., float]) -> bool:
    return total("limner_images_running") == 0 and total("limner_requests_in_flight") == 0


def all_in(total: Callable[..., float]) -> bool:
    return total("limner_images_running") > 0 and total("limner_requests_in_flight") == 6


def test_a_killed_client_frees_its_rows(server: LocalServer, total: Callable[..., float]) -> None:
    cancelled = total("limner_requests_cancelled_total")
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, server.target], stdout=subprocess.PIPE, text=True
    )
    assert caller.stdout is not None
    assert caller.stdout.readline(), "the first step"
    # How many run at once, and how many wait their turn, is the scheduler's choice.
    until(lambda: total("limner_images_running") > 0)
    ticks = total("limner_ticks_total")
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    until(lambda: gone(total))
    # The engine was at most a few ticks on when the news reached it, of the hundred that were asked for.
    assert total("limner_ticks_total") - ticks < STEPS / 4
    assert total("limner_requests_cancelled_total") == cancelled + 1


def test_a_cancelled_call_frees_its_rows(server: LocalServer, total: Callable[..., float]) -> None:
    async def call_and_cancel() -> None:
        async with AsyncClient(server.target) as client:
            calls = [
                asyncio.create_task(client.generate("a portrait", steps=STEPS, seed=seed, guidance_scale=1.0))
                for seed in range(6)
            ]
            await asyncio.to_thread(until, lambda: all_in(total))
            for call in calls:
                call.cancel()
            for call in calls:
                with contextlib.suppress(asyncio.CancelledError):
                    await call

    ticks = total("limner_ticks_total")
    asyncio.run(call_and_cancel())
    until(lambda: gone(total))
    assert total("limner_ticks_total") - ticks < STEPS


def test_a_call_after_all_this_is_served(server: LocalServer, references: list[Path]) -> None:
    async def call() -> int:
        async with AsyncClient(server.target) as client:
            return len((await client.generate("a portrait", references[0], steps=2)).images)

    assert asyncio.run(call()) == 1
