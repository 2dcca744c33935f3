"""The one module where the API's messages meet the server's own types."""

from __future__ import annotations

from enum import Enum, StrEnum
from hashlib import sha256
from typing import Any, TypeVar, cast

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from limner.v1 import model_service_pb2, portrait_pb2, portrait_service_pb2, reference_service_pb2

from engine.protocol.messages import Ready
from server.config.options import LimitOptions
from server.imaging.formats import PictureFormat
from server.portraits.news import (
    Completed,
    FinishedImage,
    News,
    PortraitWarning,
    Preview,
    Progress,
    Queued,
    Timings,
)
from server.portraits.request import (
    PortraitRequest,
    Priority,
    ReferenceLayers,
    Region,
    RequestedReference,
    Sampler,
    UnknownNumber,
)
from server.references.record import CacheOutcome, ReferenceRecord, ReferenceWarning

E = TypeVar("E", bound=Enum)

READ_REFERENCES = 16
"""A message can hold millions; more than this many are counted alone."""


# --- from the API -------------------------------------------------------------------------------------------------


def portrait_request(message: Any) -> PortraitRequest | None:
    """Return what a ``GenerateRequest`` or ``GenerateStreamRequest`` asks for; None when it has no portrait."""
    if not message.HasField("portrait"):
        return None
    spec = message.portrait
    return PortraitRequest(
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        reference_image=spec.reference_image,
        reference_digest=spec.reference_digest,
        ip_adapter_scale=_optional_float(spec, "ip_adapter_scale"),
        guidance_scale=_optional_float(spec, "guidance_scale"),
        guidance_rescale=_optional_float(spec, "guidance_rescale"),
        guidance_start=_optional_float(spec, "guidance_start"),
        guidance_end=_optional_float(spec, "guidance_end"),
        steps=spec.steps if spec.HasField("steps") else None,
        sampler=_member(portrait_pb2.Sampler, "SAMPLER_", Sampler, spec.sampler),
        width=spec.width,
        height=spec.height,
        image_count=spec.image_count,
        seed=spec.seed if spec.HasField("seed") else None,
        format=_member(portrait_pb2.ImageFormat, "IMAGE_FORMAT_", PictureFormat, spec.format),
        quality=spec.quality,
        priority=_member(portrait_pb2.Priority, "PRIORITY_", Priority, spec.priority),
        deterministic=spec.deterministic,
        model=spec.model,
        references=tuple(_requested_reference(reference) for reference in spec.references[:READ_REFERENCES]),
        reference_count=len(spec.references),
        reference_layers=_member(
            portrait_pb2.ReferenceLayers, "REFERENCE_LAYERS_", ReferenceLayers, spec.reference_layers
        ),
        adapter=spec.adapter,
    )


def _requested_reference(reference: Any) -> RequestedReference:
    source = reference.WhichOneof("source")
    return RequestedReference(
        image=reference.image if source == "image" else None,
        digest=reference.digest if source == "digest" else None,
        weight=_optional_float(reference, "weight"),
        region=_region(reference.region) if reference.HasField("region") else None,
    )


def _region(message: Any) -> Region:
    return (
        _decimal(message.left),
        _decimal(message.top),
        _decimal(message.right),
        _decimal(message.bottom),
    )


def portrait_fingerprint(message: Any) -> bytes:
    """Return 32 bytes that are equal for equal portraits alone, to tell whether a key is used again rightly."""
    return sha256(message.portrait.SerializeToString(deterministic=True)).digest()


def _optional_float(spec: Any, name: str) -> float | None:
    return _decimal(getattr(spec, name)) if spec.HasField(name) else None


def _decimal(value: float) -> float:
    """Return the decimal that the caller wrote: 0.7, not 0.699999988, which is the float32 on the wire."""
    return float(str(np.float32(value)))


def _member(proto: Any, prefix: str, kind: type[E], number: int) -> E | UnknownNumber | None:
    if number == 0:
        return None
    if number not in proto.values():
        return UnknownNumber(number)
    return kind[proto.Name(number).removeprefix(prefix)]


