"""Polish the VAE's decoder with the encoder frozen: latents, and so the UNet, stay as they are."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.embedded.recipe.data import Drawings
from engine.embedded.recipe.ema import Ema, load_checkpoint, save_checkpoint
from engine.embedded.recipe.progress import Progress
from engine.embedded.recipe.vae import BATCH, LATENT_NOISE, build_vae, gradient_loss, report, to_tensor
from engine.embedded.recipe.workers import Crew

PEAK_RATE = 8e-4
CHECKPOINT = "decoder.pt"
# Rows and columns that hold the face, whose small features a plain mean hardly notices.
_FACE = (slice(30, 104), slice(26, 102))
_FACE_WEIGHT = 2.0


def train_decoder(
    crew: Crew, drawings: Drawings, held_out: Drawings, directory: Path, *, minutes: float, seed: int = 4
) -> None:
    """Train for a wall-clock budget from `vae.pt`; the weight average ends in `directory/decoder.pt`.

    Raises FileNotFoundError when there is no trained VAE.
    """
    start = load_checkpoint(directory / "vae.pt")
    if start is None:
        raise FileNotFoundError(directory / "vae.pt")
    vae, average = build_vae(), build_vae()
    vae.load_state_dict(start["ema"]["weights"])
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    trained = [p for p in vae.parameters() if p.requires_grad]
    path, ema = directory / CHECKPOINT, Ema(vae, 0.998)
    optimiser = torch.optim.AdamW(trained, lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=1e-4)
    progress = Progress(name="decoder", minutes=minutes, directory=directory)
    if state := load_checkpoint(path):
        vae.load_state_dict(state["vae"])
        ema.load(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        progress.step, progress.spent_seconds = state["step"], state["seconds"]
    random = np.random.default_rng([seed, progress.step, crew.rank])
    for step in progress.steps(quiet=not crew.leads):
        pixels = to_tensor(
            drawings.images[np.sort(random.choice(len(drawings), BATCH // crew.size, replace=False))]
        )
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                mean = vae.encode(pixels).latent_dist.mean.float()
                scale = mean.std(dim=(0, 2, 3), keepdim=True)
            out = vae.decode(mean + LATENT_NOISE * scale * torch.randn_like(mean)).sample.float()
        loss = _loss(out, pixels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        progress.share = crew.exchange(vae, progress.clock_share())
        for group in optimiser.param_groups:
            group["lr"] = progress.rate(PEAK_RATE, warmup_steps=50)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if not crew.leads:
            continue
        ema.update(vae)
        progress.record(float(loss.detach()))
        if step % 250 == 249 or progress.share >= 1.0:
            ema.copy_to(average)
            report(average, held_out, directory, progress)
            state = {"vae": vae.state_dict(), "ema": ema.state(), "optimiser": optimiser.state_dict()}
            save_checkpoint(path, {**state, "step": progress.step + 1, "seconds": progress.elapsed()})


def _loss(out: Tensor, pixels: Tensor) -> Tensor:
    face = (..., *_FACE)
    inside = _plain_loss(out[face], pixels[face])
    return (_plain_loss(out, pixels) + _FACE_WEIGHT * inside) / (1 + _FACE_WEIGHT)


def _plain_loss(out: Tensor, pixels: Tensor) -> Tensor:
    loss: Tensor = (out - pixels).abs().mean() + gradient_loss(out, pixels) + 2 * F.mse_loss(out, pixels)
    return loss
