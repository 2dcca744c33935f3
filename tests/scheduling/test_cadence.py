"""The seconds that a tick is reckoned with."""

from __future__ import annotations

import pytest

from engine.scheduling import Cadence, CostCurve, Infeasible, Policy, Scheduler, WorkItem

SHAPE = (4, 8, 8)


def test_a_tick_counts_from_the_end_of_the_one_before() -> None:
    cadence = Cadence()
    assert cadence.of(10.0, 11.0) == 1.0
    assert cadence.of(11.5, 12.5) == 1.5


def test_what_is_reckoned_with_elsewhere_is_left_out_once() -> None:
    cadence = Cadence()
    cadence.of(10.0, 11.0)
    cadence.leave_out(0.25)
    cadence.leave_out(0.25)
    assert cadence.of(12.0, 13.0) == 1.5
    assert cadence.of(13.0, 14.0) == 1.0


def test_rest_does_not_count() -> None:
    cadence = Cadence()
    cadence.of(10.0, 11.0)
    cadence.leave_out(0.5)
    cadence.rest()
    assert cadence.of(99.0, 100.0) == 1.0
    assert cadence.of(100.0, 101.0) == 1.0


def test_an_engine_that_was_slow_and_idle_takes_work_again() -> None:
    """What refuses everything is never measured again, so it must fade by itself."""
    costs = CostCurve({SHAPE: {1: 0.1}})
    for _ in range(50):
        costs.observe(SHAPE, 1, 1.0)
    scheduler = Scheduler(lambda: 0.0, (1,), costs, Policy(deterministic_bucket=1))
    refused = 0
    while True:
        item = WorkItem(id=f"{refused}/0", job_id=str(refused), steps=1, rows=1, shape=SHAPE, deadline=0.2)
        try:
            scheduler.submit([item])
        except Infeasible:
            refused += 1
            assert refused < 100
        else:
            break
    assert refused > 1
    assert costs.seconds(SHAPE, 1) == pytest.approx(0.18, abs=0.02)
