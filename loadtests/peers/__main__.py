"""Run Limner and its peers in turns, on the same weights, asks and cores, and print one table a load."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import msgspec

from loadtests.peers.measure import ARRIVALS, SATURATED
from loadtests.peers.people import write_people
from loadtests.peers.report import SideReport
from loadtests.peers.results import Results
from loadtests.peers.rounds import run_rounds, start_sides
from loadtests.peers.sides import Side, StartSettings, parse_side
from loadtests.peers.target import to_ask
from loadtests.peers.verify import draw_oracle
from loadtests.provenance import provenance
from loadtests.runner.gallery import Gallery
from loadtests.runner.plan import samples
from loadtests.runner.scenario import Phase, Scenario
from loadtests.runner.scenario_file import load_scenario

SIDES = (
    "limner", "limner-lanes", "limner-engines", "limner:float32", "limner:int8", "limner-engines:int8",
    "diffusers:float32", "diffusers:bfloat16", "litserve:bfloat16", "litserve:float32",
    "litserve-workers:bfloat16", "litserve-workers:float32", "litserve-compiled:bfloat16", "litserve-compiled:int8",
    "litserve-compiled-workers:int8", "ray:bfloat16", "pytriton:bfloat16", "openvino", "openvino:int8",
)  # fmt: skip
LOADS = ("homogenous", "mixed")
CACHE = Path(".cache/peers")


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # no side stays behind, stopped
    results = Results(
        options=arguments,
        provenance=provenance(),
        scenarios={
            load: timed(load_scenario(f"peers-{load}"), arguments.closed_seconds, arguments.open_seconds)
            for load in arguments.loads
        },
        reports=[SideReport(name=str(side)) for side in arguments.sides],
    )
    try:
        compare(arguments, results)
    finally:
        # Interrupted or broken as well: what was measured took minutes a side.
        if any(report.rounds or report.failure for report in results.reports):
            results.print_tables()


def compare(arguments: argparse.Namespace, results: Results) -> None:
    """Start the sides and measure them in turns. Raises ``PeerPictureError`` where nothing can be compared with."""
    cache = arguments.cache.resolve()
    gallery = Gallery(0)  # one for all rounds: the people stay the same
    write_people(gallery, cache / "people")
    settings = StartSettings(
        threads=arguments.threads,
        max_batch=arguments.max_batch,
        batch_seconds=arguments.batch_seconds,
        cache=cache,
        people=cache / "people",
        pip_arguments=tuple(arguments.pip_args.split()),
    )
    # Of the model's own sampler, which the oracle uses.
    together = list(islice(samples(load_scenario("peers-homogenous"), 0), 4))
    oracle = draw_oracle(to_ask(together[0]), settings.people, cache)
    with ExitStack() as stack:
        running = start_sides(stack, arguments.sides, settings, gallery, together, oracle, results)
        run_rounds(running, gallery, arguments.rounds, results)


def timed(scenario: Scenario, closed_seconds: float | None, open_seconds: float | None) -> Scenario:
    """Return a scenario of the comparison with other times of its phases; None leaves one as the file has it."""
    own = {name: end - begin for name, ((begin, end),) in scenario.turns().items()}
    seconds = {SATURATED: closed_seconds or own[SATURATED], ARRIVALS: open_seconds or own[ARRIVALS]}
    phases = tuple(Phase(name=name, share=share) for name, share in seconds.items())
    return msgspec.structs.replace(scenario, seconds=sum(seconds.values()), phases=phases)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers", description=__doc__)
    parser.add_argument(
        "--sides", type=side_option, nargs="+", default=[parse_side(each) for each in SIDES], metavar="NAME[:DTYPE]",
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
        "--out",
        type=Path,
        default=Path(".cache/peers.json"),
        help="where all figures go as JSON, after each turn",
    )
    return parser.parse_args()


def side_option(text: str) -> Side:
    """Return a side, for an option; of a ``ValueError`` argparse would not show what it says."""
    try:
        return parse_side(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> float:
    """Return a number above 0, for an option."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


if __name__ == "__main__":
    main()
