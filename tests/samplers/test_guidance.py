"""Guidance equals the pipeline's, row by row."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from engine.samplers import guide

from .oracle import relative_error

COND = torch.tensor([0, 2, 3, 5])
UNCOND = torch.tensor([1, 2, 4, 6])
SCALE = torch.tensor([7.5, 1.0, 3.0, 12.0])
RESCALE = torch.tensor([0.7, 0.7, 0.0, 0.25])


def predictions(size: tuple[int, int, int] = (4, 16, 16), rows: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, *size, generator=generator) + 0.2


def test_equals_the_pipeline() -> None:
    rows = predictions()
    actual = guide(rows, COND, UNCOND, SCALE, RESCALE)
    for image, (cond, uncond) in enumerate(zip(COND, UNCOND, strict=True)):
        text, blank = rows[cond][None], rows[uncond][None]
        expected = text
        if cond != uncond:
            expected = blank + float(SCALE[image]) * (text - blank)
            if RESCALE[image] > 0:
                expected = rescale_noise_cfg(expected, text, guidance_rescale=float(RESCALE[image]))
        assert relative_error(actual[image], expected[0]) < 1e-6


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("rescale", [None, RESCALE])
def test_slices_are_these_rows_to_the_bit(rescale: Tensor | None, *, guided: bool) -> None:
    rows, first = predictions(rows=8), slice(0, 4)
    second = slice(4, 8) if guided else first
    indices = [torch.arange(8)[part] for part in (first, second)]
    assert torch.equal(guide(rows, first, second, SCALE, rescale), guide(rows, *indices, SCALE, rescale))


def test_plain_guidance_equals_the_pipeline_to_the_bit() -> None:
    rows = predictions()
    actual = guide(rows, COND, UNCOND, SCALE)
    assert torch.equal(actual[0], rows[1] + 7.5 * (rows[0] - rows[1]))
    assert torch.equal(actual[2], guide(rows, COND, UNCOND, SCALE, RESCALE)[2])


def test_a_row_without_guidance_is_unchanged_whatever_its_numbers() -> None:
    rows = predictions()
    scale, rescale = torch.tensor([9.0, 9.0, 9.0, 9.0]), torch.full((4,), 0.7)
    assert torch.equal(guide(rows, COND, COND, scale, rescale), rows[COND])
    assert torch.equal(guide(rows, slice(0, 4), slice(0, 4), scale, rescale), rows[:4])


def test_rows_are_independent_to_the_bit() -> None:
    for size in ((4, 16, 16), (4, 13, 7), (4, 96, 96), (1, 1, 2)):
        rows = predictions(size)
        together = guide(rows, COND, UNCOND, SCALE, RESCALE)
        for image in range(len(COND)):
            one = slice(image, image + 1)
            pair = rows[torch.stack([COND[image], UNCOND[image]])]
            same = int(COND[image] == UNCOND[image])
            alone = guide(pair, torch.tensor([0]), torch.tensor([1 - same]), SCALE[one], RESCALE[one])
            assert torch.equal(together[one], alone)


def test_a_constant_prediction_without_rescale_stays_finite() -> None:
    rows = torch.ones(2, 4, 8, 8)
    one = torch.ones(1)
    guided = guide(rows, torch.tensor([0]), torch.tensor([1]), 5 * one, 0 * one)
    assert torch.equal(guided, rows[:1])


def test_half_predictions_are_guided_in_float32() -> None:
    rows = predictions().to(torch.bfloat16)
    assert torch.equal(guide(rows, COND, UNCOND, SCALE), guide(rows.float(), COND, UNCOND, SCALE))
