"""Models, limits and health."""

from grpc_health.v1 import health_pb2
from limner.v1 import model_service_pb2, portrait_pb2

from limner_client.catalog import Info, Limits, Model, SamplerLimits
from limner_client.choices import Sampler
from limner_client.wire.portraits import decode_layers
from limner_client.wire.values import from_enum, from_float


def encode_list_models() -> bytes:
    """Encode a ListModelsRequest."""
    return model_service_pb2.ListModelsRequest().SerializeToString()


def decode_list_models(data: bytes) -> Info:
    """Decode a ListModelsResponse."""
    reply = model_service_pb2.ListModelsResponse.FromString(data)
    return Info(models=tuple(_model(model) for model in reply.models))


def encode_get_limits() -> bytes:
    """Encode a GetLimitsRequest."""
    return model_service_pb2.GetLimitsRequest().SerializeToString()


def decode_get_limits(data: bytes) -> Limits:
    """Decode a GetLimitsResponse."""
    limits = model_service_pb2.GetLimitsResponse.FromString(data).limits
    return Limits(
        max_image_bytes=limits.max_image_bytes,
        max_image_pixels=limits.max_image_pixels,
        min_image_side=limits.min_image_side,
        max_prompt_characters=limits.max_prompt_characters,
        max_steps=limits.max_steps,
        max_images=limits.max_images,
        max_guidance_scale=from_float(limits.max_guidance_scale),
        max_ip_adapter_scale=from_float(limits.max_ip_adapter_scale),
        max_requests_in_flight=limits.max_requests_in_flight,
        max_references=limits.max_references,
        max_reference_weight=from_float(limits.max_reference_weight),
    )


def encode_health_check(service: str) -> bytes:
    """Encode a HealthCheckRequest."""
    request: bytes = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    return request


def decode_health_check(data: bytes) -> bool:
    """Decode a HealthCheckResponse: is the service serving?"""
    reply = health_pb2.HealthCheckResponse.FromString(data)
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _model(model: model_service_pb2.Model) -> Model:
    return Model(
        name=model.name,
        family=model.family,
        adapters=tuple(model.adapters),
        default_width=model.default_width,
        default_height=model.default_height,
        size_multiple=model.size_multiple,
        min_size=model.min_size,
        max_size=model.max_size,
        prompt_tokens=model.prompt_tokens,
        samplers=tuple(
            SamplerLimits(
                sampler=from_enum(portrait_pb2.Sampler, "SAMPLER_", limits.sampler, Sampler),
                min_steps=limits.min_steps,
                max_steps=limits.max_steps,
            )
            for limits in model.samplers
        ),
        default_steps=model.default_steps,
        default_guidance_scale=from_float(model.default_guidance_scale),
        weights_hash=model.weights_hash,
        buckets=tuple(model.buckets),
        reference_layers=tuple(decode_layers(layers) for layers in model.reference_layers),
        reference_regions=model.reference_regions,
    )
