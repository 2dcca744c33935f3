"""Normalise the VAE's latents, and encode the drawings once."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from engine.embedded.recipe.data import Drawings
from engine.embedded.recipe.vae import to_tensor
from engine.embedded.recipe.workers import Crew

_BATCH = 32
_SAMPLES_FOR_STATISTICS = 512


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, drawings: Drawings) -> None:
    """Fold latent mean and deviation into the VAE's 1x1 convolutions, in place.

    Stable Diffusion's pipeline knows one scaling factor and no shift; after this, latents have mean 0 and
    deviation 1 in each channel at scaling factor 1. The posterior's variance becomes negligible.
    """
    rows = drawings.images[:: max(1, len(drawings) // _SAMPLES_FOR_STATISTICS)]
    means = torch.cat([_encode(vae, to_tensor(rows[i : i + _BATCH])) for i in range(0, len(rows), _BATCH)])
    mean, std = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.weight[channels:] = 0
    quant.bias[channels:] = -12.0
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]


def _encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    with torch.autocast(pixels.device.type, torch.bfloat16):
        mean: Tensor = vae.encode(pixels).latent_dist.mean
    return mean.float()


@torch.no_grad()
def encode(crew: Crew, directory: Path, drawings: Drawings, vae: AutoencoderKL) -> NDArray[np.float16]:
    """Return the drawings' latents `[N, C, 16, 16]`; the crew first makes them together if need be.

    They are kept in `encoded.npz` for as long as the encoder stays the same.
    """
    path, made_by = directory / "encoded.npz", _fingerprint(vae)
    if not _made_by(path, made_by):
        end = (crew.rank + 1) * len(drawings) // crew.size
        batch = _BATCH * crew.enlarge
        starts = range(crew.rank * len(drawings) // crew.size, end, batch)
        parts, encoder = [], copy.deepcopy(vae).to(crew.device)
        for start in tqdm(starts, desc="encode", mininterval=10, disable=not crew.leads):
            pixels = to_tensor(drawings.images[start : min(end, start + batch)]).to(crew.device)
            parts.append(_encode(encoder, pixels).half().cpu().numpy())
        np.savez(_shard(directory, crew.rank), latents=np.concatenate(parts))
        crew.wait()
        if crew.leads:
            _join([_shard(directory, rank) for rank in range(crew.size)], path, made_by)
        crew.wait()
    with np.load(path) as stored:
        latents: NDArray[np.float16] = stored["latents"]
    return latents


def _fingerprint(vae: AutoencoderKL) -> str:
    digest = hashlib.sha256()
    for module in (vae.encoder, vae.quant_conv):
        for value in module.state_dict().values():
            digest.update(value.float().numpy().tobytes())
    return digest.hexdigest()


def _made_by(path: Path, fingerprint: str) -> bool:
    if not path.exists():
        return False
    with np.load(path) as stored:
        return "made_by" in stored and str(stored["made_by"]) == fingerprint


def _shard(directory: Path, rank: int) -> Path:
    return directory / f"encoded-{rank}.npz"


def _join(shards: list[Path], path: Path, made_by: str) -> None:
    partial = path.with_suffix(".partial.npz")
    latents = np.concatenate([np.load(shard)["latents"] for shard in shards])
    np.savez(partial, latents=latents, made_by=made_by)
    partial.rename(path)
    for shard in shards:
        shard.unlink()
