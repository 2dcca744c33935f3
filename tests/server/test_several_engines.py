"""Several engines of one model: which gets what, and what the death of one costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from limner.v1.model_service_pb2 import ListModelsRequest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateResponse

from engine.protocol.messages import FailureReason, Submit
from server.config.engine_options import EngineOptions
from server.engine_link.work import Encoding, Job
from server.errors import DeadlineInfeasibleError
from tests.server.answers import refused
from tests.server.fake_engine import Script, ready_message
from tests.server.imaging.pictures import file_of, scenery
from tests.server.linked import submit
from tests.server.running import Serving, run_server, until, until_ready

PNG = file_of(scenery(), "PNG")


def options(**others: Any) -> EngineOptions:
    delays = {"restart_delay_seconds": 0.001, "restart_delay_max_seconds": 0.01}
    return EngineOptions(devices=("cpu", "cpu"), **(delays | others))


def pair(first: Script | None = None, second: Script | None = None, **others: Any) -> Any:
    return run_server(first or Script(), second or Script(), engine=options(**others))


async def generate(serving: Serving, prompt: str = "HOLD", **fields: Any) -> GenerateResponse:
    spec = PortraitSpec(prompt=prompt, **fields)
    answer: GenerateResponse = await serving.portraits.Generate(GenerateRequest(portrait=spec))
    return answer


async def held(serving: Serving, prompt: str = "HOLD", **fields: Any) -> asyncio.Task[GenerateResponse]:
    """Begin a call, and wait until one of the engines has it."""
    scripts = [launcher.script for launcher in serving.launchers]
    before = sum(len(script.held) for script in scripts)
    call = asyncio.create_task(generate(serving, prompt, **fields))
    await until(lambda: sum(len(script.held) for script in scripts) > before)
    return call


def prompts(serving: Serving) -> list[list[str]]:
    """What each engine was asked for."""
    return [[asked.prompt for asked in launcher.script.submitted] for launcher in serving.launchers]


def release(serving: Serving) -> None:
    for launcher in serving.launchers:
        launcher.script.release.set()


async def readiness(serving: Serving) -> Any:
    return (await serving.health.Check(HealthCheckRequest(service="readiness"))).status


async def test_a_request_goes_to_the_engine_with_the_least_to_do() -> None:
    async with pair() as serving:
        calls = [
            await held(serving, "HOLD a of four", image_count=4),
            await held(serving, "HOLD b"),
            await held(serving, "HOLD c", image_count=2),
            await held(serving, "HOLD d"),
            await held(serving, "HOLD e"),
        ]
        assert prompts(serving) == [
            ["HOLD a of four", "HOLD e"],
            ["HOLD b", "HOLD c", "HOLD d"],
        ]
        release(serving)
        assert [len((await call).images) for call in calls] == [4, 1, 2, 1, 1]
        await generate(serving, "after all")
        assert prompts(serving)[0][-1] == "after all"


async def test_an_engine_that_takes_longer_for_a_row_gets_less() -> None:
    slow = Script(ready=msgspec.structs.replace(ready_message(), tick_seconds={"1": 0.004, "2": 0.006}))
    async with pair(slow) as serving:
        calls = [await held(serving, f"HOLD {number}") for number in range(4)]
        assert [len(each) for each in prompts(serving)] == [1, 3]
        release(serving)
        await asyncio.gather(*calls)


async def test_references_are_encoded_by_whichever_has_time() -> None:
    async with pair() as serving:
        call = await held(serving)
        await generate(serving, "a sailor", reference_image=PNG)
        assert [launcher.script.encoded for launcher in serving.launchers] == [0, 1]
        release(serving)
        await call


async def test_what_a_dead_engine_had_goes_to_the_other_at_once() -> None:
    async with pair() as serving:
        calls = [await held(serving, f"HOLD {number}") for number in range(2)]
        serving.script.loads = False
        serving.launcher.engines[0].kill()
        await until(lambda: prompts(serving) == [["HOLD 0"], ["HOLD 1", "HOLD 0"]])
        assert await readiness(serving) == HealthCheckResponse.SERVING
        release(serving)
        assert [len((await call).images) for call in calls] == [1, 1]
        value = serving.app.metrics.registry.get_sample_value
        assert [value("limner_engine_ready", {"engine": each}) for each in "01"] == [0, 1]
        assert [value("limner_jobs_replayed_total", {"engine": each}) for each in "01"] == [1, 0]
        serving.script.loads = True
        await until(lambda: value("limner_engine_ready", {"engine": "0"}) == 1)
        await generate(serving, "back")
        assert prompts(serving)[0] == ["HOLD 0", "back"]


async def test_the_server_is_not_ready_while_all_are_away_and_then_one_is_enough() -> None:
    async with pair(patience_seconds=0.2) as serving:
        for launcher in serving.launchers:
            launcher.script.loads = False
            launcher.engines[0].kill()
        told = await refused(
            serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
        )
        assert (told.code, told.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
        assert await readiness(serving) == HealthCheckResponse.NOT_SERVING
        serving.launchers[1].script.loads = True
        await until_ready(serving)
        assert len((await generate(serving, "a sailor")).images) == 1


async def test_the_server_is_ready_once_every_engine_was() -> None:
    late = Script(loads=False)
    async with run_server(Script(), late, engine=options(), wait=False) as serving:
        await serving.script.until(lambda: serving.script.lives)
        await late.until(lambda: late.lives > 2)
        assert await readiness(serving) == HealthCheckResponse.NOT_SERVING
        late.loads = True
        await until_ready(serving)


async def test_a_request_that_kills_two_engines_fails_alone() -> None:
    async with pair() as serving:
        call = await held(serving, "HOLD")
        told = await refused(serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="DIE"))))
        assert told.reason == "POISON"
        await until(lambda: [launcher.script.lives for launcher in serving.launchers] == [2, 2])
        release(serving)
        assert len((await call).images) == 1


async def test_a_cancelled_call_leaves_the_engine_that_has_it() -> None:
    async with pair() as serving:
        first, second = await held(serving), await held(serving)
        second.cancel()
        await until(lambda: serving.launchers[1].script.cancelled)
        assert serving.script.cancelled == []
        release(serving)
        await first


async def test_what_one_engine_has_refused_is_asked_of_the_other_and_then_of_none() -> None:
    scripts = [Script(fail_with=FailureReason.INFEASIBLE, retry_after=0.5) for _ in range(2)]
    async with pair(*scripts) as serving:
        link = serving.app.engines.default
        link._clock = lambda: 100.0
        for count in range(4):
            inbox: asyncio.Queue[object] = asyncio.Queue()
            if count > 1:
                with pytest.raises(DeadlineInfeasibleError):
                    link.check(submit(f"{count}"), deadline=101.0)
                continue
            link.check(submit(f"{count}"), deadline=101.0)
            with link.run(submit(f"{count}"), None, deadline=101.0, inbox=inbox):
                while not isinstance(await inbox.get(), DeadlineInfeasibleError):
                    pass
        assert prompts(serving) == [["a sailor"], ["a sailor"]]


async def test_engines_of_different_weights_are_told_of() -> None:
    other = Script(ready=ready_message(weights_hash="5a11" * 16))
    async with pair(second=other) as serving:
        assert len(serving.lines("model_changed")) == 1


async def test_a_model_is_listed_once_and_its_engines_have_numbers_of_their_own() -> None:
    small = [Script(ready=ready_message(name="small", max_size=64)) for _ in range(2)]
    settings = options(models=("/models/small",))
    async with run_server(Script(), Script(), *small, engine=settings) as serving:
        models = (await serving.models.ListModels(ListModelsRequest())).models
        assert [(model.name, model.max_size) for model in models] == [("fake", 128), ("small", 64)]
        await generate(serving, "one", model="small", steps=3)
        assert prompts(serving) == [[], [], ["one"], []]
        value = serving.app.metrics.registry.get_sample_value
        assert [value("limner_ticks_total", {"engine": each, "bucket": "2"}) for each in "0123"] == [
            0,
            0,
            3,
            0,
        ]


@pytest.mark.parametrize(
    ("changes", "effort"),
    [
        ({}, 3 * 2 * 64 * 64),
        ({"seeds": (1, 2)}, 2 * 3 * 2 * 64 * 64),
        ({"guidance_scale": 1.0}, 3 * 64 * 64),
        ({"guidance_start": 0.25, "guidance_end": 0.75}, 3 * 1.5 * 64 * 64),
        ({"width": 32, "height": 128}, 3 * 2 * 64 * 64),
    ],
)
def test_a_job_is_as_much_work_as_its_rows_have_pixels(changes: dict[str, Any], effort: float) -> None:
    asked: Submit = msgspec.structs.replace(submit("job"), **changes)
    assert Job(asked, None, deadline=None, inbox=asyncio.Queue()).effort == effort


async def test_an_encode_is_as_much_as_a_row_of_its_size() -> None:
    future = asyncio.get_running_loop().create_future()
    assert Encoding("encode", np.zeros((32, 32, 3), np.uint8), future).effort == 32 * 32


async def test_what_kills_all_engines_at_once_is_nobodys_fault() -> None:
    async with pair() as serving:
        calls = [await held(serving, f"HOLD {number}") for number in range(4)]
        for launcher in serving.launchers:
            launcher.engines[0].kill()
        await until(lambda: [launcher.script.lives for launcher in serving.launchers] == [2, 2])
        release(serving)
        assert [len((await call).images) for call in calls] == [1] * 4


@asynccontextmanager
async def dying(serving: Serving, number: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Have an engine close its socket, and end no sooner than the block does."""
    engine = serving.launchers[number].engines[0]
    ended, wait = asyncio.Event(), engine.wait

    async def slowly() -> str:
        await ended.wait()
        return await wait()

    monkeypatch.setattr(engine, "wait", slowly)
    engine._writer.transport.abort()
    await until(lambda: not serving.app.engines.default.engines[number].is_ready)
    yield
    ended.set()


async def test_an_engine_that_takes_its_time_to_end_is_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as serving, dying(serving, 0, monkeypatch):
        assert len((await generate(serving, "a sailor")).images) == 1
        assert prompts(serving) == [[], ["a sailor"]]


async def test_what_a_dead_engine_had_is_not_sent_to_one_that_is_dying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would have a second death there, of which it knew nothing."""
    async with pair() as serving:
        calls = [await held(serving, f"HOLD {number}") for number in range(2)]
        async with dying(serving, 1, monkeypatch):
            serving.launcher.engines[0].kill()
            await until(lambda: serving.launcher.script.lives == 2)
        release(serving)
        assert [len((await call).images) for call in calls] == [1, 1]
        assert not serving.lines("job_poisoned")
