"""Stable Diffusion 1.5 and SDXL at their published sizes, with random weights: nothing is downloaded.

``python -m loadtests.gpu.published sd15 DIRECTORY`` writes a model directory of that family (float16, 4.5 GB; ``sdxl``
8 GB), for which speed, memory and engine builds are those of the real model.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

# The config.json files of runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-xl-base-1.0 and h94/IP-Adapter.
SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
VIT_H = {
    **CLIP_G,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}
TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407, "bos_token_id": 49406}
SCHEDULER = {
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
}
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def random_module(
    build: Callable[[], nn.Module], *, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0
) -> nn.Module:
    """Build a module without its own initialisation and fill it so that activations keep their size."""
    with torch.device("meta"):
        module = build()
    module = module.to(dtype).to_empty(device=device)
    generator = torch.Generator(device=device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                # Variance 1 / fan-in.
                parameter.normal_(std=1 / math.sqrt(parameter[0].numel()), generator=generator)
            else:
                # The only vectors that are weights are those of norms.
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        for name, buffer in module.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1], device=device).expand(buffer.shape))
    return module.eval().requires_grad_(False)


def unet(family: str, *, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
    """Build the UNet of ``sd15`` or ``sdxl``."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    settings = {"sd15": SD15_UNET, "sdxl": SDXL_UNET}[family]
    return random_module(lambda: UNet2DConditionModel(**settings), dtype=dtype, device=device)


def write_model(
    family: str, root: Path, *, dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu"
) -> Path:
    """Write a directory in diffusers' layout with one base IP-Adapter, and return it."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    from tests.tinymodels.adapters import write_adapter
    from tests.tinymodels.tokenizer import write_tokenizer

    xl = family == "sdxl"
    pixels = 1024 if xl else 512
    factor = 0.13025 if xl else 0.18215
    text = CLIPTextConfig(**TEXT, **CLIP_L)
    parts: dict[str, Callable[[], nn.Module]] = {
        "vae": lambda: AutoencoderKL(**VAE, sample_size=pixels, scaling_factor=factor),
        "text_encoder": lambda: CLIPTextModel(text),
        "image_encoder": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_H)),
    }
    if xl:
        second = CLIPTextConfig(**TEXT, **CLIP_G, projection_dim=1280, hidden_act="gelu")
        parts["text_encoder_2"] = lambda: CLIPTextModelWithProjection(second)
    root.mkdir(parents=True, exist_ok=True)
    network: Any = unet(family, dtype=dtype, device=device)
    layers = [
        int(network.get_submodule(name.removesuffix(".processor")).to_k.out_features)
        for name in network.attn_processors
        if name.endswith("attn2.processor")
    ]
    network.save_pretrained(root / "unet", max_shard_size="40GB")
    del network
    for name, build in parts.items():
        module: Any = random_module(build, dtype=dtype, device=device)
        module.save_pretrained(root / name, max_shard_size="40GB")
    for name in ("tokenizer", "tokenizer_2") if xl else ("tokenizer",):
        write_tokenizer(root / name)
    write_adapter(
        root / "ip_adapter" / "base.safetensors",
        "base",
        layers=layers,
        token_width=2048 if xl else 768,
        pooled_width=1024,
        hidden_width=1280,
        dtype=dtype,
    )
    _write_settings(root, xl=xl)
    return root


def _write_settings(root: Path, *, xl: bool) -> None:
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    if xl:
        index |= {
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "force_zeros_for_empty_prompt": True,
        }
    else:
        index |= {"requires_safety_checker": False, "safety_checker": [None, None]}
    files = {
        "model_index.json": index,
        "scheduler/scheduler_config.json": SCHEDULER,
        "feature_extractor/preprocessor_config.json": PREPROCESSOR,
    }
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Write a model directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=("sd15", "sdxl"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", default="cpu", help="where the weights are drawn")
    options = parser.parse_args()
    print(write_model(options.family, options.directory, device=options.device))


if __name__ == "__main__":
    main()