# --- to the API ---------------------------------------------------------------------------------------------------


def generate_response(
    task_id: str, images: list[FinishedImage], completed: Completed
) -> portrait_service_pb2.GenerateResponse:
    """Return the answer of the unary call."""
    return portrait_service_pb2.GenerateResponse(
        task_id=task_id,
        images=[_image(image) for image in sorted(images, key=lambda image: image.index)],
        summary=_summary(completed),
    )


def generate_stream_response(task_id: str, news: News) -> portrait_service_pb2.GenerateStreamResponse:
    """Return one message of the streaming call."""
    response = portrait_service_pb2.GenerateStreamResponse(task_id=task_id)
    match news:
        case Queued():
            response.queued.position = news.position
            response.queued.starts_in_seconds = news.starts_in
            response.queued.finishes_in_seconds = news.finishes_in
        case Progress():
            response.progress.step, response.progress.steps = news.step, news.steps
        case Preview():
            response.preview.CopyFrom(
                portrait_service_pb2.Preview(
                    index=news.index, step=news.step, data=news.data, format=_format(news.format)
                )
            )
        case FinishedImage():
            response.image.CopyFrom(_image(news))
        case Completed():
            response.completed.CopyFrom(_summary(news))
    return response


def reference_message(record: ReferenceRecord, *, field: str) -> reference_service_pb2.Reference:
    """Return what is known of a reference; ``field`` is the one that its warnings are about."""
    created = Timestamp()
    created.FromDatetime(record.created)
    return reference_service_pb2.Reference(
        digest=record.digest,
        width=record.width,
        height=record.height,
        size_bytes=record.size_bytes,
        format=_format(record.format),
        warnings=[_reference_warning(warning, field) for warning in record.warnings],
        create_time=created,
    )


def upload_response(
    record: ReferenceRecord, outcome: CacheOutcome
) -> reference_service_pb2.UploadReferenceResponse:
    """Return the answer to an upload."""
    return reference_service_pb2.UploadReferenceResponse(
        reference=reference_message(record, field="image"), cache_outcome=_cache_outcome(outcome)
    )


def model_message(ready: Ready) -> model_service_pb2.Model:
    """Return the model that an engine has loaded; samplers that this API has no name for are left out."""
    model = ready.model
    named = {sampler.value for sampler in Sampler}
    samplers = sorted(
        (info for info in ready.samplers if info.name in named),
        key=lambda info: info.name != model.default_sampler,
    )
    return model_service_pb2.Model(
        name=model.name,
        family=model.family,
        adapters=[adapter.name for adapter in model.adapters],
        default_width=model.default_width,
        default_height=model.default_height,
        size_multiple=model.size_multiple,
        min_size=model.min_size,
        max_size=model.max_size,
        prompt_tokens=model.prompt_tokens,
        samplers=[
            model_service_pb2.SamplerLimits(
                sampler=_sampler(Sampler(info.name)), min_steps=info.min_steps, max_steps=info.max_steps
            )
            for info in samplers
        ],
        default_steps=model.default_steps,
        default_guidance_scale=model.default_guidance_scale,
        weights_hash=model.weights_hash,
        buckets=ready.buckets,
        reference_layers=[
            _layers(layers) for layers in ReferenceLayers if layers.value in model.reference_layers
        ],
        reference_regions=model.reference_regions,
    )


def limits_message(limits: LimitOptions, *, max_requests_in_flight: int) -> model_service_pb2.Limits:
    """Return the limits that requests are held to."""
    return model_service_pb2.Limits(
        max_image_bytes=limits.max_image_bytes,
        max_image_pixels=limits.max_image_pixels,
        min_image_side=limits.min_image_side,
        max_prompt_characters=limits.max_prompt_characters,
        max_steps=limits.max_steps,
        max_images=limits.max_images,
        max_guidance_scale=limits.max_guidance_scale,
        max_ip_adapter_scale=limits.max_ip_adapter_scale,
        max_requests_in_flight=max_requests_in_flight,
        max_references=limits.max_references,
        max_reference_weight=limits.max_reference_weight,
    )


