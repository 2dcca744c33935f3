"""What a caller asks for, read from the API's messages."""

from __future__ import annotations

from enum import Enum
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
from limner.v1 import portrait_pb2

from server.imaging.formats import PictureFormat
from server.portraits.request import (
    PortraitRequest,
    Priority,
    ReferenceLayers,
    Region,
    RequestedReference,
    Sampler,
    UnknownNumber,
)

E = TypeVar("E", bound=Enum)

READ_REFERENCES = 16
"""A message can hold millions; more than this many are counted alone."""


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
