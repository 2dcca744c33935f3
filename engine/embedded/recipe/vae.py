"""Train the VAE: 128x128 pictures to 16x16 latents of four channels."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from engine.embedded.recipe.data import Drawings
from engine.embedded.recipe.ema import Ema, load_checkpoint, save_checkpoint
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.workers import Crew

PEAK_RATE = 1e-3
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
        latent_channels=4,
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


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Return `[B, H, W, 3]` bytes as `[B, 3, H, W]` floats in -1..1."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()


def to_images(pixels: Tensor) -> list[Image.Image]:
    """Return `[B, 3, H, W]` floats in -1..1 as pictures."""
    array = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image) for image in array]


def _loss(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    mean = vae.encode(pixels).latent_dist.mean.float()
    scale = mean.detach().std(dim=(0, 2, 3), keepdim=True)
    out = vae.decode(mean + LATENT_NOISE * scale * torch.randn_like(mean)).sample.float()
    loss: Tensor = (out - pixels).abs().mean() + gradient_loss(out, pixels) + 2 * F.mse_loss(out, pixels)
    return loss


def gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of horizontal and of vertical gradients, added up."""
    error = a - b
    return (error[..., 1:] - error[..., :-1]).abs().mean() + (
        error[..., 1:, :] - error[..., :-1, :]
    ).abs().mean()


def psnr(vae: AutoencoderKL, images: NDArray[np.uint8]) -> float:
    """Return the mean PSNR in dB of reconstructing pictures from the latents' means."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pixels = to_tensor(images)
        out = vae.decode(vae.encode(pixels).latent_dist.mean).sample.float().clamp(-1, 1)
    error = ((out - pixels) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


def train_vae(
    crew: Crew, drawings: Drawings, held_out: Drawings, directory: Path, *, minutes: float, seed: int = 0
) -> None:
    """Train for a wall-clock budget; the weight average ends in `directory/vae.pt`.

    L1 + gradient + MSE and a little noise on the latents. Whole pictures rather than crops, so that GroupNorm
    meets the statistics that it will be used with.
    """
    torch.manual_seed(seed)
    vae, path = build_vae(), directory / "vae.pt"
    ema, optimiser = (
        Ema(vae, 0.998),
        torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=1e-4),
    )
    progress = Progress(name="vae", minutes=minutes, directory=directory)
    if state := load_checkpoint(path):
        vae.load_state_dict(state["vae"])
        ema.load(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        progress.step, progress.spent_seconds = state["step"], state["seconds"]
    random = np.random.default_rng([seed, progress.step, crew.rank])
    average = build_vae()
    for step in progress.steps(quiet=not crew.leads):
        pixels = to_tensor(
            drawings.images[np.sort(random.choice(len(drawings), BATCH // crew.size, replace=False))]
        )
        with torch.autocast("cpu", torch.bfloat16):
            loss = _loss(vae, pixels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        progress.share = crew.exchange(vae, progress.clock_share())
        for group in optimiser.param_groups:
            group["lr"] = progress.rate(PEAK_RATE, warmup_steps=50)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        if not crew.leads:
            continue
        ema.update(vae)
        progress.record(float(loss.detach()))
        if step % 250 == 249 or progress.share >= 1.0:
            ema.copy_to(average)
            report(average, held_out, directory, progress)
            _save(path, vae, ema, optimiser, progress)


def report(vae: AutoencoderKL, held_out: Drawings, directory: Path, progress: Progress) -> None:
    """Print the held-out PSNR and write a sheet of originals above reconstructions."""
    images = held_out.images[:: held_out.scenes][:16]
    quality = f"held-out PSNR {psnr(vae, images):.2f} dB after {progress.elapsed():.0f} s"
    print(f"\n{progress.name} step {progress.step}: {quality}", flush=True)
    with torch.no_grad():
        pixels = to_tensor(images[:8])
        pairs = [*to_images(pixels), *to_images(vae.decode(vae.encode(pixels).latent_dist.mean).sample)]
    sheet = Image.new("RGB", (8 * 128, 2 * 128))
    for k, image in enumerate(pairs):
        sheet.paste(image, (k % 8 * 128, k // 8 * 128))
    sheet.save(directory / f"{progress.name}_sheet.png")


def _save(
    path: Path, vae: AutoencoderKL, ema: Ema, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    state = {"vae": vae.state_dict(), "ema": ema.state(), "optimiser": optimiser.state_dict()}
    save_checkpoint(path, {**state, "step": progress.step + 1, "seconds": progress.elapsed()})
