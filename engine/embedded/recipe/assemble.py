"""Collect the trained components from the stages' checkpoints."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from engine.embedded.recipe.adapter import AdaptedUnet
from engine.embedded.recipe.batches import Batches, Latents
from engine.embedded.recipe.clip import build_towers
from engine.embedded.recipe.data import Drawings
from engine.embedded.recipe.diffusion import DenoiserData
from engine.embedded.recipe.export import Parts
from engine.embedded.recipe.latents import encode, normalise_latents
from engine.embedded.recipe.tokenizer import train_tokenizer
from engine.embedded.recipe.towers import EMBED_WIDTH, normalise
from engine.embedded.recipe.training import averaged
from engine.embedded.recipe.unet import build_noise_schedule, build_unet
from engine.embedded.recipe.vae import build_vae
from engine.embedded.recipe.workers import Crew

_BATCH = 64


def load_vae(directory: Path, drawings: Drawings) -> AutoencoderKL:
    """Return the averaged VAE, its latents normalised; raises StageMissingError when it is not trained yet."""
    vae = build_vae()
    vae.load_state_dict(averaged(directory / "vae.pt"))
    normalise_latents(vae, drawings)
    vae.eval().requires_grad_(False)
    return vae


def load_towers(directory: Path) -> tuple[CLIPTextModel, CLIPVisionModelWithProjection]:
    """Return the averaged text and image towers; raises StageMissingError when they are not trained yet."""
    towers = build_towers(train_tokenizer(directory / "tokenizer"))
    towers.load_state_dict(averaged(directory / "clip.pt"))
    if (directory / "image.pt").exists():
        towers.load_state_dict(averaged(directory / "image.pt"), strict=False)
    towers.eval().requires_grad_(False)
    text, image = towers["text"], towers["image"]
    assert isinstance(text, CLIPTextModel)
    assert isinstance(image, CLIPVisionModelWithProjection)
    return text, image


def load_unet(directory: Path) -> UNet2DConditionModel:
    """Return the averaged UNet; raises StageMissingError when it is not trained yet."""
    unet = build_unet()
    unet.load_state_dict(averaged(directory / "unet.pt"))
    return unet


def denoiser_data(crew: Crew, directory: Path, drawings: Drawings) -> DenoiserData:
    """Return what the UNet's and the adapter's stages train on; the crew encodes the drawings once."""
    vae = load_vae(directory, drawings)
    signal = build_noise_schedule().alphas_cumprod
    latents = torch.from_numpy(encode(crew, directory, drawings, vae))
    return DenoiserData(
        batches=Batches(
            drawings=drawings, tokenizer=train_tokenizer(directory / "tokenizer"), timesteps=len(signal)
        ),
        latents=Latents(values=latents.to(crew.device), signal=signal.to(crew.device)),
        text=load_towers(directory)[0].to(crew.device),
        vae=vae,
        directory=directory,
    )


def start_adapter(directory: Path, *, seed: int = 4) -> AdaptedUnet:
    """Return the trained UNet beside an untrained adapter; seeded, since all workers must start alike."""
    torch.manual_seed(seed)
    return AdaptedUnet(load_unet(directory), embed_width=EMBED_WIDTH)


@torch.no_grad()
def embed_drawings(crew: Crew, directory: Path, drawings: Drawings) -> Tensor:
    """Return all drawings' image embeddings `[N, 192]`; each worker computes them."""
    image, batch = load_towers(directory)[1].to(crew.device), _BATCH * crew.enlarge
    starts = tqdm(range(0, len(drawings), batch), desc="embed", mininterval=10, disable=not crew.leads)
    parts = []
    with crew.arithmetic():
        for i in starts:
            pictures = torch.from_numpy(np.array(drawings.images[i : i + batch])).to(crew.device)
            parts.append(image(normalise(pictures)).image_embeds.float())
    return torch.cat(parts)


def collect(directory: Path, drawings: Drawings) -> Parts:
    """Return everything that an export writes.

    Raises StageMissingError when a stage is missing; without the adapter's, the adapter is an untrained one.
    """
    adapted = start_adapter(directory)
    if (directory / "adapter.pt").exists():
        adapted.load_state_dict(averaged(directory / "adapter.pt"), strict=False)
    text, image = load_towers(directory)
    return Parts(
        tokenizer=train_tokenizer(directory / "tokenizer"),
        text_encoder=text,
        image_encoder=image,
        vae=load_vae(directory, drawings),
        unet=load_unet(directory),
        adapter_weights=adapted.adapter_weights(),
    )
