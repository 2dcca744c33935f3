"""The API's enum values by the server's own names."""

from __future__ import annotations

from enum import StrEnum
from typing import cast

from limner.v1 import portrait_pb2

from server.imaging.formats import PictureFormat
from server.portraits.request import ReferenceLayers, Sampler
from server.references.record import CacheOutcome


def warning_code(code: StrEnum) -> portrait_pb2.WarningCode:
    """Return a warning's code."""
    return cast(portrait_pb2.WarningCode, portrait_pb2.WarningCode.Value(f"WARNING_CODE_{code.value}"))


def sampler_value(sampler: Sampler) -> portrait_pb2.Sampler:
    """Return a sampler's value."""
    return cast(portrait_pb2.Sampler, portrait_pb2.Sampler.Value(f"SAMPLER_{sampler.name}"))


def format_value(picture_format: PictureFormat) -> portrait_pb2.ImageFormat:
    """Return a picture format's value."""
    return cast(
        portrait_pb2.ImageFormat, portrait_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{picture_format.name}")
    )


def layers_value(layers: ReferenceLayers) -> portrait_pb2.ReferenceLayers:
    """Return the value of a choice of layers."""
    name = f"REFERENCE_LAYERS_{layers.name}"
    return cast(portrait_pb2.ReferenceLayers, portrait_pb2.ReferenceLayers.Value(name))


def cache_outcome_value(outcome: CacheOutcome) -> portrait_pb2.CacheOutcome:
    """Return the value of what the cache did."""
    name = f"CACHE_OUTCOME_{outcome.name}"
    return cast(portrait_pb2.CacheOutcome, portrait_pb2.CacheOutcome.Value(name))
