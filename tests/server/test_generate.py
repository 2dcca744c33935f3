from __future__ import annotations

import asyncio
import io
from typing import Any

import grpc
import pytest
from limner.v1 import portrait_pb2
from limner.v1.model_service_pb2 import GetLimitsRequest, ListModelsRequest
from limner.v1.portrait_pb2 import PortraitSpec
from limner.v1.portrait_service_pb2 import GenerateRequest, GenerateStreamRequest
from limner.v1.reference_service_pb2 import (
    DeleteReferenceRequest,
    GetReferenceRequest,
    UploadReferenceRequest,
)
from PIL import Image

from engine.protocol.messages import FailureReason
from server.config.options import LogOptions
from server.imaging.encode import read_parameters
from tests.server.answers import drained, refused
from tests.server.fake_engine import Script, ready_message
from tests.server.imaging.pictures import file_of, scenery
from tests.server.running import Serving, run_server

PNG = file_of(scenery(), "PNG")


def pixel(data: bytes) -> Any:
    return Image.open(io.BytesIO(data)).getpixel((0, 0))


async def test_images_come_in_order_with_derived_seeds(serving: Serving) -> None:
    spec = PortraitSpec(prompt="a sailor", seed=2**63 - 1, image_count=3)
    answer = await serving.portraits.Generate(GenerateRequest(portrait=spec))
    assert [(image.index, image.seed) for image in answer.images] == [(0, 2**63 - 1), (1, 0), (2, 1)]
    assert [pixel(image.data)[0] for image in answer.images] == [255, 0, 1]
    assert answer.summary.parameters.seed == 2**63 - 1


@pytest.mark.parametrize(("asked", "end"), [(None, 1.0), (0.0, 0.0)])
async def test_where_guidance_ends_is_told_even_where_that_is_the_beginning(
    serving: Serving, asked: float | None, end: float
) -> None:
    spec = PortraitSpec(prompt="a sailor", guidance_end=asked)
    used = (await serving.portraits.Generate(GenerateRequest(portrait=spec))).summary.parameters
    assert used.HasField("guidance_end")
    assert used.guidance_end == end


async def test_a_seed_is_drawn_when_none_is_given(serving: Serving) -> None:
    first, second = [
        await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
        for _ in range(2)
    ]
    assert first.images[0].seed == first.summary.parameters.seed != second.images[0].seed
    assert 0 <= first.images[0].seed < 2**63


async def test_defaults_are_the_models_and_are_told(serving: Serving) -> None:
    answer = await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
    used = answer.summary.parameters
    assert (used.model, used.steps, used.guidance_scale, used.width, used.height) == ("fake", 4, 3.0, 64, 64)
    assert used.sampler == portrait_pb2.SAMPLER_DPMPP_2M
    assert used.prompt == "a sailor"
    timings = answer.summary.timings
    assert (timings.queue_seconds, timings.encode_prompt_seconds) == (0.01, 0.002)
    assert (timings.denoise_seconds, timings.decode_latents_seconds, timings.mean_batch_rows) == (
        0.03,
        0.004,
        2.0,
    )
    assert 0 < timings.encode_output_seconds <= timings.total_seconds


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (portrait_pb2.IMAGE_FORMAT_UNSPECIFIED, "PNG"),
        (portrait_pb2.IMAGE_FORMAT_PNG, "PNG"),
        (portrait_pb2.IMAGE_FORMAT_JPEG, "JPEG"),
        (portrait_pb2.IMAGE_FORMAT_WEBP, "WEBP"),
    ],
)
async def test_formats_and_what_is_embedded(serving: Serving, number: Any, name: str) -> None:
    spec = PortraitSpec(
        prompt="a sailor", negative_prompt="hat", seed=5, image_count=2, format=number, reference_image=PNG
    )
    answer = await serving.portraits.Generate(GenerateRequest(portrait=spec))
    image = answer.images[1]
    assert Image.open(io.BytesIO(image.data)).format == name
    assert (image.width, image.height) == (64, 64)
    embedded = read_parameters(image.data)
    assert embedded is not None
    assert (embedded.task_id, embedded.index, embedded.seed) == (answer.task_id, 1, 6)
    assert (embedded.prompt, embedded.negative_prompt, embedded.sampler) == ("a sailor", "hat", "dpmpp_2m")
    assert embedded.reference == answer.summary.reference.digest != ""


