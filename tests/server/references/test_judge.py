"""The judge: clean pictures give no warning, and each way to spoil one gives its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from random import Random

import pytest
from PIL import Image, ImageEnhance, ImageFilter

from engine.embedded.world.render import render
from engine.embedded.world.sample import sample_identity, sample_scene
from server.references.judge import judge
from server.references.record import ReferenceWarningCode as Code

ENCODER_SIZE = 64


def portraits(size: int = 256, count: int = 8, **scene: str) -> list[Image.Image]:
    random = Random(11)
    return [
        render(sample_identity(random), replace(sample_scene(random), **scene), size=size)
        for _ in range(count)
    ]


def codes(picture: Image.Image) -> list[Code]:
    found = judge(picture, width=picture.width, height=picture.height, encoder_size=ENCODER_SIZE)
    assert all(warning.message.endswith(".") and warning.action.endswith(".") for warning in found)
    return [warning.code for warning in found]


def compressed(picture: Image.Image) -> Image.Image:
    file = BytesIO()
    picture.save(file, "JPEG", quality=5)
    return Image.open(file).convert("RGB")


SPOILT: dict[Code, Callable[[Image.Image], Image.Image]] = {
    Code.SMALL: lambda picture: picture.resize((48, 48), Image.Resampling.LANCZOS),
    Code.BLURRED: lambda picture: picture.filter(ImageFilter.GaussianBlur(4)),
    Code.LOW_CONTRAST: lambda p: Image.blend(Image.new("RGB", p.size, (128, 128, 128)), p, 0.15),
    Code.COMPRESSED: compressed,
    Code.FILTERED: lambda picture: ImageEnhance.Color(picture).enhance(6),
    Code.EXTREME_ASPECT: lambda p: p.crop((0, p.height // 3, p.width, p.height // 3 + p.width * 2 // 5)),
}


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_clean_portraits_give_no_warning(size: int) -> None:
    assert [codes(picture) for picture in portraits(size)] == [[]] * 8


@pytest.mark.parametrize("code", list(Code))
def test_each_way_to_spoil_a_portrait_gives_its_own_warning(code: Code) -> None:
    assert [codes(SPOILT[code](picture)) for picture in portraits()] == [[code]] * 8


def test_overexposure_is_filtered() -> None:
    for picture in portraits():
        assert codes(ImageEnhance.Contrast(picture).enhance(8)) == [Code.FILTERED]


def test_an_enlarged_thumbnail_is_blurred() -> None:
    # Flat, since the edges between a pixel drawing's blocks outlast the enlargement.
    for picture in portraits(48, style="flat"):
        assert Code.BLURRED in codes(picture.resize((512, 512), Image.Resampling.BICUBIC))


def test_ordinary_jpeg_is_clean() -> None:
    for picture in portraits():
        file = BytesIO()
        picture.save(file, "JPEG", quality=75)
        assert codes(Image.open(file).convert("RGB")) == []


@pytest.mark.parametrize("size", [(16, 16), (16, 3000), (3000, 16), (1, 1)])
def test_any_size_and_no_content_can_be_judged(size: tuple[int, int]) -> None:
    found = codes(Image.new("RGB", size, (90, 90, 90)))
    assert Code.SMALL in found
    assert Code.LOW_CONTRAST in found
    assert Code.BLURRED not in found


def test_the_files_own_size_counts_where_the_picture_was_decoded_smaller() -> None:
    picture = portraits(128, 1)[0]
    found = judge(picture, width=1000, height=1000, encoder_size=224)
    assert found == ()
