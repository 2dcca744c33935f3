from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog

from engine.protocol.framing import MAX_BODY_BYTES, Frame
from engine.protocol.messages import FailureReason, Finished, ImageReady, Started, Step, Submit
from server.config import load
from server.engine_link.arguments import engine_arguments
from server.engine_link.connection import Connection
from server.engine_link.engine import Engine
from server.engine_link.link import EngineLink
from server.engine_link.supervisor import CANNOT_START, SupervisorOptions
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
    PoisonError,
)
from server.metrics.observer import ServerMetrics
from tests.server.fake_engine import FakeLauncher, Script, ready_message


def submit(job_id: str, prompt: str = "a sailor", *, images: int = 1, steps: int = 3) -> Submit:
    return Submit(
        job_id=job_id,
        prompt=prompt,
        negative_prompt="",
        sampler="ddim",
        steps=steps,
        guidance_scale=3.0,
        guidance_rescale=0.0,
        ip_adapter_scale=1.0,
        width=64,
        height=64,
        seeds=tuple(range(10, 10 + images)),
        progress=True,
    )


class Linked:
    def __init__(
        self, link: EngineLink, script: Script, launcher: FakeLauncher, logs: list[dict[str, Any]]
    ) -> None:
        self.link, self.script, self.launcher, self.logs = link, script, launcher, logs
        self.readiness: list[bool] = []
        self.changed = asyncio.Event()

    def on_readiness(self, ready: bool) -> None:
        self.readiness.append(ready)
        self.changed.set()

    def patiently(self) -> None:
        """Have no further engine killed for being slow."""
        self.link.engines[0]._supervisor._options = SupervisorOptions(
            stall_timeout=0, restart_delay=0.001, restart_delay_max=0.004
        )

    async def until_ready(self) -> None:
        while not self.link.is_ready:
            self.changed.clear()
            await self.changed.wait()

    async def job(self, message: Submit, deadline: float | None = None) -> list[Any]:
        """Run a job to its end; return its messages. Raises what ended it."""
        inbox: asyncio.Queue[object] = asyncio.Queue()
        news: list[Any] = []
        with self.link.run(message, np.ones((4, 8), np.float32), deadline=deadline, inbox=inbox):
            while True:
                item = await inbox.get()
                if isinstance(item, LimnerError):
                    raise item
                assert isinstance(item, Frame)
                news.append(item.message)
                if isinstance(item.message, Finished):
                    return news


@asynccontextmanager
async def linked(
    script: Script | None = None, *, wait: bool = True, patience: float = 60, **options: Any
) -> AsyncIterator[Linked]:
    script = script or Script()
    logs: list[dict[str, Any]] = []

    def keep(_: Any, level: str, event: dict[str, Any]) -> str:
        logs.append(event)
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    launcher = FakeLauncher(script)
    engine = Engine(
        launcher,
        observer=ServerMetrics(version="0"),
        log=log,
        options=SupervisorOptions(**({"restart_delay": 0.001, "restart_delay_max": 0.004} | options)),
    )
    link = EngineLink(
        [engine], log=log, on_readiness=lambda ready: outer.on_readiness(ready), patience=patience
    )
    outer = Linked(link, script, launcher, logs)
    link.start()
    if wait:
        await outer.until_ready()
    try:
        yield outer
    finally:
        await link.stop()


def images(news: list[Any]) -> list[tuple[int, int]]:
    return [(message.index, message.seed) for message in news if isinstance(message, ImageReady)]


async def test_a_job_and_its_news() -> None:
    async with linked() as at:
        news = await at.job(submit("a", images=2))
        assert images(news) == [(0, 10), (1, 11)]
        assert [message.step for message in news if isinstance(message, Step)] == [1, 2, 3]
        assert at.link.in_flight == 0


async def test_a_dead_engine_is_replaced_and_what_was_in_flight_is_replayed() -> None:
    async with linked(Script(hold_on="a")) as at:
        jobs = [asyncio.create_task(at.job(submit(f"job {number}", "a sailor"))) for number in range(5)]
        await at.script.until(lambda: len(at.script.held) == 5)
        at.launcher.engines[0].kill()
        await at.script.until(lambda: len(at.script.submitted) == 10)
        at.script.release.set()
        assert [images(await job) for job in jobs] == [[(0, 10)]] * 5
        assert at.readiness == [True, False, True]
        assert at.script.lives == 2
        assert "engine_died" in [line["event"] for line in at.logs]


