"""Calibration: what a target can do, so that one scenario means the same on every machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from statistics import median

import msgspec
import numpy as np

from loadtests.runner.errors import TargetError
from loadtests.runner.plan import CALIBRATION_PEOPLE, Speed, samples
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Scenario
from loadtests.runner.target import Status, Target
from loadtests.runner.tasks import asking

ENOUGH_ANSWERS = 4
"""Fewer answers tell no rate."""


async def _nothing() -> None:
    pass


async def calibrate(
    target: Target,
    scenario: Scenario,
    seed: int,
    *,
    say: Callable[[str], None] = lambda text: None,
    read: Callable[[], Awaitable[None]] = _nothing,
) -> Speed:
    """Measure a target with requests of the scenario's streams in turn: some by themselves, then a closed loop.

    ``read`` is awaited before these, when the target has seen each size, and after them. Raises TargetError when a
    request fails, or too few are answered in the time.
    """
    settings = scenario.calibration
    requests = samples(scenario, seed)
    await warm(target, scenario, requests)
    await read()
    alone = await one_by_one(target, scenario, requests, say=say)
    say(f"calibration: {settings.concurrency} callers for {settings.seconds:g} s")
    ends = await _closed_loop(target, requests, settings.concurrency, settings.seconds)
    await read()
    if len(ends) < ENOUGH_ANSWERS or ends[-1] <= ends[0]:
        raise TargetError(
            f"calibration: {len(ends)} answers in {settings.seconds:g} s; calibration.seconds must be longer"
        )
    # Answers come in groups, as batches end: the slope of a line through them all is less moved by where the first
    # and the last group fall than a count over a time is.
    slope = float(np.polyfit(ends, np.arange(len(ends)), 1)[0])
    return Speed(capacity=slope, unloaded=median(alone))


def warming(scenario: Scenario) -> list[tuple[int, int]]:
    """Return the sizes of the first requests, which are not counted: a target may compile what it needs for them."""
    sizes = sorted({size for stream in scenario.streams for size in stream.mix.sizes})
    return [sizes[0], *sizes]


async def warm(target: Target, scenario: Scenario, requests: Iterator[PlannedRequest]) -> None:
    """Let a target see those whom a calibration shows, and each size once. Raises TargetError."""
    await target.prepare(range(CALIBRATION_PEOPLE))
    for width, height in warming(scenario):
        await _answered(target, msgspec.structs.replace(next(requests), width=width, height=height))


async def one_by_one(
    target: Target,
    scenario: Scenario,
    requests: Iterator[PlannedRequest],
    *,
    say: Callable[[str], None] = lambda text: None,
) -> list[float]:
    """Return the seconds of some requests that are alone, at a target that is warm. Raises TargetError."""
    clock = asyncio.get_running_loop().time
    say(f"calibration: {scenario.calibration.alone} requests one by one")
    alone = []
    for _ in range(scenario.calibration.alone):
        request = next(requests)
        began = clock()
        await _answered(target, request)
        alone.append(clock() - began)
    return alone


async def _closed_loop(
    target: Target, requests: Iterator[PlannedRequest], concurrency: int, seconds: float
) -> list[float]:
    """Return the moments of the answers while the loop was full."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    ends: list[float] = []

    async def caller() -> None:
        while clock() < until:
            await _answered(target, next(requests))
            ends.append(clock())

    async with asking() as group:
        for _ in range(concurrency):
            group.create_task(caller())
    return [end for end in ends if end <= until]


async def _answered(target: Target, request: PlannedRequest) -> None:
    outcome = await target.call(request)
    if outcome.status is not Status.OK:
        raise TargetError(
            f"calibration: a request was {outcome.status}: {outcome.reason} {outcome.message}".rstrip()
        )
