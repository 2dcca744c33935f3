"""Decode pictures that strangers sent.

What becomes of unusual ones: CMYK and YCCK are converted without their colour profile; of 16 bits a channel
the upper 8 are kept; palettes are looked up; transparency is laid over white; ``Orientation`` turns the
picture upright; of a multi-picture JPEG (MPO: depth, gain map, second eye) the first is taken. Colour
profiles are not applied.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image

from server.imaging.errors import InvalidImage
from server.imaging.formats import PictureFormat

DECODE_REVISION = "decode-1"
"""Changes when the code below changes its pixels; it is part of the reference cache's key."""

_DRAFT_SIDE = 768
"""A JPEG is decoded at 1/2, 1/4 or 1/8 where its shorter side stays at least this: over three times what an
image encoder of 224 takes. 12 megapixels decode in about 40% of the time."""

_MAX_SCANS = 100
"""A progressive JPEG of a few KB can ask for thousands of passes over all its pixels (libjpeg-turbo, "Two
Issues with the JPEG Standard"). Real ones have about ten; the byte pattern cannot occur inside compressed
data."""

_FORMATS = {
    "PNG": PictureFormat.PNG,
    "JPEG": PictureFormat.JPEG,
    "MPO": PictureFormat.JPEG,
    "WEBP": PictureFormat.WEBP,
}
_ACCEPTED = "a JPEG, PNG or WebP picture"

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF ``Orientation`` (EXIF 2.32, tag 0x0112); 1 and unknown ones need nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What a picture is held to: bytes of the file, pixels as declared in it, pixels of its shorter side.

    Raises ``ValueError`` for more pixels than Pillow itself opens without a warning (89 million).
    """

    max_bytes: int = 16 * 1024 * 1024
    max_pixels: int = 50_000_000
    min_side: int = 16

    def __post_init__(self) -> None:
        if self.max_pixels > (Image.MAX_IMAGE_PIXELS or 0):
            raise ValueError(f"max_pixels is at most {Image.MAX_IMAGE_PIXELS}, not {self.max_pixels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """A picture in RGB, turned upright.

    ``width`` and ``height`` are the file's, after EXIF rotation; ``picture`` is smaller where a large JPEG
    was decoded at a fraction of its size.
    """

    picture: Image.Image
    width: int
    height: int
    format: PictureFormat


def settle_pillow_warnings() -> None:
    """Make Pillow's warning of bombs an error and silence its others, for the whole process; call it at the start.

    ``decode_image`` says the same with and without; this keeps strangers from writing to the server's stderr.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def check_bytes(data: bytes, limits: ImageLimits, *, field: str) -> None:
    """Raise ``InvalidImage`` about ``field`` when ``data`` is empty or too long; costs nothing."""
    if not data:
        raise InvalidImage(field, "is empty", _ACCEPTED)
    if len(data) > limits.max_bytes:
        raise InvalidImage(field, f"has {len(data)} bytes", f"at most {limits.max_bytes} bytes")


def decode_image(data: bytes, limits: ImageLimits, *, field: str) -> DecodedImage:
    """Decode ``data`` to RGB.

    Raises ``InvalidImage`` about ``field``. Blocks: call it through ``ImagingPool``.
    """
    check_bytes(data, limits, field=field)
    image = _open(data, limits, field)
    _check_header(image, data, limits, field)
    orientation = _orientation(image)
    width, height = image.size
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    format = _FORMATS[image.format or ""]  # noqa: A001 - the API's word
    picture = _load(image, field)
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    return DecodedImage(picture=picture, width=width, height=height, format=format)


def _open(data: bytes, limits: ImageLimits, field: str) -> Image.Image:
    """Read the header, without pixels.

    By default Pillow would open EPS too, through Ghostscript: hence ``formats``.
    """
    try:
        return Image.open(BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own limits, which are above ours.
        raise InvalidImage(field, "has too many pixels", f"at most {limits.max_pixels} pixels") from error
    except MemoryError:
        raise
    except Exception as error:
        # Any exception of the parser on a stranger's bytes is the bytes' fault.
        raise InvalidImage(field, "is not an image that can be read", _ACCEPTED) from error


def _check_header(image: Image.Image, data: bytes, limits: ImageLimits, field: str) -> None:
    """Hold what the file declares to the limits, before any pixel is decoded."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise InvalidImage(field, f"has {width} x {height} pixels", f"at most {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side:
        raise InvalidImage(
            field, f"has {width} x {height} pixels", f"at least {limits.min_side} on each side"
        )
    # A multi-picture JPEG also says that it has frames, and is an ordinary photograph.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise InvalidImage(field, "is animated", "a still picture")
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > _MAX_SCANS:
        raise InvalidImage(field, f"has {scans} scans", f"a JPEG of at most {_MAX_SCANS} scans")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; damaged EXIF is no reason to refuse a picture, and says nothing."""
    with suppress(Exception):
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def _load(image: Image.Image, field: str) -> Image.Image:
    """Decode the pixels to RGB."""
    try:
        if image.format in ("JPEG", "MPO"):
            image.draft(None, (_DRAFT_SIDE, _DRAFT_SIDE))
        image.load()
        return _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        raise InvalidImage(field, "is truncated or damaged", "a complete picture") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` in RGB, whatever its mode."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion to 8 bits clips; a PNG's 16-bit grey is worth its upper byte.
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