def _image(image: FinishedImage) -> portrait_pb2.PortraitImage:
    return portrait_pb2.PortraitImage(
        index=image.index,
        data=image.data,
        format=_format(image.format),
        width=image.width,
        height=image.height,
        seed=image.seed,
    )


def _summary(completed: Completed) -> portrait_pb2.GenerationSummary:
    portrait = completed.portrait
    uses = [
        portrait_pb2.ReferenceUse(
            digest=use.digest, cache_outcome=_cache_outcome(use.outcome), weight=use.weight
        )
        for use in completed.references
    ]
    return portrait_pb2.GenerationSummary(
        parameters=portrait_pb2.GenerationParameters(
            model=portrait.model,
            sampler=_sampler(portrait.sampler),
            steps=portrait.steps,
            guidance_scale=portrait.guidance_scale,
            guidance_rescale=portrait.guidance_rescale,
            guidance_start=portrait.guidance_start,
            guidance_end=portrait.guidance_end,
            ip_adapter_scale=portrait.ip_adapter_scale,
            width=portrait.width,
            height=portrait.height,
            seed=portrait.seed,
            deterministic=portrait.deterministic,
            prompt=completed.prompt_seen,
            adapter=portrait.adapter,
            reference_layers=_layers(portrait.reference_layers) if portrait.has_reference else None,
        ),
        reference=uses[0] if uses else portrait_pb2.ReferenceUse(),
        references=uses,
        timings=_timings(completed.timings),
        warnings=[_warning(warning) for warning in completed.warnings],
    )


def _timings(timings: Timings) -> portrait_pb2.Timings:
    return portrait_pb2.Timings(
        decode_input_seconds=timings.decode_input,
        reference_seconds=timings.reference,
        queue_seconds=timings.queue,
        encode_prompt_seconds=timings.encode_prompt,
        denoise_seconds=timings.denoise,
        decode_latents_seconds=timings.decode_latents,
        encode_output_seconds=timings.encode_output,
        total_seconds=timings.total,
        mean_batch_rows=timings.mean_batch_rows,
    )


def _warning(warning: PortraitWarning) -> portrait_pb2.Warning:
    return portrait_pb2.Warning(
        code=_warning_code(warning.code),
        field=warning.field,
        message=warning.message,
        action=warning.action,
    )


def _reference_warning(warning: ReferenceWarning, field: str) -> portrait_pb2.Warning:
    return portrait_pb2.Warning(
        code=_warning_code(warning.code),
        field=field,
        message=warning.message,
        action=warning.action,
    )


def _warning_code(code: StrEnum) -> portrait_pb2.WarningCode:
    return cast(portrait_pb2.WarningCode, portrait_pb2.WarningCode.Value(f"WARNING_CODE_{code.value}"))


def _sampler(sampler: Sampler) -> portrait_pb2.Sampler:
    return cast(portrait_pb2.Sampler, portrait_pb2.Sampler.Value(f"SAMPLER_{sampler.name}"))


def _format(picture_format: PictureFormat) -> portrait_pb2.ImageFormat:
    return cast(
        portrait_pb2.ImageFormat, portrait_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{picture_format.name}")
    )


def _layers(layers: ReferenceLayers) -> portrait_pb2.ReferenceLayers:
    name = f"REFERENCE_LAYERS_{layers.name}"
    return cast(portrait_pb2.ReferenceLayers, portrait_pb2.ReferenceLayers.Value(name))


def _cache_outcome(outcome: CacheOutcome) -> portrait_pb2.CacheOutcome:
    name = f"CACHE_OUTCOME_{outcome.name}"
    return cast(portrait_pb2.CacheOutcome, portrait_pb2.CacheOutcome.Value(name))