async def test_the_stream_tells_everything_and_ends_with_completed(serving: Serving) -> None:
    spec = PortraitSpec(prompt="a sailor", seed=1, image_count=2)
    request = GenerateStreamRequest(portrait=spec, preview_interval=2)
    news = await drained(serving.portraits.GenerateStream(request))
    kinds = [message.WhichOneof("event") for message in news]
    assert kinds[0] == "queued"
    assert kinds[-1] == "completed"
    assert [message.progress.step for message in news if message.HasField("progress")] == [1, 2, 3, 4]
    assert sorted(message.image.index for message in news if message.HasField("image")) == [0, 1]
    previews = [message.preview for message in news if message.HasField("preview")]
    assert previews
    assert Image.open(io.BytesIO(previews[0].data)).size == (8, 8)
    assert len({message.task_id for message in news}) == 1
    assert kinds.index("image") > max(i for i, kind in enumerate(kinds) if kind == "preview")


async def test_no_previews_unless_asked_for(serving: Serving) -> None:
    news = await drained(
        serving.portraits.GenerateStream(GenerateStreamRequest(portrait=PortraitSpec(prompt="x")))
    )
    assert "preview" not in {message.WhichOneof("event") for message in news}


async def test_upload_once_and_generate_by_digest(serving: Serving) -> None:
    uploaded = await serving.references.UploadReference(UploadReferenceRequest(image=PNG))
    assert uploaded.cache_outcome == portrait_pb2.CACHE_OUTCOME_MISS
    again = await serving.references.UploadReference(UploadReferenceRequest(image=PNG))
    assert again.cache_outcome == portrait_pb2.CACHE_OUTCOME_HIT
    digest = uploaded.reference.digest
    known = await serving.references.GetReference(GetReferenceRequest(digest=digest))
    assert known.reference == uploaded.reference
    spec = PortraitSpec(prompt="a sailor", reference_digest=digest)
    answer = await serving.portraits.Generate(GenerateRequest(portrait=spec))
    assert answer.summary.reference.digest == digest
    assert answer.summary.reference.cache_outcome == portrait_pb2.CACHE_OUTCOME_HIT
    assert answer.summary.parameters.ip_adapter_scale == 1.0
    assert serving.script.encoded == 1
    await serving.references.DeleteReference(DeleteReferenceRequest(digest=digest))
    told = await refused(serving.portraits.Generate(GenerateRequest(portrait=spec)))
    assert (told.code, told.reason) == ("NOT_FOUND", "REFERENCE_NOT_FOUND")


async def test_a_tenants_references_are_its_own(serving: Serving) -> None:
    mine = (("x-limner-tenant", "acme"),)
    uploaded = await serving.references.UploadReference(UploadReferenceRequest(image=PNG), metadata=mine)
    question = GetReferenceRequest(digest=uploaded.reference.digest)
    await serving.references.GetReference(question, metadata=mine)
    assert (await refused(serving.references.GetReference(question))).reason == "REFERENCE_NOT_FOUND"


async def test_64_requests_with_one_new_reference_make_one_encode(serving: Serving) -> None:
    spec = PortraitSpec(prompt="a sailor", reference_image=PNG)
    calls = [serving.portraits.Generate(GenerateRequest(portrait=spec)) for _ in range(64)]
    outcomes = [(await call).summary.reference.cache_outcome for call in calls]
    assert serving.script.encoded == 1
    assert outcomes.count(portrait_pb2.CACHE_OUTCOME_MISS) == 1


@pytest.mark.parametrize(
    ("spec", "code", "field"),
    [
        (PortraitSpec(guidance_scale=15), "GUIDANCE_HIGH", "guidance_scale"),
        (PortraitSpec(guidance_scale=1, negative_prompt="hat"), "NEGATIVE_PROMPT_UNUSED", "negative_prompt"),
        (PortraitSpec(ip_adapter_scale=0, reference_image=PNG), "REFERENCE_UNUSED", "ip_adapter_scale"),
        (
            PortraitSpec(reference_image=file_of(scenery(20, 20), "PNG")),
            "REFERENCE_SMALL",
            "reference_image",
        ),
    ],
)
async def test_warnings(serving: Serving, spec: PortraitSpec, code: str, field: str) -> None:
    spec.prompt = "a sailor"
    answer = await serving.portraits.Generate(GenerateRequest(portrait=spec))
    found = {portrait_pb2.WarningCode.Name(warning.code): warning for warning in answer.summary.warnings}
    warning = found[f"WARNING_CODE_{code}"]
    assert warning.field == f"portrait.{field}"
    assert warning.message
    assert warning.action


