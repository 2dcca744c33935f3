"""What a caller asked for, before anything was checked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NewType

from server.imaging.formats import PictureFormat

UnknownNumber = NewType("UnknownNumber", int)
"""A number that an enum of the API does not know (proto3 enums are open)."""


class Sampler(StrEnum):
    """The samplers, by the engine's names for them."""

    DDIM = "ddim"
    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    UNIPC = "unipc"
    LCM = "lcm"


class Priority(IntEnum):
    """Who goes first, by the engine's numbers for them."""

    INTERACTIVE = 0
    BATCH = 1


class ReferenceLayers(StrEnum):
    """The layers that references act on, by the engine's names for the presets."""

    ALL = "all"
    STYLE = "style"
    LAYOUT = "layout"
    STYLE_AND_LAYOUT = "style+layout"


Region = tuple[float, float, float, float]
"""left, top, right, bottom as parts of the picture's width and height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedReference:
    """One of several references as asked for; of ``image`` and ``digest`` at most one is not None."""

    image: bytes | None = None
    digest: str | None = None
    weight: float | None = None
    region: Region | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitRequest:
    """A portrait as asked for; None, 0 and empty stand for what was left out."""

    prompt: str = ""
    negative_prompt: str = ""
    reference_image: bytes = b""
    reference_digest: str = ""
    ip_adapter_scale: float | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    guidance_start: float | None = None
    guidance_end: float | None = None
    steps: int | None = None
    sampler: Sampler | UnknownNumber | None = None
    width: int = 0
    height: int = 0
    image_count: int = 0
    seed: int | None = None
    format: PictureFormat | UnknownNumber | None = None
    quality: int = 0
    priority: Priority | UnknownNumber | None = None
    deterministic: bool = False
    model: str = ""
    references: tuple[RequestedReference, ...] = ()
    """The first of them, when there are more than anyone would take."""
    reference_count: int = 0
    reference_layers: ReferenceLayers | UnknownNumber | None = None
    adapter: str = ""
