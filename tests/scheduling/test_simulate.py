"""The virtual-time driver: its records tell what happened."""

from __future__ import annotations

import pytest

from engine.scheduling import CostCurve, Infeasible, Policy
from engine.scheduling.simulate import Arrival, Cancellation, Outcome, Simulation, VirtualClock, simulate

from .builders import SMALL, image


def run(*events: Arrival | Cancellation) -> Simulation:
    """Run events on an engine that does one row a second and takes half a second to finish an image."""
    policy = Policy(deterministic_bucket=1, headroom=1.0, finish_seconds=0.5)
    return simulate(events, buckets=(1,), costs=CostCurve({SMALL: {1: 1.0}}), policy=policy)


def test_a_record_tells_the_life_of_an_image() -> None:
    simulation = run(
        Arrival(at=5.0, items=(image("a", steps=3),)), Arrival(at=6.5, items=(image("b", steps=1),))
    )
    a, b = simulation.records["a"], simulation.records["b"]
    assert (a.submitted, a.admitted, a.started, a.ended) == (5.0, 5.0, 5.0, 8.5)
    assert (b.submitted, b.admitted, b.started, b.ended) == (6.5, 6.5, 8.5, 10.0)
    assert (b.outcome, b.ticks, b.latency) == (Outcome.FINISHED, 1, 3.5)
    assert [ran.at for ran in simulation.ticks] == [5.0, 6.0, 7.0, 8.5]
    assert simulation.seconds == 10.0


def test_events_of_one_moment_keep_their_order() -> None:
    simulation = run(*(Arrival(at=1.0, items=(image(name, steps=1),)) for name in "abc"))
    assert [ran.tick.items[0].id for ran in simulation.ticks] == ["a", "b", "c"]


def test_refusals_expiries_and_cancellations_are_outcomes() -> None:
    simulation = run(
        Arrival(at=0.0, items=(image("cancelled", steps=9),)),
        Arrival(at=0.0, items=(image("refused", steps=9, deadline=10.0),)),
        Cancellation(at=1.5, job_id="cancelled"),
    )
    cancelled, refused = simulation.records["cancelled"], simulation.records["refused"]
    assert (cancelled.outcome, cancelled.ticks, cancelled.ended) == (Outcome.CANCELLED, 2, 2.0)
    assert refused.outcome is Outcome.REFUSED
    assert isinstance(refused.refusal, Infeasible)


def test_ticks_slower_than_expected_expire_what_was_admitted() -> None:
    simulation = simulate(
        [Arrival(at=0.0, items=(image("a", steps=4, deadline=5.0),))],
        buckets=(1,),
        costs=CostCurve({SMALL: {1: 1.0}}),
        policy=Policy(deterministic_bucket=1),
        tick_seconds=lambda _: 2.0,
    )
    assert (simulation.records["a"].outcome, simulation.records["a"].ended) == (Outcome.EXPIRED, 6.0)


def test_time_does_not_run_backwards() -> None:
    clock = VirtualClock()
    clock.advance_to(3.0)
    clock.advance_to(1.0)
    assert clock() == 3.0
    with pytest.raises(AssertionError):
        clock.advance(-1.0)
