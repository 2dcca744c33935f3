"""A job in an engine: what is sent, what is heard, and how it ends."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from engine.protocol.framing import MAX_BODY_BYTES, Frame
from engine.protocol.messages import FailureReason, ImageReady, Started, Step
from server.config import load
from server.engine_link.arguments import engine_arguments
from server.engine_link.work import Job
from server.errors import (
    DeadlineInfeasibleError,
    DeadlinePassedError,
    EngineUnavailableError,
    InternalError,
    InvalidFieldsError,
    LimnerError,
    NumericalFailureError,
    OverloadedError,
)
from tests.server.fake_engine import Script
from tests.server.linked import images, linked, submit


async def test_a_job_and_its_news() -> None:
    async with linked() as at:
        news = await at.job(submit("a", images=2))
        assert images(news) == [(0, 10), (1, 11)]
        assert [message.step for message in news if isinstance(message, Step)] == [1, 2, 3]
        assert at.link.in_flight == 0


async def test_leaving_cancels_in_the_engine() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        job.cancel()
        await asyncio.wait([job])
        await at.script.until(lambda: at.script.cancelled == ["a"])
        assert at.link.in_flight == 0


async def test_the_remaining_deadline_is_computed_at_each_submission() -> None:
    async with linked() as at:
        loop = asyncio.get_running_loop()
        job = asyncio.create_task(at.job(submit("a", "HOLD"), deadline=loop.time() + 50))
        await at.script.until(lambda: len(at.script.submitted) == 1)
        at.launcher.engines[0].kill()
        await at.script.until(lambda: len(at.script.submitted) == 2)
        at.script.release.set()
        await job
        first, second = (message.deadline for message in at.script.submitted)
        assert first is not None
        assert second is not None
        assert 49 < second < first < 50


async def test_a_deadline_that_has_passed_is_not_sent() -> None:
    async with linked() as at:
        with pytest.raises(DeadlinePassedError):
            await at.job(submit("a"), deadline=asyncio.get_running_loop().time() - 1)
        assert at.script.submitted == []
        assert at.link.in_flight == 0


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (FailureReason.INFEASIBLE, DeadlineInfeasibleError),
        (FailureReason.QUEUE_FULL, OverloadedError),
        (FailureReason.DEADLINE, DeadlinePassedError),
        (FailureReason.NUMERICAL, NumericalFailureError),
        (FailureReason.INVALID, InvalidFieldsError),
        (FailureReason.INTERNAL, InternalError),
        (FailureReason.CANCELLED, InternalError),
    ],
)
async def test_failures(reason: FailureReason, error: type[LimnerError]) -> None:
    async with linked(Script(fail_with=reason)) as at:
        with pytest.raises(error):
            await at.job(submit("a"))
        assert at.link.in_flight == 0


async def test_an_image_that_was_not_asked_for_breaks_the_protocol() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        at.launcher.engines[0]._send(ImageReady(job_id="a", index=1, seed=0), np.zeros((64, 64, 3), np.uint8))
        await at.script.until(lambda: len(at.script.submitted) == 2)
        at.script.release.set()
        assert images(await job) == [(0, 10)]
        assert any("image 1 of a job of 1" in str(line.get("why")) for line in at.logs)


async def test_work_that_no_frame_can_hold_fails_alone_now_and_after_a_restart() -> None:
    too_long = "x" * (MAX_BODY_BYTES + 1)
    async with linked() as at:
        with pytest.raises(InternalError):
            await at.job(submit("a", too_long))
        assert at.link.in_flight == 0
        at.script.loads = False
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives >= 2)
        waiting = [
            asyncio.create_task(at.job(submit(name, text))) for name, text in (("b", too_long), ("c", "x"))
        ]
        await asyncio.sleep(0)
        assert at.link.in_flight == 2
        at.script.loads = True
        with pytest.raises(InternalError):
            await waiting[0]
        assert images(await waiting[1]) == [(0, 10)]
        assert [line["work"] for line in at.logs if line["event"] == "work_not_sent"] == ["a", "b"]


async def test_an_id_that_is_taken_leaves_the_first_in_flight() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        with pytest.raises(AssertionError):
            await at.job(submit("a"))
        at.script.release.set()
        assert images(await job) == [(0, 10)]


async def test_where_a_job_is() -> None:
    """It denoises until its last step, is decoded until its last image, and is the server's from then on."""
    message = submit("a", images=2, steps=2)
    job = Job(message, None, deadline=None, inbox=asyncio.Queue())
    picture = np.zeros((64, 64, 3), np.uint8)
    phases = [job.phase]
    news = [
        Started(job_id="a", queue_seconds=0.0),
        Step(job_id="a", step=1, steps=2),
        Step(job_id="a", step=2, steps=2),
        ImageReady(job_id="a", index=1, seed=11),
        ImageReady(job_id="a", index=0, seed=10),
    ]
    for item in news[:4]:
        job.hear(Frame(message=item, tensor=picture))
        phases.append(job.phase)
    # Another engine does it again.
    job.frame(0.0)
    for item in news[:3] + news[4:]:
        phases.append(job.phase)
        job.hear(Frame(message=item, tensor=picture))
    phases.append(job.phase)
    # And another one, for the timings alone.
    job.frame(0.0)
    job.hear(Frame(message=news[0]))
    phases.append(job.phase)
    assert phases == [
        *("queued", "denoising", "denoising", "decoding", "decoding"),
        *("queued", "denoising", "denoising", "decoding", "encoding_output"),
        "encoding_output",
    ]


async def test_stopping_fails_what_is_in_flight() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        await at.link.stop()
        with pytest.raises(EngineUnavailableError):
            await job
        assert at.script.lives == 1


def test_the_engines_arguments_are_its_own() -> None:
    from engine.__main__ import _parser

    config = load(
        [
            "--model",
            "/m",
            "--engine-buckets",
            "1,2",
            "--engine-threads",
            "3",
            "--device",
            "cuda:0",
            "--engine-loras",
            "/a.safetensors,/b.safetensors:0.5",
        ],
        {},
    )
    arguments = engine_arguments(config.engine, log_level="info")
    options = _parser().parse_args(["serve", "--socket-fd", "3", *arguments])
    assert str(options.model) == "/m"
    assert [(str(lora.path), lora.scale) for lora in options.loras] == [
        ("/a.safetensors", 1.0),
        ("/b.safetensors", 0.5),
    ]
    assert (options.buckets, options.threads, options.device) == ((1, 2), 3, "cuda:0")
    nothing = _parser().parse_args(
        ["serve", "--socket-fd", "3", *engine_arguments(load([], {}).engine, log_level="info")]
    )
    assert nothing.model is None
    assert nothing.loras == []
    assert nothing.buckets is None
