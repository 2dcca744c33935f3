"""The conditioned UNet equals diffusers' UNet with the same adapter loaded, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.models.model import Model, load_model
from tests.tinymodels import ADAPTER_KINDS, TinySettings, build_tiny_model, open_pipeline

EPSILON = 2e-6
PROMPTS = ("a portrait of a woman", "a man smiling", "", "a red hat")


def feature_shape(model: Model) -> tuple[int, ...]:
    """Shape of one reference's features as the adapter takes them."""
    assert model.image_encoder is not None and model.adapter is not None
    width = model.image_encoder.width(model.adapter)
    return (17, width) if model.adapter.takes_hidden_states else (width,)


def run_diffusers(
    pipe: Any,
    sample: torch.Tensor,
    step: torch.Tensor,
    text: torch.Tensor,
    features: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Run diffusers' UNet at one scale for all rows; ``features [B, 1, ...]``."""
    pipe.set_ip_adapter_scale(scale)
    output: torch.Tensor = pipe.unet(
        sample, step, text, added_cond_kwargs={"image_embeds": [features]}, return_dict=False
    )[0]
    return output


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_rows_of_mixed_scale_reference_and_prompt_equal_diffusers(every_adapter: Path, kind: str) -> None:
    model = load_model(every_adapter, adapter=kind)
    assert model.adapter is not None
    pipe = open_pipeline(every_adapter, adapter=kind)
    torch.manual_seed(3)
    scales = (1.0, 0.35, 0.0, 1.7)
    sample = torch.randn(4, 4, 8, 8)
    step = torch.tensor([1, 250, 999, 500])
    text = torch.stack([prompt.embedding for prompt in model.prompts.encode(PROMPTS)])
    features = torch.randn(4, 1, *feature_shape(model))
    with torch.inference_mode():
        tokens = model.adapter.projection(features[:, 0])
        kv_ip = torch.stack(
            [model.adapter.kv.project(token, scale) for token, scale in zip(tokens, scales, strict=True)]
        )
        ours = model.unet(sample, step.float(), model.text_kv.project(text), kv_ip)
        for row, scale in enumerate(scales):
            theirs = run_diffusers(pipe, sample, step, text, features, scale)
            torch.testing.assert_close(ours[row], theirs[row], rtol=0, atol=EPSILON)


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_at_scale_one_the_arithmetic_is_bit_identical_to_diffusers(every_adapter: Path, kind: str) -> None:
    model = load_model(every_adapter, adapter=kind)
    assert model.adapter is not None
    pipe = open_pipeline(every_adapter, adapter=kind)
    torch.manual_seed(4)
    sample, step = torch.randn(4, 4, 8, 8), torch.tensor([1, 250, 999, 500])
    text = torch.stack([prompt.embedding for prompt in model.prompts.encode(PROMPTS)])
    features = torch.randn(4, 1, *feature_shape(model))
    with torch.inference_mode():
        kv_ip = model.adapter.kv.project(model.adapter.projection(features[:, 0]))
        ours = model.unet(sample, step.float(), model.text_kv.project(text), kv_ip)
        assert torch.equal(ours, run_diffusers(pipe, sample, step, text, features, 1.0))


def test_zero_values_are_exactly_the_plain_model(every_adapter: Path) -> None:
    model = load_model(every_adapter, adapter="base")
    pipe = open_pipeline(every_adapter)
    torch.manual_seed(5)
    sample, step = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    text = torch.stack([prompt.embedding for prompt in model.prompts.encode(PROMPTS[:2])])
    with torch.inference_mode():
        ours = model.unet(
            sample, step.float(), model.text_kv.project(text), torch.zeros(2, 4, model.unet.width)
        )
        theirs = pipe.unet(sample, step, text, return_dict=False)[0]
    assert torch.equal(ours, theirs)


def test_masked_tokens_do_not_count(every_adapter: Path) -> None:
    model = load_model(every_adapter, adapter="base")
    torch.manual_seed(6)
    sample, step = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 700.0])
    with torch.inference_mode():
        kv_text = torch.randn(2, 77, model.unet.width)
        kv_ip = torch.randn(2, 8, model.unet.width)
        mask = torch.zeros(2, 8)
        mask[0, 4:] = -torch.inf
        ours = model.unet(sample, step, kv_text, kv_ip, mask)
        short = model.unet(sample[:1], step[:1], kv_text[:1], kv_ip[:1, :4])
        full = model.unet(sample[1:], step[1:], kv_text[1:], kv_ip[1:])
    torch.testing.assert_close(ours, torch.cat([short, full]), rtol=0, atol=EPSILON)


def test_a_scale_for_each_layer_equals_diffusers(every_adapter: Path) -> None:
    model = load_model(every_adapter, adapter="base")
    assert model.adapter is not None
    pipe = open_pipeline(every_adapter, adapter="base")
    torch.manual_seed(7)
    sample, step = torch.randn(1, 4, 8, 8), torch.tensor([321])
    text = model.prompts.encode(PROMPTS[:1])[0].embedding[None]
    features = torch.randn(1, 1, *feature_shape(model))
    scales = [0.8 if layer.name.startswith("up_blocks") else 0.0 for layer in model.unet.columns]
    with torch.inference_mode():
        kv_ip = model.adapter.kv.project(model.adapter.projection(features[:, 0]), scales)
        ours = model.unet(sample, step.float(), model.text_kv.project(text), kv_ip)
        theirs = run_diffusers(pipe, sample, step, text, features, {"up": 0.8})  # type: ignore[arg-type]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=EPSILON)
    with pytest.raises(ValueError, match="scales for"):
        model.adapter.kv.project(torch.zeros(4, 32), [1.0])


def test_linear_projections_and_half_weights_on_disk(tmp_path: Path) -> None:
    root = build_tiny_model(
        tmp_path, TinySettings(linear_projection=True, dtype=torch.float16, layers_per_block=2)
    )
    model = load_model(root)
    pipe = open_pipeline(root, adapter="base")
    assert model.adapter is not None and model.text_kv.weight.dtype == torch.float32
    torch.manual_seed(8)
    sample, step = torch.randn(2, 4, 8, 8), torch.tensor([1, 999])
    text = torch.stack([prompt.embedding for prompt in model.prompts.encode(PROMPTS[:2])])
    features = torch.randn(2, 1, *feature_shape(model))
    with torch.inference_mode():
        kv_ip = model.adapter.kv.project(model.adapter.projection(features[:, 0]), 0.6)
        ours = model.unet(sample, step.float(), model.text_kv.project(text), kv_ip)
        theirs = run_diffusers(pipe, sample, step, text, features, 0.6)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=EPSILON)
