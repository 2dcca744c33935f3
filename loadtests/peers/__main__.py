"""Run Limner and its peers in turns, on the same weights, asks and cores, and print one table a load."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import msgspec

from loadtests.peers.errors import PeerError
from loadtests.peers.measure import ARRIVALS, SATURATED, measure, part
from loadtests.peers.people import write_people
from loadtests.peers.process import MemoryPeak, awake, pause, resume
from loadtests.peers.report import SideReport, table, targets
from loadtests.peers.sides import Started, StartSettings, parse_side, start
from loadtests.peers.target import to_ask
from loadtests.peers.verify import draw_oracle, mean_difference
from loadtests.runner.errors import LoadTestError
from loadtests.runner.gallery import Gallery
from loadtests.runner.plan import samples
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Phase, Scenario
from loadtests.runner.scenario_file import load_scenario
from loadtests.runner.target import Status, Target

SIDES = (
    "limner", "limner-lanes", "limner-engines", "limner:float32", "diffusers:float32", "diffusers:bfloat16",
    "litserve:bfloat16", "litserve:float32", "ray:bfloat16", "pytriton:bfloat16", "openvino",
)  # fmt: skip
LOADS = ("homogenous", "mixed")
CACHE = Path(".cache/peers")


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # no side stays behind, stopped
    begun = time.perf_counter()
    cache = arguments.cache.resolve()
    gallery = Gallery(0)  # one for all rounds: the people stay the same
    write_people(gallery, cache / "people")
    starting = StartSettings(
        threads=arguments.threads,
        max_batch=arguments.max_batch,
        batch_seconds=arguments.batch_seconds,
        cache=cache,
        people=cache / "people",
        pip_arguments=tuple(arguments.pip_args.split()),
    )
    scenarios = {
        load: timed(load_scenario(f"peers-{load}"), arguments.closed_seconds, arguments.open_seconds)
        for load in arguments.loads
    }
    # Of the model's own sampler, which the oracle uses.
    together = list(islice(samples(load_scenario("peers-homogenous"), 0), 4))
    first = to_ask(together[0])
    oracle = draw_oracle(first, starting.people, cache)
    reports = [SideReport(name=str(side)) for side in arguments.sides]
    with ExitStack() as stack:
        running: dict[str, Started] = {}
        for side, report in zip(arguments.sides, reports, strict=True):
            try:
                with ExitStack() as own:
                    started = own.enter_context(start(side, starting, gallery, first))
                    report.difference = mean_difference(
                        str(side), _draw(str(side), started, together), oracle
                    )
                    own.callback(resume, started.pid)  # a stopped process does not hear that it is to end
                    pause(str(side), started.pid)
                    stack.push(own.pop_all())
            except (PeerError, LoadTestError) as error:
                report.failure = reason(error)
                print(error, file=sys.stderr, flush=True)
                continue
            report.start_seconds = started.seconds
            running[report.name] = started
            _say(
                begun, f"{report.name} started in {started.seconds:.0f} s, {report.difference:.2f} levels off"
            )
        for number in range(arguments.rounds):
            # Another first one every round: what a side leaves hot or throttled meets another neighbour.
            turn = reports[number % len(reports) :] + reports[: number % len(reports)]
            for load, scenario in scenarios.items():
                for report in turn:
                    if report.name in running and not report.failure:
                        _round(report, running[report.name], load, scenario, gallery, number)
                        _say(begun, f"round {number + 1}, {load}, {report.name}: {report.rounds[load][-1].rate:.2f}/s"
                             if not report.failure else f"{report.name}: {report.failure}")  # fmt: skip
    _print(reports, arguments, scenarios, time.perf_counter() - begun)


def timed(scenario: Scenario, closed_seconds: float | None, open_seconds: float | None) -> Scenario:
    """Return a scenario of the comparison with other times of its phases; None leaves one as the file has it."""
    own = {name: end - begin for name, (begin, end) in scenario.spans().items()}
    seconds = {SATURATED: closed_seconds or own[SATURATED], ARRIVALS: open_seconds or own[ARRIVALS]}
    phases = tuple(Phase(name=name, share=share) for name, share in seconds.items())
    return msgspec.structs.replace(scenario, seconds=sum(seconds.values()), phases=phases)


def reason(error: PeerError | LoadTestError) -> str:
    """Return why a side cannot be measured, for a cell of the table."""
    return error.reason if isinstance(error, PeerError) else str(error)


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


def _round(
    report: SideReport, started: Started, load: str, scenario: Scenario, gallery: Gallery, number: int
) -> None:
    rate = report.rounds[load][-1].rate if report.rounds.get(load) else None
    try:
        with awake(report.name, started.pid), MemoryPeak(started.pid) as peak:
            measured = asyncio.run(measure(report.name, started.open, scenario, gallery, number, rate))
    except (PeerError, LoadTestError) as error:
        report.failure = reason(error)
        print(error, file=sys.stderr, flush=True)
        return
    report.rounds.setdefault(load, []).append(measured)
    report.peak_bytes[load] = max(report.peak_bytes.get(load, 0), peak.bytes)


def _say(begun: float, what: str) -> None:
    print(f"{time.perf_counter() - begun:6.0f} s  {what}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers", description=__doc__)
    parser.add_argument(
        "--sides", type=parse_side, nargs="+", default=[parse_side(each) for each in SIDES], metavar="NAME[:DTYPE]",
        help=f"which to run, in this order; default {' '.join(SIDES)}",
    )  # fmt: skip
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS), help="scenarios peers-LOAD")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument(
        "--closed-seconds", type=positive, help="about, each time, in place of the scenario's"
    )
    parser.add_argument(
        "--open-seconds", type=positive, help="of arrivals, each time, in place of the scenario's"
    )
    parser.add_argument("--max-batch", type=int, default=16, help="requests a batch, of peers that batch")
    parser.add_argument(
        "--batch-seconds", type=float, default=0.05, help="that such a peer waits for a batch"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="of environments and logs")
    parser.add_argument("--pip-args", default="", help="for the installation of peers")
    parser.add_argument(
        "--out", type=Path, default=Path(".cache/peers.json"), help="where all figures go as JSON"
    )
    return parser.parse_args()


def positive(text: str) -> float:
    """Return a number above 0, for an option."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _print(
    reports: list[SideReport], arguments: argparse.Namespace, scenarios: dict[str, Scenario], seconds: float
) -> None:
    by_name = {report.name: report for report in reports}
    first, base = by_name.get("limner"), by_name.get("diffusers:float32")
    print(
        f"\n{platform.machine()}, {arguments.threads} threads; {arguments.rounds} rounds, "
        f"{seconds / 60:.0f} minutes in all"
    )
    for scenario in scenarios.values():
        closed, opened = (part(scenario, phase).seconds for phase in (SATURATED, ARRIVALS))
        print(
            f"{scenario.name}: saturated for about {closed:g} s, then arrivals for {opened:g} s; {scenario.about}"
        )
    for load in arguments.loads:
        print(f"\n### {load}\n")
        print("\n".join(table(load, reports, first, base)))
    if found := targets(reports):
        print("\n| target | ratio (least to most) | wanted | met |\n|---|---|---|---|")
        print("\n".join(target.line() for target in found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    options = {
        name: value if isinstance(value, int | float | str | None) else str(value)
        for name, value in vars(arguments).items()
    }
    content = {"options": options, "sides": [report.to_json() for report in reports]}
    arguments.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
