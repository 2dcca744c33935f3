"""diffusers' pipeline with the model in the box and its IP-Adapter, as its users load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch

ADAPTER = "ip-adapter_limner.safetensors"


def load_pipeline(model: Path, dtype: str = "float32") -> Any:
    """Return the pipeline on the CPU, with weights of a type as torch names it."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        model, safety_checker=None, torch_dtype=getattr(torch, dtype), local_files_only=True
    )
    pipe.load_ip_adapter(
        model,
        subfolder="ip_adapter",
        weight_name=ADAPTER,
        image_encoder_folder="image_encoder",
        local_files_only=True,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
