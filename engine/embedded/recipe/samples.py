"""Draw a small sheet of samples while the denoiser trains: the same prompts and noise each time."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from engine.embedded.recipe.unet import build_noise_schedule
from engine.embedded.recipe.vae import LATENT_CHANNELS, to_images

DESCRIBED = (
    "a person with pale skin, long red hair, green eyes and round glasses, smiling, on a yellow background",
    "a person with dark skin, curly black hair and a beard, laughing, wearing a white shirt, at the beach",
    "a person with brown skin, a pink bob, square glasses, neutral expression, in a forest, warm light",
    "a pencil sketch of a person with light skin, blond pigtails, smiling, at sunset",
)
SCENES = (
    "a portrait of a person, sad, wearing a red hoodie, in the mountains, wearing a cap",
    "close-up portrait of a person, surprised, wearing a purple jacket, on a pink background",
    "pixel art of a person, smiling, wearing a green shirt, on a teal gradient",
    "a watercolour of a person, laughing, in a city at night, wearing a golden crown",
)
_GUIDANCE, _STEPS, _COLUMNS = 3.0, 20, 4

# The velocity of latents `[2B, C, 16, 16]`, the unconditional rows first, at a timestep.
Velocity = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def draw_samples(velocity: Velocity, vae: AutoencoderKL, path: Path, *, count: int) -> None:
    """Write `count` pictures, four in a row: 20 DDIM steps, guidance 3, the noise always the same."""
    schedule = build_noise_schedule()
    schedule.set_timesteps(_STEPS)
    latents = torch.randn(count, LATENT_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(0))
    for timestep in schedule.timesteps:
        plain, told = velocity(torch.cat([latents, latents]), timestep).float().chunk(2)
        latents = schedule.step(plain + _GUIDANCE * (told - plain), timestep, latents).prev_sample
    pictures = to_images(vae.decode(latents).sample)
    side = pictures[0].width
    sheet = Image.new("RGB", (_COLUMNS * side, -(-count // _COLUMNS) * side))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % _COLUMNS * side, number // _COLUMNS * side))
    sheet.save(path)
