"""The table's arithmetic, and the load behind it, on a target that takes no time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from loadtests.peers.ask import Ask
from loadtests.peers.loads import LOADS
from loadtests.peers.measure import Measured, MeasureSettings, closed_count, estimate, measure
from loadtests.peers.report import HEAD, SideReport, percentile, ratios, table, targets
from loadtests.peers.sides import Started, Target, parse_side

PEOPLE = ("ada", "bruno", "chike")


def measured(rate: float, latency: float = 1.0, unloaded: float = 0.5) -> Measured:
    return Measured(
        unloaded=(unloaded, unloaded, 9.0),
        saturated=(latency,) * 10,
        rate=rate,
        arrivals=(1.0, 1.5, 1.6, 4.0),
        arrival_seconds=2.0,
        offered_rate=0.8 * rate,
    )


def side(name: str, *rounds: Measured) -> SideReport:
    return SideReport(name=name, rounds={"mixed": list(rounds)}, peak_bytes={"mixed": 5_000_000})


def test_percentiles_are_values_that_occurred() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([6.0, 4.0, 9.0], [2.0, 2.0, 2.0]) == (3.0, 2.0, 4.5)
    with pytest.raises(ValueError, match="argument"):
        ratios([1.0], [1.0, 2.0])


def test_goodput_counts_what_came_in_time() -> None:
    assert measured(1.0).goodput(1.5) == 1.0
    assert measured(1.0).unloaded_latency == 0.5


def test_the_table_has_a_line_for_each_side_and_says_why_one_is_missing() -> None:
    ours = side("limner", measured(6.0), measured(8.0))
    base = side("diffusers:float32", measured(2.0, 4.0), measured(2.0, 2.0))
    broken = SideReport(name="ray", failure="ended with status 1")
    lines = table("mixed", [ours, base, broken], ours, base)
    assert len(lines) == 5
    assert all(line.count("|") == len(HEAD) + 1 for line in lines)
    assert "| 2.00 | 3.50 (3.00 to 4.00) | 2.00 | 4.00 | 0.38 (0.25 to 0.50) |" in lines[3]
    assert "ended with status 1" in lines[4]


def test_targets_are_held_against_the_best_peer_of_their_kind() -> None:
    sides = [
        side("limner", measured(6.0, 1.0)),
        side("diffusers:float32", measured(1.0, 8.0)),
        side("litserve:bfloat16", measured(2.5, 2.0)),
        side("openvino", measured(4.0, 2.0)),
    ]
    found = {target.what: target for target in targets(sides)}
    assert not found["images/s, mixed: limner / litserve:bfloat16"].met
    assert found["images/s, mixed: limner / litserve:bfloat16"].ratio[0] == 2.4
    assert not found["p99, mixed: limner / litserve:bfloat16"].met
    assert found["images/s, mixed: limner / openvino"].met
    assert "unloaded latency, mixed: limner / diffusers:float32" in found


def test_a_side_is_a_name_and_a_type() -> None:
    assert str(parse_side("litserve:bfloat16")) == "litserve:bfloat16"
    assert parse_side("limner").dtype is None
    with pytest.raises(ValueError, match="tgi"):
        parse_side("tgi")
    with pytest.raises(ValueError, match="int8"):
        parse_side("ray:int8")


def test_loads_are_the_same_for_every_side() -> None:
    mixed = LOADS["mixed"]
    assert mixed.asks(PEOPLE, 50, 1) == mixed.asks(PEOPLE, 80, 1)[:50]
    assert mixed.asks(PEOPLE, 50, 1) != mixed.asks(PEOPLE, 50, 2)
    assert len({ask.group for ask in LOADS["homogenous"].asks(PEOPLE, 50, 1)}) == 1
    assert len({ask.group for ask in mixed.asks(PEOPLE, 50, 1)}) > 10
    drawn = [ask.reference for ask in mixed.asks(PEOPLE, 600, 1)]
    assert drawn.count("ada") > drawn.count("bruno") > drawn.count("chike") > 0


def test_a_closed_loop_keeps_its_calls_in_flight_and_gets_whole_batches() -> None:
    settings = MeasureSettings(concurrency=4, closed_seconds=0.1, open_seconds=0.05, unloaded_calls=2)
    assert closed_count(1.0, settings) == 8
    assert closed_count(170.0, settings) == 16
    flying = most = calls = 0

    async def target(ask: Ask) -> bytes:
        nonlocal flying, most, calls
        flying, calls = flying + 1, calls + 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1
        return b""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Target]:
        yield target

    started = Started(pid=0, seconds=0.0, open=opened)
    asks = LOADS["mixed"].asks(PEOPLE, 32, 0)
    assert estimate(started, asks, 4) > 0
    assert (calls, most) == (4, 4)
    result = measure(started, asks, settings, 1.0, seed=0)
    assert (len(result.unloaded), len(result.saturated)) == (2, 8)
    assert calls == 4 + 2 + 8 + len(result.arrivals)
    assert result.offered_rate == pytest.approx(0.8 * result.rate)
