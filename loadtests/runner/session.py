"""A session: calibrate, plan, prepare, send, watch, sum up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from itertools import pairwise

from loadtests.runner.calibration import calibrate, one_by_one, warm
from loadtests.runner.errors import TargetError
from loadtests.runner.gallery import Gallery
from loadtests.runner.generator import DRAIN_SECONDS, Generator
from loadtests.runner.measures import counter
from loadtests.runner.plan import Plan, Speed, samples
from loadtests.runner.progress import Progress
from loadtests.runner.record import Record
from loadtests.runner.report import Machine, Report, all_figures, judge_all
from loadtests.runner.scenario import Scenario
from loadtests.runner.target import Status, Target
from loadtests.runner.watch import Sample, Watch

ENGINE_REPORT_SECONDS = 2.0
"""An idle engine tells its counters about once a second."""
LATE_SECONDS = 0.05
"""A generator that is later than this with one request in a hundred was itself short of CPU."""


def say(text: str) -> None:
    """Tell a person at the terminal what goes on."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def measure_speed(
    opened: AbstractAsyncContextManager[Target], scenario: Scenario, seed: int, watch: Watch
) -> Speed:
    """Calibrate a target, and let the watch read it meanwhile. Raises TargetError."""
    began = time.monotonic()

    async def read() -> None:
        await watch.sample(lambda: time.monotonic() - began, into=watch.calibration)

    async with opened as target:
        speed = await calibrate(target, scenario, seed, say=say, read=read)
    say(f"calibration: {speed.capacity:.2f} requests/s, {speed.unloaded:.3f} s unloaded")
    return speed


async def measure_unloaded(
    opened: AbstractAsyncContextManager[Target], scenario: Scenario, seed: int
) -> list[float]:
    """Return the seconds of requests that are alone at a target, as calibration takes them. Raises TargetError."""
    async with opened as target:
        requests = samples(scenario, seed)
        await warm(target, scenario, requests)
        return await one_by_one(target, scenario, requests)


async def run_plan(
    plan: Plan,
    opened: AbstractAsyncContextManager[Target],
    gallery: Gallery,
    watch: Watch,
    *,
    name: str,
    calibrated: bool,
    drain_seconds: float = DRAIN_SECONDS,
    starts_at: float | None = None,
) -> Report:
    """Send a plan and report. Raises TargetError.

    name: what the target is called in the report. starts_at: when the load is to begin, in seconds since 1970.
    """
    scenario = plan.scenario
    # Drawn before the load, newcomers too: a picture takes as long to draw as a server to refuse it.
    gallery.prepare(plan.people)
    async with opened as target:
        say(f"{len(plan.requests)} requests of {len(plan.people)} people over {scenario.seconds:g} s")
        await target.prepare(plan.known_people)
        if watch.sees:
            await asyncio.sleep(ENGINE_REPORT_SECONDS)
        await watch.sample(lambda: 0.0)
        progress = Progress(sys.stderr, scenario.seconds)
        generator = Generator(plan, target, on_record=progress.add, drain_seconds=drain_seconds)
        begins_in = 0.0 if starts_at is None else starts_at - time.time()
        if begins_in < 0:
            raise TargetError(f"{name}: getting ready took {-begins_in:.2f} s longer than there was time for")
        started = datetime.now(UTC)
        beside = _beside(watch.run(lambda: generator.now, scenario.seconds), progress.run(generator))
        with _stopped_by_hand(generator):
            async with beside:
                records = tuple(sorted(await generator.run(begins_in), key=lambda one: one.number))
        progress.end()
        if watch.sees:
            await asyncio.sleep(ENGINE_REPORT_SECONDS)
        await watch.sample(lambda: generator.now)
    readings = tuple(watch.samples)
    table = all_figures(scenario, plan.speed, records, readings)
    return Report(
        scenario=scenario,
        seed=plan.seed,
        target=name,
        started=started.isoformat(timespec="seconds"),
        seconds=scenario.seconds,
        speed=plan.speed,
        calibrated=calibrated,
        slo_seconds=plan.speed.seconds(scenario.slo),
        machine=Machine(
            cpus=os.cpu_count() or 1, system=platform.platform(), python=platform.python_version()
        ),
        figures=table,
        judgements=judge_all(table, scenario, plan.speed),
        notes=tuple(_notes(generator, records, watch)),
        samples=readings,
        records=records,
        calibration=tuple(watch.calibration),
    )


def _notes(generator: Generator, records: tuple[Record, ...], watch: Watch) -> Iterable[str]:
    yield from dict.fromkeys(generator.notes)
    late = sorted(one.sent - one.due for one in records)
    if late and (worst := late[int(0.99 * (len(late) - 1))]) > LATE_SECONDS:
        yield f"the generator was late: one request in a hundred was sent {worst:.3f} s after it was due, or more"
    if unfinished := sum(one.status is Status.UNFINISHED for one in records):
        yield f"{unfinished} requests had no answer when the run was over"
    if watch.missed:
        yield f"{watch.missed} readings of the server failed"
    if restarts := _engine_restarts(watch.samples):
        yield f"engines died and were started again during the run: {restarts:.0f} times"


def _engine_restarts(samples: Sequence[Sample]) -> float:
    told = [value for one in samples if (value := counter(one, "engine_restarts")) is not None]
    # By steps, as a server that was itself started again counts from 0.
    return sum(max(0.0, after - before) for before, after in pairwise(told))


@contextlib.asynccontextmanager
async def _beside(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Let endless work go on while the body runs."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


@contextlib.contextmanager
def _stopped_by_hand(generator: Generator) -> Iterator[None]:
    """Let the first interrupt end the sending and the second one the run."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        generator.stop()

    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except (NotImplementedError, RuntimeError):
        # Windows, or not the main thread: an interrupt ends the run at once.
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
