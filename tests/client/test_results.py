"""Requests carry every setting; results are typed, frozen and complete."""

import dataclasses
import inspect

import pytest
from limner.v1 import portrait_pb2, portrait_service_pb2
from limner_client import (
    AsyncClient,
    CacheOutcome,
    Client,
    Completed,
    ImageFormat,
    ImageReady,
    Preview,
    Priority,
    Progress,
    Queued,
    ReferenceLayers,
    Sampler,
    Settings,
    WarningCode,
    choices,
)
from limner_client.settings import PortraitSpec
from limner_client.wire.portraits import decode_generate
from limner_client.wire.values import from_enum

from tests.client.fakes import PICTURE

REFERENCES = {"reference_image", "reference_digest", "references"}
EVERY: Settings = {
    "negative_prompt": "hat",
    "ip_adapter_scale": 0.6,
    "guidance_scale": 4.5,
    "guidance_rescale": 0.25,
    "guidance_start": 0.25,
    "guidance_end": 0.75,
    "steps": 7,
    "sampler": Sampler.UNIPC,
    "width": 64,
    "height": 96,
    "image_count": 2,
    "seed": 11,
    "format": "webp",
    "quality": 80,
    "priority": Priority.BATCH,
    "deterministic": True,
    "model": "embedded",
    "adapter": "plus",
    "reference_layers": ReferenceLayers.STYLE_AND_LAYOUT,
}


def test_every_setting_reaches_the_request(call, fake):
    call("generate", "a sailor", idempotency_key="mine", **EVERY)
    request = fake.named("Generate")[0]
    spec = request.portrait
    assert request.idempotency_key == "mine"
    assert (spec.prompt, spec.negative_prompt, spec.steps, spec.seed) == ("a sailor", "hat", 7, 11)
    assert spec.sampler == portrait_pb2.SAMPLER_UNIPC
    assert spec.priority == portrait_pb2.PRIORITY_BATCH
    assert spec.format == portrait_pb2.IMAGE_FORMAT_WEBP
    assert (spec.adapter, spec.reference_layers) == ("plus", portrait_pb2.REFERENCE_LAYERS_STYLE_AND_LAYOUT)
    unset = {field.name for field in spec.DESCRIPTOR.fields} - {field.name for field, _ in spec.ListFields()}
    assert unset == REFERENCES


def test_settings_spec_and_message_have_the_same_names():
    fields = {field.name for field in dataclasses.fields(PortraitSpec)}
    message = {field.name for field in portrait_pb2.PortraitSpec.DESCRIPTOR.fields}
    assert fields - {"prompt"} == set(Settings.__annotations__) == set(EVERY)
    assert message - fields == REFERENCES


def test_left_out_settings_stay_out_but_for_the_seed(call, fake):
    call("generate", "a sailor")
    sent = {field.name for field, _ in fake.named("Generate")[0].portrait.ListFields()}
    assert sent == {"prompt", "seed"}


def test_a_portrait_tells_how_it_was_made(call, fake, tmp_path):
    call("upload", PICTURE)
    portrait = call("generate", "a sailor", PICTURE, image_count=2, seed=5)
    assert [image.seed for image in portrait.images] == [5, 6]
    assert (portrait.seed, portrait.task_id, portrait.cache_outcome) == (5, "task-1", CacheOutcome.HIT)
    assert portrait.parameters.guidance_scale == 5.6  # not 5.599999904632568
    assert portrait.parameters.sampler is Sampler.DPMPP_2M
    assert portrait.timings.denoise_seconds == 0.25
    assert portrait.warnings[0].code is WarningCode.REFERENCE_SMALL
    assert portrait.image.data == PICTURE
    assert "data" not in repr(portrait.image)
    with pytest.raises(dataclasses.FrozenInstanceError):
        portrait.task_id = "other"
    assert portrait.image.save(tmp_path) == tmp_path / "portrait-5.png"
    assert portrait.images[1].save(str(tmp_path / "out.png")).read_bytes() == PICTURE
    assert call("generate", "a sailor").reference is None


@pytest.mark.parametrize(("told", "end"), [(0.0, 0.0), (0.75, 0.75), (None, 1.0)])
def test_where_guidance_ended_is_what_the_server_says_and_the_end_where_it_does_not(told, end):
    parameters = portrait_pb2.GenerationParameters(guidance_end=told)
    answer = portrait_service_pb2.GenerateResponse(
        summary=portrait_pb2.GenerationSummary(parameters=parameters)
    )
    assert decode_generate(answer.SerializeToString(), "").parameters.guidance_end == end


def test_to_pil_decodes():
    import io

    import PIL.Image
    from limner_client import Image

    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 6), "red").save(buffer, "PNG")
    image = Image(index=0, data=buffer.getvalue(), format=ImageFormat.PNG, width=4, height=6, seed=1)
    assert image.to_pil().size == (4, 6)


def test_events_come_in_order_and_completed_has_all(call):
    events = call("stream", "a sailor", steps=2, image_count=2, preview_interval=1, seed=3)
    kinds = [Queued, Progress, Preview, Progress, Preview, ImageReady, ImageReady, Completed]
    assert [type(event) for event in events] == kinds
    assert (events[0].position, events[1].step, events[1].steps) == (3, 1, 2)
    portrait = events[-1].portrait
    assert [image.seed for image in portrait.images] == [3, 4]
    assert portrait.task_id == events[0].task_id == "task-1"


def test_info_limits_and_health(call, fake):
    from grpc_health.v1 import health_pb2

    (model,) = call("info").models
    assert (model.name, model.samplers[0].sampler, model.buckets) == ("embedded", Sampler.DPMPP_2M, (1, 2, 4))
    assert model.default_guidance_scale == 5.6
    assert call("limits").max_images == 8
    health = call("health")
    assert (health.live, health.ready) == (True, True)
    fake.health.set("readiness", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert call("health").ready is False


@pytest.mark.parametrize(
    ("proto_enum", "prefix", "cls", "left_out"),
    [
        (portrait_pb2.Sampler, "SAMPLER_", Sampler, set()),
        (portrait_pb2.ImageFormat, "IMAGE_FORMAT_", ImageFormat, set()),
        (portrait_pb2.CacheOutcome, "CACHE_OUTCOME_", CacheOutcome, set()),
        (portrait_pb2.WarningCode, "WARNING_CODE_", WarningCode, set()),
        (portrait_pb2.Priority, "PRIORITY_", Priority, {"unknown"}),
    ],
)
def test_choices_are_those_of_the_proto(proto_enum, prefix, cls, left_out):
    names = {name.removeprefix(prefix).lower() for name in proto_enum.keys()} - {"unspecified"}  # noqa: SIM118
    assert names == set(cls) - {"unknown"}


def test_a_newer_servers_value_is_unknown():
    assert from_enum(portrait_pb2.WarningCode, "WARNING_CODE_", 999, choices.WarningCode) == "unknown"


def test_both_clients_have_the_same_surface():
    def surface(cls: type) -> dict[str, list[tuple[str, object, object]]]:
        return {
            name: [
                (parameter.name, parameter.kind, parameter.default)
                for parameter in inspect.signature(method).parameters.values()
            ]
            for name, method in vars(cls).items()
            if callable(method) and (not name.startswith("_") or name == "__init__")
        }

    assert surface(Client) == surface(AsyncClient)
