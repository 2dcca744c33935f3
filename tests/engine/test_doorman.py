"""What happens to mail that comes in the middle of a step."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.loop.doorman import Doorman
from engine.protocol.framing import ProtocolError
from engine.protocol.messages import Cancel, Failed, FailureReason, Finished, Message, Queued, Shutdown
from tests.engine.bench import Bench, job, reference
from tests.engine.fakes import TICK_SECONDS
from tests.waiting import PATIENCE, until


@contextmanager
def in_a_step(bench: Bench, call: str = "predict_noise") -> Iterator[None]:
    """Run the loop on a thread of its own; the body runs in the middle of a call of the backend."""
    inside, go_on = threading.Event(), threading.Event()
    step = getattr(bench.backend, call)

    def held(*arguments: object) -> object:
        inside.set()
        assert go_on.wait(PATIENCE)
        return step(*arguments)

    setattr(bench.backend, call, held)
    thread = threading.Thread(target=bench.loop.run)
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        yield
    finally:
        go_on.set()
        bench.tell(Shutdown())
        thread.join(PATIENCE)
        assert not thread.is_alive()


def heard(bench: Bench, kind: type[Message], job_id: str) -> bool:
    return any(message.job_id == job_id for message in bench.messages(kind))  # type: ignore[attr-defined]


def test_a_job_that_cannot_be_done_in_time_is_refused_in_the_middle_of_a_step() -> None:
    bench = Bench()
    bench.tell(job("long", steps=50))
    with in_a_step(bench):
        bench.tell(job("hurry", steps=50, deadline=0.2), reference())
        until(lambda: heard(bench, Failed, "hurry"))
    (refused,) = bench.messages(Failed)
    assert refused.reason is FailureReason.INFEASIBLE


def test_a_job_is_refused_in_the_middle_of_a_decode() -> None:
    bench = Bench()
    bench.tell(job("long", steps=50))
    bench.tell(job("short", steps=1))
    with in_a_step(bench, "decode_latents"):
        bench.tell(job("hurry", steps=50, deadline=0.2))
        until(lambda: heard(bench, Failed, "hurry"))


def test_what_is_left_of_a_step_counts_from_its_own_begin() -> None:
    """The prompts are encoded before it, which takes a millisecond."""
    bench = Bench()
    bench.tell(job("first", steps=50))
    with in_a_step(bench):
        bench.tell(job("second"))
        until(lambda: heard(bench, Queued, "second"))
    (told,) = (queued for queued in bench.messages(Queued) if queued.job_id == "second")
    assert told.starts_in == pytest.approx(TICK_SECONDS[2])


def test_a_job_is_told_where_it_stands_in_the_middle_of_a_step() -> None:
    bench = Bench()
    bench.tell(job("first", steps=50))
    with in_a_step(bench):
        bench.tell(job("second"))
        bench.tell(job("third"))
        until(lambda: heard(bench, Queued, "third"))
    assert not bench.messages(Failed)


def test_a_cancel_waits_for_the_step_and_what_comes_after_it_too() -> None:
    bench = Bench()
    bench.tell(job("gone", steps=50))
    with in_a_step(bench):
        bench.tell(job("before"))
        bench.tell(Cancel(job_id="gone"))
        bench.tell(job("gone", steps=1))
        until(lambda: heard(bench, Queued, "before") and not bench.inbox.mails)
        assert not bench.messages(Failed)
        assert sum(queued.job_id == "gone" for queued in bench.messages(Queued)) == 1
    (cancelled,) = bench.messages(Failed)
    assert (cancelled.job_id, cancelled.reason) == ("gone", FailureReason.CANCELLED)


def test_what_came_in_the_middle_of_a_step_is_done() -> None:
    bench = Bench()
    bench.tell(job("first"))
    with in_a_step(bench):
        bench.tell(job("second"), reference())
        until(lambda: heard(bench, Queued, "second"))
    bench.loop.stopped = False
    bench.finish()
    assert {done.job_id for done in bench.messages(Finished)} == {"first", "second"}


def test_a_message_that_no_server_sends_ends_the_loop_though_it_came_in_a_step() -> None:
    bench = Bench()
    bench.tell(job("twice", steps=50))
    raised: list[BaseException] = []
    run = bench.loop.run

    def expect() -> None:
        with pytest.raises(ProtocolError, match="in flight already") as error:
            run()
        raised.append(error.value)

    bench.loop.run = expect  # type: ignore[method-assign]
    with in_a_step(bench):
        bench.tell(job("twice"))
        until(lambda: not bench.inbox.mails)
    assert raised


def test_doorman_and_loop_never_have_the_books_at_once() -> None:
    todo: list[int] = []
    inside = False
    clashes = 0

    def attend() -> None:
        nonlocal inside
        inside = True
        todo.pop()
        time.sleep(0.0005)
        inside = False

    doorman = Doorman(lambda: bool(todo), attend)
    doorman.start()
    for _ in range(300):
        todo.extend(range(3))
        with doorman.lent():
            time.sleep(0.0002)
        clashes += inside
    with doorman.lent():
        until(lambda: not todo)
    doorman.stop()
    doorman.check()
    assert not clashes


def test_a_doorman_who_was_never_started_can_be_sent_home() -> None:
    doorman = Doorman(lambda: True, lambda: None)
    with doorman.lent():
        doorman.knock()
    doorman.stop()
