"""k6 and our generator, which send the same plan and must find the same."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from loadtests.runner.errors import ToolError
from loadtests.runner.gallery import Gallery
from loadtests.runner.k6 import (
    Measured,
    Pair,
    agree,
    binary,
    of_report,
    parse_summary,
    ratios,
    run_k6,
    table,
    write_plan,
)
from loadtests.runner.limner import LimnerTarget
from loadtests.runner.plan import Plan
from loadtests.runner.scenario import Cancel, Closed, Mix, Poisson, Stream
from loadtests.runner.session import run_plan
from loadtests.runner.watch import Watch
from tests.loadtests.building import plan, replaced, stream
from tests.needs import need
from tests.server.running import run_server


def measured(**changes: float) -> Measured:
    told = {"answered": 100, "throughput": 4.0, "p50": 1.0, "p90": 2.0, "p95": 2.5, "p99": 3.0}
    return Measured(**(told | changes))  # type: ignore[arg-type]


def test_they_agree_within_five_percent() -> None:
    assert agree([Pair(ours=measured(), k6=measured(p50=1.04, p95=2.4, p99=9.0))])
    assert not agree([Pair(ours=measured(), k6=measured(p50=1.06))])
    assert not agree([Pair(ours=measured(), k6=measured(throughput=3.7))])
    assert not agree([Pair(ours=measured(), k6=measured(answered=99))])
    rounds = [Pair(ours=measured(), k6=measured(p50=p50)) for p50 in (0.5, 1.0, 2.0)]
    assert ratios(rounds)["p50"] == pytest.approx(1.0)
    assert "| mean | k6 over ours | 1.000 |" in table(rounds)


def summary(**changes: object) -> bytes:
    metrics: dict[str, object] = {
        "limner_latency": {"values": {"med": 500, "p(90)": 800, "p(95)": 900, "p(99)": 1000}},
        "limner_late": {"values": {"p(99)": 1}},
        "limner_end": {"values": {"max": 20_000}},
        "limner_answered": {"values": {"count": 60}},
    }
    return json.dumps(metrics | changes).encode()


def test_a_summary_is_read_in_seconds() -> None:
    assert parse_summary(summary()) == Measured(
        answered=60, throughput=3.0, p50=0.5, p90=0.8, p95=0.9, p99=1.0
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"limner_late": {"values": {"p(99)": 80}}}, "80 ms late"),
        ({"limner_failed": {"values": {"count": 2}}}, "2 requests failed"),
    ],
)
def test_a_load_that_was_not_the_plan_is_no_measurement(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ToolError, match=problem):
        parse_summary(summary(**change))


def test_what_the_script_cannot_do_is_refused(tmp_path: Path) -> None:
    target = LimnerTarget("nowhere", Gallery(0, size=32), tenant="test")
    impatient = Stream(name="callers", arrivals=Poisson(per_second=5.0), cancel=Cancel(share=1.0), mix=Mix())
    for made, problem in (
        (plan(impatient), "cancellation"),
        (plan(stream(arrivals=Closed(concurrency=2))), "no callers who wait for their answer"),
        (plan(stream(arrivals=Poisson(per_second=1e-9))), "no requests"),
    ):
        with pytest.raises(ToolError, match=problem):
            write_plan(made, target, tmp_path / "plan.json")


async def test_they_find_the_same_of_a_server_that_does_the_same(tmp_path: Path) -> None:
    """A fake engine that waits instead of computing: what differs is the generators."""
    try:
        k6: Path | None = binary()
    except ToolError:
        k6 = None
    need(k6, "k6")
    drawn = plan(
        stream(arrivals=Poisson(per_second=8.0), newcomers=0.1, people=4, steps=(8, 16)), seconds=4.0
    )
    # 20 ms a step.
    slow = tuple(replaced(one, prompt="SLOW") for one in drawn.requests)
    made = Plan(scenario=drawn.scenario, seed=0, speed=drawn.speed, requests=slow)
    gallery = Gallery(0, size=32)
    async with run_server() as serving:
        address = serving.app.addresses[0]
        async with LimnerTarget(address, gallery, tenant="k6") as target:
            write_plan(made, target, tmp_path / "plan.json")
            await target.prepare(made.known_people)
        theirs = await asyncio.to_thread(
            run_k6,
            tmp_path / "plan.json",
            address,
            "k6",
            tmp_path / "summary.json",
            late_seconds=10.0,
        )
        ours = await run_plan(
            made,
            LimnerTarget(address, gallery, tenant="ours"),
            gallery,
            Watch(None, None),
            name="test",
            calibrated=False,
        )
    assert len(serving.script.submitted) == 2 * len(slow)
    halves = serving.script.submitted[: len(slow)], serving.script.submitted[len(slow) :]
    assert sorted(one.seeds for one in halves[0]) == sorted(one.seeds for one in halves[1])
    pair = Pair(ours=of_report(ours), k6=theirs)
    assert ratios([pair])["answered"] == 1
    # That both measure the same thing in the same units; how near they come is measured on a quiet machine.
    for name in ("throughput", "p50", "p95"):
        assert 0.05 < ratios([pair])[name] < 20, table([pair])
