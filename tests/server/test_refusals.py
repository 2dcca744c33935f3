"""What is refused without asking the engine, and what is not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from engine.protocol.messages import Failed, FailureReason, Submit
from server.engine_link.refusals import MEMORY_SECONDS, Refusals
from server.errors import DeadlineInfeasibleError
from tests.server.fake_engine import Script
from tests.server.test_engine_link import linked
from tests.server.test_engine_link import submit as plain

NOW = 100.0


def submit(**changes: Any) -> Submit:
    return msgspec.structs.replace(plain("job", steps=10, images=2), **changes)


def failed(reason: FailureReason = FailureReason.INFEASIBLE, late: float | None = 0.5) -> Failed:
    return Failed(job_id="job", reason=reason, message="late", phase="queued", retry_after=late)


def refusals() -> Refusals:
    """A job of two images and ten steps with a deadline at 101 would have been done at 101.5."""
    made = Refusals()
    made.note(submit(), failed(), deadline=NOW + 1.0, now=NOW)
    return made


@pytest.mark.parametrize(
    "changes", [{}, {"steps": 11}, {"seeds": (1, 2, 3)}, {"guidance_scale": 9.0}, {"prompt": "another"}]
)
def test_who_takes_as_much_and_comes_later_is_refused_at_once(changes: dict[str, Any]) -> None:
    with pytest.raises(DeadlineInfeasibleError, match=r"would finish 0\.400 s after its deadline") as told:
        refusals().check(submit(**changes), deadline=NOW + 1.1, now=NOW + 0.1)
    assert told.value.retry_after == pytest.approx(0.4)
    assert told.value.metadata == {"predicted_seconds": "1.400"}


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 9},
        {"seeds": (1,)},
        {"guidance_scale": 1.0},
        {"priority": 1},
        {"width": 32},
        {"height": 32},
        {"deterministic": True},
        {"guidance_end": 0.5},
    ],
)
def test_who_may_take_less_or_stand_elsewhere_is_asked_for(changes: dict[str, Any]) -> None:
    refusals().check(submit(**changes), deadline=NOW + 1.1, now=NOW + 0.1)


def test_who_has_time_is_asked_for() -> None:
    refusals().check(submit(), deadline=NOW + 1.5, now=NOW + 0.1)
    refusals().check(submit(), deadline=None, now=NOW + 0.1)


def test_a_refusal_is_forgotten_after_a_while() -> None:
    refusals().check(submit(), deadline=NOW + 1.1, now=NOW + MEMORY_SECONDS)


@pytest.mark.parametrize(
    "reason",
    [FailureReason.CANCELLED, FailureReason.DEADLINE, FailureReason.NUMERICAL, FailureReason.INTERNAL],
)
def test_a_job_that_leaves_early_makes_room(reason: FailureReason) -> None:
    made = refusals()
    made.note(submit(), failed(reason), deadline=None, now=NOW)
    made.check(submit(), deadline=NOW + 1.1, now=NOW + 0.1)


@pytest.mark.parametrize("reason", [FailureReason.QUEUE_FULL, FailureReason.INVALID])
def test_a_job_that_never_was_in_makes_none(reason: FailureReason) -> None:
    made = refusals()
    made.note(submit(), failed(reason), deadline=None, now=NOW)
    with pytest.raises(DeadlineInfeasibleError):
        made.check(submit(), deadline=NOW + 1.1, now=NOW + 0.1)


def test_what_not_even_an_idle_engine_could_do_says_nothing_about_others() -> None:
    made = Refusals()
    made.note(submit(), failed(late=None), deadline=NOW + 1.0, now=NOW)
    made.check(submit(), deadline=NOW + 0.1, now=NOW)


async def test_a_link_learns_from_its_engine_and_from_who_leaves() -> None:
    script = Script(fail_with=FailureReason.INFEASIBLE, retry_after=0.5)
    async with linked(script) as at:
        deadline = at.link._clock() + 1.0
        at.link.check(submit(), deadline=deadline)
        with pytest.raises(DeadlineInfeasibleError):
            await at.job(submit(), deadline=deadline)
        with pytest.raises(DeadlineInfeasibleError):
            at.link.check(submit(), deadline=deadline)
        assert len(script.submitted) == 1
        script.fail_with = None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await at.job(submit(job_id="HOLD", prompt="HOLD"))
        at.link.check(submit(), deadline=deadline)
