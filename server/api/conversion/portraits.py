"""Portraits and their news as the API's messages."""

from __future__ import annotations

from limner.v1 import portrait_pb2, portrait_service_pb2

from server.api.conversion.names import enum_value
from server.api.conversion.warnings import warning_message
from server.portraits.news import (
    Completed,
    FinishedImage,
    News,
    Preview,
    Progress,
    Queued,
    Timings,
)


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
                    index=news.index,
                    step=news.step,
                    data=news.data,
                    format=enum_value(portrait_pb2.ImageFormat, news.format.name),
                )
            )
        case FinishedImage():
            response.image.CopyFrom(_image(news))
        case Completed():
            response.completed.CopyFrom(_summary(news))
    return response


def _image(image: FinishedImage) -> portrait_pb2.PortraitImage:
    return portrait_pb2.PortraitImage(
        index=image.index,
        data=image.data,
        format=enum_value(portrait_pb2.ImageFormat, image.format.name),
        width=image.width,
        height=image.height,
        seed=image.seed,
    )


def _summary(completed: Completed) -> portrait_pb2.GenerationSummary:
    portrait = completed.portrait
    uses = [
        portrait_pb2.ReferenceUse(
            digest=use.digest,
            cache_outcome=enum_value(portrait_pb2.CacheOutcome, use.outcome.name),
            weight=use.weight,
        )
        for use in completed.references
    ]
    return portrait_pb2.GenerationSummary(
        parameters=portrait_pb2.GenerationParameters(
            model=portrait.model,
            sampler=enum_value(portrait_pb2.Sampler, portrait.sampler.name),
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
            reference_layers=enum_value(portrait_pb2.ReferenceLayers, portrait.reference_layers.name)
            if portrait.has_reference
            else None,
        ),
        reference=uses[0] if uses else portrait_pb2.ReferenceUse(),
        references=uses,
        timings=_timings(completed.timings),
        warnings=[warning_message(warning, field=warning.field) for warning in completed.warnings],
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
