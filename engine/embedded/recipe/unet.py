"""Build the UNet and the noise schedule."""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn

from engine.embedded.recipe.towers import TEXT_WIDTH
from engine.embedded.recipe.vae import LATENT_CHANNELS


def build_unet() -> UNet2DConditionModel:
    """Return an untrained UNet; residual branches start at zero, as in guided-diffusion (arXiv 2105.05233)."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(96, 160, 160),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, Transformer2DModel):
            nn.init.zeros_(module.proj_out.weight)
    nn.init.zeros_(unet.conv_out.weight)
    return unet


def start_unet(*, seed: int = 3) -> UNet2DConditionModel:
    """Return an untrained UNet; seeded, since all workers must start alike."""
    torch.manual_seed(seed)
    return build_unet()


def build_noise_schedule() -> DDIMScheduler:
    """Return Stable Diffusion's schedule with v-prediction (arXiv 2202.00512), run on to more noise.

    Its last step keeps a signal that 16x16 latents still show (a backdrop's brightness, averaged over 256
    pixels); with `beta_end` 0.02 instead of 0.012 that is lost in the noise, and sampling starts from the last
    step (`trailing`), as arXiv 2305.08891 advises.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
