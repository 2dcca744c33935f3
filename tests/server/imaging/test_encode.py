"""Finished images: the pixels come back, and so does what made them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from server.imaging.encode import encode_image, read_parameters
from server.imaging.formats import PictureFormat
from server.imaging.parameters import EmbeddedParameters
from tests.server.imaging.pictures import file_of, scenery

PIXELS = np.asarray(scenery())
PARAMETERS = EmbeddedParameters(
    task_id="task-1",
    index=2,
    model="limner-portraits",
    weights_hash="0123456789abcdef",
    prompt='a "portrait" of <someone> & a cat, 日本 😀',
    negative_prompt="blurred",
    sampler="dpmpp_2m_karras",
    steps=20,
    guidance_scale=7.5,
    guidance_rescale=0.25,
    guidance_start=0.0,
    guidance_end=0.75,
    ip_adapter_scale=0.8,
    seed=2**63 - 1,
    width=96,
    height=64,
    reference="ab" * 32,
    deterministic=True,
)


@pytest.mark.parametrize("format", list(PictureFormat))
@pytest.mark.parametrize("parameters", [PARAMETERS, None])
def test_reads_back(format: PictureFormat, parameters: EmbeddedParameters | None) -> None:
    data = encode_image(PIXELS, format, parameters=parameters)
    image = Image.open(BytesIO(data))
    assert image.format == format.value
    assert np.abs(np.asarray(image, dtype=int) - PIXELS).mean() < (1e-9 if format == "PNG" else 4)
    assert read_parameters(data) == parameters


def test_png_carries_the_text_that_other_tools_read() -> None:
    text = Image.open(BytesIO(encode_image(PIXELS, PictureFormat.PNG, parameters=PARAMETERS))).info[
        "parameters"
    ]
    lines = text.split("\n")
    assert lines[0] == PARAMETERS.prompt
    assert lines[1] == "Negative prompt: blurred"
    assert lines[2].startswith(
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 9223372036854775807, Size: 96x64, "
        "Model hash: 0123456789, Model: limner-portraits"
    )


@pytest.mark.parametrize("format", [PictureFormat.JPEG, PictureFormat.WEBP])
def test_exif_carries_the_text_that_other_tools_read(format: PictureFormat) -> None:
    image = Image.open(BytesIO(encode_image(PIXELS, format, parameters=PARAMETERS)))
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == PARAMETERS.infotext()


@pytest.mark.parametrize("format", list(PictureFormat))
@pytest.mark.parametrize("letter", ["a", '"', "&", "é", "日", "😀"])
def test_prompts_of_any_length_fit(format: PictureFormat, letter: str) -> None:
    long = replace(PARAMETERS, prompt=letter * 50_000, negative_prompt=letter * 50_000)
    back = read_parameters(encode_image(PIXELS, format, parameters=long))
    assert back is not None
    assert back.prompt == back.negative_prompt == letter * 3999 + "…"


def test_quality_matters() -> None:
    small, large = (len(encode_image(PIXELS, PictureFormat.JPEG, quality=q)) for q in (20, 95))
    assert small < large


def test_views_are_encoded() -> None:
    data = encode_image(PIXELS[::2, ::-1], PictureFormat.PNG)
    assert np.array_equal(np.asarray(Image.open(BytesIO(data))), PIXELS[::2, ::-1])


@pytest.mark.parametrize("wrong", [PIXELS[..., 0], PIXELS.astype(np.float32), PIXELS[..., :2]])
def test_other_arrays_are_our_own_bug(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_image(wrong, PictureFormat.PNG)


def test_foreign_pictures_have_no_parameters() -> None:
    assert read_parameters(file_of(scenery(), "JPEG")) is None
    exif = Image.Exif()
    assert (
        read_parameters(
            file_of(scenery(), "WEBP", exif=exif, xmp=b"<limner:parameters>{}</limner:parameters>")
        )
        is None
    )