async def test_what_comes_while_the_engine_is_away_waits_for_it() -> None:
    async with linked(Script(loads=True)) as at:
        at.script.loads = False
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives >= 3)
        job = asyncio.create_task(at.job(submit("a")))
        await asyncio.sleep(0)
        at.script.loads = True
        assert images(await job) == [(0, 10)]


async def test_delivered_images_are_not_asked_for_again() -> None:
    async with linked(Script(stop_after_images=2)) as at:
        news = await at.job(submit("a", images=4))
        assert images(news) == [(0, 10), (1, 11), (2, 12), (3, 13)]
        assert [message.seeds for message in at.script.submitted] == [(10, 11, 12, 13), (12, 13)]
        assert [message.step for message in news if isinstance(message, Step)] == [1, 2, 3]


async def test_a_death_between_the_last_image_and_the_end() -> None:
    async with linked(Script(stop_after_images=2)) as at:
        news = await at.job(submit("a", images=2))
        assert images(news) == [(0, 10), (1, 11)]
        assert isinstance(news[-1], Finished)


async def test_who_is_in_flight_alone_in_two_deaths_fails() -> None:
    async with linked() as at:
        with pytest.raises(PoisonError):
            await at.job(submit("a", "DIE"))
        assert at.script.lives == 2
        await at.until_ready()
        assert images(await at.job(submit("b"))) == [(0, 10)]


async def test_poison_in_a_crowd_fails_alone() -> None:
    async with linked(Script(hold_on="sailor")) as at:
        jobs = [asyncio.create_task(at.job(submit(f"job {number}"))) for number in range(6)]
        await at.script.until(lambda: len(at.script.held) == 6)
        poison = asyncio.create_task(at.job(submit("poison", "DIE")))
        # Suspects are sent one at a time; the innocent ones must be able to end.
        asyncio.get_running_loop().call_later(0.05, at.script.release.set)
        with pytest.raises(PoisonError):
            await poison
        assert [images(await job) for job in jobs] == [[(0, 10)]] * 6
        assert at.script.lives <= 4
        assert at.link.in_flight == 0


async def test_an_encode_is_replayed_as_well() -> None:
    async with linked(Script(hold_encodes=True)) as at:
        encode = asyncio.create_task(at.link.encode(np.full((32, 32, 3), 9, np.uint8)))
        await asyncio.sleep(0)
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives == 2)
        at.script.release.set()
        assert (await encode).tokens.tolist() == np.full((4, 8), 9).tolist()
        assert at.link.in_flight == 0


async def test_leaving_cancels_in_the_engine() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        job.cancel()
        await asyncio.wait([job])
        await at.script.until(lambda: at.script.cancelled == ["a"])
        assert at.link.in_flight == 0


async def test_a_cancel_while_the_engine_is_away_is_not_replayed() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        at.script.loads = False
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives >= 2)
        job.cancel()
        await asyncio.wait([job])
        at.script.loads = True
        at.changed.clear()
        await at.until_ready()
        await at.job(submit("b"))
        assert [message.job_id for message in at.script.submitted] == ["a", "b"]


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


async def test_an_engine_that_cannot_load_is_tried_again() -> None:
    async with linked(Script(loads=False), wait=False) as at:
        await at.script.until(lambda: at.script.lives >= 3)
        with pytest.raises(EngineUnavailableError):
            at.link.ready()
        assert at.readiness == []
        assert "engine_failed_to_load" in [line["event"] for line in at.logs]
        at.script.loads = True
        await at.until_ready()
        assert images(await at.job(submit("a"))) == [(0, 10)]


async def test_patience_ends() -> None:
    async with linked(patience=0.01) as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        at.script.loads = False
        at.launcher.engines[0].kill()
        with pytest.raises(EngineUnavailableError):
            await job
        with pytest.raises(EngineUnavailableError):
            await at.job(submit("b"))
        at.script.loads = True
        await at.until_ready()
        await at.job(submit("c"))


async def test_an_engine_that_is_not_ready_in_time_is_killed() -> None:
    class Silent(FakeLauncher):
        async def launch(self) -> Any:
            engine = await super().launch()
            if len(self.engines) == 1:
                engine._send = lambda *_: None  # type: ignore[method-assign]
            else:
                at.patiently()
            return engine

    script = Script()
    async with linked(script, wait=False, start_timeout=0.02) as at:
        at.link.engines[0]._supervisor._launcher = silent = Silent(script)
        await at.until_ready()
        assert len(silent.engines) == 2
        (line,) = [line for line in at.logs if line["event"] == "engine_failed_to_load"]
        assert line["why"] == "was not ready in time"


