"""What a decoder gives becomes pixels as diffusers has it, or an error where no picture can show it."""

from __future__ import annotations

import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from engine.models.vae import to_uint8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pixels_are_those_of_the_image_processor(dtype: torch.dtype) -> None:
    pixels = (1.2 * torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))).to(dtype)
    before = pixels.clone()
    found = to_uint8(pixels)
    expected = VaeImageProcessor().postprocess(pixels, output_type="np")
    assert torch.equal(found, torch.from_numpy(expected * 255).round().to(torch.uint8))
    assert found.is_contiguous() and torch.equal(pixels, before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_not_finite_is_no_picture(value: float, dtype: torch.dtype) -> None:
    pixels = torch.zeros(2, 3, 24, 16, dtype=dtype)
    pixels[1, 2, 23, 15] = value
    with pytest.raises(FloatingPointError):
        to_uint8(pixels)
