"""How fast a machine was from moment to moment, by its ticks."""

from __future__ import annotations

import msgspec
import pytest

from loadtests.simulator.errors import SimulationError
from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine
from loadtests.simulator.pace import (
    LEAST_SIMULATED,
    LEAST_TICKS,
    STEADY,
    Pace,
    SimulatedTick,
    Stretch,
    Ticks,
    TickTimes,
    pace_of,
)
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.traffic import OpenLoop
from tests.simulator.builders import STAGED, request

SECONDS = {2: 0.01, 8: 0.03}
ENOUGH = {2: LEAST_TICKS, 8: LEAST_TICKS}
STEADILY = [
    SimulatedTick(0.1 * number, bucket, SECONDS[bucket]) for number in range(100) for bucket in SECONDS
]
"""Ticks of both buckets, over ten seconds."""


def ticks(buckets: dict[int, int], *, slower: float = 1.0) -> Ticks:
    """Ticks that took so many times what the simulation's take."""
    return Ticks(
        seconds=slower * sum(count * SECONDS[bucket] for bucket, count in buckets.items()), buckets=buckets
    )


def stretches(*told: tuple[float, dict[int, int], float]) -> tuple[Stretch, ...]:
    return tuple(Stretch(until=until, ticks=ticks(buckets, slower=slower)) for until, buckets, slower in told)


def test_the_factor_is_the_ticks_time_over_that_of_the_calibration() -> None:
    run = stretches((1.0, {8: 40}, 1.3), (2.0, {2: 40}, 1.3), (3.0, ENOUGH, 2.6))
    pace = pace_of(TickTimes(calibration=ticks(ENOUGH, slower=1.3), run=run), STEADILY, STEADILY)
    assert [pace(at) for at in (0.0, 0.99, 1.5, 2.5, 99.0)] == pytest.approx([1.0, 1.0, 1.0, 2.0, 2.0])
    assert str(pace) == "1.00 to 2.00"


def test_at_what_speed_both_are_simulated_does_not_matter() -> None:
    times = TickTimes(calibration=ticks(ENOUGH, slower=1.3), run=stretches((1.0, ENOUGH, 1.69)))
    slower = [tick._replace(seconds=2.5 * tick.seconds) for tick in STEADILY]
    assert pace_of(times, slower, slower)(0.5) == pytest.approx(1.3)
    assert pace_of(times, STEADILY, STEADILY)(0.5) == pytest.approx(1.3)


def test_a_time_of_larger_pictures_is_no_slower_machine() -> None:
    larger = [tick if tick.at <= 5.0 else tick._replace(seconds=1.5 * tick.seconds) for tick in STEADILY]
    run = stretches((5.0, ENOUGH, 1.0), (9.0, ENOUGH, 1.5))
    pace = pace_of(TickTimes(calibration=ticks(ENOUGH), run=run), STEADILY, larger)
    assert pace.factors == pytest.approx((1.0, 1.0))


def test_where_few_ticks_of_a_bucket_are_simulated_all_of_them_tell() -> None:
    rare = [tick for tick in STEADILY if tick.bucket == 8 or tick.at < 0.1 * LEAST_SIMULATED]
    run = stretches((5.0, ENOUGH, 1.0), (9.0, ENOUGH, 1.2))
    assert pace_of(TickTimes(calibration=ticks(ENOUGH), run=run), STEADILY, rare).factors == pytest.approx(
        (1.0, 1.2)
    )
    none = [tick for tick in STEADILY if tick.bucket == 8]
    (factor,) = pace_of(
        TickTimes(calibration=ticks({8: 40}), run=stretches((5.0, {2: 40}, 3.0))), STEADILY, none
    ).factors
    assert factor == pytest.approx(1.0), "of the nearest bucket, as nothing else is known"


def test_stretches_with_few_ticks_are_told_together() -> None:
    few = LEAST_TICKS // 2 + 1
    run = stretches((1.0, {}, 1.0), (2.0, {8: few}, 1.0), (3.0, {8: few}, 2.0), (4.0, {8: 1}, 9.0))
    pace = pace_of(TickTimes(calibration=ticks(ENOUGH), run=run), STEADILY, STEADILY)
    assert (pace.ends, pace.factors) == ((3.0,), pytest.approx((1.5,)))


def test_a_run_without_ticks_is_steady() -> None:
    assert pace_of(TickTimes(calibration=ticks(ENOUGH), run=()), STEADILY, STEADILY) == STEADY
    assert STEADY(5.0) == 1.0


def test_a_calibration_of_few_ticks_tells_no_speed() -> None:
    with pytest.raises(SimulationError, match="tell no speed"):
        pace_of(TickTimes(calibration=ticks({8: LEAST_TICKS - 1}), run=()), STEADILY, STEADILY)


def latency(at: float, *, machine: Machine = STAGED, pace: Pace = STEADY) -> float:
    settings = FleetSettings(machine=machine, warmup_seconds=0.0, seconds=60.0)
    (call,) = Fleet(settings, pace=pace).run(OpenLoop([request(0, at)])).calls
    return call.latency


def test_an_engine_is_as_fast_as_the_machine_is_at_the_time() -> None:
    usual = latency(0.0)
    slower = latency(0.0, machine=msgspec.structs.replace(STAGED, slowdown=2.0))
    pace = Pace((10.0, 20.0), (1.0, 2.0))
    assert latency(5.0, pace=pace) == pytest.approx(usual)
    assert [latency(at, pace=pace) for at in (15.0, 30.0)] == pytest.approx([slower, slower])
    assert usual < latency(10.0 - usual / 2, pace=pace) < slower


def test_ticks_are_told_as_they_were() -> None:
    told: list[SimulatedTick] = []
    settings = FleetSettings(machine=STAGED, warmup_seconds=0.0, seconds=60.0)
    Fleet(settings, pace=Pace((), (2.0,)), ticks=told).run(OpenLoop([request(0, 1.0)]))
    assert [tick.bucket for tick in told] == [1] * 4
    assert [tick.seconds for tick in told] == pytest.approx([2 * (0.010 + 0.0005 + 0.0001)] * 4)
    assert [tick.at for tick in told] == sorted(tick.at for tick in told)
