"""The encodings of pictures that are taken and given."""

from __future__ import annotations

from enum import StrEnum


class PictureFormat(StrEnum):
    """An encoding; the value is Pillow's name for it. Matches the proto's ``ImageFormat`` by name."""

    PNG = "PNG"
    JPEG = "JPEG"
    WEBP = "WEBP"
