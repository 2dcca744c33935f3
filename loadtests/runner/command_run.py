"""Send a scenario's load to a server; write the results as JSON and as a page."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loadtests.runner.errors import LoadTestError, TargetError
from loadtests.runner.gallery import Gallery
from loadtests.runner.limner import LimnerTarget
from loadtests.runner.page import write_page
from loadtests.runner.plan import Plan, Speed, make_plan
from loadtests.runner.report import Report, write_report
from loadtests.runner.scenario import Scenario
from loadtests.runner.scenario_file import load_scenario, names
from loadtests.runner.session import measure_speed, run_plan, say
from loadtests.runner.text import summary
from loadtests.runner.watch import Watch
from tools.local_server import LocalServer, local_server

OUT = Path("build/loadtests")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(run=run)
    add_load_arguments(parser, files="SCENARIO.json and SCENARIO.html")
    parser.add_argument(
        "--metrics", metavar="URL", help="the server's metrics page, to watch its memory and batches"
    )
    parser.add_argument(
        "--pid", type=int, help="the server's process, to watch its memory and its children's"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 when a request failed, or something that the scenario expects does not hold",
    )


def add_load_arguments(parser: argparse.ArgumentParser, *, files: str, scenario: str | None = None) -> None:
    """Add the options that say what is sent and where; with a default, the scenario may be left out.

    files: what the command writes.
    """
    parser.add_argument(
        "scenario",
        metavar="SCENARIO",
        nargs=None if scenario is None else "?",
        default=scenario,
        help=f"{', '.join(names())}, or a .toml file",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--target", metavar="HOST:PORT", help="the server's gRPC address")
    where.add_argument(
        "--serve", action="store_true", help="start a server with the model in the box for the run"
    )
    parser.add_argument(
        "--serve-option",
        action="append",
        default=[],
        metavar="FLAG",
        help="flag of that server, such as --serve-option=--engine-dtype=float32",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument(
        "--duration", type=_positive, metavar="SECONDS", help="of the load, in place of the scenario's"
    )
    parser.add_argument(
        "--capacity",
        type=_positive,
        metavar="RATE",
        help="requests/s of the target, in place of calibration; needs --unloaded",
    )
    parser.add_argument(
        "--unloaded",
        type=_positive,
        metavar="SECONDS",
        help="latency of a request that is alone; needs --capacity",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help=f"folder of {files} (default {OUT})",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    scenario = scenario_of(options)
    with server_of(options) as server:
        report = asyncio.run(load(options, scenario, server))
    paths = [options.out / f"{report.scenario.name}.{suffix}" for suffix in ("json", "html")]
    write_report(report, paths[0])
    write_page(report, paths[1])
    print(summary(report))
    say(f"written: {paths[0]} and {paths[1]}")
    return 1 if options.check and not all(one.holds for one in report.judgements) else 0


def scenario_of(options: argparse.Namespace) -> Scenario:
    """Read the scenario and check what goes with it, before a server is started for it. Raises LoadTestError."""
    scenario = load_scenario(options.scenario)
    if (options.capacity is None) != (options.unloaded is None):
        raise LoadTestError("--capacity and --unloaded go together")
    return scenario if options.duration is None else scenario.lasting(options.duration)


@contextmanager
def server_of(options: argparse.Namespace) -> Iterator[LocalServer | None]:
    """Start the server that ``--serve`` asks for, and stop it. Raises TargetError."""
    if not options.serve:
        if options.serve_option:
            raise LoadTestError("--serve-option goes with --serve")
        yield None
        return
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "server.log"
    say(f"starting a server; its log is {log}")
    with ExitStack() as stack:
        try:
            server = stack.enter_context(
                local_server("--log-level", "warning", *options.serve_option, log=log)
            )
        except RuntimeError as error:
            raise TargetError(str(error)) from error
        say(f"ready after {server.ready_seconds:.1f} s on {server.target}")
        yield server


async def planned(
    options: argparse.Namespace, scenario: Scenario, target: str, watch: Watch | None = None
) -> tuple[Plan, bool]:
    """Plan, after calibration unless the speed is given; tell whether it was measured. Raises LoadTestError."""
    if options.capacity is not None:
        speed = Speed(capacity=options.capacity, unloaded=options.unloaded)
        return make_plan(scenario, options.seed, speed), False
    opened = LimnerTarget(target, Gallery(options.seed), tenant=f"calibration-{secrets.token_hex(4)}")
    speed = await measure_speed(opened, scenario, options.seed, watch or Watch(None, None))
    return make_plan(scenario, options.seed, speed), True


async def load(options: argparse.Namespace, scenario: Scenario, server: LocalServer | None) -> Report:
    """Plan, send, and sum up. Raises LoadTestError."""
    target = options.target if server is None else server.target
    page = options.metrics if server is None or options.metrics else server.metrics_url
    watch = Watch(page, options.pid)
    await watch.probe()
    plan, calibrated = await planned(options, scenario, target, watch)
    gallery = Gallery(options.seed)
    return await run_plan(
        plan,
        # Chance, not the seed: a second run of one seed must meet caches that have not seen the first.
        LimnerTarget(target, gallery, tenant=f"loadtest-{secrets.token_hex(4)}"),
        gallery,
        watch,
        name=target if server is None else "a server of its own",
        calibrated=calibrated,
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value
