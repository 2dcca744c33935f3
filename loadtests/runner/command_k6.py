"""Send one plan with our generator and with k6, and see whether they agree within 5%."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from pathlib import Path

import msgspec

from loadtests.runner import command_run
from loadtests.runner.gallery import Gallery
from loadtests.runner.k6 import (
    HELD,
    TOLERANCE,
    Measured,
    Pair,
    agree,
    binary,
    of_report,
    run_k6,
    table,
    write_plan,
)
from loadtests.runner.limner import LimnerTarget
from loadtests.runner.plan import Plan, make_plan
from loadtests.runner.session import run_plan, say
from loadtests.runner.watch import Watch

LEAD_SECONDS = 15.0
"""Before a load that both begin at once; k6 needs a second or two."""

SKEW_SECONDS = 0.1
"""Of twins, the first one gets the better place in the queue; so each generator is first in every other round."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.set_defaults(run=run)
    command_run.add_load_arguments(parser, files="k6.json", scenario="steady")
    parser.add_argument("--rounds", type=_at_least_one, default=2, help="of ours and k6 (default 2)")
    parser.add_argument(
        "--together",
        action="store_true",
        help="each sends a plan of half the rate at the same moments, instead of one after the other; for machines "
        "whose speed changes from minute to minute",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return 1 where they do not agree."""
    binary()
    scenario = command_run.scenario_of(options)
    with command_run.server_of(options) as server:
        target = options.target if server is None else server.target
        plan, _ = asyncio.run(command_run.planned(options, scenario, target))
        if options.together:
            speed = msgspec.structs.replace(plan.speed, capacity=plan.speed.capacity / 2)
            plan = make_plan(plan.scenario, plan.seed, speed)
        pairs = [_round(plan, target, options, number) for number in range(options.rounds)]
    print(table(pairs))
    holds = agree(pairs)
    print(f"{'agree' if holds else 'DISAGREE'} on {', '.join(HELD)} within {TOLERANCE:.0%}")
    out: Path = options.out / "k6.json"
    out.write_bytes(msgspec.json.format(msgspec.json.encode(pairs), indent=1) + b"\n")
    say(f"written: {out}")
    return 0 if holds else 1


def _round(plan: Plan, target: str, options: argparse.Namespace, number: int) -> Pair:
    """Let each send the plan, as a tenant of its own whose people were uploaded before: both meet the same caches.

    Who is first changes from round to round.
    """
    gallery = Gallery(plan.seed)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    tenants = [f"{who}-{secrets.token_hex(4)}" for who in ("ours", "k6")]

    async def ours(starts_at: float | None = None) -> Measured:
        opened = LimnerTarget(target, gallery, tenant=tenants[0])
        watch = Watch(None, None)
        report = await run_plan(
            plan, opened, gallery, watch, name=target, calibrated=True, starts_at=starts_at
        )
        return of_report(report)

    async def k6(starts_at: float | None = None) -> Measured:
        return await asyncio.to_thread(run_k6, files[0], target, tenants[1], files[1], starts_at=starts_at)

    async def both() -> Pair:
        async with LimnerTarget(target, gallery, tenant=tenants[1]) as opened:
            write_plan(plan, opened, files[0])
            await opened.prepare(plan.known_people)
        if options.together:
            starts_at = time.time() + LEAD_SECONDS
            first, second = (starts_at, starts_at + SKEW_SECONDS)[:: -1 if number % 2 else 1]
            found = await asyncio.gather(ours(first), k6(second))
            return Pair(ours=found[0], k6=found[1])
        if number % 2:
            before = await k6()
            return Pair(ours=await ours(), k6=before)
        return Pair(ours=await ours(), k6=await k6())

    files = (folder / "k6-plan.json", folder / "k6-summary.json")
    say(f"round {number + 1} of {options.rounds}")
    return asyncio.run(both())


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return value
