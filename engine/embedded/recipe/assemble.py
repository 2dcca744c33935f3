"""Collect the trained components from the stages' checkpoints."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from engine.embedded.recipe.adapter import AdaptedUnet
from engine.embedded.recipe.data import Drawings
from engine.embedded.recipe.ema import load_checkpoint
from engine.embedded.recipe.export import Parts
from engine.embedded.recipe.heads import Heads
from engine.embedded.recipe.joint import JointModel, Reader
from engine.embedded.recipe.latents import normalise_latents
from engine.embedded.recipe.tokenizer import train_tokenizer
from engine.embedded.recipe.towers import EMBED_WIDTH, build_image_encoder, build_text_encoder
from engine.embedded.recipe.unet import build_unet
from engine.embedded.recipe.vae import build_vae


class StageMissingError(RuntimeError):
    """Say that a stage was asked for before one that it builds on."""


def load_vae(directory: Path, drawings: Drawings) -> AutoencoderKL:
    """Return the averaged VAE, its decoder polished if that stage ran, its latents normalised.

    Raises StageMissingError when it is not trained yet.
    """
    state = load_checkpoint(directory / "vae.pt")
    if state is None:
        raise StageMissingError(f"train the vae stage first: no vae.pt in {directory}")
    vae = build_vae()
    vae.load_state_dict(state["ema"]["weights"])
    if polished := load_checkpoint(directory / "decoder.pt"):
        vae.load_state_dict(polished["ema"]["weights"])
    normalise_latents(vae, drawings)
    vae.eval().requires_grad_(False)
    return vae


def start_joint(directory: Path, *, seed: int = 3) -> JointModel:
    """Return the model that the unet stage starts from: new UNet and adapter, averaged towers.

    Seeded, since all workers must start alike. Raises StageMissingError when the towers are not trained yet.
    """
    state = load_checkpoint(directory / "clip.pt")
    if state is None:
        raise StageMissingError(f"train the clip stage first: no clip.pt in {directory}")
    torch.manual_seed(seed)
    model = _joint(directory)
    weights = state["ema"]["weights"]
    model.load_state_dict({**model.state_dict(), **weights})
    return model


def load_joint(directory: Path) -> dict[str, Tensor]:
    """Return the averaged weights of the unet stage; raises StageMissingError when there are none."""
    state = load_checkpoint(directory / "unet.pt")
    if state is None:
        raise StageMissingError(f"train the unet stage first: no unet.pt in {directory}")
    weights: dict[str, Tensor] = state["ema"]["weights"]
    return weights


def load_reader(directory: Path) -> Reader:
    """Return the attribute reader that the unet stage trained along; raises StageMissingError without it."""
    model = _joint(directory)
    model.load_state_dict(load_joint(directory))
    model.eval().requires_grad_(False)
    return Reader(model.image, model.heads)


def collect(directory: Path, vae: AutoencoderKL, weights: dict[str, Tensor]) -> Parts:
    """Return everything that an export writes, from the VAE and the averaged weights."""
    model = _joint(directory)
    model.load_state_dict(weights)
    return Parts(
        tokenizer=train_tokenizer(directory / "tokenizer"),
        text_encoder=model.text,
        image_encoder=model.image,
        vae=vae,
        unet=build_unet(),
        unet_weights=model.adapted.plain_weights(),
        adapter_weights=model.adapted.adapter_weights(),
    )


def _joint(directory: Path) -> JointModel:
    return JointModel(
        AdaptedUnet(build_unet(), embed_width=EMBED_WIDTH),
        build_text_encoder(train_tokenizer(directory / "tokenizer")),
        build_image_encoder(),
        Heads(),
    )
