"""Portraits and news of them."""

from limner.v1 import portrait_pb2, portrait_service_pb2

from limner_client.choices import CacheOutcome, ImageFormat, ReferenceLayers, Sampler, WarningCode
from limner_client.events import Completed, Event, ImageReady, Preview, Progress, Queued
from limner_client.portrait import Image, Parameters, Portrait, PortraitWarning, ReferenceUse, Timings
from limner_client.wire.values import from_enum, from_float


def decode_generate(data: bytes, request_id: str) -> Portrait:
    """Decode a GenerateResponse."""
    reply = portrait_service_pb2.GenerateResponse.FromString(data)
    images = tuple(decode_image(image) for image in reply.images)
    return decode_summary(reply.summary, images, reply.task_id, request_id)


def decode_event(data: bytes, images: tuple[Image, ...], request_id: str) -> Event | None:
    """Decode a GenerateStreamResponse; `images` are those that came before, for the completed portrait.

    An event that this client does not know yet is None.
    """
    news = portrait_service_pb2.GenerateStreamResponse.FromString(data)
    task_id = news.task_id
    match news.WhichOneof("event"):
        case "queued":
            return Queued(
                task_id=task_id,
                position=news.queued.position,
                starts_in_seconds=news.queued.starts_in_seconds,
                finishes_in_seconds=news.queued.finishes_in_seconds,
            )
        case "progress":
            return Progress(task_id=task_id, step=news.progress.step, steps=news.progress.steps)
        case "preview":
            return Preview(
                task_id=task_id,
                index=news.preview.index,
                step=news.preview.step,
                data=news.preview.data,
                format=decode_format(news.preview.format),
            )
        case "image":
            return ImageReady(task_id=task_id, image=decode_image(news.image))
        case "completed":
            in_order = tuple(sorted(images, key=lambda image: image.index))
            portrait = decode_summary(news.completed, in_order, task_id, request_id)
            return Completed(task_id=task_id, portrait=portrait)
    return None


def decode_summary(
    summary: portrait_pb2.GenerationSummary, images: tuple[Image, ...], task_id: str, request_id: str
) -> Portrait:
    """Join a summary and its images into a portrait."""
    references = _reference_uses(summary)
    return Portrait(
        task_id=task_id,
        request_id=request_id,
        images=images,
        parameters=_parameters(summary.parameters),
        reference=references[0] if references else None,
        references=references,
        timings=_timings(summary.timings),
        # mypy takes the stub's Warning for the builtin of that name
        warnings=tuple(decode_warning(warning) for warning in summary.warnings),  # type: ignore[arg-type]
    )


def decode_image(image: portrait_pb2.PortraitImage) -> Image:
    """Convert a finished image."""
    return Image(
        index=image.index,
        data=image.data,
        format=decode_format(image.format),
        width=image.width,
        height=image.height,
        seed=image.seed,
    )


def decode_warning(warning: portrait_pb2.Warning) -> PortraitWarning:
    """Convert a warning."""
    return PortraitWarning(
        code=from_enum(portrait_pb2.WarningCode, "WARNING_CODE_", warning.code, WarningCode),
        field=warning.field,
        message=warning.message,
        action=warning.action,
    )


def decode_format(number: int) -> ImageFormat:
    """Convert an image format."""
    return from_enum(portrait_pb2.ImageFormat, "IMAGE_FORMAT_", number, ImageFormat)


def decode_layers(number: int) -> ReferenceLayers:
    """Convert a preset of layers."""
    return from_enum(portrait_pb2.ReferenceLayers, "REFERENCE_LAYERS_", number, ReferenceLayers)


def decode_cache_outcome(number: int) -> CacheOutcome | None:
    """Convert a cache outcome; unspecified means that there was no reference."""
    return from_enum(portrait_pb2.CacheOutcome, "CACHE_OUTCOME_", number, CacheOutcome) if number else None


def _parameters(parameters: portrait_pb2.GenerationParameters) -> Parameters:
    return Parameters(
        model=parameters.model,
        sampler=from_enum(portrait_pb2.Sampler, "SAMPLER_", parameters.sampler, Sampler),
        steps=parameters.steps,
        guidance_scale=from_float(parameters.guidance_scale),
        guidance_rescale=from_float(parameters.guidance_rescale),
        guidance_start=from_float(parameters.guidance_start),
        # A server of before guidance could end does not speak of it: it guides to the end.
        guidance_end=from_float(parameters.guidance_end) if parameters.HasField("guidance_end") else 1.0,
        ip_adapter_scale=from_float(parameters.ip_adapter_scale),
        width=parameters.width,
        height=parameters.height,
        seed=parameters.seed,
        deterministic=parameters.deterministic,
        prompt=parameters.prompt,
        adapter=parameters.adapter,
        reference_layers=decode_layers(parameters.reference_layers) if parameters.reference_layers else None,
    )


def _reference_uses(summary: portrait_pb2.GenerationSummary) -> tuple[ReferenceUse, ...]:
    """Give every reference; a server of before several references tells of the one alone, without its weight."""
    if summary.references:
        return tuple(
            ReferenceUse(
                digest=use.digest,
                cache_outcome=decode_cache_outcome(use.cache_outcome) or CacheOutcome.UNKNOWN,
                weight=from_float(use.weight),
            )
            for use in summary.references
        )
    outcome = decode_cache_outcome(summary.reference.cache_outcome)
    return (ReferenceUse(digest=summary.reference.digest, cache_outcome=outcome),) if outcome else ()


def _timings(timings: portrait_pb2.Timings) -> Timings:
    return Timings(
        decode_input_seconds=timings.decode_input_seconds,
        reference_seconds=timings.reference_seconds,
        queue_seconds=timings.queue_seconds,
        encode_prompt_seconds=timings.encode_prompt_seconds,
        denoise_seconds=timings.denoise_seconds,
        decode_latents_seconds=timings.decode_latents_seconds,
        encode_output_seconds=timings.encode_output_seconds,
        total_seconds=timings.total_seconds,
        mean_batch_rows=timings.mean_batch_rows,
    )