async def test_a_silent_engine_is_replaced() -> None:
    async with linked(stall_timeout=0.05) as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: len(at.script.submitted) == 1)
        at.patiently()  # from the next engine on: this one's time runs
        await at.script.until(lambda: len(at.script.submitted) == 2)
        at.script.release.set()
        await job
        assert "was silent for too long" in [line.get("why") for line in at.logs]


async def test_an_engine_that_never_says_a_word_once_it_is_ready_is_replaced() -> None:
    async with linked(stall_timeout=0.02) as at:
        await at.script.until(lambda: at.script.lives == 2)
        assert "was silent for too long" in [line.get("why") for line in at.logs]


async def test_an_engine_that_breaks_the_protocol_is_replaced() -> None:
    async with linked() as at:
        at.launcher.engines[0]._writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await at.script.until(lambda: at.script.lives == 2)
        assert any("broke the protocol" in str(line.get("why")) for line in at.logs)


async def test_an_image_that_was_not_asked_for_breaks_the_protocol() -> None:
    async with linked() as at:
        job = asyncio.create_task(at.job(submit("a", "HOLD")))
        await at.script.until(lambda: "a" in at.script.held)
        at.launcher.engines[0]._send(ImageReady(job_id="a", index=1, seed=0), np.zeros((64, 64, 3), np.uint8))
        await at.script.until(lambda: len(at.script.submitted) == 2)
        at.script.release.set()
        assert images(await job) == [(0, 10)]
        assert any("image 1 of a job of 1" in str(line.get("why")) for line in at.logs)


async def test_a_bug_of_ours_in_hearing_an_engine_costs_that_engine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise IndexError("ours")

    async with linked() as at:
        monkeypatch.setattr(at.link.engines[0].observer, "tick", broken)
        assert images(await at.job(submit("a"))) == [(0, 10)]
        assert at.script.lives == 2
        (line,) = [line for line in at.logs if line["event"] == "engine_link_failed"]
        assert isinstance(line["exc_info"], IndexError)


async def test_a_connection_that_cannot_be_opened_costs_that_engine_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> Connection:
        monkeypatch.undo()
        raise ValueError("ours")

    monkeypatch.setattr(Connection, "open", broken)
    async with linked() as at:
        assert len(at.launcher.engines) == 2
        assert images(await at.job(submit("a"))) == [(0, 10)]


async def test_a_bug_of_ours_when_an_engine_is_lost_or_launched_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("ours")

    async with linked() as at:
        monkeypatch.setattr(at.link.engines[0].observer, "engine_lost", broken)
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives == 2)
        assert "supervision_failed" in [line["event"] for line in at.logs]
        monkeypatch.setattr(at.launcher, "launch", broken)
        at.launcher.engines[1].kill()
        await at.script.until(lambda: at.script.lives == 3)
        assert "engine_not_started" in [line["event"] for line in at.logs]
        await at.until_ready()
        assert images(await at.job(submit("a"))) == [(0, 10)]


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


async def test_an_engine_that_cannot_start_at_all_is_not_tried_again() -> None:
    async with linked(Script(loads=False, exit_status=CANNOT_START), wait=False) as at:
        await at.link.cannot_start.wait()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert at.script.lives == 1
        (line,) = [line for line in at.logs if line["event"] == "engine_cannot_start"]
        assert line["how"] == "exit status 2"


async def test_an_engine_that_was_ready_once_is_tried_again_whatever_it_says() -> None:
    async with linked(Script(exit_status=CANNOT_START)) as at:
        at.script.loads = False
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives >= 3)
        at.script.loads = True
        at.changed.clear()
        await at.until_ready()
        assert not at.link.cannot_start.is_set()


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


async def test_other_weights_after_a_restart_are_told() -> None:
    async with linked() as at:
        changed = msgspec.structs.replace(at.script.ready.model.adapters[0], weights_hash="other")
        at.script.ready = ready_message(weights_hash="other", adapters=(changed,))
        at.launcher.engines[0].kill()
        await at.script.until(lambda: at.script.lives == 2)
        await at.job(submit("a"))
        assert at.link.facts().weights_hash == "other"
        assert "model_changed" in [line["event"] for line in at.logs]


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
