"""A tiny Stable Diffusion XL directory with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.tinymodels.parts import (
    POOLED,
    build_vae,
    build_vision,
    cross_attention_widths,
    text_settings,
    write_adapters,
    write_json,
    write_settings,
)
from tests.tinymodels.tokenizer import write_tokenizer

TEXT_WIDTHS = (24, 40)
TEXT_POOLED = 16
SIZE_WIDTH = 8
"""Sines and cosines for each of the six time ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyXLSettings:
    """What may differ between tiny SDXL models; see ``TinySettings``."""

    adapters: Sequence[str] = ("base",)
    prediction_type: str = "epsilon"
    image_size: int = 64
    block_out_channels: tuple[int, ...] = (32, 32, 64)
    layers_per_block: int = 1
    transformer_layers: tuple[int, ...] = (1, 2, 3)
    heads: tuple[int, ...] = (2, 4, 8)
    guidance_width: int | None = None
    zeros_for_empty: bool = True
    force_upcast: bool = True
    dtype: torch.dtype = torch.float32
    seed: int = 0


def build_tiny_xl(root: Path, settings: TinyXLSettings | None = None) -> Path:
    """Write a model directory and return it. Same settings, same bytes; the global generator is left alone."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

    at = settings or TinyXLSettings()
    root.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(root / "tokenizer")
    write_tokenizer(root / "tokenizer_2", pad="!")
    attention = sum(TEXT_WIDTHS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(at.seed)
        crossed = len(at.block_out_channels) - 1
        unet = UNet2DConditionModel(
            sample_size=at.image_size // 8,
            block_out_channels=at.block_out_channels,
            layers_per_block=at.layers_per_block,
            cross_attention_dim=attention,
            attention_head_dim=at.heads,
            transformer_layers_per_block=at.transformer_layers,
            norm_num_groups=8,
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * crossed,
            up_block_types=("CrossAttnUpBlock2D",) * crossed + ("UpBlock2D",),
            use_linear_projection=True,
            time_cond_proj_dim=at.guidance_width,
            addition_embed_type="text_time",
            addition_time_embed_dim=SIZE_WIDTH,
            projection_class_embeddings_input_dim=TEXT_POOLED + 6 * SIZE_WIDTH,
        )
        vae = build_vae(at.image_size, 4, scaling_factor=0.13025, force_upcast=at.force_upcast)
        first = CLIPTextModel(CLIPTextConfig(**text_settings(vocabulary, TEXT_WIDTHS[0])))
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(
                **text_settings(
                    vocabulary, TEXT_WIDTHS[1], layers=3, activation="gelu", projection_dim=TEXT_POOLED
                )
            )
        )
        vision = build_vision(pooled=POOLED)
    modules = {
        "unet": unet,
        "vae": vae,
        "text_encoder": first,
        "text_encoder_2": second,
        "image_encoder": vision,
    }
    for name, module in modules.items():
        module.to(at.dtype).save_pretrained(root / name, safe_serialization=True)
    write_json(
        root / "model_index.json",
        {
            "_class_name": "StableDiffusionXLPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "force_zeros_for_empty_prompt": at.zeros_for_empty,
            "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )
    write_settings(root, {"prediction_type": at.prediction_type})
    write_adapters(
        root, at.adapters, cross_attention_widths(unet), attention, seed=at.seed + 1, dtype=at.dtype
    )
    return root
