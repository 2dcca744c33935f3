"""What happens to a portrait while it is made, in the order in which a caller hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from server.imaging.formats import PictureFormat
from server.portraits.portrait import Portrait
from server.references.record import CacheOutcome


class WarningCode(StrEnum):
    """What a warning is about; the value is the name of the proto's ``WarningCode`` without ``WARNING_CODE_``."""

    PROMPT_TRUNCATED = "PROMPT_TRUNCATED"
    GUIDANCE_HIGH = "GUIDANCE_HIGH"
    NEGATIVE_PROMPT_UNUSED = "NEGATIVE_PROMPT_UNUSED"
    REFERENCE_UNUSED = "REFERENCE_UNUSED"
    REFERENCE_SMALL = "REFERENCE_SMALL"
    REFERENCE_BLURRED = "REFERENCE_BLURRED"
    REFERENCE_LOW_CONTRAST = "REFERENCE_LOW_CONTRAST"
    REFERENCE_COMPRESSED = "REFERENCE_COMPRESSED"
    REFERENCE_FILTERED = "REFERENCE_FILTERED"
    REFERENCE_EXTREME_ASPECT = "REFERENCE_EXTREME_ASPECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortraitWarning:
    """What may spoil a portrait, which request field it is about, and what to do about it."""

    code: WarningCode
    field: str
    message: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Where it stands; both waits in seconds."""

    position: int
    starts_in: float
    finishes_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How many of its denoising steps every image has behind it."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """An estimate of image ``index`` at latent resolution, encoded in ``format``."""

    index: int
    step: int
    data: bytes
    format: PictureFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedImage:
    """A finished image, encoded in ``format``."""

    index: int
    seed: int
    width: int
    height: int
    data: bytes
    format: PictureFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time went, in seconds; as in the proto's ``Timings``."""

    decode_input: float = 0.0
    reference: float = 0.0
    queue: float = 0.0
    encode_prompt: float = 0.0
    denoise: float = 0.0
    decode_latents: float = 0.0
    encode_output: float = 0.0
    total: float = 0.0
    mean_batch_rows: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceUse:
    """A reference that was used, and where its embedding came from."""

    digest: str
    outcome: CacheOutcome
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The last news: how it was made. ``prompt_seen`` is the part of the prompt that the text encoder saw.

    ``portrait`` has its references by digest, also where they came as pictures.
    """

    portrait: Portrait
    prompt_seen: str
    references: tuple[ReferenceUse, ...]
    timings: Timings
    warnings: tuple[PortraitWarning, ...]


News = Queued | Progress | Preview | FinishedImage | Completed
