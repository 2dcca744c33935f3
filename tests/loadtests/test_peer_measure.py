"""The comparison's load: the runner drives a side part by part, in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from loadtests.peers.__main__ import LOADS, timed
from loadtests.peers.errors import PeerError
from loadtests.peers.measure import ARRIVALS, SATURATED, Measured, Opener, measure, part, sending_seconds
from loadtests.peers.people import PEOPLE
from loadtests.peers.target import UnsupportedRequestError, to_ask
from loadtests.runner.gallery import Gallery
from loadtests.runner.plan import Speed, make_plan
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Closed
from loadtests.runner.scenario_file import load_scenario
from loadtests.runner.target import Outcome, Status, Target
from tests.loadtests.building import Queueing, Stalling, in_virtual_time, replaced

GALLERY = Gallery(0, size=16)


def opener(target: Target) -> Opener:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Target]:
        yield target

    return opened


def measured(target: Target, rate: float | None = None, load: str = "homogenous") -> Measured:
    scenario = load_scenario(f"peers-{load}")
    return in_virtual_time(lambda: measure("side", opener(target), scenario, GALLERY, 0, rate))


def test_a_side_is_measured_alone_saturated_and_below_that() -> None:
    side = Queueing(0.5, servers=4)
    result = measured(side)
    assert result.unloaded == pytest.approx((0.5,) * 3)
    # Four at a time for half a second each; of the ramp at the end this load has none.
    assert result.rate == pytest.approx(8.0, rel=0.01)
    assert max(result.saturated) == pytest.approx(16 / 8.0, rel=0.01)
    assert len(result.saturated) == pytest.approx(80, abs=4)
    assert result.offered_rate == pytest.approx(0.8 * result.rate)
    assert result.slo_seconds == pytest.approx(1.5)
    assert 20 < len(result.arrivals) < 60
    assert result.arrival_seconds == 6.0
    assert result.goodput(100.0) == pytest.approx(len(result.arrivals) / 6.0)
    assert 0 < result.goodput(result.slo_seconds) <= result.goodput(100.0)
    assert result.late_seconds == pytest.approx(0.0)
    assert set(side.people) == set(range(PEOPLE))


def test_a_round_with_a_known_rate_warms_nothing_up() -> None:
    first, later = Queueing(0.5, servers=4), Queueing(0.5, servers=4)
    ours, theirs = measured(first), measured(later, rate=8.0)
    assert theirs.saturated == pytest.approx(ours.saturated)
    assert theirs.arrivals == pytest.approx(ours.arrivals)
    assert len(first.calls) == len(later.calls) + 16


def test_arrivals_count_from_the_moment_that_they_were_due() -> None:
    stalling = Stalling(0.1, stall=3.0, when=lambda one: one.phase == ARRIVALS, servers=4)
    result = measured(stalling, rate=40.0)
    # Those that were due within the stall were sent late, and their latency says so.
    assert result.late_seconds > 2.5
    assert sum(latency > 1.0 for latency in result.arrivals) > 20


def test_a_side_that_is_so_slow_that_nobody_comes_is_given_longer() -> None:
    result = measured(Queueing(60.0), rate=1 / 60)
    assert result.arrivals
    assert result.arrival_seconds > 6.0
    assert result.goodput(1000.0) == pytest.approx(len(result.arrivals) / result.arrival_seconds)


def test_sides_of_unlike_speed_are_asked_the_same() -> None:
    asked = []
    for servers in (2, 8):
        side = Queueing(0.5, servers=servers)
        measured(side, load="mixed")
        calls = sorted((one for one in side.calls if one.phase == SATURATED), key=lambda one: one.number)
        asked.append([to_ask(one) for one in calls if one.number >= 16][:20])
    assert asked[0] == asked[1]


def test_a_side_that_answers_no_picture_is_told() -> None:
    class Failing(Queueing):
        async def call(self, request: PlannedRequest) -> Outcome:
            if request.phase == ARRIVALS and request.number == 3:
                return Outcome(status=Status.FAILED, reason="answered 500", message="out of memory")
            return await super().call(request)

    with pytest.raises(PeerError, match="out of memory") as raised:
        measured(Failing(0.5, servers=4), rate=8.0)
    assert raised.value.reason == "answered 500"


def test_callers_stop_so_that_the_last_answers_come_in_time_but_ask_twice() -> None:
    assert sending_seconds(10.0, rate=8.0, concurrency=16) == pytest.approx(8.0)
    assert sending_seconds(10.0, rate=1.0, concurrency=16) == pytest.approx(16.0)


@pytest.mark.parametrize("load", LOADS)
def test_every_peer_can_answer_what_the_scenarios_ask(load: str) -> None:
    scenario = load_scenario(f"peers-{load}")
    plan = make_plan(scenario, 0, Speed(capacity=8.0, unloaded=0.5))
    asks = [to_ask(one) for one in plan.requests]
    assert {one.reference for one in asks} == {str(person) for person in range(PEOPLE)}
    assert (len({one.group for one in asks}) == 1) == (load == "homogenous")
    full, below = part(scenario, SATURATED), part(scenario, ARRIVALS)
    assert isinstance(full.streams[0].arrivals, Closed)
    assert full.streams[0].mix == below.streams[0].mix
    assert full.streams[0].arrivals.concurrency == scenario.calibration.concurrency


def test_what_no_peer_can_do_is_refused_by_name() -> None:
    plan = make_plan(load_scenario("peers-mixed"), 0, Speed(capacity=8.0, unloaded=0.5))
    request = plan.requests[0]
    for changes, told in (
        ({"images": 2}, "images must be 1"),
        ({"width": 96, "height": 128}, "width must be 0"),
        ({"format": "webp"}, "format must be png"),
        ({"person": None}, "person must be one of 0 to 7"),
        ({"person": 8}, "person must be one of 0 to 7"),
    ):
        with pytest.raises(UnsupportedRequestError, match=told):
            to_ask(replaced(request, **changes))


def test_times_of_the_command_line_replace_those_of_the_file() -> None:
    scenario = load_scenario("peers-mixed")
    assert timed(scenario, None, None).turns() == scenario.turns()
    assert timed(scenario, 4.0, None).turns() == {SATURATED: ((0.0, 4.0),), ARRIVALS: ((4.0, 10.0),)}
    assert part(timed(scenario, 4.0, 2.0), ARRIVALS).seconds == 2.0
