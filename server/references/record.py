"""What is known of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from server.imaging.formats import PictureFormat


class ReferenceWarningCode(StrEnum):
    """What a warning is about; the value is the name of the proto's ``WarningCode`` without
    ``WARNING_CODE_``.
    """

    SMALL = "REFERENCE_SMALL"
    BLURRED = "REFERENCE_BLURRED"
    LOW_CONTRAST = "REFERENCE_LOW_CONTRAST"
    COMPRESSED = "REFERENCE_COMPRESSED"
    FILTERED = "REFERENCE_FILTERED"
    EXTREME_ASPECT = "REFERENCE_EXTREME_ASPECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceWarning:
    """A finding that may spoil portraits, and what to do about it.

    The proto's ``field`` is the request's to fill in.
    """

    code: ReferenceWarningCode
    message: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRecord:
    """What is known of a reference; sizes in pixels after EXIF rotation, ``created`` in UTC."""

    digest: str
    width: int
    height: int
    size_bytes: int
    format: PictureFormat
    warnings: tuple[ReferenceWarning, ...]
    created: datetime


class CacheOutcome(StrEnum):
    """Where a reference's tokens came from; the upper-case name matches the proto's ``CacheOutcome``."""

    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedReference:
    """A reference that is ready: ``tokens`` ``[T, W]`` f32, read-only, and how they were had.

    ``decode_seconds`` is the time to decode, judge and resize; 0 on a hit. ``reference_seconds`` is the time
    from the call until the tokens were there, hashing included.
    """

    digest: str
    tokens: NDArray[np.float32]
    outcome: CacheOutcome
    record: ReferenceRecord
    decode_seconds: float
    reference_seconds: float
