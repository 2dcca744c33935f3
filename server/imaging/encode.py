"""Encode finished images, with what made them in the file's metadata.

A PNG carries the text chunks ``parameters`` (AUTOMATIC1111's form) and ``limner`` (JSON). JPEG and WebP carry
the former as EXIF ``UserComment`` and the latter in XMP.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from io import BytesIO
from xml.sax.saxutils import escape, unescape

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from server.imaging.formats import PictureFormat
from server.imaging.parameters import EmbeddedParameters

DEFAULT_QUALITY = 90

_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:limner="urn:limner:1.0:"><limner:parameters>{}</limner:parameters>'
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
)
_XMP_PARAMETERS = re.compile(r"<limner:parameters>(.*?)</limner:parameters>", re.DOTALL)
_UNICODE = b"UNICODE\0"
"""EXIF 2.32, ``UserComment``: the character code comes first. Readers take it as big-endian UTF-16."""


def encode_image(
    pixels: NDArray[np.uint8],
    format: PictureFormat,
    *,
    quality: int = DEFAULT_QUALITY,
    parameters: EmbeddedParameters | None = None,
) -> bytes:
    """Encode ``pixels`` ``[H, W, 3]`` u8 RGB. Blocks: call it through ``ImagingPool``.

    ``quality`` is 1 to 100, for JPEG and WebP.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be [H, W, 3] uint8, not {pixels.shape} {pixels.dtype}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    file = BytesIO()
    _SAVE[format](image, file, quality, None if parameters is None else parameters.shortened())
    return file.getvalue()


def read_parameters(data: bytes) -> EmbeddedParameters | None:
    """Read back what ``encode_image`` embedded; None where there is none.

    Raises ``OSError`` for what is no picture.
    """
    with Image.open(BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        if image.format == "PNG":
            text = image.info.get("limner")
        else:
            packet = image.info.get("xmp", b"")
            match = _XMP_PARAMETERS.search(packet.decode("utf-8", "replace"))
            text = unescape(match[1]) if match else None
    return EmbeddedParameters.from_json(text) if isinstance(text, str) else None


def _save_png(image: Image.Image, file: BytesIO, _: int, parameters: EmbeddedParameters | None) -> None:
    chunks = PngInfo()
    if parameters is not None:
        for name, text in (("parameters", parameters.infotext()), ("limner", parameters.to_json())):
            # add_text writes tEXt, which is Latin-1, and iTXt for what does not fit it.
            chunks.add_text(name, text)
    # Level 1 takes a quarter of the default's time. Looking for runs alone takes no longer, and leaves photographs and
    # portraits as small as the default does (by hand): filtered rows repeat little else.
    image.save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=chunks)


def _save_jpeg(
    image: Image.Image, file: BytesIO, quality: int, parameters: EmbeddedParameters | None
) -> None:
    if parameters is None:
        image.save(file, "JPEG", quality=quality)
    else:
        image.save(file, "JPEG", quality=quality, exif=_exif(parameters), xmp=_xmp(parameters))


def _save_webp(
    image: Image.Image, file: BytesIO, quality: int, parameters: EmbeddedParameters | None
) -> None:
    # Method 2 of 0 to 6: beyond it, time grows faster than files shrink.
    if parameters is None:
        image.save(file, "WEBP", quality=quality, method=2)
    else:
        image.save(file, "WEBP", quality=quality, method=2, exif=_exif(parameters), xmp=_xmp(parameters))


_SAVE: dict[PictureFormat, Callable[[Image.Image, BytesIO, int, EmbeddedParameters | None], None]] = {
    PictureFormat.PNG: _save_png,
    PictureFormat.JPEG: _save_jpeg,
    PictureFormat.WEBP: _save_webp,
}


def _exif(parameters: EmbeddedParameters) -> Image.Exif:
    exif = Image.Exif()
    comment = _UNICODE + parameters.infotext().encode("utf-16-be", "replace")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return exif


def _xmp(parameters: EmbeddedParameters) -> bytes:
    return _XMP.format(escape(parameters.to_json())).encode()
