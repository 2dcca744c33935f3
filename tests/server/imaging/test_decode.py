"""Strangers' pictures: what is refused, with which words, and what becomes of unusual ones."""

from __future__ import annotations

import resource
import warnings
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from server.imaging.decode import DecodedImage, ImageLimits, decode_image, settle_pillow_warnings
from server.imaging.errors import InvalidImage
from server.imaging.formats import PictureFormat
from tests.server.imaging.pictures import animation, bomb, file_of, scanned, scenery

LIMITS = ImageLimits(max_bytes=4_000_000, max_pixels=20_000_000, min_side=16)
FIELD = "portrait.reference_image"


def decode(data: bytes, limits: ImageLimits = LIMITS) -> DecodedImage:
    return decode_image(data, limits, field=FIELD)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=int)


REFUSED = {
    "empty": (b"", "is empty", "JPEG, PNG or WebP"),
    "text": (b"this is no picture", "not an image", "JPEG, PNG or WebP"),
    "gif": (file_of(scenery(), "GIF"), "not an image", "JPEG, PNG or WebP"),
    "bmp": (file_of(scenery(), "BMP"), "not an image", "JPEG, PNG or WebP"),
    "tiff": (file_of(scenery(), "TIFF"), "not an image", "JPEG, PNG or WebP"),
    "eps": (file_of(scenery(), "EPS"), "not an image", "JPEG, PNG or WebP"),
    "1x1": (file_of(scenery(1, 1), "PNG"), "has 1 x 1 pixels", "at least 16"),
    "thin": (file_of(scenery(300, 15), "PNG"), "has 300 x 15 pixels", "at least 16"),
    "too many bytes": (b"\0" * 4_000_001, "has 4000001 bytes", "at most 4000000 bytes"),
    "huge": (bomb(5_000, 5_000), "has 5000 x 5000 pixels", "at most 20000000 pixels"),
    "bomb, 144 megapixels": (bomb(12_000, 12_000), "pixels", "at most 20000000 pixels"),
    "bomb, 400 megapixels": (bomb(20_000, 20_000), "has too many pixels", "at most 20000000 pixels"),
    "animated png": (animation("PNG"), "is animated", "a still picture"),
    "animated webp": (animation("WEBP"), "is animated", "a still picture"),
    "truncated jpeg": (file_of(scenery(), "JPEG")[:-400], "is truncated", "a complete picture"),
    "truncated png": (file_of(scenery(), "PNG")[:-100], "is truncated", "a complete picture"),
    "truncated webp": (file_of(scenery(), "WEBP")[:-60], "is", "picture"),
    "header alone": (file_of(scenery(), "PNG")[:40], "is", "picture"),
    "scans": (
        scanned(file_of(scenery(), "JPEG", progressive=True), 200),
        "scans",
        "a JPEG of at most 100 scans",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    data, problem, limit = REFUSED[name]
    with pytest.raises(InvalidImage) as caught:
        decode(data)
    assert caught.value.field == FIELD
    assert problem in caught.value.problem
    assert limit in caught.value.limit


def test_a_bomb_is_small_and_costs_no_memory() -> None:
    data = bomb(20_000, 20_000)
    assert len(data) < 64_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidImage):
        decode(data)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 20_000


def test_a_bomb_is_refused_whether_pillow_warns_or_raises() -> None:
    with warnings.catch_warnings():
        for action in ("ignore", "error"):
            warnings.simplefilter(action, Image.DecompressionBombWarning)
            with pytest.raises(InvalidImage, match="pixels"):
                decode(bomb(12_000, 12_000))
        warnings.resetwarnings()
        settle_pillow_warnings()
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(BytesIO(bomb(12_000, 12_000)))


def test_limits_above_what_pillow_opens_are_an_error() -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        ImageLimits(max_pixels=200_000_000)


@pytest.mark.parametrize("format", list(PictureFormat))
def test_takes_each_format(format: PictureFormat) -> None:
    decoded = decode(file_of(scenery(), format.value))
    assert (decoded.width, decoded.height, decoded.format) == (96, 64, format)
    assert decoded.picture.mode == "RGB"
    assert np.abs(pixels(decoded.picture) - pixels(scenery())).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_upright(orientation: int) -> None:
    upright = scenery()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    decoded = decode(file_of(stored, "PNG", exif=exif))
    assert (decoded.width, decoded.height) == upright.size
    assert np.array_equal(pixels(decoded.picture), pixels(upright))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 40])
def test_damaged_exif_is_no_reason_to_refuse(exif: bytes) -> None:
    assert decode(file_of(scenery(), "JPEG", exif=exif)).width == 96


def test_cmyk_becomes_rgb() -> None:
    decoded = decode(file_of(scenery().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels(decoded.picture) - pixels(scenery())).mean() < 6


def test_sixteen_bits_keep_the_upper_eight() -> None:
    grey = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    decoded = decode(file_of(Image.fromarray(grey), "PNG"))
    assert np.array_equal(pixels(decoded.picture)[..., 0], grey >> 8)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = scenery().convert(mode)
    decoded = decode(file_of(image, "PNG"))
    assert decoded.picture.mode == "RGB"
    assert np.array_equal(pixels(decoded.picture), pixels(image))


def test_transparency_is_laid_over_white() -> None:
    image = scenery().convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, 48, 64))
    decoded = decode(file_of(image, "PNG"))
    assert decoded.picture.getpixel((10, 10)) == (255, 255, 255)
    assert decoded.picture.getpixel((80, 10)) == scenery().getpixel((80, 10))


def test_a_transparent_palette_entry_is_white() -> None:
    image = scenery().convert("P")
    image.paste(7, (0, 0, 48, 64))
    decoded = decode(file_of(image, "PNG", transparency=7))
    assert decoded.picture.getpixel((10, 10)) == (255, 255, 255)


def test_a_multi_picture_jpeg_is_an_ordinary_photograph() -> None:
    data = file_of(scenery(), "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64))])
    decoded = decode(data)
    assert decoded.format is PictureFormat.JPEG
    assert np.abs(pixels(decoded.picture) - pixels(scenery())).mean() < 4


def test_a_large_jpeg_is_decoded_at_a_fraction() -> None:
    decoded = decode(file_of(scenery(1800, 1600), "JPEG"))
    assert (decoded.width, decoded.height) == (1800, 1600)
    assert decoded.picture.size == (900, 800)


def test_a_jpeg_near_the_encoders_size_is_decoded_in_full() -> None:
    assert decode(file_of(scenery(1500, 1500), "JPEG")).picture.size == (1500, 1500)


@pytest.mark.parametrize("format", list(PictureFormat))
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_anywhere_is_refused_or_decoded(format: PictureFormat, data: st.DataObject) -> None:
    whole = bytearray(file_of(scenery(48, 32), format.value))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        with suppress(InvalidImage):
            assert decode(damaged).picture.mode == "RGB"
