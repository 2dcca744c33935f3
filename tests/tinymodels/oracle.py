"""diffusers' own pipeline on a model directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def open_pipeline(root: Path, *, adapter: str | None = None, dtype: torch.dtype = torch.float32) -> Any:
    """Open the pipeline that the directory names, with ``ip_adapter/<adapter>.safetensors``."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    index = json.loads((root / "model_index.json").read_text())
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True, "low_cpu_mem_usage": False}
    if index["_class_name"] == "StableDiffusionXLPipeline":
        pipeline: Any = StableDiffusionXLPipeline.from_pretrained(str(root), add_watermarker=False, **options)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(str(root), **options)
    if adapter is not None:
        pipeline.load_ip_adapter(
            str(root),
            subfolder="ip_adapter",
            weight_name=f"{adapter}.safetensors",
            image_encoder_folder=None,
            local_files_only=True,
            low_cpu_mem_usage=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
