"""The generator, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from loadtests.runner.calibration import calibrate, warming
from loadtests.runner.errors import TargetError
from loadtests.runner.generator import Generator
from loadtests.runner.measures import latency
from loadtests.runner.plan import Plan
from loadtests.runner.record import Record
from loadtests.runner.request import PlannedRequest
from loadtests.runner.scenario import Cancel, Closed, Mix, Poisson, Span, Stream, Trace
from loadtests.runner.target import Outcome, Status
from tests.loadtests.building import Queueing, Stalling, in_virtual_time, plan, scenario, stream

EVERY_SECOND = Trace(offsets=(0.0, 1.0))


def driven(made: Plan, target: Queueing, **more: float) -> tuple[list[Record], Generator]:
    async def work() -> tuple[list[Record], Generator]:
        generator = Generator(made, target, **more)
        return await generator.run(), generator

    return in_virtual_time(work)


def test_an_open_loop_waits_for_nobody() -> None:
    made = plan(stream(arrivals=EVERY_SECOND), seconds=5.0)
    records, _ = driven(made, Queueing(3.0, servers=10))
    assert [one.sent for one in records] == pytest.approx([0, 1, 2, 3, 4])
    assert [one.latency for one in records] == pytest.approx([3.0] * 5)


def test_a_queue_shows_in_the_latency() -> None:
    made = plan(stream(arrivals=EVERY_SECOND), seconds=5.0)
    records, _ = driven(made, Queueing(1.5))
    assert [one.latency for one in records] == pytest.approx([1.5, 2.0, 2.5, 3.0, 3.5])


def test_a_stall_of_the_generator_is_in_the_latency_though_not_in_the_service_time() -> None:
    """Coordinated omission: whoever counts from the sending sees one slow request of a hundred, not ten."""

    made = plan(stream(arrivals=EVERY_SECOND), seconds=100.0)
    records, _ = driven(made, Stalling(0.1, stall=10.0, when=lambda one: one.number == 50, servers=100))
    records.sort(key=lambda one: one.number)
    assert [one.latency for one in records[50:61]] == pytest.approx(
        [10.1, 9.1, 8.1, 7.1, 6.1, 5.1, 4.1, 3.1, 2.1, 1.1, 0.1]
    )
    corrected, naive = latency(one.latency for one in records), latency(one.service for one in records)
    assert corrected.p95 is not None and naive.p95 is not None
    assert corrected.p95 > 5.0
    assert naive.p95 == pytest.approx(0.1)
    assert [one.sent - one.due for one in records[:50]] == pytest.approx([0.0] * 50)


def test_a_closed_loop_keeps_its_callers_busy_and_ends_on_time() -> None:
    made = plan(stream(arrivals=Closed(concurrency=3, think=0.5)), seconds=10.0)
    records, generator = driven(made, Queueing(1.5, servers=3))
    # A turn takes 2 seconds, so each of three callers begins five.
    assert [one.sent for one in sorted(records, key=lambda one: one.sent)] == pytest.approx(
        [at for at in (0, 2, 4, 6, 8) for _ in range(3)]
    )
    assert all(one.due == one.sent for one in records)
    assert generator.notes == []


def test_a_closed_loop_that_outruns_its_plan_says_so() -> None:
    made = plan(stream(arrivals=Closed(concurrency=2)), seconds=10.0)
    records, generator = driven(made, Queueing(0.001, servers=2))
    assert len(records) == len(made.requests)
    assert "no more requests" in generator.notes[0]


def test_callers_who_give_up_are_cancelled_at_their_time() -> None:
    impatient = Stream(
        name="callers", arrivals=EVERY_SECOND, cancel=Cancel(share=1.0, after=(1.0, 1.0)), mix=Mix()
    )
    records, _ = driven(plan(impatient, seconds=3.0), Queueing(5.0, servers=9))
    assert [(one.status, one.latency) for one in records] == [(Status.CANCELLED, pytest.approx(0.5))] * 3


def test_a_deadline_counts_from_the_due_moment() -> None:
    target = Stalling(0.1, stall=4.5, when=lambda one: one.number == 1, servers=9)
    callers = Stream(name="callers", arrivals=EVERY_SECOND, deadline=Span(seconds=3.0), mix=Mix())
    driven(plan(callers, seconds=7.0), target)
    # The second holds up the others until 5.5 seconds; the deadline of the third has passed by then.
    assert [one.deadline for one in target.calls] == pytest.approx([3.0, 3.0, 0.001, 0.5, 1.5, 2.5, 3.0])


def test_what_has_no_answer_in_the_end_is_not_lost() -> None:
    made = plan(stream(arrivals=EVERY_SECOND), seconds=3.0)
    records, generator = driven(made, Queueing(100.0, servers=9), drain_seconds=7.0)
    assert [one.status for one in records] == [Status.UNFINISHED] * 3
    assert {one.done for one in records} == {9.0}
    assert generator.in_flight == 0


def test_a_fault_of_the_targets_code_ends_the_run() -> None:
    class Faulty(Queueing):
        async def call(self, request: PlannedRequest) -> Outcome:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        driven(plan(stream(arrivals=EVERY_SECOND), seconds=3.0), Faulty(0.1))
    with pytest.raises(ZeroDivisionError):
        driven(plan(stream(arrivals=Closed(concurrency=1)), seconds=3.0), Faulty(0.1))


def test_stopping_by_hand_waits_for_what_is_in_flight() -> None:
    made = plan(stream(arrivals=EVERY_SECOND), seconds=100.0)

    async def work() -> tuple[list[Record], Generator]:
        generator = Generator(made, Queueing(2.0, servers=9))
        asyncio.get_running_loop().call_later(4.5, generator.stop)
        return await generator.run(), generator

    records, generator = in_virtual_time(work)
    assert [one.status for one in records] == [Status.OK] * 5
    assert generator.notes == ["stopped by hand after 4 s"]


def test_calibration_finds_the_capacity_and_the_unloaded_latency() -> None:
    load = scenario(stream(arrivals=Poisson(rate=1.0)))
    speed = in_virtual_time(lambda: calibrate(Queueing(0.2, servers=2), load, 0))
    assert speed.unloaded == pytest.approx(0.2)
    assert speed.capacity == pytest.approx(10.0, rel=0.03)


def test_calibration_is_read_once_the_target_is_warm_and_at_the_end() -> None:
    load = scenario(stream(arrivals=Poisson(rate=1.0)))
    target = Queueing(0.2, servers=2)
    answered: list[int] = []

    async def work() -> None:
        async def read() -> None:
            answered.append(len(target.calls))

        await calibrate(target, load, 0, read=read)

    in_virtual_time(work)
    before, after = answered
    assert before == len(warming(load))
    assert after - before - load.calibration.alone >= 0.9 * 10.0 * load.calibration.seconds


def test_calibration_of_what_answers_in_batches_is_not_misled_by_their_edges() -> None:
    class Batching(Queueing):
        """Answers everything that came in the last second, at the end of it."""

        async def call(self, request: PlannedRequest) -> Outcome:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(1.0 - now % 1.0)
            return Outcome(status=Status.OK, images=1)

    load = scenario(stream(arrivals=Poisson(rate=1.0)))
    speed = in_virtual_time(lambda: calibrate(Batching(1.0), load, 0))
    assert speed.capacity == pytest.approx(load.calibration.concurrency, rel=0.03)


def test_calibration_says_what_failed() -> None:
    class Refusing(Queueing):
        async def call(self, request: PlannedRequest) -> Outcome:
            return Outcome(status=Status.REFUSED, reason="OVERLOADED", message="too much")

    load = scenario(stream(arrivals=Poisson(rate=1.0)))
    with pytest.raises(TargetError, match="OVERLOADED too much"):
        in_virtual_time(lambda: calibrate(Refusing(0.2), load, 0))
    with pytest.raises(TargetError, match=r"calibration\.seconds must be longer"):
        in_virtual_time(lambda: calibrate(Queueing(9.0, servers=2), load, 0))
