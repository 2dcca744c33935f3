"""How fast a machine was from moment to moment, by its ticks."""

from __future__ import annotations

import msgspec
import pytest

from loadtests.simulator.fleet import Fleet
from loadtests.simulator.machine import Machine
from loadtests.simulator.pace import (
    LEAST_SIMULATED,
    LEAST_TICKS,
    STEADY,
    Pace,
    SimulatedTick,
    Stretch,
    TickTimes,
    pace_of,
)
from loadtests.simulator.settings import FleetSettings
from loadtests.simulator.traffic import OpenLoop
from loadtests.ticks import BucketTicks
from tests.simulator.builders import STAGED, request

SECONDS = {2: 0.01, 8: 0.03}
ENOUGH = {2: LEAST_TICKS, 8: LEAST_TICKS}
STEADILY = [
    SimulatedTick(0.1 * number, bucket, SECONDS[bucket]) for number in range(100) for bucket in SECONDS
]
"""Ticks of both buckets, over ten seconds."""


def ticks(buckets: dict[int, int], *, slower: float = 1.0) -> dict[int, BucketTicks]:
    """Ticks that took so many times what the simulation's take."""
    return {
        bucket: BucketTicks(count=count, seconds=slower * count * SECONDS[bucket])
        for bucket, count in buckets.items()
    }


def stretches(*told: tuple[float, dict[int, int], float]) -> tuple[Stretch, ...]:
    return tuple(Stretch(until=until, ticks=ticks(buckets, slower=slower)) for until, buckets, slower in told)


def factors(
    calibration: dict[int, BucketTicks],
    run: tuple[Stretch, ...],
    *,
    then: list[SimulatedTick] = STEADILY,
    simulated: list[SimulatedTick] = STEADILY,
) -> tuple[float, ...]:
    pace = pace_of(TickTimes(calibration=calibration, run=run), then, simulated)
    assert pace is not None
    return pace.factors


def test_the_factor_is_the_ticks_time_over_that_of_the_calibration() -> None:
    run = stretches((1.0, {8: 80}, 1.3), (2.0, {2: 80}, 1.3), (3.0, ENOUGH, 2.6))
    pace = pace_of(TickTimes(calibration=ticks(ENOUGH, slower=1.3), run=run), STEADILY, STEADILY)
    assert pace is not None
    assert [pace(at) for at in (0.0, 0.99, 1.5, 2.5, 99.0)] == pytest.approx([1.0, 1.0, 1.0, 2.0, 2.0])
    assert str(pace) == "1.00 to 2.00"


def test_a_bucket_is_held_against_itself() -> None:
    """The simulation's costs may be wrong by bucket: that is no change of speed."""
    calibration = ticks({2: 80}, slower=1.5) | ticks({8: 80}, slower=1.1)
    run = stretches((1.0, {2: 80}, 1.5), (2.0, {8: 80}, 1.1), (3.0, {2: 80}, 3.0))
    assert factors(calibration, run) == pytest.approx((1.0, 1.0, 2.0))


def test_a_bucket_that_the_calibration_hardly_had_is_as_the_others_were() -> None:
    calibration = ticks({8: 80}, slower=1.2) | ticks({2: LEAST_TICKS - 1}, slower=9.0)
    assert factors(calibration, stretches((1.0, {2: 80}, 1.2))) == pytest.approx((1.0,))


def test_at_what_speed_both_are_simulated_does_not_matter() -> None:
    slower = [tick._replace(seconds=2.5 * tick.seconds) for tick in STEADILY]
    run = stretches((1.0, ENOUGH, 1.69))
    for simulated in (STEADILY, slower):
        found = factors(ticks(ENOUGH, slower=1.3), run, then=simulated, simulated=simulated)
        assert found == pytest.approx((1.3,))


def test_a_time_of_larger_pictures_is_no_slower_machine() -> None:
    larger = [tick if tick.at <= 5.0 else tick._replace(seconds=1.5 * tick.seconds) for tick in STEADILY]
    run = stretches((5.0, ENOUGH, 1.0), (9.0, ENOUGH, 1.5))
    assert factors(ticks(ENOUGH), run, simulated=larger) == pytest.approx((1.0, 1.0))


def test_where_few_ticks_of_a_bucket_are_simulated_all_of_them_tell() -> None:
    rare = [tick for tick in STEADILY if tick.bucket == 8 or tick.at < 0.1 * LEAST_SIMULATED]
    run = stretches((5.0, ENOUGH, 1.0), (9.0, ENOUGH, 1.2))
    assert factors(ticks(ENOUGH), run, simulated=rare) == pytest.approx((1.0, 1.2))


def test_a_bucket_that_the_simulation_lacks_costs_as_its_neighbours_do() -> None:
    none = [tick for tick in STEADILY if tick.bucket == 8]
    run = stretches((5.0, {2: 80}, 3.0))
    assert factors(ticks({8: 80}), run, simulated=none) == pytest.approx((1.0,))


def test_stretches_with_few_ticks_are_told_together() -> None:
    few = LEAST_TICKS // 2 + 1
    run = stretches((1.0, {}, 1.0), (2.0, {8: few}, 1.0), (3.0, {8: few}, 2.0), (4.0, {8: 1}, 9.0))
    pace = pace_of(TickTimes(calibration=ticks(ENOUGH), run=run), STEADILY, STEADILY)
    assert pace is not None
    assert (pace.ends, pace.factors) == ((3.0,), pytest.approx((1.5,)))


@pytest.mark.parametrize(
    ("calibration", "run"),
    [
        (ticks(ENOUGH), ()),
        (ticks(ENOUGH), stretches((1.0, {8: LEAST_TICKS - 1}, 1.0))),
        (ticks({2: LEAST_TICKS - 1, 8: LEAST_TICKS - 1}), stretches((1.0, ENOUGH, 1.0))),
    ],
    ids=["no run", "few in the run", "few in the calibration"],
)
def test_few_ticks_tell_no_pace(calibration: dict[int, BucketTicks], run: tuple[Stretch, ...]) -> None:
    assert pace_of(TickTimes(calibration=calibration, run=run), STEADILY, STEADILY) is None
    assert STEADY(5.0) == 1.0


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
    Fleet(settings, pace=Pace((), (2.0,)), on_tick=told.append).run(OpenLoop([request(0, 1.0)]))
    assert [tick.bucket for tick in told] == [1] * 4
    assert [tick.seconds for tick in told] == pytest.approx([2 * (0.010 + 0.0005 + 0.0001)] * 4)
    assert [tick.at for tick in told] == sorted(tick.at for tick in told)
