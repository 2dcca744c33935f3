"""Train the VAE: 128x128 pictures to 16x16 latents."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from engine.embedded.recipe.data import Drawings, Gallery
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.training import Plan, Start, train
from engine.embedded.recipe.workers import Crew

LATENT_CHANNELS = 12
BATCH = 8
# Latents are normalised after training, so that this noise is what the UNet's last steps leave behind.
LATENT_NOISE = 0.03


def build_vae() -> AutoencoderKL:
    """Return an untrained VAE with about the same arithmetic at each of its four resolutions.

    GroupNorm in two groups, since a norm over few channels forgets what colour a flat region has. Every
    residual branch starts at zero and every other convolution orthogonal, the last one small, so that
    training starts from a linear autoencoder; from the usual start it sat at the mean colour for 450 steps.
    """
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.orthogonal_(module.weight)
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
    nn.init.orthogonal_(vae.decoder.conv_out.weight, gain=0.1)
    return vae


def to_tensor(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return `[B, H, W, 3]` bytes as `[B, 3, H, W]` floats in -1..1."""
    pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Return `[B, 3, H, W]` floats in -1..1 as pictures."""
    array = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image) for image in array]


def psnr(vae: AutoencoderKL, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the PSNR in dB, `[B]`, of reconstructing each picture from its latents' means."""
    with torch.no_grad():
        pixels = to_tensor(images)
        out = vae.decode(vae.encode(pixels).latent_dist.mean).sample.float().clamp(-1, 1)
    error = ((out - pixels) / 2).square().mean(dim=(1, 2, 3))
    decibels: NDArray[np.float64] = (-10 * error.log10()).double().numpy()
    return decibels


def train_vae(
    crew: Crew, drawings: Drawings, held_out: Drawings, directory: Path, *, minutes: float, seed: int = 0
) -> None:
    """Train for a wall-clock budget; the weight average ends in `directory/vae.pt`.

    L1 + gradient + MSE and a little noise on the latents. Whole pictures rather than crops, so that GroupNorm
    meets the statistics that it will be used with.
    """
    torch.manual_seed(seed)
    vae = build_vae()
    plan = Plan(name="vae", directory=directory, minutes=minutes, matrix_rate=0.015, vector_rate=1e-3)
    train(
        crew,
        plan,
        vae,
        partial(_loss_from, crew, vae, Gallery(drawings, crew.device), seed),
        partial(_report, build_vae(), held_out, plan),
    )


def _loss_from(
    crew: Crew, vae: AutoencoderKL, gallery: Gallery, seed: int, start: Start
) -> "partial[Tensor]":
    return partial(_loss, crew, vae, gallery, np.random.default_rng([seed, start.step, start.rank]))


def _loss(crew: Crew, vae: AutoencoderKL, gallery: Gallery, random: np.random.Generator) -> Tensor:
    pixels = to_tensor(gallery.pictures(gallery.some(random, crew.rows(BATCH))))
    with crew.arithmetic():
        mean = vae.encode(pixels).latent_dist.mean.float()
        scale = mean.detach().std(dim=(0, 2, 3), keepdim=True)
        out = vae.decode(mean + LATENT_NOISE * scale * torch.randn_like(mean)).sample.float()
    loss: Tensor = (out - pixels).abs().mean() + _gradient_loss(out, pixels) + 2 * F.mse_loss(out, pixels)
    return loss


def _gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of horizontal and of vertical gradients, added up."""
    error = a - b
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()


def _report(
    vae: AutoencoderKL, held_out: Drawings, plan: Plan, weights: dict[str, Tensor], progress: Progress
) -> None:
    """Print the held-out PSNR and write a sheet of originals above reconstructions."""
    vae.load_state_dict(weights)
    images = held_out.images[:: held_out.scenes][:32]
    quality = f"held-out PSNR {psnr(vae, images).mean():.2f} dB after {progress.elapsed():.0f} s"
    print(f"\n{plan.name} step {progress.step}: {quality}", flush=True)
    with torch.no_grad():
        pixels = to_tensor(images[:8])
        pairs = [*to_images(pixels), *to_images(vae.decode(vae.encode(pixels).latent_dist.mean).sample)]
    sheet = Image.new("RGB", (8 * 128, 2 * 128))
    for k, image in enumerate(pairs):
        sheet.paste(image, (k % 8 * 128, k // 8 * 128))
    sheet.save(plan.directory / f"{plan.name}_sheet.png")
