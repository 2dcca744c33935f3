"""Run Limner and its peers in turns, on the same weights, asks and cores, and print one table a load."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from loadtests.peers.ask import Ask
from loadtests.peers.errors import PeerError
from loadtests.peers.loads import LOADS
from loadtests.peers.measure import MeasureSettings, estimate, measure
from loadtests.peers.process import MemoryPeak
from loadtests.peers.report import SideReport, table, targets
from loadtests.peers.sides import Started, StartSettings, parse_side, references, start
from loadtests.peers.verify import draw_oracle, mean_difference

SIDES = (
    "limner", "limner:float32", "diffusers:float32", "diffusers:bfloat16", "litserve:bfloat16", "litserve:float32",
    "ray:bfloat16", "pytriton:bfloat16", "openvino",
)  # fmt: skip
ASKS = 4096
CACHE = Path(".cache/peers")


def main() -> None:
    arguments = _arguments()
    begun = time.perf_counter()
    cache = arguments.cache.resolve()
    starting = StartSettings(
        threads=arguments.threads,
        max_batch=arguments.max_batch,
        batch_seconds=arguments.batch_seconds,
        cache=cache,
        pip_arguments=tuple(arguments.pip_args.split()),
    )
    settings = MeasureSettings(
        concurrency=arguments.concurrency,
        closed_seconds=arguments.closed_seconds,
        open_seconds=arguments.open_seconds,
    )
    cache.mkdir(parents=True, exist_ok=True)
    together = LOADS["homogenous"].asks(tuple(references()), 4, seed=0)
    first = together[0]
    oracle = draw_oracle(first, cache)
    reports = [SideReport(name=str(side)) for side in arguments.sides]
    with ExitStack() as stack:
        running: dict[str, Started] = {}
        for side, report in zip(arguments.sides, reports, strict=True):
            try:
                started = stack.enter_context(start(side, starting, first))
                report.difference = mean_difference(str(side), _draw(started, together), oracle)
            except PeerError as error:
                report.failure = error.reason
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
            for load in arguments.loads:
                for report in turn:
                    if report.name in running and not report.failure:
                        _round(report, running[report.name], load, settings, number)
                        _say(begun, f"round {number + 1}, {load}, {report.name}: {report.rounds[load][-1].rate:.2f}/s"
                             if not report.failure else f"{report.name}: {report.failure}")  # fmt: skip
    _print(reports, arguments, settings, time.perf_counter() - begun)


def _draw(started: Started, asks: list[Ask]) -> bytes:
    """Return the picture of the first ask, made beside the others: a batch must not change it."""

    async def run() -> bytes:
        async with started.open() as target:
            pictures = await asyncio.gather(*[target(ask) for ask in asks])
            return pictures[0]

    return asyncio.run(run())


def _round(report: SideReport, started: Started, load: str, settings: MeasureSettings, number: int) -> None:
    asks = LOADS[load].asks(tuple(references()), ASKS, seed=number)
    error: BaseException | None = None
    try:
        with MemoryPeak(started.pid) as peak:
            rate = report.rounds[load][-1].rate if report.rounds.get(load) else 0.0
            rate = rate or estimate(started, asks, settings.concurrency)
            measured = measure(started, asks, settings, rate, seed=number)
    except* PeerError as group:  # of callers that ran beside each other
        error = group.exceptions[0]
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    if error is not None:
        report.failure = error.reason if isinstance(error, PeerError) else str(error)
        print(error, file=sys.stderr, flush=True)
        return
    report.rounds.setdefault(load, []).append(measured)
    report.peak_bytes[load] = max(report.peak_bytes.get(load, 0), peak.bytes)


def _say(begun: float, what: str) -> None:
    print(f"{time.perf_counter() - begun:6.0f} s  {what}", flush=True)


def _arguments() -> argparse.Namespace:
    default = MeasureSettings()
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers", description=__doc__)
    parser.add_argument(
        "--sides", type=parse_side, nargs="+", default=[parse_side(each) for each in SIDES], metavar="NAME[:DTYPE]",
        help=f"which to run, in this order; default {' '.join(SIDES)}",
    )  # fmt: skip
    parser.add_argument("--loads", nargs="+", choices=tuple(LOADS), default=list(LOADS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--concurrency", type=int, default=default.concurrency, help="of the closed loop")
    parser.add_argument(
        "--closed-seconds", type=float, default=default.closed_seconds, help="about, each time"
    )
    parser.add_argument(
        "--open-seconds", type=float, default=default.open_seconds, help="of arrivals, each time"
    )
    parser.add_argument("--max-batch", type=int, default=8, help="requests a batch, of peers that batch")
    parser.add_argument(
        "--batch-seconds", type=float, default=0.05, help="that such a peer waits for a batch"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="of environments and logs")
    parser.add_argument("--pip-args", default="", help="for the installation of peers")
    parser.add_argument(
        "--out", type=Path, default=Path(".cache/peers.json"), help="where all figures go as JSON"
    )
    return parser.parse_args()


def _print(
    reports: list[SideReport], arguments: argparse.Namespace, settings: MeasureSettings, seconds: float
) -> None:
    by_name = {report.name: report for report in reports}
    first, base = by_name.get("limner"), by_name.get("diffusers:float32")
    print(
        f"\n{platform.machine()}, {arguments.threads} threads; closed loop of {settings.concurrency} calls in flight "
        f"for about {settings.closed_seconds:g} s, then Poisson arrivals at {settings.offered:g} of its rate for "
        f"{settings.open_seconds:g} s; {arguments.rounds} rounds, {seconds / 60:.0f} minutes in all"
    )
    for load in arguments.loads:
        print(f"\n### {load}\n")
        print("\n".join(table(load, reports, first, base)))
    if found := targets(reports):
        print("\n| target | ratio (least to most) | wanted | met |\n|---|---|---|---|")
        print("\n".join(target.line() for target in found))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    options = {
        name: value if isinstance(value, int | float | str) else str(value)
        for name, value in vars(arguments).items()
    }
    content = {"options": options, "sides": [report.to_json() for report in reports]}
    arguments.out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
