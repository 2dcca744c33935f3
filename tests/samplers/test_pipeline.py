"""The whole loop equals `StableDiffusionPipeline`: seeds, first latents, guidance, rescale, steps, draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from engine.samplers import (
    CoefficientBank,
    NoiseSource,
    advance,
    guide,
    image_seed,
    initial_state,
    model_input,
    sampler_names,
)

from .oracle import SD15, SDXL, SHAPE, relative_error, schedule_of, scheduler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

IMAGES, STEPS, SEED = 2, 4, 17


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=SHAPE[1],
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize(
    "config", [SD15, {**SDXL, "prediction_type": "v_prediction"}], ids=["sd15", "sdxl_v"]
)
@pytest.mark.parametrize("name", sampler_names())
@torch.no_grad()
def test_equals_the_pipeline(unet: Any, name: str, config: dict[str, Any], guided: bool) -> None:
    prompt, negative = torch.randn(2, 1, 3, 8, generator=torch.Generator().manual_seed(1))
    scale, rescale = (5.0, 0.6) if guided else (1.0, 0.0)
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=scheduler(name, config, STEPS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        num_images_per_prompt=IMAGES,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        guidance_rescale=rescale,
        generator=[torch.Generator().manual_seed(image_seed(SEED, index)) for index in range(IMAGES)],
        height=SHAPE[1] * 8,
        width=SHAPE[2] * 8,
        output_type="latent",
    ).images
    actual = generate(unet, name, config, prompt, negative if guided else None, scale, rescale)
    assert relative_error(actual, expected) < 1e-5


def generate(
    unet: Any,
    name: str,
    config: dict[str, Any],
    prompt: Tensor,
    negative: Tensor | None,
    scale: float,
    rescale: float,
) -> Tensor:
    """Generate as the engine does, with one UNet row for the prompt and one for the negative prompt."""
    bank = CoefficientBank(schedule_of(config))
    entry = bank.table(name, STEPS)
    sources = [NoiseSource(image_seed(SEED, index), SHAPE) for index in range(IMAGES)]
    latents = torch.stack([source.initial_latents(entry.table.init_noise_sigma) for source in sources])
    state = initial_state(latents)
    text = prompt.repeat(IMAGES, 1, 1)
    if negative is not None:
        text = torch.cat((text, negative.repeat(IMAGES, 1, 1)))
    copies = len(text) // IMAGES
    for n in range(STEPS):
        step = bank.gather(torch.full((IMAGES,), entry.first_row + n))
        x = model_input(state, step.input_scale).repeat(copies, 1, 1, 1)
        rows = unet(x, step.timestep.repeat(copies), encoder_hidden_states=text).sample
        whole = torch.ones(IMAGES)
        prediction = guide(rows, scale * whole, rescale * whole)
        draws = entry.table.draws_noise[n]
        noise = torch.stack([source.draw() for source in sources]) if draws else None
        state = advance(state, prediction, noise, step.matrix)
    return state[:, 0]
