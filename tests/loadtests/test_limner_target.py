"""Limner as a target: a real server with a fake engine, and what its answers become."""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import Any

import pytest
from PIL import Image

from engine.scheduling import Priority
from loadtests.runner.errors import TargetError
from loadtests.runner.gallery import Gallery
from loadtests.runner.limner import LimnerTarget
from loadtests.runner.request import PlannedRequest
from loadtests.runner.target import Status
from server.config.options import AdmissionOptions, LimitOptions
from tests.server.running import Serving, run_server


def request(**changes: Any) -> PlannedRequest:
    told: dict[str, Any] = {
        "number": 0,
        "at": 0.0,
        "stream": "callers",
        "phase": "load",
        "prompt": "a portrait",
        "seed": 7,
        "steps": 3,
    }
    return PlannedRequest(**(told | changes))


def opened(serving: Serving, tenant: str = "test") -> LimnerTarget:
    return LimnerTarget(serving.app.addresses[0], Gallery(0, size=32), tenant=tenant)


async def test_an_answer_tells_images_stages_and_batch(serving: Serving) -> None:
    async with opened(serving) as target:
        outcome = await target.call(request(images=2, sampler="euler", priority="batch", width=32, height=48))
    assert (outcome.status, outcome.images, outcome.cache, outcome.batch_rows) == (Status.OK, 2, None, 2.0)
    assert outcome.stages is not None
    assert (outcome.stages.queue, outcome.stages.denoise) == (0.01, 0.03)
    (submit,) = serving.script.submitted
    assert (submit.sampler, submit.steps, submit.seeds) == ("euler", 3, (7, 8))
    assert (submit.width, submit.height, submit.prompt) == (32, 48, "a portrait")
    assert submit.priority == Priority.BATCH


async def test_a_known_person_is_a_hit_and_a_newcomer_a_miss(serving: Serving) -> None:
    async with opened(serving) as target:
        await target.prepare([1, 2])
        known = await target.call(request(person=1))
        new = await target.call(request(person=3, brings_picture=True))
        again = await target.call(request(person=3))
    assert [one.cache for one in (known, new, again)] == ["hit", "miss", "hit"]
    assert not any(one.resent for one in (known, new, again))
    assert serving.script.encoded == 3


async def test_an_unknown_digest_is_followed_by_the_picture(serving: Serving) -> None:
    async with opened(serving) as target:
        outcome = await target.call(request(person=4))
    assert (outcome.status, outcome.cache, outcome.resent) == (Status.OK, "miss", True)


async def test_a_tenant_meets_caches_of_its_own(serving: Serving) -> None:
    async with opened(serving, "one") as target:
        await target.prepare([1])
    async with opened(serving, "two") as target:
        assert (await target.call(request(person=1))).resent


async def test_a_refusal_has_its_reason_and_when_to_come_back() -> None:
    async with (
        run_server(admission=AdmissionOptions(max_requests_in_flight=1)) as serving,
        opened(serving) as target,
    ):
        held = asyncio.create_task(target.call(request(prompt="HOLD")))
        await serving.script.until(lambda: bool(serving.script.held))
        outcome = await target.call(request())
        serving.script.release.set()
        assert (await held).status is Status.OK
    assert (outcome.status, outcome.reason) == (Status.REFUSED, "OVERLOADED")
    assert outcome.retry_after is not None


async def test_a_deadline_that_passes_is_expired(serving: Serving) -> None:
    async with opened(serving) as target:
        outcome = await target.call(request(prompt="HOLD", deadline=0.05))
    assert (outcome.status, outcome.reason) == (Status.EXPIRED, "DEADLINE_EXCEEDED")


async def test_cancelling_the_task_cancels_the_call(serving: Serving) -> None:
    async with opened(serving) as target:
        call = asyncio.create_task(target.call(request(prompt="HOLD")))
        await serving.script.until(lambda: bool(serving.script.held))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await serving.script.until(lambda: bool(serving.script.cancelled))


async def test_a_wrong_request_has_failed_with_the_servers_words(serving: Serving) -> None:
    async with opened(serving) as target:
        outcome = await target.call(request(steps=1000))
    assert (outcome.status, outcome.reason) == (Status.FAILED, "INVALID_FIELD")
    assert "portrait.steps" in outcome.message


async def test_references_that_are_not_taken_end_the_run() -> None:
    async with run_server(limits=LimitOptions(max_image_bytes=100)) as serving, opened(serving) as target:
        with pytest.raises(TargetError, match="INVALID_ARGUMENT"):
            await target.prepare([1])


def test_people_are_distinct_pictures_that_a_seed_repeats() -> None:
    gallery = Gallery(0, size=32)
    gallery.prepare(range(200))
    pictures = [gallery.picture(person) for person in range(200)]
    assert len({picture.digest for picture in pictures}) == 200
    assert pictures[5].digest == hashlib.sha256(pictures[5].data).hexdigest()
    assert pictures[5].data == Gallery(0, size=32).picture(5).data
    assert pictures[5].data != Gallery(1, size=32).picture(5).data
    # Not only their files differ: so do nearly all of the faces.
    drawn = {Image.open(io.BytesIO(picture.data)).convert("RGB").tobytes() for picture in pictures}
    assert len(drawn) > 190