async def test_models_and_limits(serving: Serving) -> None:
    (model,) = (await serving.models.ListModels(ListModelsRequest())).models
    assert (model.name, model.size_multiple, list(model.buckets)) == ("fake", 16, [1, 2, 4])
    assert model.samplers[0].sampler == portrait_pb2.SAMPLER_DPMPP_2M
    assert {limits.max_steps for limits in model.samplers} == {50, 200}
    limits = (await serving.models.GetLimits(GetLimitsRequest())).limits
    assert (limits.max_steps, limits.max_images, limits.max_requests_in_flight) == (100, 8, 256)


async def test_a_model_without_adapter_takes_no_references() -> None:
    async with run_server(Script(ready=ready_message(adapters=()))) as serving:
        spec = PortraitSpec(prompt="a sailor", reference_image=PNG)
        told = await refused(serving.portraits.Generate(GenerateRequest(portrait=spec)))
        assert list(told.violations) == ["portrait.reference_image"]
        told = await refused(serving.references.UploadReference(UploadReferenceRequest(image=PNG)))
        assert list(told.violations) == ["image"]
        await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))


async def test_the_request_id_is_taken_over_and_returned(serving: Serving) -> None:
    call = serving.portraits.Generate(
        GenerateRequest(portrait=PortraitSpec(prompt="a sailor")), metadata=(("x-request-id", "mine-1"),)
    )
    await call
    assert ("x-request-id", "mine-1") in list(await call.trailing_metadata())
    told = await refused(serving.portraits.Generate(GenerateRequest()))
    assert len(told.trailing["x-request-id"]) == 32
    assert [line["request_id"] for line in serving.lines("call")] == ["mine-1", told.trailing["x-request-id"]]


async def test_the_access_log_has_every_timing_and_no_prompt(serving: Serving) -> None:
    spec = PortraitSpec(prompt="a secret sailor", negative_prompt="secret hat", reference_image=PNG)
    await serving.portraits.Generate(GenerateRequest(portrait=spec))
    (line,) = serving.lines("call")
    for name in (
        "decode_input",
        "reference",
        "queue",
        "encode_prompt",
        "denoise",
        "decode_latents",
        "encode_output",
    ):
        assert isinstance(line[f"{name}_seconds"], float)
    assert line["seconds"] > 0
    assert (line["code"], line["cache"], line["tenant"], line["steps"]) == ("OK", "miss", "default", 4)
    assert "secret" not in str(serving.logs)


async def test_prompts_are_logged_where_configured() -> None:
    async with run_server(log=LogOptions(prompts=True)) as serving:
        await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
        assert serving.lines("call")[0]["prompt"] == "a sailor"


async def test_a_bug_of_ours_reaches_nobody_but_the_log(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/etc/secret")

    monkeypatch.setattr(serving.app.engines.default, "ready", broken)
    told = await refused(
        serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
    )
    assert (told.code, told.reason) == ("INTERNAL", "INTERNAL")
    assert "secret" not in str(told)
    (line,) = serving.lines("call_failed")
    assert line["request_id"] == told.metadata["request_id"]


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (FailureReason.INFEASIBLE, "RESOURCE_EXHAUSTED", "DEADLINE_INFEASIBLE"),
        (FailureReason.QUEUE_FULL, "RESOURCE_EXHAUSTED", "OVERLOADED"),
        (FailureReason.DEADLINE, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
        (FailureReason.NUMERICAL, "INTERNAL", "NUMERICAL_FAILURE"),
        (FailureReason.INTERNAL, "INTERNAL", "INTERNAL"),
    ],
)
async def test_what_the_engine_refuses(failure: FailureReason, code: str, reason: str) -> None:
    async with run_server(Script(fail_with=failure, retry_after=1.0)) as serving:
        told = await refused(
            serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")))
        )
        assert (told.code, told.reason) == (code, reason)
        assert (told.retry_seconds is not None) == (code == "RESOURCE_EXHAUSTED") == bool(told.quota)
        assert serving.app.admission.in_flight == 0


