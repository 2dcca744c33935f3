"""Models and limits as the API's messages."""

from __future__ import annotations

from limner.v1 import model_service_pb2, portrait_pb2

from engine.protocol.messages import Ready
from server.api.conversion.names import enum_value
from server.config.options import LimitOptions
from server.portraits.request import ReferenceLayers, Sampler


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
                sampler=enum_value(portrait_pb2.Sampler, Sampler(info.name).name),
                min_steps=info.min_steps,
                max_steps=info.max_steps,
            )
            for info in samplers
        ],
        default_steps=model.default_steps,
        default_guidance_scale=model.default_guidance_scale,
        weights_hash=model.weights_hash,
        buckets=ready.buckets,
        reference_layers=[
            enum_value(portrait_pb2.ReferenceLayers, layers.name)
            for layers in ReferenceLayers
            if layers.value in model.reference_layers
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
