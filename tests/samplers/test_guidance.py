"""Guidance equals the pipeline's, row by row."""

from __future__ import annotations

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from engine.samplers import guide

from .oracle import relative_error

GUIDED = torch.tensor([0, 2, 3])
SCALE = torch.tensor([7.5, 1.0, 3.0, 12.0])
RESCALE = torch.tensor([0.7, 0.7, 0.0, 0.25])


def predictions(size: tuple[int, int, int] = (4, 16, 16), rows: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, *size, generator=generator) + 0.2


def test_equals_the_pipeline() -> None:
    rows = predictions()
    actual = guide(rows, SCALE, RESCALE, GUIDED)
    for image, blank in zip(GUIDED.tolist(), rows[4:].split(1), strict=True):
        text = rows[image][None]
        expected = blank + float(SCALE[image]) * (text - blank)
        if RESCALE[image] > 0:
            expected = rescale_noise_cfg(expected, text, guidance_rescale=float(RESCALE[image]))
        assert relative_error(actual[image], expected[0]) < 1e-6


def test_plain_guidance_equals_the_pipeline_to_the_bit() -> None:
    rows = predictions()
    actual = guide(rows, SCALE, None, GUIDED)
    assert torch.equal(actual[0], rows[4] + 7.5 * (rows[0] - rows[4]))
    assert torch.equal(actual[2], guide(rows, SCALE, RESCALE, GUIDED)[2])


def test_a_row_without_guidance_is_unchanged_whatever_its_numbers() -> None:
    rows = predictions()
    scale, rescale = torch.full((4,), 9.0), torch.full((4,), 0.7)
    assert torch.equal(guide(rows, scale, rescale, GUIDED)[1], rows[1])
    assert torch.equal(guide(rows[:4], scale, rescale), rows[:4])


def test_all_images_guided_are_each_as_named() -> None:
    rows = predictions(rows=8)
    assert torch.equal(guide(rows, SCALE, RESCALE), guide(rows, SCALE, RESCALE, torch.arange(4)))


def test_rows_are_independent_to_the_bit() -> None:
    for size in ((4, 16, 16), (4, 13, 7), (4, 96, 96), (1, 1, 2)):
        rows = predictions(size)
        together = guide(rows, SCALE, RESCALE, GUIDED)
        for blank, image in enumerate(GUIDED.tolist(), start=4):
            one = slice(image, image + 1)
            alone = guide(rows[[image, blank]], SCALE[one], RESCALE[one])
            assert torch.equal(together[one], alone)


def test_a_constant_prediction_without_rescale_stays_finite() -> None:
    rows, one = torch.ones(2, 4, 8, 8), torch.ones(1)
    assert torch.equal(guide(rows, 5 * one, 0 * one), rows[:1])


def test_half_predictions_are_guided_in_float32() -> None:
    rows = predictions().to(torch.bfloat16)
    assert torch.equal(guide(rows, SCALE, None, GUIDED), guide(rows.float(), SCALE, None, GUIDED))
