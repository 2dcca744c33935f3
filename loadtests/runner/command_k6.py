"""Send one plan with our generator and with k6, in turns, and see whether they agree within 5%."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from pathlib import Path

import msgspec

from loadtests.runner import command_run
from loadtests.runner.gallery import Gallery
from loadtests.runner.k6 import HELD, TOLERANCE, Pair, agree, binary, of_report, run_k6, table, write_plan
from loadtests.runner.limner import LimnerTarget
from loadtests.runner.plan import Plan
from loadtests.runner.report import Report
from loadtests.runner.session import run_plan, say
from loadtests.runner.watch import Watch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    command_run.add_arguments(parser, scenario="steady")
    parser.set_defaults(run=run)
    parser.add_argument("--rounds", type=int, default=2, help="of ours and k6, in turns (default 2)")


def run(options: argparse.Namespace) -> int:
    """Run the command; return 1 where they do not agree."""
    binary()
    with command_run.server_of(options) as server:
        target = options.target if server is None else server.target
        plan, _ = asyncio.run(command_run.planned(options, target))
        pairs = [_round(plan, target, options, number) for number in range(options.rounds)]
    print(table(pairs))
    holds = agree(pairs)
    print(f"{'agree' if holds else 'DISAGREE'} on {', '.join(HELD)} within {TOLERANCE:.0%}")
    out: Path = options.out / "k6.json"
    out.write_bytes(msgspec.json.format(msgspec.json.encode(pairs), indent=1) + b"\n")
    say(f"written: {out}")
    return 0 if holds else 1


def _round(plan: Plan, target: str, options: argparse.Namespace, number: int) -> Pair:
    """Let each send the plan, as a tenant of its own whose people were uploaded before: both meet the same caches."""
    gallery = Gallery(plan.seed)
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)

    async def ours() -> Report:
        opened = LimnerTarget(target, gallery, tenant=f"ours-{secrets.token_hex(4)}")
        return await run_plan(plan, opened, gallery, Watch(None, None), name=target, calibrated=True)

    async def prepare(tenant: str) -> None:
        async with LimnerTarget(target, gallery, tenant=tenant) as opened:
            write_plan(plan, opened, folder / "k6-plan.json")
            await opened.prepare(plan.known_people)

    say(f"round {number + 1} of {options.rounds}: ours")
    report = asyncio.run(ours())
    tenant = f"k6-{secrets.token_hex(4)}"
    asyncio.run(prepare(tenant))
    say(f"round {number + 1} of {options.rounds}: k6")
    k6 = run_k6(folder / "k6-plan.json", target, tenant, folder / "k6-summary.json")
    return Pair(ours=of_report(report), k6=k6)
