"""Several models in one server: which engine gets what, whose limits hold, and what one model's death costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from limner.v1 import portrait_pb2
from limner.v1.model_service_pb2 import ListModelsRequest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateResponse
from limner.v1.reference_service_pb2 import (
    DeleteReferenceRequest,
    GetReferenceRequest,
    UploadReferenceRequest,
)

from engine.protocol.messages import AdapterInfo
from server.config.engine_options import EngineOptions
from server.config.options import DrainOptions
from server.imaging.encode import read_parameters
from tests.server.answers import refused
from tests.server.fake_engine import ADAPTERS, Script, ready_message
from tests.server.imaging.pictures import file_of, scenery
from tests.server.running import Serving, run_server, until, until_ready

PNG = file_of(scenery(), "PNG")
MISS, HIT = portrait_pb2.CACHE_OUTCOME_MISS, portrait_pb2.CACHE_OUTCOME_HIT
OWN = AdapterInfo(name="base", kind="base", tokens=4, weights_hash="0e11" * 16)
"""Of the adapter's name in the first model, with other weights."""


def options(*models: str, **others: Any) -> EngineOptions:
    return EngineOptions(models=models, restart_delay_seconds=0.001, restart_delay_max_seconds=0.01, **others)


def small(adapters: tuple[AdapterInfo, ...] = (OWN,)) -> Script:
    """The second model: takes smaller pictures and has fewer adapters and presets."""
    ready = ready_message(max_size=64, adapters=adapters, reference_layers=("all",), weights_hash="5a11" * 16)
    return Script(ready=ready)


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    async with run_server(Script(), small(), engine=options("/models/small")) as running:
        yield running


def asked(prompt: str = "a sailor", *, key: str = "", **fields: Any) -> GenerateRequest:
    return GenerateRequest(portrait=PortraitSpec(prompt=prompt, **fields), idempotency_key=key)


async def generate(serving: Serving, prompt: str = "a sailor", **fields: Any) -> GenerateResponse:
    answer: GenerateResponse = await serving.portraits.Generate(asked(prompt, **fields))
    return answer


def prompts(serving: Serving) -> list[list[str]]:
    """What each model's engine was asked for."""
    return [[submit.prompt for submit in launcher.script.submitted] for launcher in serving.launchers]


async def readiness(serving: Serving) -> Any:
    return (await serving.health.Check(HealthCheckRequest(service="readiness"))).status


async def test_all_models_are_listed_with_their_own_limits_the_default_first(serving: Serving) -> None:
    models = (await serving.models.ListModels(ListModelsRequest())).models
    assert [(model.name, model.max_size) for model in models] == [("fake", 128), ("small", 64)]
    assert [list(model.adapters) for model in models] == [["base", "plus"], ["base"]]


async def test_the_request_chooses_the_model(serving: Serving) -> None:
    answers = [
        await generate(serving, f"for {model}", model=model) for model in ("", "fake", "small", "small")
    ]
    assert prompts(serving) == [["for ", "for fake"], ["for small", "for small"]]
    assert [answer.summary.parameters.model for answer in answers] == ["fake", "fake", "small", "small"]
    assert [line["model"] for line in serving.lines("call")] == ["fake", "fake", "small", "small"]
    # The pictures say whose they are.
    written = [read_parameters(answers[index].images[0].data) for index in (0, 2)]
    assert [(each.model, each.weights_hash[:4]) for each in written if each] == [
        ("fake", "5eed"),
        ("small", "5a11"),
    ]


