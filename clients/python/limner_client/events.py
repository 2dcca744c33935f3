"""News of a portrait while it is made, in the order in which `stream` gives it."""

from dataclasses import dataclass, field

from limner_client.choices import ImageFormat
from limner_client.portrait import Image, Portrait


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Comes first, and again when the estimate changed noticeably."""

    task_id: str
    position: int
    """Images that run before this portrait's first one."""
    starts_in_seconds: float
    finishes_in_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Comes after a denoising step."""

    task_id: str
    step: int
    """Steps that every image of the portrait has behind it. Falls back when a lost connection is retried."""
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Is a small, cheap estimate of the finished image."""

    task_id: str
    index: int
    step: int
    data: bytes = field(repr=False)
    format: ImageFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReady:
    """Carries a finished image, as soon as it is ready."""

    task_id: str
    image: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """Comes last, with the whole portrait."""

    task_id: str
    portrait: Portrait


Event = Queued | Progress | Preview | ImageReady | Completed
