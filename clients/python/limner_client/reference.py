"""Reference pictures: what a server knows of one, and what a caller may give for one."""

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from limner_client.choices import CacheOutcome, ImageFormat
from limner_client.portrait import PortraitWarning

if TYPE_CHECKING:
    import PIL.Image

Region = tuple[float, float, float, float]
"""left, top, right, bottom as parts of the picture's width and height, 0 to 1."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Tells what a server knows of an uploaded picture."""

    digest: str
    """SHA-256 of the picture's bytes, 64 lower-case hexadecimal digits: its name in later requests."""
    width: int
    height: int
    size_bytes: int
    format: ImageFormat
    warnings: tuple[PortraitWarning, ...]
    """What is wrong with the picture as a reference, and what to do about it. None rejects it."""
    create_time: datetime | None
    cache_outcome: CacheOutcome | None = None
    """Tells at an upload whether its embedding was there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReference:
    """Is a reference as the caller gave it: its digest, and its bytes when they are at hand."""

    digest: str
    data: bytes | None = field(default=None, repr=False)
    weight: float | None = None
    region: "Region | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedReference:
    """Is one of several references, with its share: 0 (none) to `Limits.max_reference_weight`, 1 by default.

    `region` limits it to a rectangle of the picture: left, top, right, bottom as parts of width and height, 0 to 1.
    """

    source: "ReferenceSource"
    weight: float = 1.0
    region: "Region | None" = None


if TYPE_CHECKING:
    ImageSource = bytes | str | Path | PIL.Image.Image
    """A picture's encoded bytes, its file, or a Pillow image."""
    ReferenceSource = ImageSource | Reference
    """A picture, or what an upload answered. A string of 64 lower-case hexadecimal digits is a digest."""
    References = ReferenceSource | WeightedReference | Sequence[ReferenceSource | WeightedReference] | None
    """One reference, or several in a list or tuple, or none."""


def is_digest(text: str) -> bool:
    """Tell whether `text` is a digest: 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def load_image(image: "ImageSource") -> LocalReference:
    """Read a picture's bytes and hash them. A Pillow image is encoded as PNG, which loses nothing.

    Raises TypeError for anything else and OSError when a file cannot be read.
    """
    if isinstance(image, bytes):
        data = image
    elif isinstance(image, str | Path):
        data = Path(image).read_bytes()
    elif hasattr(image, "save") and hasattr(image, "mode"):  # a Pillow image, without importing Pillow
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        data = buffer.getvalue()
    else:
        raise TypeError(f"an image is bytes, a path or a Pillow image, not {type(image).__name__}")
    return LocalReference(digest=hashlib.sha256(data).hexdigest(), data=data)


def load_references(references: "References") -> tuple[LocalReference, ...]:
    """Turn whatever names references into their digests and, where at hand, their bytes. Raises as `load_image`."""
    if references is None:
        return ()
    if isinstance(references, list | tuple):
        return tuple(_load_reference(reference) for reference in references)
    return (_load_reference(references),)  # type: ignore[arg-type]  # a sequence of another kind raises TypeError


def _load_reference(reference: "ReferenceSource | WeightedReference") -> LocalReference:
    if isinstance(reference, WeightedReference):
        return replace(_load_reference(reference.source), weight=reference.weight, region=reference.region)
    if isinstance(reference, Reference):
        return LocalReference(digest=reference.digest)
    if isinstance(reference, str) and is_digest(reference):
        return LocalReference(digest=reference)
    return load_image(reference)
