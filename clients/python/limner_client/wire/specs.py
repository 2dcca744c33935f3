"""Requests for portraits."""

from limner.v1 import portrait_pb2, portrait_service_pb2

from limner_client.reference import LocalReference
from limner_client.settings import PortraitSpec
from limner_client.wire.values import to_enum

_PLAIN = (
    "negative_prompt",
    "ip_adapter_scale",
    "guidance_scale",
    "guidance_rescale",
    "guidance_start",
    "guidance_end",
    "steps",
    "width",
    "height",
    "image_count",
    "seed",
    "quality",
    "deterministic",
    "model",
    "adapter",
)
_ENUMS = (
    ("sampler", "SAMPLER_", portrait_pb2.Sampler),
    ("format", "IMAGE_FORMAT_", portrait_pb2.ImageFormat),
    ("priority", "PRIORITY_", portrait_pb2.Priority),
    ("reference_layers", "REFERENCE_LAYERS_", portrait_pb2.ReferenceLayers),
)


def encode_generate(spec: PortraitSpec, references: tuple[LocalReference, ...], key: str) -> bytes:
    """Encode a GenerateRequest. Raises ValueError or TypeError for a value that the message cannot hold."""
    request = portrait_service_pb2.GenerateRequest(portrait=_spec(spec, references), idempotency_key=key)
    return request.SerializeToString()


def encode_generate_stream(
    spec: PortraitSpec, references: tuple[LocalReference, ...], key: str, preview_interval: int
) -> bytes:
    """Encode a GenerateStreamRequest. Raises as `encode_generate`."""
    request = portrait_service_pb2.GenerateStreamRequest(
        portrait=_spec(spec, references), idempotency_key=key, preview_interval=preview_interval
    )
    return request.SerializeToString()


def _spec(spec: PortraitSpec, references: tuple[LocalReference, ...]) -> portrait_pb2.PortraitSpec:
    """Build the message; a picture goes in when it is at hand, otherwise its digest."""
    message = portrait_pb2.PortraitSpec(prompt=spec.prompt)
    for name in _PLAIN:
        if (value := getattr(spec, name)) is not None:
            setattr(message, name, value)
    for name, prefix, proto_enum in _ENUMS:
        if (value := getattr(spec, name)) is not None:
            setattr(message, name, to_enum(proto_enum, prefix, value))
    if len(references) == 1 and references[0].weight is None:
        # As servers of before several references know it.
        (reference,) = references
        if reference.data is not None:
            message.reference_image = reference.data
        else:
            message.reference_digest = reference.digest
        return message
    for reference in references:
        source = {"digest": reference.digest} if reference.data is None else {"image": reference.data}
        added = message.references.add(weight=reference.weight, **source)
        if reference.region is not None:
            left, top, right, bottom = reference.region
            added.region.CopyFrom(portrait_pb2.Region(left=left, top=top, right=right, bottom=bottom))
    return message