async def test_an_infeasible_deadline_is_told_with_the_prediction() -> None:
    async with run_server(Script(fail_with=FailureReason.INFEASIBLE, retry_after=2.0)) as serving:
        call = serving.portraits.Generate(
            GenerateRequest(portrait=PortraitSpec(prompt="a sailor")), timeout=30
        )
        told = await refused(call)
        assert 31 < float(told.metadata["predicted_seconds"]) < 33
        assert told.retry_seconds == 2.0


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_like_of_what_was_just_refused_is_refused_without_the_engine(streamed: bool) -> None:
    """Nor is its reference looked at: the digest of the second one is unknown."""
    async with run_server(Script(fail_with=FailureReason.INFEASIBLE, retry_after=2.0)) as serving:

        async def ask(portrait: PortraitSpec) -> Any:
            if streamed:
                return await refused(
                    drained(
                        serving.portraits.GenerateStream(GenerateStreamRequest(portrait=portrait), timeout=30)
                    )
                )
            return await refused(serving.portraits.Generate(GenerateRequest(portrait=portrait), timeout=30))

        first = await ask(PortraitSpec(prompt="a sailor"))
        second = await ask(PortraitSpec(prompt="a king", reference_digest="0" * 64))
        assert [first.reason, second.reason] == ["DEADLINE_INFEASIBLE"] * 2
        assert second.retry_seconds is not None and 1.5 < second.retry_seconds <= 2.0
        assert len(serving.script.submitted) == 1
        assert serving.app.admission.in_flight == 0


async def test_what_no_idle_engine_could_do_in_time_is_not_to_be_tried_again() -> None:
    async with run_server(Script(fail_with=FailureReason.INFEASIBLE)) as serving:
        call = serving.portraits.Generate(
            GenerateRequest(portrait=PortraitSpec(prompt="a sailor")), timeout=30
        )
        told = await refused(call)
        assert (told.reason, told.retry_seconds) == ("DEADLINE_INFEASIBLE", None)
        assert "predicted_seconds" not in told.metadata


async def test_the_deadline_goes_to_the_engine(serving: Serving) -> None:
    await serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor")), timeout=30)
    (submit,) = serving.script.submitted
    assert submit.deadline is not None
    assert 25 < submit.deadline < 31  # gRPC rounds up


async def test_before_the_engine_is_ready() -> None:
    async with run_server(Script(loads=False), wait=False) as serving:
        for call in (
            serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="a sailor"))),
            serving.models.ListModels(ListModelsRequest()),
            serving.references.UploadReference(UploadReferenceRequest(image=PNG)),
        ):
            told = await refused(call)
            assert (told.code, told.reason) == ("UNAVAILABLE", "ENGINE_UNAVAILABLE")
            assert told.retry_seconds is not None
        await serving.models.GetLimits(GetLimitsRequest())


async def test_an_unknown_method_is_unimplemented(serving: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await serving.channel.unary_unary("/limner.v1.PortraitService/Paint")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_engine_that_dies_costs_latency_and_no_error(serving: Serving) -> None:
    spec = PortraitSpec(prompt="a sailor HOLD", seed=3, image_count=2)
    call = serving.portraits.GenerateStream(GenerateStreamRequest(portrait=spec))
    task = asyncio.create_task(drained(call))
    await serving.script.until(lambda: len(serving.script.held) == 1)
    serving.launcher.engines[0].kill()
    await serving.script.until(lambda: len(serving.script.submitted) == 2)
    serving.script.release.set()
    news = await task
    assert sorted(message.image.seed for message in news if message.HasField("image")) == [3, 4]


async def test_poison_is_told(serving: Serving) -> None:
    told = await refused(serving.portraits.Generate(GenerateRequest(portrait=PortraitSpec(prompt="DIE"))))
    assert (told.code, told.reason) == ("INTERNAL", "POISON")
