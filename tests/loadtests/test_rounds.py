"""Phases that take turns: how they are planned and sent."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from random import Random

import msgspec
import pytest

from loadtests.runner.arrivals import CLOSED_LOOP_MARGIN
from loadtests.runner.generator import Generator
from loadtests.runner.plan import Plan, make_plan
from loadtests.runner.record import Record
from loadtests.runner.report import all_figures, judge
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Closed, Phase, Poisson, Stream
from loadtests.runner.scenario_file import load_scenario
from loadtests.runner.target import Outcome, Status
from tests.loadtests.building import SPEED, Queueing, in_virtual_time, plan, stream

PHASES = (Phase(name="work"), Phase(name="pause"))


def driven(made: Plan, target: Queueing) -> list[Record]:
    return in_virtual_time(lambda: Generator(made, target).run())


def test_phases_take_turns_of_their_share_of_a_round() -> None:
    phases = (Phase(name="first", share=1.0), Phase(name="second", share=3.0))
    made = plan(stream(), phases=phases, rounds=3, seconds=24.0)
    turns = made.scenario.turns()
    assert turns == {
        "first": ((0.0, 2.0), (8.0, 10.0), (16.0, 18.0)),
        "second": ((2.0, 8.0), (10.0, 16.0), (18.0, 24.0)),
    }
    for request in made.requests:
        begin, end = turns[request.phase][request.turn]
        assert begin <= request.at < end
    assert {(request.phase, request.turn) for request in made.requests} == {
        (phase, turn) for phase in turns for turn in range(3)
    }


def test_the_first_round_is_the_plan_of_a_scenario_without_others() -> None:
    one = plan(stream(steps=(10, 20)), seconds=20.0)
    three = plan(stream(steps=(10, 20)), seconds=60.0, rounds=3)
    assert len(one.requests) > 50
    assert three.requests[: len(one.requests)] == one.requests
    # As before there were rounds: whoever has a plan by its seed has the same one still.
    chance, at = Random("0/callers/load/arrivals"), 0.0
    for request in one.requests:
        at += chance.expovariate(5.0)
        assert request.at == at


@pytest.mark.parametrize("alike", [True, False])
def test_a_stream_that_is_alike_comes_alike_in_the_phases_of_a_round_and_not_in_another(
    *, alike: bool
) -> None:
    callers = Stream(name="callers", arrivals=Poisson(per_second=5.0), alike=alike)
    made = plan(callers, phases=(Phase(name="one"), Phase(name="two")), rounds=3, seconds=120.0)
    offsets = {
        phase: [
            [
                round(request.at - begin, 6)
                for request in made.requests
                if (request.phase, request.turn) == (phase, turn)
            ]
            for turn, (begin, _) in enumerate(turns)
        ]
        for phase, turns in made.scenario.turns().items()
    }
    assert all(len(turn) > 50 for turns in offsets.values() for turn in turns)
    assert [one == two for one, two in zip(offsets["one"], offsets["two"], strict=True)] == [alike] * 3
    for turns in offsets.values():
        assert not set(turns[0]) & set(turns[1])
        assert not set(turns[1]) & set(turns[2])


def test_nobody_comes_in_a_phase_that_no_stream_has() -> None:
    one = Stream(name="callers", arrivals=Closed(concurrency=3), phases=("work",))
    made = plan(one, phases=PHASES, rounds=2, seconds=40.0)
    each = 3 + CLOSED_LOOP_MARGIN * SPEED.capacity * 10
    assert [(request.at, request.phase, request.turn) for request in made.requests] == [
        *[(0.0, "work", 0)] * int(each),
        *[(20.0, "work", 1)] * int(each),
    ]


def test_the_callers_of_a_closed_loop_ask_in_their_turns_only() -> None:
    callers = Stream(name="callers", arrivals=Closed(concurrency=2), phases=("work",))
    made = plan(callers, phases=PHASES, rounds=3, seconds=12.0)
    records = driven(made, Queueing(0.5, servers=2))
    assert sorted(one.sent for one in records) == pytest.approx(
        [begin + at for begin in (0, 4, 8) for at in (0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5)]
    )
    sent = {one.number: one for one in records}
    for request in made.requests:
        if request.number in sent:
            assert 4 * request.turn <= sent[request.number].sent < 4 * request.turn + 2


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [
        # The answers of the first phase come after a second of the next one, and so do its first requests.
        (1.5, [0.0, 1.5, 3.0]),
        # One takes longer than a whole phase.
        (4.5, [0.0]),
    ],
)
def test_there_are_never_more_callers_than_the_scenario_says(seconds: float, sent: list[float]) -> None:
    both = (Phase(name="one"), Phase(name="two"))
    made = plan(stream(arrivals=Closed(concurrency=2)), phases=both, seconds=4.0)
    records = driven(made, Queueing(seconds, servers=9))
    assert sorted(one.sent for one in records) == pytest.approx(sorted([*sent, *sent]))
    assert {one.phase for one in records if one.sent < 2} == {"one"}
    assert {one.phase for one in records if one.sent > 2} <= {"two"}


def test_stopping_by_hand_ends_the_turns_that_are_still_to_come() -> None:
    callers = Stream(name="callers", arrivals=Closed(concurrency=2), phases=("work",))
    made = plan(callers, phases=PHASES, rounds=3, seconds=12.0)

    async def work() -> list[Record]:
        generator = Generator(made, Queueing(0.5, servers=2))
        asyncio.get_running_loop().call_later(0.7, generator.stop)
        return await generator.run()

    assert sorted(one.sent for one in in_virtual_time(work)) == pytest.approx([0, 0, 0.5, 0.5])


class Slowing(Queueing):
    """Serves one request at a time, interactive ones first, and becomes slower all the time, as a shared host may: at
    the end a request takes half as long again.
    """

    def __init__(self, seconds: float, until: float) -> None:
        super().__init__(seconds)
        self._until = until
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._busy = False

    async def call(self, request: PlannedRequest) -> Outcome:
        loop = asyncio.get_running_loop()
        if self._busy:
            free = loop.create_future()
            heappush(self._waiting, (request.priority == "batch", request.number, free))
            await free
        self._busy = True
        await asyncio.sleep(self.seconds * (1 + 0.5 * loop.time() / self._until))
        if self._waiting:
            heappop(self._waiting)[2].set_result(None)
        else:
            self._busy = False
        return Outcome(status=Status.OK, images=request.images)


def test_what_priorities_are_worth_is_not_what_the_hosts_speed_did() -> None:
    """The scenario of the project, against a server that loses nothing: batch callers get all that is left."""
    load = load_scenario("interactive-over-batch")
    speed = msgspec.structs.replace(SPEED, capacity=4.0)
    records = driven(make_plan(load, 0, speed), Slowing(1 / speed.capacity, load.seconds))
    found = all_figures(load, speed, tuple(records), ())
    (expected,) = (one for one in load.expect if one.against == "rest_capacity")
    # `shared` comes after `full` in each round, a twenty-fifth of the load later, and the server is as much slower.
    assert judge(expected, found, load, speed).value == pytest.approx(1.0, abs=0.04)
    # Reckoned from the speed of before the load, much of it would seem to be missing.
    calibrated = judge(expected, found, msgspec.structs.replace(load, capacity_phase=""), speed)
    assert calibrated.value is not None and calibrated.value < expected.at_least
    # Whoever comes alone does not wait for what came before.
    begins = [begin for begin, _ in load.turns()["alone"]]
    assert not [one for one in records for begin in begins if one.sent < begin < one.done]
