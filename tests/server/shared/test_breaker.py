"""The circuit breaker, on a clock that is set by hand."""

from __future__ import annotations

from server.references.shared.breaker import BreakerState, CircuitBreaker
from tests.server.shared.fakes import Clock

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def breaker(clock: Clock, states: list[BreakerState] | None = None) -> CircuitBreaker:
    seen = states if states is not None else []
    return CircuitBreaker(failures=3, open_seconds=5, clock=clock, on_change=seen.append)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        permit = breaker.admit()
        assert permit is not None
        breaker.failed(permit)


def test_it_opens_after_failures_in_a_row_and_only_then() -> None:
    it = breaker(Clock())
    fail(it, 2)
    permit = it.admit()
    assert permit is not None
    it.succeeded(permit)
    fail(it, 2)
    assert it.state is CLOSED
    fail(it)
    assert it.state is OPEN
    assert it.admit() is None
    assert it.seconds_to_probe == 5


def test_one_probe_goes_through_and_closes_it() -> None:
    clock, states = Clock(), []
    it = breaker(clock, states)
    fail(it, 3)
    clock.now += 4.99
    assert it.admit() is None
    clock.now += 0.01
    probe = it.admit()
    assert probe is not None
    assert it.admit() is None
    it.succeeded(probe)
    assert it.admit() is not None
    assert states == [OPEN, HALF_OPEN, CLOSED]


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    clock, states = Clock(), []
    it = breaker(clock, states)
    fail(it, 3)
    clock.now += 5
    fail(it)
    assert states == [OPEN, HALF_OPEN, OPEN]
    assert it.seconds_to_probe == 5


def test_a_probe_that_nobody_waits_for_leaves_its_place_to_another() -> None:
    clock = Clock()
    it = breaker(clock)
    fail(it, 3)
    clock.now += 5
    probe = it.admit()
    assert probe is not None
    it.abandoned(probe)
    assert it.state is HALF_OPEN
    assert it.admit() is not None


def test_answers_from_before_count_for_nothing() -> None:
    clock = Clock()
    it = breaker(clock)
    late = [it.admit() for _ in range(4)]
    assert None not in late
    fail(it, 3)
    it.succeeded(late[0] or 0)
    assert it.state is OPEN
    clock.now += 5
    probe = it.admit()
    assert probe is not None
    it.failed(late[1] or 0)
    it.abandoned(late[2] or 0)
    assert (it.state, it.admit()) == (HALF_OPEN, None)
    it.succeeded(probe)
    for _ in range(3):
        it.failed(late[3] or 0)
    assert it.state is CLOSED
