"""What is refused without asking the engine, and what is not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from engine.protocol.messages import Failed, FailureReason, Submit
from server.engine_link.refusals import MEMORY_SECONDS, Refusals
from server.engine_link.work import Job
from server.errors import DeadlineInfeasibleError
from tests.server.fake_engine import Script
from tests.server.linked import linked
from tests.server.linked import submit as plain

NOW = 100.0


@dataclass
class Sent:
    submit: Submit
    deadline: float | None = NOW + 1.0
    asked: float = NOW - 0.01


def submit(**changes: Any) -> Submit:
    return msgspec.structs.replace(plain("job", steps=10, images=2), **changes)


def failed(
    reason: FailureReason = FailureReason.INFEASIBLE, late: float | None = 0.5, least: float | None = 0.3
) -> Failed:
    return Failed(
        job_id="job", reason=reason, message="late", phase="queued", retry_after=late, least_seconds=least
    )


def refusals() -> Refusals:
    """A job of two images and ten steps with a deadline at 101 would have been done at 101.5."""
    made = Refusals()
    made.note(Sent(submit()), failed(), now=NOW)
    return made


@pytest.mark.parametrize("changes", [{}, {"guidance_scale": 9.0}, {"prompt": "another", "seeds": (7, 8)}])
def test_who_asks_for_as_much_and_comes_later_is_refused_at_once(changes: dict[str, Any]) -> None:
    told = refusals().of(submit(**changes), deadline=NOW + 1.1, now=NOW + 0.1)
    assert isinstance(told, DeadlineInfeasibleError)
    assert "would finish 0.400 s after its deadline" in str(told)
    assert told.retry_after == pytest.approx(0.4)
    assert told.metadata == {"predicted_seconds": "1.400"}


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 9},
        {"steps": 11},
        {"seeds": (1,)},
        {"guidance_scale": 1.0},
        {"priority": 1},
        {"width": 32},
        {"height": 32},
        {"deterministic": True},
        {"guidance_end": 0.5},
    ],
)
def test_who_asks_for_something_else_is_asked_for(changes: dict[str, Any]) -> None:
    assert refusals().of(submit(**changes), deadline=NOW + 1.1, now=NOW + 0.1) is None


def test_who_has_time_is_asked_for() -> None:
    assert refusals().of(submit(), deadline=NOW + 1.5, now=NOW + 0.1) is None
    assert refusals().of(submit(), deadline=None, now=NOW + 0.1) is None


def test_who_could_never_make_it_is_asked_for_so_that_he_is_not_told_to_come_back() -> None:
    assert refusals().of(submit(), deadline=NOW + 0.3, now=NOW + 0.1) is None


def test_a_refusal_is_forgotten_after_a_while_and_takes_no_memory_then() -> None:
    made = refusals()
    assert made.of(submit(), deadline=NOW + 1.1, now=NOW + MEMORY_SECONDS) is None
    for number in range(100):
        sent = Sent(submit(guidance_end=0.5 + number / 1000), asked=NOW + number)
        made.note(sent, failed(), now=NOW + number)
    assert len(made._latest) == 1


@pytest.mark.parametrize(
    "reason",
    [FailureReason.CANCELLED, FailureReason.DEADLINE, FailureReason.NUMERICAL, FailureReason.INTERNAL],
)
def test_a_job_that_leaves_early_makes_room(reason: FailureReason) -> None:
    made = refusals()
    made.note(Sent(submit()), failed(reason), now=NOW)
    assert made.of(submit(), deadline=NOW + 1.1, now=NOW + 0.1) is None


def test_an_answer_from_before_there_was_room_says_nothing() -> None:
    made = refusals()
    made.forget(NOW + 0.01)
    made.note(Sent(submit(), asked=NOW), failed(), now=NOW + 0.02)
    assert made.of(submit(), deadline=NOW + 1.1, now=NOW + 0.1) is None


@pytest.mark.parametrize("reason", [FailureReason.QUEUE_FULL, FailureReason.INVALID])
def test_a_job_that_never_was_in_makes_none(reason: FailureReason) -> None:
    made = refusals()
    made.note(Sent(submit()), failed(reason), now=NOW)
    assert made.of(submit(), deadline=NOW + 1.1, now=NOW + 0.1) is not None


def test_what_not_even_an_idle_engine_could_do_says_nothing_about_others() -> None:
    made = Refusals()
    made.note(Sent(submit()), failed(late=None), now=NOW)
    assert made.of(submit(), deadline=NOW + 0.1, now=NOW) is None


async def test_a_link_learns_from_its_engine_and_from_who_leaves() -> None:
    script = Script(fail_with=FailureReason.INFEASIBLE, retry_after=0.5)
    async with linked(script) as at:
        now = NOW
        at.link._clock = lambda: now
        deadline = NOW + 1.0
        at.link.check(submit(), deadline=deadline)
        with pytest.raises(DeadlineInfeasibleError):
            await at.job(submit(), deadline=deadline)
        with pytest.raises(DeadlineInfeasibleError):
            at.link.check(submit(), deadline=deadline)
        assert len(script.submitted) == 1
        script.fail_with = None
        now = NOW + 0.01
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await at.job(submit(job_id="HOLD", prompt="HOLD"))
        at.link.check(submit(), deadline=deadline)


async def test_a_link_forgets_what_a_dead_engine_refused() -> None:
    script = Script(fail_with=FailureReason.INFEASIBLE, retry_after=0.5)
    async with linked(script) as at:
        at.link._clock = lambda: NOW
        with pytest.raises(DeadlineInfeasibleError):
            await at.job(submit(), deadline=NOW + 1.0)
        at.changed.clear()
        at.launcher.engines[0].kill()
        await at.changed.wait()
        at.link.check(submit(), deadline=NOW + 1.0)


def test_a_job_knows_when_it_was_asked_for() -> None:
    job = Job(submit(), None, deadline=NOW + 1.0, inbox=asyncio.Queue())
    job.frame(NOW)
    assert job.asked == NOW
