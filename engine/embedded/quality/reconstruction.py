"""Measure how well the VAE gives drawings back."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embedded.recipe.data import ATTRIBUTES
from engine.embedded.world import SCENE_VALUES

_BATCH = 16


def load_vae(weights: Path) -> Any:
    """Return the exported VAE with its encoder, in float32."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(weights / "vae", local_files_only=True, torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False)


def reconstruct(vae: Any, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return pictures `[N, H, W, 3]` decoded from their latents' means."""
    import torch

    from engine.embedded.recipe.vae import to_images, to_tensor

    with torch.no_grad():
        out = vae.decode(vae.encode(to_tensor(images)).latent_dist.mean).sample
    return np.stack([np.asarray(image) for image in to_images(out)])


def by_style(values: NDArray[np.float64], labels: NDArray[np.uint8]) -> dict[str, float]:
    """Return the mean of values `[N]` over all pictures and over those of each rendering style."""
    column = list(ATTRIBUTES).index("style")
    means = {"all": float(values.mean())}
    for number, style in enumerate(SCENE_VALUES["style"]):
        chosen = values[labels[:, column] == number]
        if len(chosen):
            means[style] = float(chosen.mean())
    return means


def batches(count: int) -> list[slice]:
    """Return slices that cover `count` pictures."""
    return [slice(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]