async def test_a_model_that_is_not_served_is_named_with_the_choices(serving: Serving) -> None:
    for field, call in (
        ("portrait.model", serving.portraits.Generate(asked(model="huge"))),
        ("model", serving.references.UploadReference(UploadReferenceRequest(image=PNG, model="huge"))),
    ):
        told = await refused(call)
        assert (told.code, told.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")
        assert told.metadata["model"] == "huge"
        assert list(told.violations) == [field]
        assert "one of fake, small" in told.violations[field]
    assert prompts(serving) == [[], []]


@pytest.mark.parametrize(
    ("fields", "field", "limit"),
    [
        ({"width": 128, "height": 128}, "portrait.width", "32 to 64 pixels"),
        ({"reference_image": PNG, "adapter": "plus"}, "portrait.adapter", "one of base"),
        (
            {"reference_image": PNG, "reference_layers": portrait_pb2.REFERENCE_LAYERS_STYLE},
            "portrait.reference_layers",
            "one of ALL",
        ),
    ],
)
async def test_the_limits_are_those_of_the_chosen_model(
    serving: Serving, fields: dict[str, Any], field: str, limit: str
) -> None:
    await generate(serving, **fields)
    told = await refused(serving.portraits.Generate(asked(model="small", **fields)))
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert limit in told.violations[field]


async def test_an_upload_is_held_to_the_adapters_of_its_model(serving: Serving) -> None:
    request = UploadReferenceRequest(image=PNG, model="small", adapter="plus")
    told = await refused(serving.references.UploadReference(request))
    assert "one of base" in told.violations["adapter"]


async def test_a_digest_serves_the_models_that_it_was_uploaded_for(serving: Serving) -> None:
    uploaded = await serving.references.UploadReference(UploadReferenceRequest(image=PNG))
    digest = uploaded.reference.digest
    told = await refused(serving.portraits.Generate(asked(model="small", reference_digest=digest)))
    assert told.reason == "REFERENCE_NOT_FOUND"
    again = await serving.references.UploadReference(UploadReferenceRequest(image=PNG, model="small"))
    assert (again.reference.digest, again.cache_outcome) == (digest, MISS)
    for model in ("fake", "small"):
        answer = await generate(serving, model=model, reference_digest=digest)
        assert answer.summary.reference.cache_outcome == HIT
    assert [launcher.script.encoded for launcher in serving.launchers] == [1, 1]
    assert (await serving.references.GetReference(GetReferenceRequest(digest=digest))).reference.width
    await serving.references.DeleteReference(DeleteReferenceRequest(digest=digest))
    for model in ("fake", "small"):
        told = await refused(serving.portraits.Generate(asked(model=model, reference_digest=digest)))
        assert told.reason == "REFERENCE_NOT_FOUND"


async def test_models_with_the_same_adapter_share_what_was_uploaded_for_one() -> None:
    async with run_server(Script(), small(ADAPTERS[:1]), engine=options("/models/small")) as serving:
        uploaded = await serving.references.UploadReference(UploadReferenceRequest(image=PNG, model="small"))
        answer = await generate(serving, reference_digest=uploaded.reference.digest)
        assert answer.summary.reference.cache_outcome == HIT
        assert [launcher.script.encoded for launcher in serving.launchers] == [0, 1]


async def test_an_encode_that_hangs_in_one_engine_holds_up_no_other_model() -> None:
    first = Script(hold_encodes=True)
    async with run_server(first, small(ADAPTERS[:1]), engine=options("/models/small")) as serving:
        waiting = asyncio.create_task(generate(serving, reference_image=PNG))
        await until(lambda: serving.app.engines.default.in_flight)
        answer = await generate(serving, model="small", reference_image=PNG)
        assert answer.summary.reference.cache_outcome == MISS
        assert not waiting.done()
        first.release.set()
        assert len((await waiting).images) == 1


async def test_the_server_is_ready_when_every_model_is() -> None:
    late = Script(loads=False)
    async with run_server(Script(), late, wait=False, engine=options("/models/small")) as serving:
        await until(lambda: serving.app.engines.default.is_ready)
        assert await readiness(serving) == HealthCheckResponse.NOT_SERVING
        # The one that is ready serves all the same, and of the other one nothing is known yet.
        assert len((await generate(serving)).images) == 1
        for call in (
            serving.portraits.Generate(asked(model="small")),
            serving.models.ListModels(ListModelsRequest()),
        ):
            told = await refused(call)
            assert (told.code, told.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
        late.loads = True
        await until_ready(serving)
        assert len((await generate(serving, model="small")).images) == 1


async def test_a_dead_engine_costs_its_own_model_alone() -> None:
    second = small()
    settings = options("/models/small", patience_seconds=0.2)
    async with run_server(Script(), second, engine=settings) as serving:
        held = asyncio.create_task(generate(serving, "HOLD"))
        await serving.script.until(lambda: serving.script.held)
        second.loads = False
        serving.launchers[1].engines[0].kill()
        # It waits for the next engine, as far as patience goes.
        told = await refused(serving.portraits.Generate(asked(model="small")))
        assert (told.code, told.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
        assert await readiness(serving) == HealthCheckResponse.NOT_SERVING
        assert len((await generate(serving)).images) == 1
        models = (await serving.models.ListModels(ListModelsRequest())).models
        assert [model.name for model in models] == ["fake", "small"]
        serving.script.release.set()
        assert len((await held).images) == 1
        assert serving.script.lives == 1
        second.loads = True
        await until_ready(serving)
        assert len((await generate(serving, model="small")).images) == 1
        assert [line["engine"] for line in serving.lines("engine_lost")] == ["1"]


async def test_each_engine_replays_its_own_work(serving: Serving) -> None:
    calls = [
        asyncio.create_task(generate(serving, f"HOLD {model}", model=model)) for model in ("fake", "small")
    ]
    for launcher in serving.launchers:
        await launcher.script.until(lambda script=launcher.script: script.held)
    serving.launchers[1].engines[0].kill()
    second = serving.launchers[1].script
    await second.until(lambda: len(second.submitted) == 2)
    for launcher in serving.launchers:
        launcher.script.release.set()
    assert [answer.summary.parameters.model for answer in await asyncio.gather(*calls)] == ["fake", "small"]
    assert prompts(serving) == [["HOLD fake"], ["HOLD small", "HOLD small"]]


async def test_an_idempotency_key_belongs_to_one_model(serving: Serving) -> None:
    first = await serving.portraits.Generate(asked(model="small", key="k"))
    assert await serving.portraits.Generate(asked(model="small", key="k")) == first
    told = await refused(serving.portraits.Generate(asked(model="fake", key="k")))
    assert told.reason == "IDEMPOTENCY_CONFLICT"
    assert prompts(serving) == [[], ["a sailor"]]


async def test_a_drain_waits_for_every_model() -> None:
    drain = DrainOptions(notice_seconds=0, grace_seconds=60)
    async with run_server(Script(), small(), engine=options("/models/small"), drain=drain) as serving:
        calls = [asyncio.create_task(generate(serving, "HOLD", model=model)) for model in ("fake", "small")]
        for launcher in serving.launchers:
            await launcher.script.until(lambda script=launcher.script: script.held)
        draining = asyncio.create_task(serving.app.drain())
        await until(lambda: serving.app.gate.is_closed)
        assert (await refused(serving.portraits.Generate(asked(model="small")))).reason == "DRAINING"
        for launcher, call in zip(serving.launchers, calls, strict=True):
            assert not draining.done()
            launcher.script.release.set()
            assert len((await call).images) == 1
        await draining
        await serving.app.stop()
        assert [launcher.script.cancelled for launcher in serving.launchers] == [[], []]


async def test_the_metrics_tell_the_engines_apart(serving: Serving) -> None:
    await generate(serving, model="small", steps=3)
    value = serving.app.metrics.registry.get_sample_value
    assert [value("limner_ticks_total", {"engine": each, "bucket": "2"}) for each in "01"] == [0, 3]
    assert [value("limner_engine_ready", {"engine": each}) for each in "01"] == [1, 1]
    labels = {"family": "sd1", "backend": "fake", "device": "none"}
    small_one = labels | {"engine": "1", "model": "small", "weights_hash": "5a11" * 16}
    assert value("limner_model_info", small_one) == 1


async def test_a_model_that_cannot_start_ends_the_server() -> None:
    hopeless = Script(loads=False, exit_status=2)
    async with run_server(Script(), hopeless, wait=False, engine=options("/models/small")) as serving:
        await serving.app.engines.wait_until_hopeless()
        assert [line["engine"] for line in serving.lines("engine_cannot_start")] == ["1"]


async def test_a_name_that_the_default_model_has_already_ends_the_server() -> None:
    async with run_server(Script(), small(), wait=False, engine=options("fake=/models/small")) as serving:
        await serving.app.engines.wait_until_hopeless()
        assert serving.lines("model_name_ambiguous")[0]["model"] == "fake"
        assert await readiness(serving) == HealthCheckResponse.NOT_SERVING


async def test_the_default_model_can_be_named() -> None:
    named = options("fake=/models/small", model="portraits=/models/fake")
    async with run_server(Script(), small(), engine=named) as serving:
        models = (await serving.models.ListModels(ListModelsRequest())).models
        assert [(model.name, model.max_size) for model in models] == [("portraits", 128), ("fake", 64)]
        assert (await generate(serving, model="fake")).summary.parameters.model == "fake"
        assert prompts(serving) == [[], ["a sailor"]]
