"""What tiny models of all families have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.tinymodels.adapters import write_adapter

POOLED, HIDDEN = 16, 24
"""Widths of the image encoder's pooled embedding and hidden states."""


def build_vae(image_size: int, latent_channels: int, **settings: Any) -> Any:
    """Build a VAE of 8 pixels a latent cell."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=image_size,
        **settings,
    )


def build_vision(*, pooled: int = POOLED, hidden: int = HIDDEN) -> Any:
    """Build an image encoder of 32 by 32 pixels."""
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=pooled,
        )
    )


def text_settings(
    vocabulary: int, width: int, *, layers: int = 2, activation: str = "quick_gelu", **more: Any
) -> dict[str, Any]:
    """Return the settings of a text encoder for the tokenizer's vocabulary."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
        "hidden_act": activation,
        **more,
    }


def cross_attention_widths(unet: Any) -> list[int]:
    """List the widths of the cross-attention layers, in ``attn_processors``' order."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return [int(unet.get_submodule(name).to_k.out_features) for name in names if name.endswith("attn2")]


def write_adapters(
    root: Path,
    kinds: Sequence[str],
    layers: Sequence[int],
    token_width: int,
    *,
    seed: int,
    dtype: torch.dtype,
) -> None:
    """Write an adapter of each kind, named after it, for the image encoder in ``image_encoder/``."""
    for index, kind in enumerate(kinds):
        write_adapter(
            root / "ip_adapter" / f"{kind}.safetensors",
            kind,
            layers=layers,
            token_width=token_width,
            pooled_width=POOLED,
            hidden_width=HIDDEN,
            seed=seed + index,
            dtype=dtype,
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_settings(root: Path, scheduler: Mapping[str, Any]) -> None:
    """Write the scheduler's and the image encoder's preprocessing configuration."""
    write_json(
        root / "scheduler/scheduler_config.json",
        {
            "_class_name": "DDIMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "clip_sample": False,
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_spacing": "leading",
            **scheduler,
        },
    )
    write_json(
        root / "feature_extractor/preprocessor_config.json",
        {
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
    )
