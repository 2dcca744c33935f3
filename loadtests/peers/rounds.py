"""The rounds: sides are started, checked and paused, then measured in turns."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from loadtests.peers.errors import PeerError
from loadtests.peers.measure import measure
from loadtests.peers.process import MemoryPeak, awake, pause, resume
from loadtests.peers.report import SideReport
from loadtests.peers.results import Results
from loadtests.peers.sides import Side, Started, StartSettings, start
from loadtests.peers.target import to_ask
from loadtests.peers.verify import Picture, mean_difference
from loadtests.runner.errors import LoadTestError
from loadtests.runner.gallery import Gallery
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Scenario
from loadtests.runner.target import Status, Target


def start_sides(
    stack: ExitStack,
    sides: Sequence[Side],
    settings: StartSettings,
    gallery: Gallery,
    together: list[PlannedRequest],
    oracle: Picture,
    results: Results,
) -> dict[str, Started]:
    """Return the sides that run and draw the `oracle`, paused, until `stack` ends; why others do not is reported."""
    running: dict[str, Started] = {}
    for side, report in zip(sides, results.reports, strict=True):
        try:
            with ExitStack() as own:
                started = own.enter_context(start(side, settings, gallery, to_ask(together[0])))
                report.difference = mean_difference(
                    report.name, _draw(report.name, started, together), oracle
                )
                own.callback(resume, started.pid)  # a stopped process does not hear that it is to end
                pause(report.name, started.pid)
                stack.push(own.pop_all())
        except (PeerError, LoadTestError) as error:
            _fail(report, error)
            continue
        report.start_seconds = started.seconds
        running[report.name] = started
        results.say(f"{report.name} started in {started.seconds:.0f} s, {report.difference:.2f} levels off")
    return running


def run_rounds(running: dict[str, Started], gallery: Gallery, rounds: int, results: Results) -> None:
    """Measure each side under each load in each round. What is measured is in the file before the next one's turn."""
    reports = results.reports
    for number in range(rounds):
        # Another first one every round: what a side leaves hot or throttled meets another neighbour.
        turn = [*reports[number % len(reports) :], *reports[: number % len(reports)]]
        for load, scenario in results.scenarios.items():
            for report in turn:
                if report.name in running and not report.failure:
                    _measure(report, running[report.name], load, scenario, gallery, number)
                    results.write()
                    results.say(
                        f"{report.name}: {report.failure}" if report.failure else
                        f"round {number + 1}, {load}, {report.name}: {report.rounds[load][-1].rate:.2f}/s"
                    )  # fmt: skip
    results.write()  # also where no side had a turn


def _draw(name: str, started: Started, requests: list[PlannedRequest]) -> bytes:
    """Return the picture of the first request, made beside the others: a batch must not change it."""

    async def call(target: Target, request: PlannedRequest) -> bytes:
        outcome = await target.call(request)
        if outcome.status is not Status.OK:
            raise PeerError(name, outcome.reason, outcome.message)
        return outcome.pictures[0]

    async def run() -> bytes:
        async with started.open() as target:
            await target.prepare({one.person for one in requests if one.person is not None})
            pictures = await asyncio.gather(*[call(target, one) for one in requests])
            return pictures[0]

    return asyncio.run(run())


def _measure(
    report: SideReport, started: Started, load: str, scenario: Scenario, gallery: Gallery, number: int
) -> None:
    rate = report.rounds[load][-1].rate if report.rounds.get(load) else None
    try:
        with awake(report.name, started.pid), MemoryPeak(started.pid) as peak:
            measured = asyncio.run(measure(report.name, started.open, scenario, gallery, number, rate))
    except (PeerError, LoadTestError) as error:
        _fail(report, error)
        return
    report.rounds.setdefault(load, []).append(measured)
    report.peak_bytes[load] = max(report.peak_bytes.get(load, 0), peak.bytes)


def _fail(report: SideReport, error: PeerError | LoadTestError) -> None:
    """Note why a side cannot be measured, for a cell of the table."""
    report.failure = error.reason if isinstance(error, PeerError) else str(error)
    print(error, file=sys.stderr, flush=True)
