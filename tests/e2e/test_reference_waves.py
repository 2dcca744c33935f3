"""One new reference, many callers at once: it is encoded once, and then it is simply there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from limner_client import AsyncClient, CacheOutcome, Portrait

from tools.local_server import LocalServer

CALLERS = 64
IDLE_REPORT_SECONDS = 2.5


async def wave(target: str, picture: bytes, tenant: str) -> list[Portrait]:
    async with AsyncClient(target, tenant=tenant, timeout=280) as client:
        return await asyncio.gather(
            *[
                client.generate("a portrait", picture, steps=1, guidance_scale=1.0, seed=seed)
                for seed in range(CALLERS)
            ]
        )


def settled(total: Callable[..., float], name: str) -> float:
    """Read a counter that an idle engine reports about once a second."""
    before, until = -1.0, time.monotonic() + 4 * IDLE_REPORT_SECONDS
    while time.monotonic() < until:
        time.sleep(IDLE_REPORT_SECONDS)
        value = total(name)
        if value == before:
            return value
        before = value
    raise AssertionError(f"{name} does not settle")


@pytest.mark.timeout(300)
def test_sixty_four_callers_with_one_new_reference_cost_one_encode(
    server: LocalServer, total: Callable[..., float], references: list[Path]
) -> None:
    picture = references[0].read_bytes()
    before = settled(total, "limner_image_encodes_total")

    first = asyncio.run(wave(server.target, picture, "waves"))
    assert settled(total, "limner_image_encodes_total") == before + 1
    outcomes = Counter(portrait.cache_outcome for portrait in first)
    assert outcomes[CacheOutcome.MISS] == 1
    assert outcomes[CacheOutcome.HIT] + outcomes[CacheOutcome.COALESCED] == CALLERS - 1

    second = asyncio.run(wave(server.target, picture, "waves"))
    assert settled(total, "limner_image_encodes_total") == before + 1
    assert {portrait.cache_outcome for portrait in second} == {CacheOutcome.HIT}
    ready = median(portrait.timings.reference_seconds for portrait in second)
    print(f"reference ready after {1e6 * ready:.0f} us (median of the second wave)")
    assert ready < 1e-3
