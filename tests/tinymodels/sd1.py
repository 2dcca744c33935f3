"""Tiny Stable Diffusion 1.x and 2.x directories with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.tinymodels.parts import (
    build_vae,
    build_vision,
    cross_attention_widths,
    text_settings,
    write_adapters,
    write_json,
    write_settings,
)
from tests.tinymodels.tokenizer import write_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySettings:
    """What may differ between tiny models. Sizes in pixels; ``dtype`` is the type on disk.

    ``guidance_width`` is ``time_cond_proj_dim``; ``scheduler`` overrides entries of its configuration; ``pad`` is the
    token that pads prompts.
    """

    adapters: Sequence[str] = ("base",)
    prediction_type: str = "epsilon"
    beta_end: float = 0.012
    timestep_spacing: str = "leading"
    latent_channels: int = 4
    image_size: int = 64
    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = 1
    cross_attention_dim: int = 32
    attention_head_dim: int | tuple[int, ...] = 4
    linear_projection: bool = False
    guidance_width: int | None = None
    text_layers: int = 2
    text_activation: str = "quick_gelu"
    pad: str = "<|endoftext|>"
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    seed: int = 0


SD2 = TinySettings(
    prediction_type="v_prediction",
    linear_projection=True,
    attention_head_dim=(4, 8),
    layers_per_block=2,
    # What is published has 23 of its encoder's 24 layers: the last one's output is the penultimate one's.
    text_layers=3,
    text_activation="gelu",
    pad="!",
)
"""The layout of Stable Diffusion 2.x at 768 pixels."""

LCM = TinySettings(
    guidance_width=32,
    timestep_spacing="leading",
    scheduler={"_class_name": "LCMScheduler", "original_inference_steps": 50},
)
"""A latent consistency model distilled with its guidance as an input, as LCM_Dreamshaper_v7."""

TURBO = TinySettings(
    linear_projection=True,
    attention_head_dim=(4, 8),
    timestep_spacing="trailing",
    scheduler={"_class_name": "EulerDiscreteScheduler"},
)
"""The layout of SD-Turbo: guidance-free, few steps."""


def build_tiny_model(root: Path, settings: TinySettings | None = None) -> Path:
    """Write a model directory and return it. Same settings, same bytes; the global generator is left alone."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    at = settings or TinySettings()
    root.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(root / "tokenizer", pad=at.pad)
    attention = at.cross_attention_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(at.seed)
        crossed = len(at.block_out_channels) - 1
        unet = UNet2DConditionModel(
            sample_size=at.image_size // 8,
            in_channels=at.latent_channels,
            out_channels=at.latent_channels,
            block_out_channels=at.block_out_channels,
            layers_per_block=at.layers_per_block,
            cross_attention_dim=attention,
            attention_head_dim=at.attention_head_dim,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D",) * crossed + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * crossed,
            use_linear_projection=at.linear_projection,
            time_cond_proj_dim=at.guidance_width,
        )
        vae = build_vae(at.image_size, at.latent_channels)
        text = CLIPTextModel(
            CLIPTextConfig(
                **text_settings(vocabulary, attention, layers=at.text_layers, activation=at.text_activation)
            )
        )
        vision = build_vision()
    for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text), ("image_encoder", vision)):
        module.to(at.dtype).save_pretrained(root / name, safe_serialization=True)
    write_json(
        root / "model_index.json",
        {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", at.scheduler.get("_class_name", "DDIMScheduler")],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    write_settings(
        root,
        {
            "beta_end": at.beta_end,
            "prediction_type": at.prediction_type,
            "timestep_spacing": at.timestep_spacing,
            **at.scheduler,
        },
    )
    write_adapters(
        root, at.adapters, cross_attention_widths(unet), attention, seed=at.seed + 1, dtype=at.dtype
    )
    return root
