"""A tiny Stable Diffusion 1.x directory with random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.tinymodels.adapters import write_adapter
from tests.tinymodels.tokenizer import write_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySettings:
    """What may differ between tiny models. Sizes in pixels; ``dtype`` is the type on disk."""

    adapters: Sequence[str] = ("base",)
    prediction_type: str = "epsilon"
    beta_end: float = 0.012
    timestep_spacing: str = "leading"
    latent_channels: int = 4
    image_size: int = 64
    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = 1
    cross_attention_dim: int = 32
    attention_head_dim: int = 4
    linear_projection: bool = False
    dtype: torch.dtype = torch.float32
    seed: int = 0


def build_tiny_model(root: Path, settings: TinySettings | None = None) -> Path:
    """Write a model directory and return it. Same settings, same bytes; the global generator is left alone."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPVisionModelWithProjection

    at = settings or TinySettings()
    root.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(root / "tokenizer")
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
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=at.latent_channels,
            norm_num_groups=4,
            sample_size=at.image_size,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary,
                hidden_size=attention,
                intermediate_size=2 * attention,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=vocabulary - 2,
                eos_token_id=vocabulary - 1,
                pad_token_id=vocabulary - 1,
            )
        )
        vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=24,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
                projection_dim=16,
            )
        )
    for name, module in (("unet", unet), ("vae", vae), ("text_encoder", text), ("image_encoder", vision)):
        module.to(at.dtype).save_pretrained(root / name, safe_serialization=True)
    _write_settings(root, at)
    layers = [
        int(module.to_k.out_features)
        for name, module in (
            (n.removesuffix(".processor"), unet.get_submodule(n.removesuffix(".processor")))
            for n in unet.attn_processors
        )
        if name.endswith("attn2")
    ]
    for index, kind in enumerate(at.adapters):
        write_adapter(
            root / "ip_adapter" / f"{kind}.safetensors",
            kind,
            layers=layers,
            token_width=attention,
            pooled_width=16,
            hidden_width=24,
            seed=at.seed + 1 + index,
            dtype=at.dtype,
        )
    return root


def _write_settings(root: Path, at: TinySettings) -> None:
    files: dict[str, dict[str, Any]] = {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "_diffusers_version": "0.42.1",
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            "beta_start": 0.00085,
            "beta_end": at.beta_end,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "prediction_type": at.prediction_type,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_spacing": at.timestep_spacing,
        },
        "feature_extractor/preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_size": {"height": 32, "width": 32},
            "resample": 3,
            "do_resize": True,
            "do_center_crop": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    }
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
